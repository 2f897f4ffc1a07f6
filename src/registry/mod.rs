//! The one writer of snapshots.

pub mod guard;
mod report;

pub use report::{ProviderReport, Report, ServiceReport};
