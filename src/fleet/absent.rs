//! Stands in for publishing to a fleet where elasticd is built without it: there can be no configuration of it, and so
//! nothing that is built from one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::{FieldFault, Name, Selector};
use crate::provider;
use crate::provider::poll::PollSchedule;
use crate::status;
use crate::sys::unconfined::Unconfined;

/// The type that `[publish]` may be of: there is none.
pub const TYPE: Option<&str> = None;

/// Cannot be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Config(Infallible);

impl Config {
    /// The selector of what is published.
    pub fn select(&self) -> &Selector {
        match self.0 {}
    }

    /// The providers that are published.
    pub fn providers(&self) -> &BTreeMap<Name, (provider::Config, PollSchedule)> {
        match self.0 {}
    }
}

/// Without any key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Raw {}

impl Raw {
    /// Never succeeds.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn resolve(
        self,
        _select: Selector,
        _all: &BTreeMap<Name, Option<(provider::Config, PollSchedule)>>,
    ) -> Result<Config, Vec<FieldFault>> {
        Err(Vec::new())
    }
}

/// Cannot be built.
#[derive(Debug)]
pub struct Publisher(Infallible);

impl Publisher {
    /// A publisher of this configuration.
    pub fn new(config: Config, _refresh: watch::Receiver<u64>, _unconfined: Unconfined) -> Self {
        match config.0 {}
    }

    /// The state of publishing.
    pub fn report(&self) -> watch::Receiver<Arc<status::Publisher>> {
        match self.0 {}
    }

    /// Publishes until cancelled.
    pub async fn run(self, _stop: CancellationToken) {
        match self.0 {}
    }
}

/// Reports who leads.
///
/// # Errors
///
/// None.
pub async fn check(config: &Config) -> Result<String, Infallible> {
    match config.0 {}
}
