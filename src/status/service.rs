use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Age;
use super::measure::{Measure, Number, report};
use crate::model::{self, Name, Reason};

/// How many excluded instances are named of a service, faulty ones first: most of a provider's instances belong
/// elsewhere, and are only counted.
pub const MAX_EXCLUSIONS: usize = 100;

report! {
    /// The status of a service.
    #[schemars(rename = "ServiceStatus")]
    pub struct Service {
        /// What each of its providers contributes, in the order of the configuration.
        sources: Vec<Source>,
        /// Backends in the snapshot; absent while nothing is known.
        backends: Option<usize> => gauge,
        /// The revision at which its backends last changed.
        revision: u64,
        /// How long ago the provider silent for longest last answered for the service in full; absent while none has.
        age_seconds: Option<Age> => gauge,
        /// Whether some of the backends come from the state directory, and no poll has confirmed them yet.
        restored: bool,
        /// The first newly observed set that the guard does not accept; null if there is none. As a metric: 0 or 1.
        held: Option<Held> => gauge,
        /// Whether so many backends fail the sidecar's own checks that the failures are ignored.
        #[serde(default)]
        panic_mode: bool,
        /// Instances that did not become backends.
        exclusions: Exclusions => gauge,
    }
}

impl Service {
    /// The status of a service of which these sources are known.
    #[must_use]
    pub fn of(sources: Vec<Source>) -> Self {
        let age_seconds = sources.iter().filter_map(|source| source.age_seconds).min();
        let held = sources.iter().find_map(|source| source.held.clone());
        Self { sources, age_seconds, held, ..Self::default() }
    }
}

/// What one provider contributes to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The provider's name.
    pub provider: Name,
    /// Backends in the set last accepted from it; null if none was.
    pub backends: Option<usize>,
    /// How long ago it last reported that set in full, before a restart included; null if it never did.
    pub age_seconds: Option<Age>,
    /// Its newly observed set that the guard does not accept; null if there is none.
    pub held: Option<Held>,
}

/// Why an observed set is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// The reason in one word: `empty` or `drop`.
    pub reason: String,
    /// The reason in a sentence, with what to do.
    pub message: String,
}

/// Instances that did not become backends of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exclusions {
    /// All of them.
    pub count: usize,
    /// Those among them that have to be fixed.
    pub faults: usize,
    /// Up to 100 of them, those that have to be fixed first, then by id.
    pub first: Vec<Exclusion>,
}

/// An instance that did not become a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exclusion {
    /// The instance's id.
    pub id: String,
    /// Whether the instance has to be fixed, rather than not belonging to the service.
    #[serde(default)]
    pub fault: bool,
    /// Why.
    #[serde(flatten)]
    pub reason: ExclusionReason,
}

/// Why an instance is excluded: as the rule itself where it was found, and as text where it was read from JSON, so that
/// the text is only made when somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExclusionReason {
    /// The rule.
    Rule(Reason),
    /// What it was serialised as.
    Text(ReasonText),
}

#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ReasonText {
    /// The rule in one word.
    reason: String,
    /// The rule in a sentence.
    message: String,
}

impl fmt::Display for ExclusionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(reason) => reason.fmt(f),
            Self::Text(text) => f.write_str(&text.message),
        }
    }
}

impl Serialize for ExclusionReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ExclusionReason", 2)?;
        match self {
            Self::Rule(reason) => {
                fields.serialize_field("reason", &tag_of(reason))?;
                fields.serialize_field("message", &reason.to_string())?;
            }
            Self::Text(text) => {
                fields.serialize_field("reason", &text.reason)?;
                fields.serialize_field("message", &text.message)?;
            }
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for ExclusionReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ReasonText::deserialize(deserializer).map(Self::Text)
    }
}

impl JsonSchema for ExclusionReason {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ExclusionReason".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ReasonText::json_schema(generator)
    }
}

impl Measure for Option<Held> {
    fn number(&self) -> Option<Number> {
        self.is_some().number()
    }
}

impl Measure for Exclusions {
    fn number(&self) -> Option<Number> {
        self.count.number()
    }
}

/// The tag `reason` that an enum serialises with.
fn tag_of(reason: &impl Serialize) -> String {
    let value = serde_json::to_value(reason).ok();
    let tag = value.as_ref().and_then(|value| value.get("reason")).and_then(serde_json::Value::as_str);
    tag.unwrap_or("unknown").to_owned()
}

impl From<model::Exclusion> for Exclusion {
    fn from(exclusion: model::Exclusion) -> Self {
        let model::Exclusion { id, reason } = exclusion;
        Self { id, fault: reason.is_fault(), reason: ExclusionReason::Rule(reason) }
    }
}

impl From<Vec<model::Exclusion>> for Exclusions {
    fn from(all: Vec<model::Exclusion>) -> Self {
        let count = all.len();
        let (mut first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|exclusion| exclusion.reason.is_fault());
        let faults = first.len();
        first.extend(others);
        first.truncate(MAX_EXCLUSIONS);
        Self { count, faults, first: first.into_iter().map(Exclusion::from).collect() }
    }
}

impl Exclusions {
    /// Adds those of another provider.
    pub fn merge(&mut self, more: &Self) {
        self.count += more.count;
        self.faults += more.faults;
        self.first.extend(more.first.iter().cloned());
        self.first.sort_by(|a, b| (!a.fault, &a.id).cmp(&(!b.fault, &b.id)));
        self.first.truncate(MAX_EXCLUSIONS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_are_named_and_all_are_counted_faults_first() {
        let of = |n: usize, reason| model::Exclusion { id: format!("i-{n:04}"), reason };
        let mut exclusions = Exclusions::from(
            (0..250).map(|n| of(n, Reason::TooYoung { min_age: std::time::Duration::ZERO })).collect::<Vec<_>>(),
        );
        assert_eq!((exclusions.count, exclusions.faults, exclusions.first.len()), (250, 0, MAX_EXCLUSIONS));
        exclusions.merge(&Exclusions::from(vec![of(999, Reason::NoPort)]));
        assert_eq!((exclusions.count, exclusions.faults, exclusions.first.len()), (251, 1, MAX_EXCLUSIONS));
        assert_eq!(exclusions.first[0].id, "i-0999");
    }
}
