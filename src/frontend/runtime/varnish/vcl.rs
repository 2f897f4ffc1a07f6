//! The VCLs that Varnish has loaded.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::super::api::Wanted;
use crate::frontend::digest::Digest;
use crate::sys::ticks::ticks;

/// The beginning of the names of the VCLs that elasticd loads.
const PREFIX: &str = "elasticd_";
/// The number of digits of the outputs' digest in such a name.
const DIGITS: usize = 16;
/// Varnish closes idle connections a little later than it is configured to.
const MARGIN: Duration = Duration::from_secs(5);
/// How many replaced VCLs may wait until they can be discarded. Each takes some kB for every backend, in memory and on
/// disk.
const MAX_WAITING: usize = 64;

/// A VCL in the answer to `vcl.list -j`.
#[derive(Debug, Deserialize)]
pub(super) struct Vcl {
    /// `active`, `available` or `discarded`.
    status: String,
    /// `auto`, `label`, or `warm` or `cold` if an operator has set that.
    state: String,
    /// The number of tasks that use it. `None`: no child process runs.
    busy: Option<u64>,
    pub(super) name: String,
    /// The number of labels that point to it.
    #[serde(default)]
    labels: u64,
}

/// The name of a VCL that elasticd has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnName<'a> {
    /// The first digits of the outputs' digest.
    digest: &'a str,
    /// In ticks since boot.
    loaded_at: u64,
}

impl<'a> OwnName<'a> {
    pub(super) fn new(digest: &'a Digest, loaded_at: u64) -> Self {
        Self { digest: digits(digest), loaded_at }
    }
}

impl fmt::Display for OwnName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_{}", self.digest, self.loaded_at)
    }
}

impl Vcl {
    pub(super) fn is_active(&self) -> bool {
        self.status == "active"
    }

    /// Whether it is the active VCL, of a Varnish whose child process does not run.
    pub(super) fn is_not_serving(&self) -> bool {
        self.is_active() && self.busy.is_none()
    }

    /// `None`: elasticd has not loaded it.
    fn own_name(&self) -> Option<OwnName<'_>> {
        let (digest, loaded_at) = self.name.strip_prefix(PREFIX)?.split_once('_')?;
        Some(OwnName { digest, loaded_at: loaded_at.parse().ok()? })
    }

    /// Whether it was loaded for these outputs.
    pub(super) fn is_of(&self, wanted: &Wanted<'_>) -> bool {
        self.own_name().is_some_and(|own| own.digest == digits(wanted.digest))
    }

    /// Whether elasticd has loaded it, and nothing uses it.
    pub(super) fn is_unused(&self) -> bool {
        self.own_name().is_some()
            && self.status == "available"
            && self.state == "auto"
            && self.busy == Some(0)
            && self.labels == 0
    }
}

fn digits(digest: &Digest) -> &str {
    &digest.as_str()[..DIGITS]
}

/// The names of the VCLs that can be discarded without blocking Varnish: they were replaced so long ago that their idle
/// connections are closed. If too many wait for that, the oldest are discarded earlier.
///
/// `vcls` are in the order of `vcl.list`, which is that of loading; `now` is in ticks since boot; `idle_timeout` is how
/// long Varnish keeps idle connections.
pub(super) fn discardable(vcls: &[Vcl], now: u64, idle_timeout: Duration) -> Vec<&str> {
    let own: Vec<_> = vcls.iter().filter_map(|vcl| Some((vcl, vcl.own_name()?))).collect();
    let delay = ticks(idle_timeout + MARGIN);
    // Each with the time at which the next one was loaded.
    let unused: Vec<_> =
        own.windows(2).filter(|pair| pair[0].0.is_unused()).map(|pair| (pair[0].0, pair[1].1.loaded_at)).collect();
    let excess = unused.len().saturating_sub(MAX_WAITING);
    let is_due = |(index, (_, replaced_at)): &(usize, (&Vcl, u64))| *index < excess || replaced_at + delay <= now;
    unused.into_iter().enumerate().filter(is_due).map(|(_, (vcl, _))| vcl.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_name(loaded_at: u64) -> String {
        OwnName { digest: "0123456789abcdef", loaded_at }.to_string()
    }

    fn vcl(name: &str, more: &str) -> Vcl {
        let usual = serde_json::json!({ "status": "available", "state": "auto", "busy": 0, "name": name });
        let mut vcl = usual.as_object().expect("a map").clone();
        vcl.extend(serde_json::from_str::<serde_json::Map<_, _>>(more).expect("JSON"));
        serde_json::from_value(vcl.into()).expect("a VCL")
    }

    #[test]
    fn only_own_unused_vcls_that_were_replaced_long_ago_are_discardable() {
        let at = |seconds| ticks(Duration::from_secs(seconds));
        let names: Vec<_> = (0..9).map(|i| own_name(at(i))).collect();
        let vcls = [
            vcl("boot", "{}"),
            vcl(&names[0], "{}"),
            vcl("reload_20261122_1", "{}"),
            vcl(&names[1], r#"{"busy": 1}"#),
            vcl(&names[2], r#"{"labels": 1}"#),
            vcl(&names[3], r#"{"state": "warm"}"#),
            vcl(&names[4], r#"{"status": "discarded"}"#),
            vcl(&names[5], "{}"),
            vcl(&names[6], "{}"),
            vcl("elasticd_by_hand", "{}"),
            vcl(&names[7], r#"{"status": "active", "busy": 3}"#),
            vcl(&names[8], "{}"),
        ];
        let idle_timeout = Duration::from_secs(60);
        let discardable = |now| discardable(&vcls, at(now), idle_timeout);
        assert_eq!(discardable(65), Vec::<&str>::new());
        assert_eq!(discardable(66), [&names[0]], "it was replaced at 1 s");
        assert_eq!(discardable(71), [&names[0], &names[5]]);
        assert_eq!(discardable(1000), [&names[0], &names[5], &names[6]], "the last one has not been replaced");
    }

    #[test]
    fn of_too_many_the_oldest_are_discarded_early() {
        let names: Vec<_> = (0..MAX_WAITING as u64 + 4).map(own_name).collect();
        let vcls: Vec<_> = names.iter().map(|name| vcl(name, "{}")).collect();
        assert_eq!(discardable(&vcls, 0, Duration::from_secs(60)), names[..3]);
    }
}
