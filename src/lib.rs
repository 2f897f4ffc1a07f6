//! elasticd: the sidecar that gives a frontend the addresses of its backends, learnt from the cloud's own tags.
//!
//! One direction, no back edges:
//!
//! ```text
//! provider ──► registry ──► snapshot ──┬──► frontend   files, check, reload, proof
//! discover     select, guard           ├──► api        query socket
//!                                      └──► state      last known good, on disk
//! ```
//!
//! Everything left of the snapshot may fail, and then the last snapshot stands, growing older and saying so.
//! Everything right of it reconciles what a frontend has been proven to run with what the snapshot renders to.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`model`] | the words as types, and selection: pure |
//! | [`config`] | figment layers, raw, then valid; all faults at once |
//! | [`provider`] | where instances are learnt from, and the one polling loop |
//! | `fleet` | publishing what providers observe, and who of several publishers leads |
//! | [`registry`] | the one writer of snapshots, its guard and its state on disk |
//! | [`health`] | the sidecar's own checks of backends |
//! | [`frontend`] | the reconciling worker of each frontend, its templates and presets |
//! | [`api`] | the query socket |
//! | [`status`] | what elasticd reports of itself: one model for the API, the command line and the metrics |
//! | [`sys`] | atomic files, processes, sockets: leaves that know nothing of the rest |
//! | [`app`] | composition: builds all that can fail, then runs, reloads and drains |
//! | [`cli`] | one file per subcommand |
//! | [`units`] | durations, sizes and file modes, as people write them |

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
#[cfg(feature = "nats")]
pub mod fleet;
pub mod frontend;
pub mod health;
pub mod model;
#[doc(hidden)]
#[cfg(not(feature = "nats"))]
pub mod no_fleet;
pub mod provider;
mod readiness;
pub mod registry;
pub mod status;
pub mod sys;
pub mod units;

#[cfg(not(feature = "nats"))]
pub use no_fleet as fleet;
