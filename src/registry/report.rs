//! What the registry reports beside the snapshot: ages, held sets and exclusions, for status, metrics and `explain`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::{Exclusion, Instance, Name, Service};
use crate::registry::held::HeldSet;

/// How many exclusions of a service are kept for display. Most of a provider's instances belong to other services, so
/// the rest are only counted.
pub const MAX_EXCLUSIONS: usize = 100;

/// How many faulty instances are logged one by one after a poll; the rest are counted in one line.
pub(super) const MAX_LOGGED: usize = 5;

/// The state of the registry after an event.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By provider.
    pub providers: BTreeMap<Name, ProviderReport>,
    /// By service.
    pub services: BTreeMap<Name, Arc<ServiceReport>>,
    /// Our own zone, once it is known.
    pub zone: Option<String>,
    /// Why the state could not be saved last, until it is saved again.
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
    /// Calls that the provider's API throttled, since start.
    pub throttles: u64,
    /// Calls to the provider's API since start, retries included.
    pub calls: u64,
    /// Pages of answers received since start.
    pub pages: u64,
    /// The last poll's error; `None` once a poll succeeds.
    pub error: Option<String>,
}

/// The state of one service.
#[derive(Debug, Clone)]
pub struct ServiceReport {
    /// The service.
    pub service: Arc<Service>,
    /// Its providers, in their order.
    pub sources: Vec<SourceReport>,
    /// Backends in the snapshot. `None`: no set has been accepted yet.
    pub backends: Option<usize>,
    /// The revision at which they last changed.
    pub revision: u64,
    /// Whether a part of the set was restored from the state directory and has not been confirmed by a poll yet.
    pub restored: bool,
    /// Instances that did not become backends.
    pub excluded: ExclusionSummary,
    /// The members of accepted sets that are not served, such as unhealthy ones: all of them, ordered by id.
    pub excluded_members: Arc<[Exclusion]>,
    /// Whether so many backends fail our own health checks that no backend is taken out.
    pub panicking: bool,
}

/// What one provider contributes to a service.
#[derive(Debug, Clone)]
pub struct SourceReport {
    /// The provider.
    pub provider: Name,
    /// Backends in the set that was last accepted. `None`: no set has been accepted yet.
    pub backends: Option<usize>,
    /// When the provider last reported that set, possibly before a restart.
    pub observed: Option<SystemTime>,
    /// The newer set that is held.
    pub held: Option<HeldSet>,
}

impl ServiceReport {
    /// The age of the service's set: when the provider whose set is oldest last reported it. `None`: none has.
    pub fn observed(&self) -> Option<SystemTime> {
        self.sources.iter().filter_map(|source| source.observed).min()
    }

    /// The held set of the first provider that has one.
    pub fn held(&self) -> Option<&HeldSet> {
        self.sources.iter().find_map(|source| source.held.as_ref())
    }
}

/// The instances that did not become backends: all counted, some named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExclusionSummary {
    /// All of them.
    pub count: usize,
    /// Those among them that are misconfigured, such as a port tag that is not a port.
    pub faults: usize,
    /// Up to [`MAX_EXCLUSIONS`] of them, faults first, then by id.
    pub first: Vec<Exclusion>,
}

impl From<Vec<Exclusion>> for ExclusionSummary {
    fn from(all: Vec<Exclusion>) -> Self {
        let count = all.len();
        let (mut first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|exclusion| exclusion.reason.is_fault());
        let faults = first.len();
        first.extend(others);
        first.truncate(MAX_EXCLUSIONS);
        Self { count, faults, first }
    }
}

impl ExclusionSummary {
    /// Adds those of another provider.
    pub fn merge(&mut self, more: &Self) {
        self.count += more.count;
        self.faults += more.faults;
        self.first.extend(more.first.iter().cloned());
        self.first.sort_by(|a, b| (!a.reason.is_fault(), &a.id).cmp(&(!b.reason.is_fault(), &b.id)));
        self.first.truncate(MAX_EXCLUSIONS);
    }

    /// Logs the misconfigured instances that are not in `before`.
    pub(super) fn log_new_faults(&self, service: &Name, before: Option<&Self>) {
        let faults = self.first.iter().filter(|exclusion| exclusion.reason.is_fault());
        let mut new = faults.filter(|exclusion| before.is_none_or(|before| !before.first.contains(exclusion)));
        for Exclusion { id, reason } in new.by_ref().take(MAX_LOGGED) {
            tracing::warn!(%service, instance = id, %reason, "instance excluded");
        }
        let more = new.count();
        if more > 0 {
            tracing::warn!(%service, more, "further instances excluded; /v1/status lists them");
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
        let mut excluded = ExclusionSummary::from(
            (0..250).map(|n| of(n, Reason::TooYoung { min_age: std::time::Duration::ZERO })).collect::<Vec<_>>(),
        );
        assert_eq!((excluded.count, excluded.faults, excluded.first.len()), (250, 0, MAX_EXCLUSIONS));
        excluded.merge(&ExclusionSummary::from(vec![of(999, Reason::NoPort)]));
        assert_eq!((excluded.count, excluded.faults, excluded.first.len()), (251, 1, MAX_EXCLUSIONS));
        assert_eq!(excluded.first[0].id, "i-0999");
    }
}
