//! The one thing that crosses the house.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Backend, Name};

/// All services' backends at a revision. Immutable; equal snapshots render to equal bytes.
///
/// A service of which nothing is known yet is absent, which is not the same as being empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows by one whenever any service's backends change, across restarts too.
    pub revision: u64,
    /// The services of which a set has been accepted.
    pub services: BTreeMap<Name, Arc<ServiceSet>>,
}

/// One service's backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSet {
    /// The snapshot's revision at which this set last changed.
    pub revision: u64,
    /// Ordered by id, without duplicates, so that every sidecar in a fleet renders the same bytes.
    pub backends: Vec<Backend>,
}
