//! What is published, and where, as the configuration says.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::Deserialize;

use super::leader::Rules;
use crate::model::{FieldFault, Name, Selector};
use crate::provider;
use crate::provider::nats::connection;
use crate::provider::poll::PollSchedule;

/// The shortest and the longest `leader_ttl`.
const TTLS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_hours(1));

/// What is published, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The keys beside those of the connection, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// `leader_ttl = "10s"`
    #[serde(default, with = "compact::optional")]
    pub leader_ttl: Option<Duration>,
    /// `replicas = 3`
    pub replicas: Option<usize>,
    /// `providers = ["prod"]`
    pub providers: Option<Vec<Name>>,
}

impl Raw {
    /// Judges what is written; `all` are the configuration's providers, without what is known of those that have faults
    /// themselves. `None`: there is no `connection` to go with it.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(
        self,
        connection: Option<connection::Config>,
        select: Selector,
        all: &BTreeMap<Name, Option<(provider::Config, PollSchedule)>>,
    ) -> Result<Option<Config>, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let named = self.providers.is_some();
        let mut providers = BTreeMap::new();
        for name in self.providers.unwrap_or_else(|| all.keys().cloned().collect()) {
            match all.get(&name) {
                Some(Some((provider::Config::Nats(_), _))) if named => faults.push(FieldFault::new(
                    "providers",
                    format!("{name} is of type nats itself: what was published is not published again"),
                )),
                Some(Some((provider::Config::Nats(_), _)) | None) => {}
                Some(Some(found)) => drop(providers.insert(name, found.clone())),
                None => faults.push(FieldFault::new("providers", format!("there is no provider {name:?}"))),
            }
        }
        if providers.is_empty() && faults.is_empty() && all.values().all(Option::is_some) {
            faults.push(FieldFault::new("providers", "there is none to publish: write [providers.NAME]"));
        }
        let bound = self.leader_ttl.unwrap_or(Duration::from_secs(10));
        if !(TTLS.0..=TTLS.1).contains(&bound) {
            faults.push(FieldFault::new("leader_ttl", format!("{bound:?} is not between 2s and 1h")));
        }
        let replicas = self.replicas.unwrap_or(1);
        // What JetStream takes (NATS documentation, "Streams", Replicas: at most 5).
        if !(1..=5).contains(&replicas) {
            faults.push(FieldFault::new("replicas", format!("{replicas} is not between 1 and 5")));
        }
        if faults.is_empty() {
            let rules = Rules { bound };
            Ok(connection.map(|connection| Config { connection, rules, replicas, select, providers }))
        } else {
            Err(faults)
        }
    }
}
