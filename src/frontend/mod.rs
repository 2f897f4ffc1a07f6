//! The processes we configure.

mod report;

pub use report::{Phase, Report};
