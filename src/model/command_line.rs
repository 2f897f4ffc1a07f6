//! A program and its arguments, as the configuration writes them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A program and its arguments, written as a list: `["nginx", "-t"]`. There is no shell that would split a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine(pub Vec<String>);

impl Deref for CommandLine {
    type Target = Vec<String>;

    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl From<CommandLine> for Vec<String> {
    fn from(command: CommandLine) -> Self {
        command.0
    }
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Command;

        impl<'de> Visitor<'de> for Command {
            type Value = CommandLine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a program and its arguments as a list, such as [\"nginx\", \"-t\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<CommandLine, A::Error> {
                let mut command = Vec::new();
                while let Some(item) = items.next_element()? {
                    command.push(item);
                }
                Ok(CommandLine(command))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<CommandLine, E> {
                // No more than the program and a first option are repeated: arguments may hold secrets.
                let mut words = text.split_whitespace();
                let mut shown: Vec<_> = words.by_ref().take(1).map(|word| format!("{word:?}")).collect();
                match words.clone().next() {
                    Some(option) if option.starts_with('-') && !option.contains('=') && words.clone().count() == 1 => {
                        shown.push(format!("{option:?}"));
                    }
                    Some(_) => shown.push("…".to_owned()),
                    None => {}
                }
                Err(E::custom(format!("a command is a list: write [{}]", shown.join(", "))))
            }
        }

        deserializer.deserialize_any(Command)
    }
}

impl schemars::JsonSchema for CommandLine {
    fn schema_name() -> Cow<'static, str> {
        "CommandLine".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "array",
            "items": { "type": "string" },
            "description": "A program and its arguments. There is no shell.",
            "examples": [["nginx", "-t"]],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_refused_with_the_list_that_is_meant() {
        assert_eq!(serde_json::from_str::<CommandLine>(r#"["nginx", "-t"]"#).expect("read").0, ["nginx", "-t"]);
        for (json, expected) in [
            (r#""nginx -t""#, r#"write ["nginx", "-t"]"#),
            (r#""nginx""#, r#"write ["nginx"]"#),
            (r#""list --token=hush""#, r#"write ["list", …]"#),
            (r#""list -t hush""#, r#"write ["list", …]"#),
            ("7", "expected a program and its arguments as a list"),
        ] {
            let error = serde_json::from_str::<CommandLine>(json).expect_err(json).to_string();
            assert!(error.contains(expected) && !error.contains("hush"), "{json}: {error}");
        }
    }
}
