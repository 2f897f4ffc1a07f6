use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::measure::report;
use super::{Age, ApiUsage};
use crate::model::Name;

/// What is published to a fleet, and what is read from one. Ages are in whole seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FleetStatus")]
pub struct Fleet {
    /// The publisher; null if nothing is published.
    pub publisher: Option<Arc<Publisher>>,
    /// What is read, by provider.
    pub readers: BTreeMap<Name, Arc<Reader>>,
}

report! {
    /// The status of publishing. Counters are of the time since elasticd started.
    #[schemars(rename = "PublisherStatus")]
    pub struct Publisher {
        /// The fleet.
        fleet: String,
        /// The bucket.
        bucket: String,
        /// Whether this publisher is the leader: 0 or 1 as a metric.
        is_leader: bool => gauge,
        /// The leader's host name; null if no leader is known.
        leader: Option<String>,
        /// How long ago it became the leader, by its own clock.
        leader_age_seconds: Option<Age>,
        /// The leader's term.
        term: u64,
        /// How often this publisher became the leader.
        takeovers: u64 => counter,
        /// Sidecars that watch the bucket; absent if the NATS server does not tell.
        readers: Option<usize> => gauge,
        /// Why nothing can be published or followed at this time; null if that is possible.
        error: Option<String>,
        /// What is published, by provider.
        providers: BTreeMap<Name, Published>,
    }
}

report! {
    /// The status of publishing one provider's sets. Counters are of the time since elasticd started.
    #[schemars(rename = "PublishedStatus")]
    pub struct Published {
        /// Polls as the leader, failed ones included.
        polls: u64 => counter,
        /// Failed polls.
        failures: u64 => counter,
        /// What the polls cost.
        #[serde(flatten)]
        usage: ApiUsage => all,
        /// Different sets published.
        sets: u64 => counter,
        /// Bytes of sets published.
        bytes: u64 => counter,
        /// Instances in the last complete answer.
        instances: usize => gauge,
        /// How long ago that answer came; absent before the first.
        age_seconds: Option<Age> => gauge,
        /// Why the last poll failed, or its result could not be published; null if neither did.
        error: Option<String>,
    }
}

report! {
    /// The status of reading one provider's set. Counters are of the time since elasticd started.
    #[schemars(rename = "ReaderStatus")]
    pub struct Reader {
        /// The fleet.
        fleet: String,
        /// The bucket.
        bucket: String,
        /// The provider, as the publishers name it.
        provider: String,
        /// Whether the bucket is watched at this time: 0 or 1 as a metric.
        connected: bool => gauge,
        /// When the fleet last sent anything new. `None`: it has not since elasticd started.
        #[serde(skip)]
        heard: Option<Instant>,
        /// The leader's host name, from its last heartbeat.
        leader: Option<String>,
        /// How long ago it became the leader, by its own clock.
        leader_age_seconds: Option<Age>,
        /// The term of the leader that published the set; absent before the first set.
        term: Option<u64> => gauge,
        /// The set's number in that term.
        sequence: Option<u64>,
        /// How long ago the publisher last observed the set, by the publisher's clock.
        age_seconds: Option<Age>,
        /// Instances in the set.
        instances: usize,
        /// Sidecars that watch the bucket, as the leader last said.
        readers: Option<usize>,
        /// The provider that is polled directly because the fleet is silent; null while it is not.
        fallback: Option<Name>,
        /// Polls of the fallback.
        fallback_polls: u64 => counter,
        /// What is wrong at this time; null if nothing is.
        error: Option<String>,
    }
}
