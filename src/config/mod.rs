//! The configuration: layers of files and environment variables, read into raw types, then resolved into valid ones. All
//! faults are found at once, each with its file and key.
//!
//! `load` does it from the top down. Each section has a file of its own, which reads it through a
//! `section::Section`; the raw types are what the JSON Schema in `schema` is derived from.

mod configuration;
mod cross_check;
mod environment;
mod explain;
mod fault;
mod fleet;
mod frontends;
mod health;
mod keys;
mod layers;
mod load;
mod paths;
mod preset;
mod providers;
mod schema;
mod section;
mod service;
mod top;

pub use configuration::Config;
pub use environment::former_variables;
pub use fault::{Fault, Faults};
pub use paths::{DEFAULT_ADMIN_SOCKET, DEFAULT_PATH, DEFAULT_SOCKET};
pub use preset::frontend as preset;
pub use providers::Provider;
pub use schema::schema;
pub use top::raw::Confine;

#[cfg(test)]
mod tests;
