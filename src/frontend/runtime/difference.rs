//! Outputs as the frontend reads them, and differences in words.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::api::{Access, Error};
use crate::sys::text::shorten;

impl Access {
    /// Parses an output: YAML if its name says so, otherwise JSON.
    pub(super) fn parse_output<T: DeserializeOwned>(&self, (path, text): (&Path, &str)) -> Result<T, Error> {
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let parsed = if is_yaml {
            serde_saphyr::from_str(text).map_err(|error| error.to_string())
        } else {
            serde_json::from_str(text).map_err(|error| error.to_string())
        };
        parsed.map_err(|error| {
            let (path, remedy) = (path.display(), "correct its template, or set proof = \"none\"");
            self.unusable(format!("{path} cannot be compared with what the frontend runs: {error}; {remedy}"))
        })
    }
}

/// How what runs differs from what is wanted, in words. `None`: it does not.
pub(super) fn difference<T: Ord + Display>(wanted: &BTreeSet<T>, running: &BTreeSet<T>) -> Option<String> {
    const SHOWN: usize = 3;
    let list = |items: Vec<&T>| {
        let shown: Vec<_> = items.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = items.len().checked_sub(SHOWN).filter(|more| *more > 0);
        shown.join(", ") + &more.map_or_else(String::new, |more| format!(" and {more} more"))
    };
    let missing: Vec<_> = wanted.difference(running).collect();
    let surplus: Vec<_> = running.difference(wanted).collect();
    match (missing.is_empty(), surplus.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("it lacks {}", list(missing))),
        (true, false) => Some(format!("it still has {}", list(surplus))),
        (false, false) => Some(format!("it lacks {} and still has {}", list(missing), list(surplus))),
    }
}

/// The beginning of an answer, for a message.
pub(super) fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 500;
    shorten(String::from_utf8_lossy(body).trim(), LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_both_sides_and_a_few_of_each() {
        let set = |items: &[u8]| items.iter().copied().collect::<BTreeSet<_>>();
        for (wanted, running, expected) in [
            (&[1][..], &[1][..], None),
            (&[1, 2], &[], Some("it lacks 1, 2")),
            (&[], &[1], Some("it still has 1")),
            (&[1, 2, 3, 4, 5], &[6], Some("it lacks 1, 2, 3 and 2 more and still has 6")),
        ] {
            assert_eq!(difference(&set(wanted), &set(running)).as_deref(), expected);
        }
    }
}
