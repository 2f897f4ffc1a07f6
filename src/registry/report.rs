//! What the registry knows beside its snapshot: ages, holds and exclusions, for status and metrics.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::model::{Exclusion, Name};
use crate::registry::guard::Hold;

/// The registry's account of itself, after every poll.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By provider.
    pub providers: BTreeMap<Name, ProviderReport>,
    /// By service.
    pub services: BTreeMap<Name, ServiceReport>,
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
    /// Instances in the last complete answer.
    pub instances: usize,
    /// How long the last poll took, in seconds.
    pub last_duration: f64,
    /// Polls since start, failed ones included.
    pub polls: u64,
    /// Failed polls since start.
    pub failures: u64,
    /// Polls refused because of too many calls, since start.
    pub throttles: u64,
    /// The last poll's error; `None` once a poll succeeds.
    pub error: Option<String>,
}

/// One service's standing.
#[derive(Debug, Clone)]
pub struct ServiceReport {
    /// The provider its instances come from.
    pub provider: Name,
    /// Backends in the snapshot. `None`: nothing is known yet.
    pub backends: Option<usize>,
    /// The revision at which they last changed.
    pub revision: u64,
    /// When the provider last answered for it in full, before a restart included.
    pub observed: Option<SystemTime>,
    /// The set stems from the state directory, and no poll has confirmed it yet.
    pub restored: bool,
    /// The newly observed set that is held back, and why.
    pub held: Option<Hold>,
    /// Instances that did not become backends in the last complete answer.
    pub exclusions: Vec<Exclusion>,
}
