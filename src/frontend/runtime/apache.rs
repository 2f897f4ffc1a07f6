//! Apache's `mod_status`, read at `/server-status?auto`: for the proof alone.
//!
//! The process that answers says when the server was started (`RestartTime`, which a graceful restart does not change)
//! and how many graceful restarts there had been when it was forked (`ParentServerMPMGeneration`). A child is forked only
//! once the parent has read its whole configuration without a fault. So a process of a higher generation than just
//! before the signal, or of a server that was started later, runs the configuration that was in place then.

use futures_util::future::BoxFuture;

use super::api::{Access, Comparison, Error, Evidence, RuntimeApi, Wanted};
use crate::sys::ticks::{now_ticks, ticks_per_second};

const PATH: &str = "/server-status?auto";

pub(super) struct Apache;

impl RuntimeApi for Apache {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>> {
        Box::pin(async move {
            let status = Status::get(access).await?;
            Ok(match status.difference(wanted, last, now_ticks()) {
                None => Comparison::Runs(Evidence { digest: Some(wanted.digest.clone()), ..status.evidence() }),
                Some(difference) => Comparison::Differs(difference),
            })
        })
    }

    fn state_before_reload<'a>(&self, access: &'a Access) -> BoxFuture<'a, Result<Option<Evidence>, Error>> {
        Box::pin(async move { Ok(Some(Status::get(access).await?.evidence())) })
    }
}

/// What `mod_status` says of the process that answers.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// When the server was started, as Apache writes it. It serves to tell one start from another.
    started: String,
    /// Whole seconds since then.
    uptime: u64,
    /// The number of graceful restarts between then and the fork of this process.
    generation: u64,
}

impl Status {
    async fn get(access: &Access) -> Result<Self, Error> {
        const REMEDY: &str = "let mod_status answer there (Debian: `a2enmod status`), and exclude it from proxying: \
                              ProxyPass \"/server-status\" \"!\"";
        let body = access.get(PATH).await.map_err(|error| match error {
            Error::Unusable { endpoint, message } => {
                Error::Unusable { endpoint, message: format!("{message}; {REMEDY}") }
            }
            other => other,
        })?;
        Self::parse(&String::from_utf8_lossy(&body))
            .ok_or_else(|| access.unusable(format!("the answer to {PATH} is not that of mod_status; {REMEDY}")))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim);
        Some(Self {
            started: field("RestartTime")?.to_owned(),
            uptime: field("ServerUptimeSeconds")?.parse().ok()?,
            generation: field("ParentServerMPMGeneration")?.parse().ok()?,
        })
    }

    /// The digest is left to the proof: without it this is the state before a reload.
    fn evidence(&self) -> Evidence {
        Evidence { identity: Some(format!("{}, {}", self.generation, self.started)), ..Evidence::default() }
    }

    /// Why this process may not run the outputs. `last` is the evidence of the last proof, or the state before the
    /// reload; `now` is in ticks since boot.
    fn difference(&self, wanted: &Wanted<'_>, last: Option<&Evidence>, now: u64) -> Option<String> {
        let known = last.and_then(|last| Some((last.identity.as_deref()?.split_once(", ")?, &last.digest)));
        if let Some(((generation, started), proven)) = known {
            let generation = generation.parse().unwrap_or(u64::MAX);
            match proven {
                // A restart since the proof has read the same files again.
                Some(digest) if digest == wanted.digest && started == self.started && self.generation >= generation => {
                    return None;
                }
                // The state before the reload was read with the outputs in place already.
                None if started != self.started || self.generation > generation => return None,
                None => {
                    return Some(format!("the process that answers is still of generation {}", self.generation));
                }
                Some(_) => {}
            }
        }
        // `uptime` is rounded down, so the start may have been up to one second earlier than it says.
        let started = now.saturating_sub((self.uptime + 1).saturating_mul(ticks_per_second()));
        (wanted.swapped_at == 0 || started < wanted.swapped_at)
            .then(|| format!("it was started at {}, possibly before its files were in place", self.started))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::frontend::digest::Digest;
    use crate::sys::output_file::Store;
    use crate::sys::unconfined::Unconfined;

    const ANSWER: &str = "127.0.0.1\nServerVersion: Apache/2.4.71 (Debian)\n\
        RestartTime: Sunday, 22-Nov-2026 23:32:23 UTC\nParentServerConfigGeneration: 2\nParentServerMPMGeneration: 1\n\
        ServerUptimeSeconds: 3\nServerUptime: 3 seconds\nUptime: 3\n";

    #[test]
    fn an_answer_is_parsed() {
        let expected = Status { started: "Sunday, 22-Nov-2026 23:32:23 UTC".to_owned(), uptime: 3, generation: 1 };
        assert_eq!(Status::parse(ANSWER), Some(expected));
        assert_eq!(Status::parse("<html>"), None);
        assert_eq!(Status::parse(&ANSWER.replace(": 1\n", ": x\n")), None);
    }

    #[test]
    fn only_a_process_forked_after_the_swap_is_proof() {
        let status = Status::parse(ANSWER).expect("an answer");
        let (new, old) = (Digest::of(b"new"), Digest::of(b"old"));
        let evidence = |generation: u64, digest: Option<&Digest>| {
            let status = Status { started: status.started.clone(), generation, ..status };
            Evidence { digest: digest.cloned(), ..status.evidence() }
        };
        let hertz = ticks_per_second();
        // Now is 100 s after boot, so it was started between 96 and 97.
        let runs = |swapped_at: u64, last: Option<Evidence>| {
            let (store, unconfined) = (Store::new(Path::new("/nonexistent"), "apache"), Unconfined::default());
            let wanted = Wanted::new(vec![], &new, swapped_at * hertz, &store, &unconfined);
            status.difference(&wanted, last.as_ref(), 100 * hertz).is_none()
        };
        assert!(!runs(98, None) && !runs(97, None), "started before the swap");
        assert!(runs(96, None), "started after it");
        assert!(!runs(0, None), "the swap is not on record");
        assert!(runs(98, Some(evidence(0, None))), "a later generation than before the reload");
        assert!(!runs(96, Some(evidence(1, None))), "the same generation as before the reload");
        let restarted = Evidence { identity: Some("7, another day".into()), ..Evidence::default() };
        assert!(runs(98, Some(restarted)), "restarted since");
        assert!(runs(98, Some(evidence(1, Some(&new)))) && runs(98, Some(evidence(0, Some(&new)))));
        assert!(!runs(98, Some(evidence(2, Some(&new)))), "a process older than the proof");
        assert!(!runs(98, Some(evidence(0, Some(&old)))), "it may have been restarted before the swap");
    }
}
