//! A named pool, and the policy by which it is filled.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressKind, HealthCheck, Name, Percent, Selector};

/// A named pool: which of a provider's instances belong to it, and how they become backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The name frontends ask for.
    pub name: Name,
    /// The providers whose instances are considered, in the order in which they are preferred; at least one.
    pub providers: Vec<Name>,
    /// What several providers are to each other.
    pub sources: SourcesMode,
    /// How long a provider's last set counts once the provider has fallen silent. `None`: for ever. It never takes
    /// the last set there is.
    pub expire: Option<Duration>,
    /// Which instances belong.
    pub select: Selector,
    /// Which of an instance's addresses is used.
    pub address: AddressKind,
    /// Where the port comes from.
    pub port: PortRule,
    /// Where the weight comes from.
    pub weight: WeightRule,
    /// What happens to an observation that looks wrong.
    pub guard: Guard,
    /// How long after its launch an instance gets its first traffic.
    pub min_age: Duration,
    /// The time over which a backend that joins comes to its full weight. `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// How long a backend that leaves stays, with weight 0. Zero: not at all.
    pub drain: Duration,
    /// Whether backends of our own zone are preferred. `None`: zones do not matter.
    pub prefer: Option<Prefer>,
    /// How the sidecar itself finds out whether a backend works. `None`: it does not.
    pub health: Option<HealthCheck>,
}

impl Service {
    /// A service of one provider in which everything else is as it is unless configured: every instance belongs, and
    /// the provider itself says ports and weights.
    pub fn new(name: Name, provider: Name) -> Self {
        Self {
            name,
            providers: vec![provider],
            sources: SourcesMode::default(),
            expire: None,
            select: Selector::default(),
            address: AddressKind::default(),
            port: PortRule::default(),
            weight: WeightRule::default(),
            guard: Guard::default(),
            min_age: Duration::ZERO,
            slow_start: None,
            drain: Duration::ZERO,
            prefer: None,
            health: None,
        }
    }
}

/// What the providers of a service are to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourcesMode {
    /// All their backends are served.
    #[default]
    Union,
    /// Only those of the first one that has any.
    Failover,
}

/// The preference for backends in our own zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefer {
    /// With fewer than these in our own zone, those of the other zones join.
    pub at_least: AtLeast,
}

/// A number of backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtLeast {
    /// This many.
    Count(usize),
    /// This part of all.
    Part(Percent),
}

impl AtLeast {
    /// Whether `some` of `all` are enough.
    pub fn is_met_by(self, some: usize, all: usize) -> bool {
        match self {
            Self::Count(count) => some >= count,
            Self::Part(Percent(percent)) => some > 0 && some * 100 >= all * usize::from(percent),
        }
    }
}

/// Where a backend's port comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PortRule {
    /// What the provider says of the instance; an instance without one is excluded.
    #[default]
    Instance,
    /// Always this one.
    Fixed(u16),
    /// The value of a tag. A tag that is there and no port excludes the instance, whatever the default.
    Tag {
        /// The tag's key.
        key: String,
        /// Used where the tag is absent; without it such an instance is excluded.
        default: Option<u16>,
    },
}

/// Where a backend's weight comes from: 0 (no new traffic) to [`MAX_WEIGHT`](super::MAX_WEIGHT).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WeightRule {
    /// What the provider says of the instance, or 1.
    #[default]
    Instance,
    /// Always this one.
    Fixed(u16),
    /// The value of a tag. A tag that is there and no weight excludes the instance.
    Tag {
        /// The tag's key.
        key: String,
        /// Used where the tag is absent.
        default: u16,
    },
    /// What the kind of machine is worth.
    Type {
        /// By the kind's name.
        weights: BTreeMap<String, u16>,
        /// Used for every other kind.
        default: u16,
    },
    /// [`Instance::size`](super::Instance::size), at most [`MAX_WEIGHT`](super::MAX_WEIGHT).
    Size {
        /// Used for instances of unknown size.
        default: u16,
    },
}

/// The policy that accepts a newly observed set, or holds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Whether an empty set is held until a person accepts it, or taken like any other drop.
    pub on_empty: OnEmpty,
    /// The largest part of the backends that may be gone from one observation without being confirmed.
    pub max_drop: Percent,
    /// How many observations in a row must show a larger drop before it is accepted; at least 1.
    pub confirm: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Self { on_empty: OnEmpty::Hold, max_drop: Percent(50), confirm: 3 }
    }
}

impl Guard {
    /// Whether so few backends of the `current` ones are gone that it need not be confirmed.
    pub fn is_within_max_drop(&self, current: usize, observed: usize) -> bool {
        current.saturating_sub(observed) * 100 <= current * usize::from(self.max_drop.0)
    }
}

/// What the guard does with an empty set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnEmpty {
    /// Keeps the backends until a person accepts the empty set.
    #[default]
    Hold,
    /// Takes an empty set like any other drop: once `confirm` observations in a row have shown it.
    Accept,
}
