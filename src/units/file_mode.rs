//! Permission bits: `"0644"`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The permission bits of a file, written as octal digits in quotes: `"0644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777 && text.bytes().all(|b| b.is_ascii_digit()))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a mode: write octal digits, such as \"0644\""))
    }
}

impl serde::Serialize for FileMode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mode;

        impl Visitor<'_> for Mode {
            type Value = FileMode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode: octal digits in quotes, such as \"0644\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<FileMode, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<FileMode, E> {
                // From 600 on, the decimal digits are those that were meant. A smaller number may be TOML's 0o644, which is 420.
                let meant = format!("{number:04}").parse::<FileMode>().ok().filter(|_| number >= 600);
                let meant = meant.unwrap_or(FileMode(0o644));
                Err(E::custom(format!("{number} is a number: write the mode in quotes, such as \"{meant}\"")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<FileMode, E> {
                self.visit_u64(number.unsigned_abs())
            }
        }

        deserializer.deserialize_any(Mode)
    }
}

impl schemars::JsonSchema for FileMode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Permission bits, as octal digits.",
            "pattern": "^0*[0-7]{1,3}$",
            "examples": ["0644", "0660"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_digits_in_quotes() {
        assert_eq!(serde_json::from_str::<FileMode>("\"0640\"").ok(), Some(FileMode(0o640)));
        assert_eq!(FileMode(0o640).to_string(), "0640");
        for bad in ["", "0888", "rw", "+644", "1777"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad:?}");
        }
        for (number, expected) in
            [("660", "such as \"0660\""), ("420", "such as \"0644\""), ("999", "such as \"0644\"")]
        {
            let error = serde_json::from_str::<FileMode>(number).expect_err(number).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
