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
//! Everything left of the snapshot may fail. The last snapshot is then kept, and elasticd says how old it is.
//! Everything right of it compares what a frontend has been proven to run with what the snapshot renders to, and acts
//! until they agree.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`model`] | instances, services, backends, snapshots and selection, without I/O |
//! | [`config`] | reads the configuration from its layers, validates it and reports all faults at once |
//! | [`provider`] | discovers instances: one table of provider types, and one polling loop |
//! | [`fleet`] | publishes what providers observe for a fleet, and elects which publisher leads |
//! | [`registry`] | writes snapshots: selection, the guard, and the state on disk |
//! | [`health`] | elasticd's own health checks of backends |
//! | [`frontend`] | brings each frontend to the newest snapshot: templates, presets, staging, check, reload, proof |
//! | [`api`] | serves the query socket, the admin socket and the metrics |
//! | [`status`] | the status that the API serves, the command line prints and the metrics are made of |
//! | [`sys`] | files, processes, sockets and confinement, without knowledge of the other modules |
//! | [`units`] | durations, sizes and file modes, as people write them |
//! | [`app`] | builds all parts, then runs, reloads and drains them |
//! | [`cli`] | the command line: a file for each subcommand |

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
#[path = "fleet/absent.rs"]
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
