//! What an elasticd knows of its fleet: of publishing, and of reading what others publish.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::Name;

/// How publishing stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publishing {
    /// The fleet.
    pub fleet: String,
    /// The bucket.
    pub bucket: String,
    /// Whether we lead.
    pub leads: bool,
    /// The leader's machine. `None`: nobody is known to lead.
    pub leader: Option<String>,
    /// Since when it leads, by its own clock.
    pub since: Option<SystemTime>,
    /// The leader's term.
    pub term: u64,
    /// How often we took the lead since start.
    pub takeovers: u64,
    /// Sidecars that watch the bucket, if the server told.
    pub readers: Option<usize>,
    /// Why nothing can be published or followed, while that is so.
    pub error: Option<String>,
    /// By provider.
    pub providers: BTreeMap<Name, Published>,
}

/// One provider, as it is published here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Bytes of chunks and manifests published since start.
    pub bytes: u64,
    /// Instances in the last complete answer.
    pub instances: usize,
    /// When it last answered in full.
    pub observed: Option<SystemTime>,
    /// Why the last poll failed, or what it brought could not be published.
    pub error: Option<String>,
}

/// How reading one provider's set stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The fleet.
    pub fleet: String,
    /// The bucket.
    pub bucket: String,
    /// The provider, as the publishers name it.
    pub provider: String,
    /// Whether the bucket is watched at this time.
    pub connected: bool,
    /// When anything new was last heard of the fleet. `None`: the provider did not say yet.
    pub heard: Option<Instant>,
    /// The leader's machine, as last heard.
    pub leader: Option<String>,
    /// Since when it leads, by its own clock.
    pub since: Option<SystemTime>,
    /// The set's place among all that were published: the leader's term, and its number within.
    pub position: Option<(u64, u64)>,
    /// When the set was last observed, by the publisher's clock.
    pub observed: Option<SystemTime>,
    /// Instances in it.
    pub instances: usize,
    /// Sidecars that watch the bucket, if the server told the leader.
    pub readers: Option<usize>,
    /// The provider that is polled because the fleet is silent, while it is.
    pub fallback: Option<Name>,
    /// Polls of it since start.
    pub fallback_polls: u64,
    /// What is wrong, while something is.
    pub error: Option<String>,
}
