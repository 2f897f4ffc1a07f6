//! Percentages.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A whole percentage, 0 to 100, written `"50%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_suffix('%')
            .and_then(|digits| digits.trim_end().parse().ok())
            .filter(|n| *n <= 100)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a percentage: write \"0%\" to \"100%\""))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}
