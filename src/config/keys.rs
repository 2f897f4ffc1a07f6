//! The names of sections and keys.

use schemars::{JsonSchema, SchemaGenerator};

/// The sections beside `[api]`.
pub const SECTIONS: &[&str] = &["providers", "services", "frontends", "publish"];

/// The keys of a type that a section is read into.
pub fn keys_of<T: JsonSchema>() -> Vec<String> {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let properties = schema.get("properties").and_then(|properties| properties.as_object());
    properties.map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
}

/// The known name that was probably meant.
pub fn most_similar<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().map(|key| (strsim::damerau_levenshtein(name, key), *key));
    let most = if name.len() < 4 { 1 } else { 2 };
    distances.min().filter(|(distance, _)| *distance <= most).map(|(_, key)| key)
}
