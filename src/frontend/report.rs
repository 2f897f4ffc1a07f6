//! What a frontend's worker says of itself, for status and metrics.

use std::time::{Duration, SystemTime};

use serde::Serialize;

/// One frontend's standing, after every step of its worker.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The frontend's type, as the configuration writes it.
    pub type_name: String,
    /// What the worker is at.
    pub phase: Phase,
    /// The revision the frontend was last proven to run. `None`: none yet.
    pub proven_revision: Option<u64>,
    /// When that was proven.
    pub proven_at: Option<SystemTime>,
    /// The newest revision that it should run.
    pub wanted_revision: Option<u64>,
    /// The PID last signalled or seen.
    pub pid: Option<i32>,
    /// Why the last attempt failed; `None` once one succeeds.
    pub error: Option<String>,
    /// Attempts that changed a file or asked for a reload, since start.
    pub applies: u64,
    /// Attempts that failed, since start.
    pub failures: u64,
    /// Reloads asked for, since start.
    pub reloads: u64,
    /// Changes told over its runtime API, without a reload, since start.
    pub told: u64,
    /// How long each step of the last attempt took.
    pub timings: Timings,
    /// Whether a first attempt has ended, well or not.
    pub attempted: bool,
}

/// How long the steps of one change took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the snapshot to the contents of all outputs.
    pub render: Duration,
    /// Writing them beside their places, synced.
    pub stage: Duration,
    /// The frontend's own check.
    pub check: Duration,
    /// Exchanging them for the previous ones, synced, with the apply record.
    pub swap: Duration,
    /// Telling the frontend, or asking it to reload.
    pub reload: Duration,
    /// Until it was proven to run them.
    pub proof: Duration,
}

/// What a worker is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Some of its services are not known yet.
    #[default]
    Waiting,
    /// Rendering, checking, swapping, reloading or proving.
    Applying,
    /// The files are in place and checked, but the frontend does not run.
    NotRunning,
    /// The frontend runs the newest snapshot.
    Proven,
    /// The last attempt failed; the old configuration stands, and another attempt follows.
    Failed,
}
