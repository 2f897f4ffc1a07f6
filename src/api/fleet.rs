//! The status' part on the fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::age_seconds;
use crate::model::{self, Name};

/// What is published to a fleet, and read of one. Ages are in whole seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// The publisher; none if nothing is published.
    pub publisher: Option<Publisher>,
    /// What is read, by provider.
    pub readers: BTreeMap<Name, Reader>,
}

/// How publishing stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// The fleet.
    pub fleet: String,
    /// The bucket.
    pub bucket: String,
    /// Whether this publisher leads.
    pub leads: bool,
    /// The leader's machine.
    pub leader: Option<String>,
    /// Seconds since it took the lead, by its own clock.
    pub leads_for_seconds: Option<u64>,
    /// The leader's term.
    pub term: u64,
    /// How often this publisher took the lead since start.
    pub takeovers: u64,
    /// Sidecars that watch the bucket, if the server tells.
    pub readers: Option<usize>,
    /// Why nothing can be published or followed, while that is so.
    pub error: Option<String>,
    /// By name.
    pub providers: BTreeMap<Name, Published>,
}

/// One provider, as it is published here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Polls since start, failed ones included.
    pub polls: u64,
    /// Failed ones among them.
    pub failures: u64,
    /// Calls to the source since start, repeated ones included.
    pub calls: u64,
    /// Pages the source answered with since start.
    pub pages: u64,
    /// Calls since start that were refused because there were too many.
    pub throttles: u64,
    /// Different sets published since start.
    pub sets: u64,
    /// Bytes published since start.
    pub bytes: u64,
    /// Instances in the last complete answer.
    pub instances: usize,
    /// Seconds since that.
    pub age_seconds: Option<u64>,
    /// Why the last poll failed, or could not be published.
    pub error: Option<String>,
}

/// How reading one provider's set stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// The fleet.
    pub fleet: String,
    /// The bucket.
    pub bucket: String,
    /// The provider, as the publishers name it.
    pub provider: String,
    /// Whether the bucket is watched at this time.
    pub connected: bool,
    /// The leader's machine, as last heard.
    pub leader: Option<String>,
    /// Seconds since it took the lead, by its own clock.
    pub leads_for_seconds: Option<u64>,
    /// The leader's term in which the set was published; none if there is no set.
    pub term: Option<u64>,
    /// The set's number in that term.
    pub number: Option<u64>,
    /// Seconds since the publisher last observed the set.
    pub age_seconds: Option<u64>,
    /// Instances in it.
    pub instances: usize,
    /// Sidecars that watch the bucket, if the server told the leader.
    pub readers: Option<usize>,
    /// The provider polled because the fleet is silent, while it is.
    pub fallback: Option<Name>,
    /// Polls of it since start.
    pub fallback_polls: u64,
    /// What is wrong, while something is.
    pub error: Option<String>,
}

impl Fleet {
    /// What the sources say now. `None`: this elasticd has no part in a fleet.
    pub(super) fn of(fleet: &super::Fleet) -> Option<Self> {
        let publisher = fleet.publisher.as_ref().map(|report| Publisher::from(&**report.borrow()));
        let readers = fleet.readers.iter().map(|(name, report)| (name.clone(), Reader::from(&**report.borrow())));
        let fleet = Self { publisher, readers: readers.collect() };
        (fleet.publisher.is_some() || !fleet.readers.is_empty()).then_some(fleet)
    }
}

impl From<&model::fleet::Publishing> for Publisher {
    fn from(report: &model::fleet::Publishing) -> Self {
        Self {
            fleet: report.fleet.clone(),
            bucket: report.bucket.clone(),
            leads: report.leads,
            leader: report.leader.clone(),
            leads_for_seconds: report.since.map(age_seconds),
            term: report.term,
            takeovers: report.takeovers,
            readers: report.readers,
            error: report.error.clone(),
            providers: report.providers.iter().map(|(name, report)| (name.clone(), report.into())).collect(),
        }
    }
}

impl From<&model::fleet::Published> for Published {
    fn from(report: &model::fleet::Published) -> Self {
        Self {
            polls: report.polls,
            failures: report.failures,
            calls: report.calls,
            pages: report.pages,
            throttles: report.throttles,
            sets: report.sets,
            bytes: report.bytes,
            instances: report.instances,
            age_seconds: report.observed.map(age_seconds),
            error: report.error.clone(),
        }
    }
}

impl From<&model::fleet::Reading> for Reader {
    fn from(report: &model::fleet::Reading) -> Self {
        Self {
            fleet: report.fleet.clone(),
            bucket: report.bucket.clone(),
            provider: report.provider.clone(),
            connected: report.connected,
            leader: report.leader.clone(),
            leads_for_seconds: report.since.map(age_seconds),
            term: report.position.map(|(term, _)| term),
            number: report.position.map(|(_, number)| number),
            age_seconds: report.observed.map(age_seconds),
            instances: report.instances,
            readers: report.readers,
            fallback: report.fallback.clone(),
            fallback_polls: report.fallback_polls,
            error: report.error.clone(),
        }
    }
}
