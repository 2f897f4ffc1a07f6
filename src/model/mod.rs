//! The types that all of elasticd shares, and the pure rules between them.
//!
//! Nothing here does I/O, reads a clock, or depends on another module.

mod backend;
mod fault;
mod health;
mod instance;
mod name;
mod pattern;
pub mod selection;
mod selector;
mod service;
mod snapshot;
mod tags;

pub use backend::{Backend, BackendState};
pub use fault::FieldFault;
pub use health::{HealthCheck, Probe};
pub use instance::{Availability, Instance, InstanceState};
pub use name::{Name, NameError};
pub use pattern::{Created, Origin, Pattern, ServiceTags};
pub use selection::{Exclusion, Member, Reason, Selection, select, select_one};
pub use selector::{Attribute, Condition, Selector};
pub use service::{
    AddressKind, AtLeast, Guard, MAX_WEIGHT, OnEmpty, Percent, PortRule, Prefer, Service, SourcesMode, WeightRule,
};
pub use snapshot::{ServiceSet, Snapshot};
pub use tags::Tags;
