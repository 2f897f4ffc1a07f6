use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::measure::{Measure, Number};

/// How long ago something happened. It holds the time itself, and is serialised as whole seconds from then until now;
/// 0 if the clock was set back meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(SystemTime);

impl Age {
    /// When it happened.
    pub const fn time(self) -> SystemTime {
        self.0
    }

    /// How long ago that is.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed().unwrap_or_default()
    }

    /// The same in whole seconds.
    pub fn seconds(self) -> u64 {
        self.elapsed().as_secs()
    }
}

impl From<SystemTime> for Age {
    fn from(time: SystemTime) -> Self {
        Self(time)
    }
}

impl Measure for Age {
    fn number(&self) -> Option<Number> {
        Some(Number::Fraction(self.elapsed().as_secs_f64()))
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.seconds())
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        Ok(Self(SystemTime::now().checked_sub(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)))
    }
}

impl JsonSchema for Age {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Age".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        u64::json_schema(generator)
    }
}
