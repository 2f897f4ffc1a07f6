//! What the health checks are given, and what they report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::model::{HealthCheck, Name};

/// The backends of a service to be probed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The service.
    pub service: Name,
    /// How they are probed.
    pub check: HealthCheck,
    /// All candidates, whether they are in or out at the moment.
    pub targets: Vec<Target>,
    /// The ids of those that failed before elasticd was restarted. Used when the service is first seen.
    pub failed: BTreeSet<String>,
}

/// One backend to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The backend's id, unique within the service.
    pub id: String,
    /// Where the backend serves. The check may name another port.
    pub address: SocketAddr,
}

/// The health of one service's backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// The service.
    pub service: Name,
    /// The backends that the report is about, by id. One that is not here, or has another address here, has not been
    /// checked.
    pub targets: BTreeMap<String, SocketAddr>,
    /// The backends that are out, by id, and why: `health check failed: connection refused`. Never all of them.
    pub out: BTreeMap<String, String>,
    /// Whether so many fail that a fault of this machine is assumed, and no backend is taken out.
    pub panicking: bool,
}
