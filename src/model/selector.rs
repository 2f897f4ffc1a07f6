//! Which instances a service selects.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::condition::{Attribute, Condition};
use super::exclusion::Reason;
use super::instance::Instance;

/// The conditions that an instance must meet to belong to a service: all of them. An empty selector selects every
/// instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// By the tag's key.
    pub tags: BTreeMap<String, Condition>,
    /// By the attribute that the provider knows besides tags.
    pub attributes: BTreeMap<Attribute, Condition>,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
