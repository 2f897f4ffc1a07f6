//! The types that all of elasticd shares, and the pure rules between them.
//!
//! Nothing here does I/O, reads a clock, or depends on another module.

mod backend;
mod command_line;
mod condition;
mod exclusion;
mod fault;
mod health;
mod instance;
mod name;
mod pattern;
mod percent;
pub mod selection;
mod selector;
mod service;
mod snapshot;
mod tags;

pub use backend::{Backend, BackendState, MAX_WEIGHT};
pub use command_line::CommandLine;
pub use condition::{Attribute, Condition};
pub use exclusion::{Exclusion, Reason};
pub use fault::FieldFault;
pub use health::{HealthCheck, Probe};
pub use instance::{AddressKind, Availability, Instance, InstanceState};
pub use name::{Name, NameError};
pub use pattern::{Created, Origin, Pattern, ServiceTags};
pub use percent::Percent;
pub use selection::{Member, Selection, select, select_one};
pub use selector::Selector;
pub use service::{AtLeast, Guard, OnEmpty, PortRule, Prefer, Service, SourcesMode, WeightRule};
pub use snapshot::{ServiceSet, Snapshot};
pub use tags::Tags;
