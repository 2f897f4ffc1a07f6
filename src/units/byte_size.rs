//! Sizes: `"64MiB"`, `"500kB"`, or a bare number of bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The units and their bytes; the binary ones from the largest to the smallest, as they are printed.
const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A size in bytes, as the configuration writes it: `"64MiB"`, `"500kB"`, or a bare number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Prints a number of bytes for people: as a whole number of the largest binary unit, or else with one decimal.
pub fn size(bytes: u64) -> impl fmt::Display {
    ByteSize(bytes)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &&(&str, u64)| unit.1 <= self.0 && unit.1.is_power_of_two();
        match UNITS.iter().find(fits) {
            Some((unit, bytes)) if self.0.is_multiple_of(*bytes) => write!(f, "{}{unit}", self.0 / bytes),
            Some((unit, bytes)) => write!(f, "{:.1}{unit}", self.0 as f64 / *bytes as f64),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a size: write \"64MiB\", \"500kB\" or a number of bytes");
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refused())?;
        let unit = unit.trim();
        let bytes = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, bytes)| *bytes);
        let bytes = bytes.or(unit.is_empty().then_some(1)).ok_or_else(refused)?;
        number.checked_mul(bytes).map(Self).ok_or_else(refused)
    }
}

impl serde::Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;

        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, such as \"64MiB\", or a number of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::custom(format!("{bytes} is not a size: write \"64MiB\"")))
            }
        }

        deserializer.deserialize_any(Size)
    }
}

impl schemars::JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A size with its unit, such as `64MiB` or `500kB`, or a number of bytes.",
            "anyOf": [
                { "type": "string", "pattern": r"^\s*[0-9]+\s*([KkMmGgTt]([Ii])?)?[Bb]?\s*$" },
                { "type": "integer", "minimum": 0 },
            ],
            "examples": ["64MiB", "500kB", 1_048_576],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<u64, String> {
        serde_json::from_str::<ByteSize>(json).map(|size| size.0).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (json, bytes) in [
            ("\"64MiB\"", 64 << 20),
            ("\"64 mib\"", 64 << 20),
            ("\"1GiB\"", 1 << 30),
            ("\"500kB\"", 500_000),
            ("\"500KB\"", 500_000),
            ("\"7B\"", 7),
            ("\"7\"", 7),
            ("1048576", 1 << 20),
        ] {
            assert_eq!(read(json), Ok(bytes), "{json}");
        }
        for json in ["\"\"", "\"MiB\"", "\"64M\"", "\"6.4MiB\"", "\"99999999TiB\"", "-1", "\"-1B\"", "[]"] {
            let error = read(json).expect_err(json);
            assert!(error.contains("\"64MiB\""), "{json}: {error}");
        }
    }

    #[test]
    fn sizes_are_printed_so_that_they_can_be_read_again() {
        for (bytes, text) in [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (64 << 20, "64MiB"), (1 << 30, "1GiB")] {
            assert_eq!(size(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        assert_eq!(size(1_500_000).to_string(), "1.4MiB");
    }
}
