//! Which instances a service asks for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{Instance, Reason};

/// What an instance must be to belong: every condition must hold. An empty selector takes every instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// By the tag's key.
    pub tags: BTreeMap<String, Condition>,
    /// By what the provider knows beside tags.
    pub attributes: BTreeMap<Attribute, Condition>,
}

/// What a tag or an attribute must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There, whatever its value.
    Present,
    /// Not there.
    Absent,
    /// There, with one of these values.
    OneOf(BTreeSet<String>),
    /// There, with a value that one of these patterns matches: `*` stands for any text, `?` for any one character,
    /// everything else for itself, in its case.
    Like(BTreeSet<String>),
}

/// What a provider knows of an instance beside its tags.
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

    /// What it is of this instance.
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
    /// Whether something with this value, or something that is not there, is wanted.
    pub fn admits(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Present, found) => found.is_some(),
            (Self::Absent, found) => found.is_none(),
            (Self::OneOf(values), Some(value)) => values.contains(value),
            (Self::Like(patterns), Some(value)) => patterns.iter().any(|p| WildMatch::new(p).matches(value)),
            (Self::OneOf(_) | Self::Like(_), None) => false,
        }
    }
}

impl Selector {
    /// A selector of tags alone, each with the values of which one will do.
    pub fn of_tags<K: Into<String>, V: Into<String>, I: IntoIterator<Item = V>>(
        tags: impl IntoIterator<Item = (K, I)>,
    ) -> Self {
        let condition = |values: I| Condition::OneOf(values.into_iter().map(Into::into).collect());
        let tags = tags.into_iter().map(|(key, values)| (key.into(), condition(values))).collect();
        Self { tags, attributes: BTreeMap::new() }
    }

    /// Whether the instance belongs, and if not, by what.
    ///
    /// # Errors
    ///
    /// The first condition that does not hold: tags by their keys, then attributes.
    pub fn admits(&self, instance: &Instance) -> Result<(), Reason> {
        for (key, condition) in &self.tags {
            let value = instance.tags.get(key);
            if !condition.admits(value.map(String::as_str)) {
                let key = key.clone();
                return Err(match value {
                    Some(value) => Reason::TagDiffers { key, value: value.clone() },
                    None => Reason::TagMissing { key },
                });
            }
        }
        for (attribute, condition) in &self.attributes {
            let value = attribute.of(instance);
            if !condition.admits(value) {
                let attribute = *attribute;
                return Err(match value {
                    Some(value) => Reason::Differs { attribute, value: value.to_owned() },
                    None => Reason::Missing { attribute },
                });
            }
        }
        Ok(())
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
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
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
            Err(Reason::TagDiffers { key: "Role".into(), value: "web".into() })
        );
        assert_eq!(of(Condition::Present).admits(&none), Err(Reason::TagMissing { key: "Role".into() }));
    }

    #[test]
    fn attributes_are_conditions_too() {
        let mut found = instance(&[]);
        (found.vpc, found.subnet, found.zone) = (Some("v".into()), Some("s".into()), Some("z".into()));
        (found.group, found.instance_type) = (Some("g".into()), Some("t".into()));
        use Attribute::{Group, Subnet, Type, Vpc, Zone};
        for (attribute, value) in [(Vpc, "v"), (Subnet, "s"), (Zone, "z"), (Group, "g"), (Type, "t")] {
            let asks = |value: &str| Selector {
                attributes: [(attribute, Condition::OneOf([value.to_owned()].into()))].into(),
                ..Selector::default()
            };
            assert_eq!(asks(value).admits(&found), Ok(()));
            assert_eq!(asks("x").admits(&found), Err(Reason::Differs { attribute, value: value.into() }));
            assert_eq!(asks(value).admits(&instance(&[])), Err(Reason::Missing { attribute }));
        }
    }
}
