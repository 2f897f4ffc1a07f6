//! The words of elasticd as types, and the pure rules between them.
//!
//! Nothing here does input or output, knows a clock, or depends on any other room.

mod backend;
mod instance;
mod name;
pub mod selection;
mod selector;
mod service;
mod snapshot;

pub use backend::{Backend, BackendState};
pub use instance::{Availability, Instance, InstanceState};
pub use name::{Name, NameError};
pub use selection::{Exclusion, Reason, Selection, select};
pub use selector::{Attribute, Condition, Selector};
pub use service::{AddressKind, Guard, MAX_WEIGHT, OnEmpty, Percent, PortRule, Service, WeightRule};
pub use snapshot::{ServiceSet, Snapshot};
