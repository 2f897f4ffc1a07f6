use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Age;
use super::measure::{Measure, Number, report};
use crate::model::Name;

report! {
    /// The status of a frontend. Counters are of the time since elasticd started.
    #[schemars(rename = "FrontendStatus")]
    pub struct Frontend {
        /// The frontend's type, as the configuration writes it.
        #[serde(rename = "type")]
        type_name: String,
        /// What its worker is doing.
        phase: Phase,
        /// The revision that the frontend was last proven to run; absent before the first proof, and where there is none.
        proven_revision: Option<u64> => gauge,
        /// How long ago that was proven.
        proven_age_seconds: Option<Age>,
        /// The revision that was last written and, as far as that can be known, taken by the frontend.
        applied_revision: Option<u64> => gauge,
        /// How long ago it was.
        applied_age_seconds: Option<Age>,
        /// The newest revision that it should run.
        wanted_revision: Option<u64>,
        /// The PID that was last signalled or seen.
        pid: Option<i32>,
        /// Why the last attempt failed; null if it did not.
        error: Option<String>,
        /// Backends that are left out of its outputs because they cannot be rendered.
        #[serde(default)]
        excluded: Unrendered => gauge,
        /// Attempts that changed a file or asked for a reload.
        applies: u64 => counter,
        /// Failed attempts.
        failures: u64 => counter,
        /// Reloads asked for.
        reloads: u64 => counter,
        /// Changes taken over the frontend's runtime API, without a reload.
        #[serde(default)]
        live_updates: u64 => counter,
        /// What others have changed over the frontend's runtime API and elasticd leaves as it is, by the frontend's name for
        /// it: `web/i-0a` is in `maintenance`, or has `weight 7`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        overrides: BTreeMap<String, String>,
        /// How long each step of the last attempt took.
        #[serde(default)]
        last_attempt_seconds: Timings,
        /// Files that elasticd wrote for it and that are no outputs any more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        orphaned_outputs: Vec<OrphanedOutput>,
        /// Whether a first attempt has ended, successful or not.
        #[serde(skip)]
        attempted: bool,
    }
}

/// A file that elasticd wrote and that is no output any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrphanedOutput {
    /// The file.
    pub path: PathBuf,
    /// The frontend that it was written for.
    pub frontend: Name,
    /// Whether it was edited since: then elasticd does not remove it.
    pub edited: bool,
}

/// How many backends that cannot be rendered are named of a frontend.
pub const MAX_UNRENDERED: usize = 100;

/// Backends that a frontend's templates cannot render.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unrendered {
    /// All of them.
    pub count: usize,
    /// Up to 100 of them, by service and id.
    pub first: Vec<UnrenderedBackend>,
    /// All of them, to be asked for by id.
    #[serde(skip)]
    pub all: Arc<[UnrenderedBackend]>,
}

/// A backend that a frontend's templates cannot render.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnrenderedBackend {
    /// Its service.
    pub service: Name,
    /// Its id.
    pub id: String,
    /// Why, with the template's file, line and column.
    pub message: String,
}

impl Unrendered {
    /// These backends, ordered by service and id.
    pub fn of(all: Vec<UnrenderedBackend>) -> Self {
        Self { count: all.len(), first: all.iter().take(MAX_UNRENDERED).cloned().collect(), all: all.into() }
    }
}

impl Measure for Unrendered {
    fn number(&self) -> Option<Number> {
        self.count.number()
    }
}

/// How long the steps of one change took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// Rendering all outputs from the snapshot.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub render: Duration,
    /// Writing them beside their final paths, synced to disk.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub stage: Duration,
    /// The frontend's own check.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub check: Duration,
    /// Renaming them into place, synced to disk, with the apply record.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub swap: Duration,
    /// Updating the frontend over its runtime API, or asking it to reload.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub reload: Duration,
    /// Waiting for the proof that it runs them.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub proof: Duration,
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a frontend's worker is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Some of the frontend's services are not known yet.
    #[default]
    Waiting,
    /// Rendering, checking, swapping, reloading or proving.
    Applying,
    /// The files are in place and checked, but the frontend does not run.
    NotRunning,
    /// The frontend runs the newest snapshot.
    Proven,
    /// The frontend was reloaded with the newest snapshot; nothing shows that it runs it.
    Reloaded,
    /// The newest snapshot is written; what becomes of it is not known.
    Written,
    /// The last attempt failed; the previous configuration is kept, and another attempt follows.
    Failed,
}

impl Phase {
    /// Whether the newest snapshot is in effect, as far as that can be known.
    pub const fn is_applied(self) -> bool {
        matches!(self, Self::Proven | Self::Reloaded | Self::Written)
    }
}
