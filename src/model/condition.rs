//! Conditions on tags and attributes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use wildmatch::WildMatch;

use super::Instance;

/// Values of a condition that are named in a message; the rest are counted.
const MAX_NAMED: usize = 10;

/// A condition on a tag or an attribute. Cheap to clone: each exclusion carries the condition that was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is present, with any value.
    Present,
    /// It is absent.
    Absent,
    /// It has one of these values.
    OneOf(Arc<BTreeSet<String>>),
    /// Its value matches one of these patterns: `*` stands for any text, `?` for any one character, every other character
    /// for itself, case-sensitively.
    Like(Arc<BTreeSet<String>>),
}

/// An attribute of an instance that a selector may name, besides tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attribute {
    /// [`Instance::vpc`].
    Vpc,
    /// [`Instance::subnet`].
    Subnet,
    /// [`Instance::zone`].
    Zone,
    /// [`Instance::group`].
    Group,
    /// [`Instance::instance_type`].
    Type,
}

impl Attribute {
    /// The attribute as the configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vpc => "vpc",
            Self::Subnet => "subnet",
            Self::Zone => "zone",
            Self::Group => "group",
            Self::Type => "type",
        }
    }

    /// The attribute's value of this instance.
    pub fn of(self, instance: &Instance) -> Option<&str> {
        match self {
            Self::Vpc => instance.vpc.as_deref(),
            Self::Subnet => instance.subnet.as_deref(),
            Self::Zone => instance.zone.as_deref(),
            Self::Group => instance.group.as_deref(),
            Self::Type => instance.instance_type.as_deref(),
        }
    }
}

impl Condition {
    /// Whether this value, or its absence, meets the condition.
    pub fn admits(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Present, found) => found.is_some(),
            (Self::Absent, found) => found.is_none(),
            (Self::OneOf(values), Some(value)) => values.contains(value),
            (Self::Like(patterns), Some(value)) => patterns.iter().any(|p| WildMatch::new(p).matches(value)),
            (Self::OneOf(_) | Self::Like(_), None) => false,
        }
    }

    /// The condition on this key, as the configuration writes it: `Role = "web"`.
    pub(super) fn of(&self, key: &str) -> String {
        format!("{} = {self}", bare(key))
    }
}

impl fmt::Display for Condition {
    /// As the configuration writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |values: &BTreeSet<String>| match values.len() {
            1 => values.iter().map(|value| format!("{value:?}")).collect(),
            _ => {
                let named = values.iter().take(MAX_NAMED).map(|value| format!("{value:?}"));
                let more = values.len().checked_sub(MAX_NAMED).filter(|more| *more > 0);
                let more = more.map(|more| format!("and {more} more"));
                format!("[{}]", named.chain(more).collect::<Vec<_>>().join(", "))
            }
        };
        match self {
            Self::Present => f.write_str("{ present = true }"),
            Self::Absent => f.write_str("{ present = false }"),
            Self::OneOf(values) => f.write_str(&listed(values)),
            Self::Like(patterns) => write!(f, "{{ glob = {} }}", listed(patterns)),
        }
    }
}

impl Serialize for Condition {
    /// The text of [`Display`](fmt::Display).
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A tag key as a bare word where TOML allows it, in quotes otherwise.
pub(super) fn bare(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if is_bare { key.to_owned() } else { format!("{key:?}") }
}
