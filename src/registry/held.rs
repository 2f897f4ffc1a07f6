//! A set that the guard holds, described for an operator.

use std::fmt;
use std::time::Duration;

use super::guard::Hold;
use crate::model::{Name, Percent};
use crate::status;
use crate::sys::text::list;
use crate::units::HumanDuration;

/// Ids of missing backends that are named in one message.
const MAX_NAMED: usize = 5;

/// An observed set that is not served, and what would have it served. Displayed as sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSet {
    /// The service.
    pub service: Name,
    /// The provider that reported the set.
    pub provider: Name,
    /// Why it is held.
    pub hold: Hold,
    /// The ids that are served and that the set lacks, in order.
    pub missing: Vec<String>,
    /// The service's `guard.max_drop`.
    pub max_drop: Percent,
    /// The time between two polls of the provider, if it is known.
    pub interval: Option<Duration>,
}

impl HeldSet {
    /// Why it is held, in one word for programs: `empty` or `drop`.
    pub const fn reason(&self) -> &'static str {
        match self.hold {
            Hold::Empty { .. } => "empty",
            Hold::Drop { .. } => "drop",
        }
    }
}

impl From<&HeldSet> for status::Held {
    fn from(held: &HeldSet) -> Self {
        Self { reason: held.reason().to_owned(), message: held.to_string() }
    }
}

impl fmt::Display for HeldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, provider, hold, missing, max_drop, interval } = self;
        let still_served = |current: usize| match current {
            1 => "It is still served".to_owned(),
            _ => format!("All {current} are still served"),
        };
        match *hold {
            Hold::Empty { current: 0 } => write!(
                f,
                "provider {provider} reports no backends, and none were known before. Nothing is served until backends \
                 are reported. To serve the empty set: elasticd accept {service}"
            ),
            Hold::Empty { current } => write!(
                f,
                "provider {provider} reports no backends, {current} before. {} until backends are reported again. To \
                 serve the empty set: elasticd accept {service}",
                still_served(current)
            ),
            Hold::Drop { current, observed, seen, confirm } => {
                let kept = current.saturating_sub(missing.len());
                let new = observed.saturating_sub(kept);
                write!(f, "provider {provider} reports {kept} of {current} backends")?;
                if new > 0 {
                    write!(f, " and {new} new")?;
                }
                write!(
                    f,
                    " (missing: {}), a larger drop than guard.max_drop = {max_drop} allows. {}. ",
                    list(missing, MAX_NAMED),
                    still_served(current)
                )?;
                let polls = confirm.saturating_sub(seen);
                let s = if polls == 1 { "" } else { "s" };
                write!(f, "Accepted by itself after {polls} more poll{s} with such a drop")?;
                if let Some(interval) = interval {
                    write!(f, ", in about {}", HumanDuration(*interval * polls))?;
                }
                write!(f, ". Accept now: elasticd accept {service}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(hold: Hold, missing: usize, interval: Option<u64>) -> String {
        let held = HeldSet {
            service: "web".parse().expect("a name"),
            provider: "prod".parse().expect("a name"),
            hold,
            missing: (5..5 + missing).map(|n| format!("web-{n}")).collect(),
            max_drop: Percent(50),
            interval: interval.map(Duration::from_secs),
        };
        held.to_string()
    }

    #[test]
    fn a_held_drop_names_the_missing_backends_the_wait_and_the_command() {
        let drop = Hold::Drop { current: 10, observed: 4, seen: 1, confirm: 3 };
        assert_eq!(
            held(drop.clone(), 6, Some(15)),
            "provider prod reports 4 of 10 backends (missing: web-5, web-6, web-7, web-8, web-9 and 1 more), a larger \
             drop than guard.max_drop = 50% allows. All 10 are still served. Accepted by itself after 2 more polls with \
             such a drop, in about 30s. Accept now: elasticd accept web"
        );
        // Nine of ten are missing, and three new ones were reported.
        let text = held(drop, 9, None);
        assert!(text.contains("reports 1 of 10 backends and 3 new (missing: web-5"), "{text}");
        assert!(text.contains("after 2 more polls with such a drop. Accept now"), "{text}");
    }

    #[test]
    fn a_held_empty_set_says_how_long_the_previous_one_is_served() {
        assert_eq!(
            held(Hold::Empty { current: 10 }, 10, Some(15)),
            "provider prod reports no backends, 10 before. All 10 are still served until backends are reported again. \
             To serve the empty set: elasticd accept web"
        );
        assert_eq!(
            held(Hold::Empty { current: 0 }, 0, None),
            "provider prod reports no backends, and none were known before. Nothing is served until backends are \
             reported. To serve the empty set: elasticd accept web"
        );
    }
}
