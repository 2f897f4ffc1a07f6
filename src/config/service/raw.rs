//! The keys of a service, as they are written.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::health;
use crate::model::{AddressKind, Attribute, Guard, Name, Percent, SourcesMode};
use crate::units::TimeSpan;

/// The keys of `[services.NAME]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Service")]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// The provider of the instances, or several in the order in which they are preferred.
    pub provider: OneOrMore,
    /// With several providers: whether all their backends are served, or those of the first one that has any.
    #[serde(default)]
    pub sources: SourcesMode,
    /// With several providers: how long after its last complete answer a provider's set still counts. Needed for
    /// `failover`. The last set that there is never expires.
    pub expire: Option<TimeSpan>,
    /// Conditions on the tags of an instance, all of which must hold: `{ TAG = "value" }`, `{ TAG = ["one", "another"] }`,
    /// `{ TAG = { glob = "web-*" } }`, `{ TAG = { present = true } }`. Left out: every instance belongs.
    #[serde(default)]
    pub select: BTreeMap<String, RawCondition>,
    /// Conditions on what the provider knows of an instance beside its tags.
    #[serde(default, rename = "where")]
    pub attributes: BTreeMap<Attribute, RawCondition>,
    /// The address of an instance that is used.
    #[serde(default)]
    pub address: AddressKind,
    /// The port: a number, or the tag that holds it: `{ tag = "Port", default = 8080 }`. Left out: the provider's own.
    pub port: Option<RawRule>,
    /// The weight, 0 to 256: a number, a tag (`{ tag = "Weight", default = 1 }`), or by the kind of machine:
    /// `{ by = "size" }` or `{ by = "type", weights = { "m7g.large" = 2 }, default = 1 }`. Left out: the provider's own, or
    /// 1.
    pub weight: Option<RawWeight>,
    /// When an observed set is held rather than served.
    #[serde(default)]
    pub guard: Guard,
    /// How long after its launch an instance gets its first traffic; at most 24 h.
    #[serde(default)]
    pub min_age: TimeSpan,
    /// The time in which a backend that joins comes to its full weight, in ten steps; at most 24 h. Zero: at once. All
    /// weights of the service are multiplied by up to ten meanwhile, so that there is something to take a part of. It is
    /// for frontends that lack it: each step is a change, and with nginx a reload.
    #[serde(default)]
    pub slow_start: TimeSpan,
    /// How long a backend that leaves stays with weight 0, in the state `draining`, where the frontend can express it; at
    /// most 24 h. Zero: not at all.
    #[serde(default)]
    pub drain: TimeSpan,
    /// Backends of our own zone alone, as long as there are enough: `"same-zone"` for two, or
    /// `{ zone = "same", at_least = 3 }` or `"50%"` of all. With fewer, those of the other zones join.
    pub prefer: Option<RawPrefer>,
    /// How elasticd itself checks whether a backend works. Left out: it does not.
    pub health: Option<health::Raw>,
    /// Makes the section a pattern: one service for each value of a tag. `"haproxy"` stands for the tags of HAProxy's Data
    /// Plane API.
    pub each: Option<RawEach>,
}

/// The name of a provider, or a list of names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the name of a provider, or a list of names")]
pub enum OneOrMore {
    /// One provider.
    One(Name),
    /// Several, in the order in which they are preferred.
    More(Vec<Name>),
}

/// The preference for backends in our own zone.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Prefer")]
#[serde(untagged, expecting = "expected \"same-zone\", or { zone = \"same\", at_least = 2 } or \"50%\"")]
pub enum RawPrefer {
    /// As long as there are at least two of them.
    Word(SameZone),
    /// As long as there are enough of them.
    Table(RawPreferTable),
}

/// Backends in our own zone.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum SameZone {
    /// Backends in our own zone.
    #[serde(rename = "same-zone")]
    SameZone,
}

/// The preference, with a number of backends.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "PreferTable")]
#[serde(deny_unknown_fields)]
pub struct RawPreferTable {
    /// Which zone is preferred.
    #[serde(rename = "zone")]
    _zone: Same,
    /// With fewer backends than these in our own zone, those of the other zones join.
    pub at_least: RawAtLeast,
}

/// Our own zone.
#[derive(Debug, Deserialize, JsonSchema)]
enum Same {
    /// Our own.
    #[serde(rename = "same")]
    Same,
}

/// A number of backends, or a part of all of them.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[schemars(rename = "AtLeast")]
#[serde(untagged, expecting = "expected a number, or a percentage such as \"50%\"")]
pub enum RawAtLeast {
    /// This many; at least 1.
    Count(usize),
    /// This part of all.
    Part(Percent),
}

