//! Apache's `mod_status`, asked at `/server-status?auto`: for the proof alone.
//!
//! The process that answers says when the server was started (`RestartTime`, which a graceful restart leaves as it is)
//! and after how many graceful restarts it was forked itself (`ParentServerMPMGeneration`). A child is forked only once
//! the parent has read its whole configuration without a fault. So a higher generation than just before the signal, or
//! a later start, is a process that runs what was in place then.

use super::{Comparison, Error, Evidence, Runtime, Wanted};
use crate::sys::ticks::{now_ticks, ticks_per_second};

const PATH: &str = "/server-status?auto";

/// What the process that answers says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// When the server was started, as it writes that. It serves to tell one run from another.
    started: String,
    /// How long ago that was, in whole seconds.
    uptime: u64,
    /// After how many graceful restarts since then the process was forked.
    generation: u64,
}

/// Whether the process that answers was forked after the outputs were swapped in. `last` is the evidence of what it was
/// last proven to run, or the [`mark`] made before the reload.
pub(super) async fn compare(
    runtime: &Runtime,
    wanted: &Wanted<'_>,
    last: Option<&Evidence>,
) -> Result<Comparison, Error> {
    let status = ask(runtime).await?;
    Ok(match status.differs(wanted, last, now_ticks()) {
        None => Comparison::Runs(Evidence { fixed: Some(wanted.digest.clone()), ..status.evidence() }),
        Some(how) => Comparison::Differs(how),
    })
}

/// The evidence before a reload, with which that after it is compared: of no outputs in particular.
pub(super) async fn mark(runtime: &Runtime) -> Result<Evidence, Error> {
    ask(runtime).await.map(|status| status.evidence())
}

async fn ask(runtime: &Runtime) -> Result<Status, Error> {
    const REMEDY: &str = "let mod_status answer there (Debian: `a2enmod status`), and keep it from being proxied: \
                          ProxyPass \"/server-status\" \"!\"";
    let body = runtime.get(PATH).await.map_err(|error| match error {
        Error::Unusable { endpoint, message } => Error::Unusable { endpoint, message: format!("{message}; {REMEDY}") },
        other => other,
    })?;
    Status::parse(&String::from_utf8_lossy(&body))
        .ok_or_else(|| runtime.unusable(format!("the answer to {PATH} is not that of mod_status; {REMEDY}")))
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim);
        Some(Self {
            started: field("RestartTime")?.to_owned(),
            uptime: field("ServerUptimeSeconds")?.parse().ok()?,
            generation: field("ParentServerMPMGeneration")?.parse().ok()?,
        })
    }

    fn evidence(&self) -> Evidence {
        Evidence { instance: Some(format!("{}, {}", self.generation, self.started)), fixed: None }
    }

    /// Why this process may not run the outputs. `now` is in ticks since boot.
    fn differs(&self, wanted: &Wanted<'_>, last: Option<&Evidence>, now: u64) -> Option<String> {
        let known = last.and_then(|last| Some((last.instance.as_deref()?.split_once(", ")?, &last.fixed)));
        if let Some(((generation, started), proven)) = known {
            let generation = generation.parse().unwrap_or(u64::MAX);
            match proven {
                // Whoever restarted it since had it read the same files again.
                Some(digest) if digest == wanted.digest && started == self.started && self.generation >= generation => {
                    return None;
                }
                // The mark was made with the outputs in place.
                None if started != self.started || self.generation > generation => return None,
                None => {
                    return Some(format!("the process that answers is still of generation {}", self.generation));
                }
                Some(_) => {}
            }
        }
        // Started within the second before `uptime` seconds ago.
        let started = now.saturating_sub((self.uptime + 1).saturating_mul(ticks_per_second()));
        // A zero is no time: when they were put in place is not on record.
        (wanted.swapped_at == 0 || started < wanted.swapped_at)
            .then(|| format!("it was started at {}, maybe before its files were in place", self.started))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::digest::Digest;
    use super::*;

    const ANSWER: &str = "127.0.0.1\nServerVersion: Apache/2.4.71 (Debian)\n\
        RestartTime: Sunday, 22-Nov-2026 23:32:23 UTC\nParentServerConfigGeneration: 2\nParentServerMPMGeneration: 1\n\
        ServerUptimeSeconds: 3\nServerUptime: 3 seconds\nUptime: 3\n";

    #[test]
    fn an_answer_is_read() {
        let expected = Status { started: "Sunday, 22-Nov-2026 23:32:23 UTC".to_owned(), uptime: 3, generation: 1 };
        assert_eq!(Status::parse(ANSWER), Some(expected));
        assert_eq!(Status::parse("<html>"), None);
        assert_eq!(Status::parse(&ANSWER.replace(": 1\n", ": x\n")), None);
    }

    #[test]
    fn only_a_process_forked_after_the_swap_is_proof() {
        let status = Status::parse(ANSWER).expect("an answer");
        let (new, old) = (Digest::of(b"new"), Digest::of(b"old"));
        let evidence = |generation: u64, fixed: Option<&Digest>| {
            let status = Status { started: status.started.clone(), generation, ..status };
            Evidence { fixed: fixed.cloned(), ..status.evidence() }
        };
        let hertz = ticks_per_second();
        // Now is 100 s after boot, so it was started between 96 and 97.
        let runs = |swapped_at: u64, last: Option<Evidence>| {
            let wanted = Wanted { outputs: vec![], digest: &new, swapped_at: swapped_at * hertz };
            status.differs(&wanted, last.as_ref(), 100 * hertz).is_none()
        };
        assert!(!runs(98, None) && !runs(97, None), "started before the swap");
        assert!(runs(96, None), "started after it");
        assert!(!runs(0, None), "the swap is not on record");
        assert!(runs(98, Some(evidence(0, None))), "a generation since the mark");
        assert!(!runs(96, Some(evidence(1, None))), "none since the mark");
        assert!(runs(98, Some(Evidence { instance: Some("7, another day".into()), fixed: None })), "restarted since");
        assert!(runs(98, Some(evidence(1, Some(&new)))) && runs(98, Some(evidence(0, Some(&new)))));
        assert!(!runs(98, Some(evidence(2, Some(&new)))), "a process older than the proof");
        assert!(!runs(98, Some(evidence(0, Some(&old)))), "somebody may have restarted it before the swap");
    }
}
