//! What is published, and where, as the configuration says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::leader::Rules;
use crate::model::{FieldFault, Name, Selector};
use crate::provider;
use crate::provider::nats::connection;
use crate::provider::poll::PollSchedule;
use crate::units::{TimeSpan, duration};

/// The shortest and the longest `leader_ttl`.
const TTLS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_hours(1));

/// What is published, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The bucket.
    pub connection: connection::Config,
    /// How soon after a leader's death another one leads.
    pub rules: Rules,
    /// How many servers keep the bucket, if we create it.
    pub replicas: usize,
    /// What is published of the instances that there are.
    pub select: Selector,
    /// The providers, by name.
    pub providers: BTreeMap<Name, (provider::Config, PollSchedule)>,
}

impl Config {
    /// The selector of what is published.
    pub const fn select(&self) -> &Selector {
        &self.select
    }

    /// The providers that are published.
    pub const fn providers(&self) -> &BTreeMap<Name, (provider::Config, PollSchedule)> {
        &self.providers
    }
}

connection::with_connection_keys! {
    /// What is published to a fleet, through NATS JetStream.
    pub struct Raw {
        /// Within this time after a leader has died another publisher leads: 2 s to 1 h; `"10s"`, if left out.
        pub leader_ttl: Option<TimeSpan>,
        /// How many servers keep the bucket, if it is created: 1 to 5; 1, if left out.
        pub replicas: Option<usize>,
        /// The providers whose sets are published; all that poll a source themselves, if left out.
        pub providers: Option<Vec<Name>>,
    }
}

impl Raw {
    /// What is published. `select` is which instances are; `all` are the configuration's providers, without what is
    /// known of those that have faults themselves.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(
        self,
        select: Selector,
        all: &BTreeMap<Name, Option<(provider::Config, PollSchedule)>>,
    ) -> Result<Config, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let connection = self.connection().resolve().map_err(|wrong| faults.extend(wrong)).ok();
        let providers = published(self.providers, all, &mut faults);
        let bound = self.leader_ttl.map_or(Duration::from_secs(10), Into::into);
        if !(TTLS.0..=TTLS.1).contains(&bound) {
            faults.push(FieldFault::new("leader_ttl", format!("{} is not between 2s and 1h", duration(bound))));
        }
        let replicas = self.replicas.unwrap_or(1);
        // What JetStream takes (NATS documentation, "Streams", Replicas: at most 5).
        if !(1..=5).contains(&replicas) {
            faults.push(FieldFault::new("replicas", format!("{replicas} is not between 1 and 5")));
        }
        match connection {
            Some(connection) if faults.is_empty() => {
                Ok(Config { connection, rules: Rules { bound }, replicas, select, providers })
            }
            _ => Err(faults),
        }
    }
}

/// The providers that are published: those `named`, or else all that poll a source themselves.
fn published(
    named: Option<Vec<Name>>,
    all: &BTreeMap<Name, Option<(provider::Config, PollSchedule)>>,
    faults: &mut Vec<FieldFault>,
) -> BTreeMap<Name, (provider::Config, PollSchedule)> {
    let before = faults.len();
    let is_named = named.is_some();
    let mut providers = BTreeMap::new();
    for name in named.unwrap_or_else(|| all.keys().cloned().collect()) {
        match all.get(&name) {
            Some(Some((config, _))) if config.reads_fleet() => {
                if is_named {
                    let kind = config.type_name();
                    let message = format!("{name} is of type {kind} itself: what was published is not published again");
                    faults.push(FieldFault::new("providers", message));
                }
            }
            // It has faults of its own.
            Some(None) => {}
            Some(Some(found)) => drop(providers.insert(name, found.clone())),
            None => faults.push(FieldFault::new("providers", format!("there is no provider {name:?}"))),
        }
    }
    if providers.is_empty() && faults.len() == before && all.values().all(Option::is_some) {
        faults.push(FieldFault::new("providers", "there is none to publish: write [providers.NAME]"));
    }
    providers
}