/// What creates services.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Each")]
#[serde(untagged, expecting = "expected \"haproxy\", or { tag = \"KEY\" }")]
pub enum RawEach {
    /// The tags that a convention has.
    Convention(Convention),
    /// A tag of your own.
    Tag(RawEachTag),
}

/// A convention of tags.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Convention {
    /// HAProxy's Data Plane API: `HAProxy:Service:Name`, `HAProxy:Service:Port` and `HAProxy:Instance:Port`.
    HAProxy,
}

/// The tags that create services.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "EachTag")]
#[serde(deny_unknown_fields)]
pub struct RawEachTag {
    /// The tag whose value names the service.
    pub tag: String,
    /// The tag whose value is the service's port, and a part of its name.
    pub port: Option<String>,
    /// The tag whose value is an instance's port, where that is another one than the service's.
    pub instance_port: Option<String>,
}

/// A condition on a value.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Condition")]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, { glob = \"web-*\" }, { present = true } or { present = false }"
)]
pub enum RawCondition {
    /// The value is this, or one of these.
    OneOf(OneOrMany),
    /// The value matches a pattern.
    Glob(RawGlob),
    /// There is a value, or there is none.
    Present(RawPresent),
}

/// A condition by pattern.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Glob")]
#[serde(deny_unknown_fields)]
pub struct RawGlob {
    /// The pattern, or several of which one is enough: `*` stands for any text, `?` for one character.
    pub glob: OneOrMany,
}

/// A condition on presence.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Present")]
#[serde(deny_unknown_fields)]
pub struct RawPresent {
    /// Whether there must be a value, or must be none.
    pub present: bool,
}

/// A text, or a list of texts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
pub enum OneOrMany {
    /// One text.
    One(String),
    /// Several texts.
    Many(BTreeSet<String>),
}

/// A number, or the tag that holds it.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Rule")]
#[serde(untagged, expecting = "expected a number, or { tag = \"KEY\", default = NUMBER }")]
pub enum RawRule {
    /// This number for every instance.
    Fixed(u16),
    /// The value of a tag.
    Tag(RawTagRule),
}

/// A number, the tag that holds it, or what the kind of machine says.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Weight")]
#[serde(
    untagged,
    expecting = "expected a number, { tag = \"KEY\", default = NUMBER }, { by = \"size\", default = NUMBER } or \
                 { by = \"type\", weights = { \"m5.large\" = NUMBER }, default = NUMBER }"
)]
pub enum RawWeight {
    /// A number, or the tag that holds it.
    Rule(RawRule),
    /// By the kind of machine.
    Kind(RawKindRule),
}

/// A weight by the kind of machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "KindRule")]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
pub enum RawKindRule {
    /// By the size in the name of the kind, as AWS' normalization factors have it: `large` is 4, `xlarge` 8, `2xlarge` 16 and
    /// so on.
    Size {
        /// The weight of an instance of no known size.
        #[serde(default = "one")]
        default: u16,
    },
    /// By the name of the kind.
    Type {
        /// The weight of each kind.
        weights: BTreeMap<String, u16>,
        /// The weight of an instance of any other kind.
        #[serde(default = "one")]
        default: u16,
    },
}

/// The tag that holds a number.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "TagRule")]
#[serde(deny_unknown_fields)]
pub struct RawTagRule {
    /// The tag.
    pub tag: String,
    /// The number for an instance without the tag. Left out: for a weight 1; without a port, such an instance is excluded.
    pub default: Option<u16>,
}

/// A selector that stands by itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Selector")]
#[serde(deny_unknown_fields)]
pub struct RawSelector {
    /// The tags that an instance must have, each with its condition.
    #[serde(default)]
    pub select: BTreeMap<String, RawCondition>,
    /// Conditions on what is known of an instance beside its tags.
    #[serde(default, rename = "where")]
    pub attributes: BTreeMap<Attribute, RawCondition>,
}

impl RawSelector {
    /// Its keys.
    pub const KEYS: &[&str] = &["select", "where"];
}

const fn one() -> u16 {
    1
}

impl From<OneOrMore> for Vec<Name> {
    fn from(raw: OneOrMore) -> Self {
        match raw {
            OneOrMore::One(name) => vec![name],
            OneOrMore::More(names) => names,
        }
    }
}

impl From<OneOrMany> for BTreeSet<String> {
    fn from(raw: OneOrMany) -> Self {
        match raw {
            OneOrMany::One(text) => [text].into(),
            OneOrMany::Many(texts) => texts,
        }
    }
}
