//! What the registry knows beside its snapshot: ages, holds and exclusions, for status, metrics and explanations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::{Exclusion, Instance, Name, Service};
use crate::registry::guard::Hold;

/// How many exclusions are kept of those that nobody must mend, and of the others: most of a provider's instances
/// belong elsewhere, and are only counted.
pub const MAX_EXCLUSIONS: usize = 100;

/// How many faulty instances are named in one log line.
pub(super) const NAMED: usize = 5;

/// The registry's account of itself, after every event.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By provider.
    pub providers: BTreeMap<Name, ProviderReport>,
    /// By service.
    pub services: BTreeMap<Name, Arc<ServiceReport>>,
    /// Our own zone, once it is known.
    pub zone: Option<String>,
    /// Why the last known good could not be written, while it cannot.
    pub state_error: Option<String>,
}

/// One provider's polls.
#[derive(Debug, Clone, Default)]
pub struct ProviderReport {
    /// The provider's type, as the configuration writes it.
    pub type_name: &'static str,
    /// When it last answered in full. `None`: not since elasticd started.
    pub last_success: Option<SystemTime>,
    /// The last complete answer.
    pub instances: Arc<[Instance]>,
    /// How long the last poll took, in seconds.
    pub last_duration: f64,
    /// Polls since start, failed ones included.
    pub polls: u64,
    /// Failed polls since start.
    pub failures: u64,
    /// Calls refused because there were too many, since start.
    pub throttles: u64,
    /// Calls to the source since start, repeated ones included.
    pub calls: u64,
    /// Pages it answered with since start.
    pub pages: u64,
    /// The last poll's error; `None` once a poll succeeds.
    pub error: Option<String>,
}

/// One service's standing.
#[derive(Debug, Clone)]
pub struct ServiceReport {
    /// The service.
    pub service: Arc<Service>,
    /// Its providers, in their order.
    pub sources: Vec<SourceReport>,
    /// Backends in the snapshot. `None`: nothing is known yet.
    pub backends: Option<usize>,
    /// The revision at which they last changed.
    pub revision: u64,
    /// Some of the set stems from the state directory, and no poll has confirmed it yet.
    pub restored: bool,
    /// Instances that did not become backends.
    pub excluded: Excluded,
    /// Those among them that a provider's accepted set has, all of them, ordered by id.
    pub out: Arc<[Exclusion]>,
    /// So many backends fail the sidecar's own checks that the failures are not believed.
    pub panicking: bool,
}

/// What one provider contributes to a service.
#[derive(Debug, Clone)]
pub struct SourceReport {
    /// The provider.
    pub provider: Name,
    /// Backends in the set that was accepted of it. `None`: none was.
    pub backends: Option<usize>,
    /// When it last reported that set in full, before a restart included.
    pub observed: Option<SystemTime>,
    /// Why a newer set is held back.
    pub held: Option<Hold>,
}

impl ServiceReport {
    /// When the provider that was heard of longest ago last answered for the service in full. `None`: none has.
    pub fn observed(&self) -> Option<SystemTime> {
        self.sources.iter().filter_map(|source| source.observed).min()
    }

    /// The first provider's set that is held back, and why.
    pub fn held(&self) -> Option<&Hold> {
        self.sources.iter().find_map(|source| source.held.as_ref())
    }
}

/// Instances that did not become backends: all are counted, and some are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// All of them.
    pub count: usize,
    /// Those among them that somebody must mend.
    pub faults: usize,
    /// Up to [`MAX_EXCLUSIONS`] of them, faults first, then by id.
    pub first: Vec<Exclusion>,
}

impl From<Vec<Exclusion>> for Excluded {
    fn from(all: Vec<Exclusion>) -> Self {
        let count = all.len();
        let (mut first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|exclusion| exclusion.reason.is_fault());
        let faults = first.len();
        first.extend(others);
        first.truncate(MAX_EXCLUSIONS);
        Self { count, faults, first }
    }
}

impl Excluded {
    /// Counts in those of another provider.
    pub fn merge(&mut self, more: &Self) {
        self.count += more.count;
        self.faults += more.faults;
        self.first.extend(more.first.iter().cloned());
        self.first.sort_by(|a, b| (!a.reason.is_fault(), &a.id).cmp(&(!b.reason.is_fault(), &b.id)));
        self.first.truncate(MAX_EXCLUSIONS);
    }

    /// Logs what somebody must mend, if it is new since `before`.
    pub(super) fn log_news(&self, service: &Name, before: Option<&Self>) {
        let faults = self.first.iter().filter(|exclusion| exclusion.reason.is_fault());
        let mut new = faults.filter(|exclusion| before.is_none_or(|before| !before.first.contains(exclusion)));
        for exclusion in new.by_ref().take(NAMED) {
            tracing::warn!("{service}: {:?} is left out: {}", exclusion.id, exclusion.reason);
        }
        let more = new.count();
        if more > 0 {
            tracing::warn!("{service}: {more} more instances are left out for such reasons; /v1/status names them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    #[test]
    fn a_hundred_are_named_and_all_are_counted_faults_first() {
        let of = |n: usize, reason| Exclusion { id: format!("i-{n:04}"), reason };
        let mut excluded = Excluded::from((0..250).map(|n| of(n, Reason::OtherZone)).collect::<Vec<_>>());
        assert_eq!((excluded.count, excluded.faults, excluded.first.len()), (250, 0, MAX_EXCLUSIONS));
        excluded.merge(&Excluded::from(vec![of(999, Reason::NoPort)]));
        assert_eq!((excluded.count, excluded.faults, excluded.first.len()), (251, 1, MAX_EXCLUSIONS));
        assert_eq!(excluded.first[0].id, "i-0999");
    }
}
