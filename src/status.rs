//! What elasticd reports of itself. `/v1/status` answers with these types, the command line reads them, the metrics and
//! the JSON Schema are made of them: a new counter is one field, with its doc, in one of them.

mod age;
mod fleet;
mod frontend;
mod measure;
mod provider;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use age::Age;
pub use fleet::{Fleet, Published, Publisher, Reader};
pub use frontend::{Frontend, MAX_UNRENDERED, OrphanedOutput, Phase, Timings, Unrendered, UnrenderedBackend};
pub use measure::{Kind, Measured, Metric, Number, counters};
pub use provider::{ApiUsage, Provider};
pub use service::{Exclusion, ExclusionReason, Exclusions, Held, MAX_EXCLUSIONS, Service, Source};

use crate::model::Name;
use crate::sys::confine;

/// The status of elasticd. Ages are in whole seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// elasticd's version.
    pub version: String,
    /// How long elasticd has been running.
    pub uptime_seconds: Age,
    /// Whether elasticd is ready: every service is known, and every frontend that could be configured has been.
    pub ready: bool,
    /// The snapshot's revision; null before the first snapshot.
    pub revision: Option<u64>,
    /// The providers, by name.
    pub providers: BTreeMap<Name, Provider>,
    /// The services, by name.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// The frontends, by name.
    pub frontends: BTreeMap<Name, Arc<Frontend>>,
    /// Files that elasticd wrote for frontends that are not configured any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphaned_outputs: Vec<OrphanedOutput>,
    /// The zone that elasticd runs in; null while it is not known.
    #[serde(default)]
    pub zone: Option<String>,
    /// Why the last known set could not be saved; null if it was.
    pub state_error: Option<String>,
    /// What elasticd has given up the right to do.
    #[serde(default)]
    pub confinement: confine::Report,
    /// What is published to a fleet and read from it; absent without either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Fleet>,
}
