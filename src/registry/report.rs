//! What the registry reports beside the snapshot: the status of providers and services, and what `explain` needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Exclusion, Instance, Name, Service};
use crate::status::{self, Exclusions};

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
    /// Its status.
    pub status: status::Provider,
    /// Its last complete answer.
    pub instances: Arc<[Instance]>,
}

/// The state of one service.
#[derive(Debug, Clone)]
pub struct ServiceReport {
    /// Its status.
    pub status: Arc<status::Service>,
    /// Its configuration.
    pub service: Arc<Service>,
    /// The members of accepted sets that are not served, such as unhealthy ones: all of them, ordered by id.
    pub excluded_members: Arc<[Exclusion]>,
}

/// Logs the misconfigured instances that are not in `before`.
pub(super) fn log_new_faults(exclusions: &Exclusions, service: &Name, before: Option<&Exclusions>) {
    let faults = exclusions.first.iter().filter(|exclusion| exclusion.fault);
    let mut new = faults.filter(|exclusion| before.is_none_or(|before| !before.first.contains(exclusion)));
    for exclusion in new.by_ref().take(MAX_LOGGED) {
        tracing::warn!(%service, instance = exclusion.id, reason = %exclusion.reason, "instance excluded");
    }
    let more = new.count();
    if more > 0 {
        tracing::warn!(%service, more, "further instances excluded; /v1/status lists them");
    }
}
