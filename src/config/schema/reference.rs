//! The reference of keys, a page of Markdown made from the schema.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

const INTRODUCTION: &str = "\
# Configuration reference

Every key of the configuration. This page is made from the types that the configuration is read into; `elasticd schema`
prints the same as JSON Schema, for editors. How to write a configuration is in the [README](../../README.md).

The configuration is TOML, in layers: the defaults below, then the file, then `conf.d/*.toml` beside it in the order of their
names, then the environment, in which `ELASTICD__API__SOCKET` sets `api.socket`. A frontend's preset lies under the keys
of its section. Later layers win key by key. Unknown keys are refused.

Durations are written with their unit, such as `\"500ms\"`, `\"15s\"` or `\"1m 30s\"`; sizes too, such as `\"64MiB\"` or
`\"500kB\"`, or as a number of bytes. Names of providers, services and frontends are 1 to 63 ASCII letters, digits, `_`, `.`
or `-`, and begin with a letter or digit.
";

/// The page for a schema of the whole configuration.
pub fn page(schema: &Value) -> String {
    let mut page = Page { schema, text: INTRODUCTION.to_owned(), tables: Vec::new() };
    page.section("Above all sections", schema, &["api", "providers", "services", "frontends", "publish"]);
    let sections = &schema["properties"];
    page.section("`[api]`", page.resolved(&sections["api"]), &[]);
    for of_type in sections["providers"]["additionalProperties"]["oneOf"].as_array().into_iter().flatten() {
        let name = of_type["properties"]["type"]["const"].as_str().unwrap_or_default();
        page.section(&format!("`[providers.NAME]` with `type = \"{name}\"`"), of_type, &[]);
    }
    page.section("`[services.NAME]`", page.resolved(&sections["services"]["additionalProperties"]), &[]);
    page.section("`[frontends.NAME]`", &sections["frontends"]["additionalProperties"], &[]);
    page.section("`[publish]`", &sections["publish"], &[]);
    page.text += "\n## Tables within keys\n";
    let mut done = BTreeSet::new();
    while let Some(name) = page.tables.iter().find(|name| !done.contains(*name)).cloned() {
        page.section(&name, &schema["definitions"][&name], &[]);
        done.insert(name);
    }
    page.text
}

struct Page<'s> {
    schema: &'s Value,
    text: String,
    /// The definitions that were linked to, in order.
    tables: Vec<String>,
}

impl<'s> Page<'s> {
    fn section(&mut self, title: &str, table: &'s Value, left_out: &[&str]) {
        let is_nested = self.schema["definitions"][title].is_object();
        let _ = write!(self.text, "\n{} {title}\n", if is_nested { "###" } else { "##" });
        if let Some(description) = table["description"].as_str() {
            let _ = write!(self.text, "\n{}\n", flat(description));
        }
        let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| table[key].as_array());
        for table in alternatives.into_iter().flatten().filter(|table| table["properties"].is_object()) {
            if let Some(description) = table["description"].as_str() {
                let _ = write!(self.text, "\n{}\n", flat(description));
            }
            self.table(table, left_out);
        }
        if alternatives.is_none() {
            self.table(table, left_out);
        }
    }

    fn table(&mut self, table: &'s Value, left_out: &[&str]) {
        let required: BTreeSet<_> =
            table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        self.text += "\n| key | value | default | |\n| --- | --- | --- | --- |\n";
        for (name, key) in table["properties"].as_object().into_iter().flatten() {
            if left_out.contains(&name.as_str()) {
                continue;
            }
            let default = match &key["default"] {
                _ if required.contains(name.as_str()) => "required".to_owned(),
                Value::Null => String::new(),
                Value::Object(_) => String::new(),
                value => format!("`{value}`"),
            };
            let value = self.value(key);
            let description = self.description(key);
            let _ = writeln!(self.text, "| `{name}` | {value} | {default} | {description} |");
        }
    }

    /// What a schema refers to, or itself.
    fn resolved(&self, schema: &'s Value) -> &'s Value {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        reference.and_then(|reference| self.schema.pointer(reference.trim_start_matches('#'))).unwrap_or(schema)
    }

    fn description(&self, key: &'s Value) -> String {
        flat(key["description"].as_str().unwrap_or_default())
    }

    /// What can be written for a key.
    fn value(&mut self, key: &'s Value) -> String {
        if let Some(reference) = key["$ref"].as_str().or_else(|| key["allOf"][0]["$ref"].as_str()) {
            let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
            return self.definition(&name);
        }
        if let Some(value) = key.get("const") {
            return format!("`{value}`");
        }
        if let Some(values) = key["enum"].as_array() {
            let values: Vec<_> =
                values.iter().filter(|value| !value.is_null()).map(|value| format!("`{value}`")).collect();
            return values.join(", ");
        }
        for alternatives in ["anyOf", "oneOf"] {
            if let Some(alternatives) = key[alternatives].as_array() {
                let values: Vec<_> = alternatives.iter().map(|alternative| self.value(alternative)).collect();
                let mut distinct: Vec<String> = Vec::new();
                for value in values.into_iter().filter(|value| !value.is_empty()) {
                    if !distinct.contains(&value) {
                        distinct.push(value);
                    }
                }
                return distinct.join(", ");
            }
        }
        let types: Vec<_> = match &key["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one.as_str()],
            _ => return "anything".to_owned(),
        };
        let values: Vec<_> = types.into_iter().filter(|one| *one != "null").map(|one| self.of_type(one, key)).collect();
        values.join(", ")
    }

    fn of_type(&mut self, name: &str, key: &'s Value) -> String {
        match name {
            "string" => "text".to_owned(),
            "boolean" => "`true`, `false`".to_owned(),
            "integer" | "number" => "number".to_owned(),
            "array" => format!("list of {}", self.value(&key["items"])),
            "object" => "table".to_owned(),
            other => other.to_owned(),
        }
    }

    /// A definition by its name: tables have a section of their own, anything else is written out.
    fn definition(&mut self, name: &str) -> String {
        let definition = &self.schema["definitions"][name];
        let has_table = |definition: &Value| {
            let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| definition[key].as_array());
            definition["properties"].is_object()
                || alternatives.is_some_and(|all| all.iter().any(|one| one["properties"].is_object()))
        };
        if has_table(definition) {
            self.tables.push(name.to_owned());
            return format!("[{name}](#{})", name.to_lowercase());
        }
        match name {
            "Duration" => "duration".to_owned(),
            "Size" => "size".to_owned(),
            "Mode" => "mode".to_owned(),
            "Percentage" => "percentage".to_owned(),
            _ => self.value(definition),
        }
    }
}

/// Markdown in one cell of a table.
fn flat(text: &str) -> String {
    text.replace("\n\n", " ").replace('\n', " ").replace('|', "\\|")
}

/// With the environment variable `UPDATE_REFERENCE` the page is written anew.
#[test]
fn the_reference_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/configuration.md");
    let current = page(&super::schema());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, &current).expect("written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let line = written.lines().zip(current.lines()).position(|(written, current)| written != current);
    assert!(
        written == current,
        "docs/reference/configuration.md is not what the types say (first at line {}): run \
         UPDATE_REFERENCE=1 cargo test --lib the_reference_is_current",
        line.unwrap_or_default() + 1
    );
}
