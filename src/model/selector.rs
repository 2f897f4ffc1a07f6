//! Which instances a service selects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use wildmatch::WildMatch;

use super::selection::bare;
use super::{Instance, Reason};

/// Values of a condition that are named in a message; the rest are counted.
const MAX_NAMED: usize = 10;

/// The conditions that an instance must meet to belong to a service: all of them. An empty selector selects every
/// instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// By the tag's key.
    pub tags: BTreeMap<String, Condition>,
    /// By the attribute that the provider knows besides tags.
    pub attributes: BTreeMap<Attribute, Condition>,
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

impl Selector {
    /// A selector of tags alone, each with its permitted values.
    pub fn of_tags<K: Into<String>, V: Into<String>, I: IntoIterator<Item = V>>(
        tags: impl IntoIterator<Item = (K, I)>,
    ) -> Self {
        let condition = |values: I| Condition::OneOf(Arc::new(values.into_iter().map(Into::into).collect()));
        let tags = tags.into_iter().map(|(key, values)| (key.into(), condition(values))).collect();
        Self { tags, attributes: BTreeMap::new() }
    }

    /// Whether the instance meets every condition.
    ///
    /// # Errors
    ///
    /// The first condition that is not met: tags in the order of their keys, then attributes.
    pub fn admits(&self, instance: &Instance) -> Result<(), Reason> {
        for (key, condition) in &self.tags {
            let value = instance.tags.get(key);
            if !condition.admits(value.map(String::as_str)) {
                let (key, wanted) = (key.clone(), condition.clone());
                return Err(match value {
                    Some(value) => Reason::TagDiffers { key, value: value.clone(), wanted },
                    None => Reason::TagMissing { key, wanted },
                });
            }
        }
        for (attribute, condition) in &self.attributes {
            let value = attribute.of(instance);
            if !condition.admits(value) {
                let (attribute, wanted) = (*attribute, condition.clone());
                return Err(match value {
                    Some(value) => Reason::Differs { attribute, value: value.to_owned(), wanted },
                    None => Reason::Missing { attribute, wanted },
                });
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(tags: &[(&str, &str)]) -> Instance {
        let mut instance = Instance::new("i");
        instance.tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        instance
    }

    fn of(condition: Condition) -> Selector {
        Selector { tags: [("Role".to_owned(), condition)].into(), ..Selector::default() }
    }

    #[test]
    fn each_condition_admits_what_it_says() {
        let texts = |texts: &[&str]| Arc::new(texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>());
        let (web, other, none) = (instance(&[("Role", "web")]), instance(&[("Role", "db")]), instance(&[]));
        for (condition, admitted) in [
            (Condition::Present, [true, true, false]),
            (Condition::Absent, [false, false, true]),
            (Condition::OneOf(texts(&["web", "app"])), [true, false, false]),
            (Condition::Like(texts(&["w*", "?"])), [true, false, false]),
            (Condition::Like(texts(&["*"])), [true, true, false]),
            (Condition::Like(texts(&["WEB", "we", "web?"])), [false, false, false]),
        ] {
            let selector = of(condition.clone());
            let found = [&web, &other, &none].map(|instance| selector.admits(instance).is_ok());
            assert_eq!(found, admitted, "{condition:?}");
        }
        assert_eq!(
            of(Condition::Absent).admits(&web),
            Err(Reason::TagDiffers { key: "Role".into(), value: "web".into(), wanted: Condition::Absent })
        );
        let wanted = Condition::Present;
        assert_eq!(of(wanted.clone()).admits(&none), Err(Reason::TagMissing { key: "Role".into(), wanted }));
    }

    #[test]
    fn a_condition_is_shown_as_the_configuration_writes_it() {
        let texts = |n: usize| Arc::new((0..n).map(|n| format!("v{n:02}")).collect::<BTreeSet<_>>());
        assert_eq!(Condition::OneOf(texts(1)).of("Role"), "Role = \"v00\"");
        assert_eq!(Condition::Like(texts(2)).of("aws:x"), "\"aws:x\" = { glob = [\"v00\", \"v01\"] }");
        assert_eq!(Condition::Absent.of("Role"), "Role = { present = false }");
        assert!(Condition::OneOf(texts(12)).to_string().ends_with("\"v09\", and 2 more]"));
    }

    #[test]
    fn attributes_are_conditions_too() {
        let mut found = instance(&[]);
        (found.vpc, found.subnet, found.zone) = (Some("v".into()), Some("s".into()), Some("z".into()));
        (found.group, found.instance_type) = (Some("g".into()), Some("t".into()));
        use Attribute::{Group, Subnet, Type, Vpc, Zone};
        for (attribute, value) in [(Vpc, "v"), (Subnet, "s"), (Zone, "z"), (Group, "g"), (Type, "t")] {
            let one_of = |value: &str| Condition::OneOf(Arc::new([value.to_owned()].into()));
            let selector =
                |value: &str| Selector { attributes: [(attribute, one_of(value))].into(), ..Selector::default() };
            assert_eq!(selector(value).admits(&found), Ok(()));
            let differs = Reason::Differs { attribute, value: value.into(), wanted: one_of("x") };
            assert_eq!(selector("x").admits(&found), Err(differs));
            let missing = Reason::Missing { attribute, wanted: one_of(value) };
            assert_eq!(selector(value).admits(&instance(&[])), Err(missing));
        }
    }
}
