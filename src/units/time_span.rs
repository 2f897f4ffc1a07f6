//! Durations: `"500ms"`, `"15s"`, `"1m 30s"`.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::friendly::{Designator, SpanParser, SpanPrinter};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A duration as the configuration writes it: `"500ms"`, `"15s"`, `"1m 30s"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Duration);

impl TimeSpan {
    /// This many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// This many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Deref for TimeSpan {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Self {
        span.0
    }
}

/// Prints a duration as people write it, exactly: `1m 30s`.
pub fn duration(duration: Duration) -> impl fmt::Display {
    TimeSpan(duration)
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: SpanPrinter = SpanPrinter::new().designator(Designator::Compact);
        f.write_str(&PRINTER.unsigned_duration_to_string(&self.0))
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim();
        if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("{text:?} has no unit: write \"{number}s\", or \"1m 30s\""));
        }
        SpanParser::new()
            .parse_unsigned_duration(text)
            .map(Self)
            .map_err(|_| format!("{text:?} is not a duration: write \"500ms\", \"15s\" or \"1m 30s\""))
    }
}

impl serde::Serialize for TimeSpan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = TimeSpan;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration, such as \"15s\" or \"1m 30s\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TimeSpan, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<TimeSpan, E> {
                Err(E::custom(format!("{number} has no unit: write \"{number}s\", in quotes")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<TimeSpan, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom(format!("{number} is not a duration: write \"15s\", in quotes"))),
                }
            }
        }

        deserializer.deserialize_any(Text)
    }
}

impl schemars::JsonSchema for TimeSpan {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A duration with its unit, such as `500ms`, `15s` or `1m 30s`.",
            "pattern": r"^\s*[0-9.,]+\s*[A-Za-zµ]+.*$",
            "examples": ["500ms", "15s", "1m 30s"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Duration, String> {
        serde_json::from_str::<TimeSpan>(json).map(Duration::from).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_read_and_printed_as_people_write_them() {
        for (text, millis) in [("100ms", 100), ("15s", 15_000), ("1m 30s", 90_000), ("24h", 86_400_000), ("0s", 0)] {
            let expected = Duration::from_millis(millis);
            assert_eq!(read(&format!("{text:?}")), Ok(expected));
            assert_eq!(duration(expected).to_string(), text);
        }
        assert_eq!(read("\"90 sec\""), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_the_remedy() {
        for (json, expected) in [
            ("15", "15 has no unit: write \"15s\", in quotes"),
            ("\"15\"", "\"15\" has no unit: write \"15s\", or \"1m 30s\""),
            ("\"15 sekunden\"", "\"15 sekunden\" is not a duration: write \"500ms\", \"15s\" or \"1m 30s\""),
            ("\"\"", "\"\" is not a duration: write"),
            ("\"-15s\"", "\"-15s\" is not a duration: write"),
            ("-15", "-15 is not a duration: write \"15s\", in quotes"),
            ("[]", "expected a duration, such as \"15s\""),
        ] {
            let error = read(json).expect_err(json);
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
