//! Values of the template engine.

use std::collections::BTreeMap;

use upon::Value;

pub(in crate::frontend) type Map = BTreeMap<String, Value>;

/// The value as JSON. A float that JSON cannot write (NaN, infinity) becomes `null`.
pub(in crate::frontend) fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::None => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Integer(n) => (*n).into(),
        Value::Float(n) => (*n).into(),
        Value::String(s) => s.as_str().into(),
        Value::List(list) => list.iter().map(to_json).collect(),
        Value::Map(map) => map.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
    }
}

/// The inverse of [`to_json`]. An integer outside `i64` becomes a float.
pub(in crate::frontend) fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n.as_i64().map_or_else(|| n.as_f64().into(), Value::Integer),
        Json::String(s) => Value::String(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(from_json).collect()),
        Json::Object(map) => Value::Map(map.iter().map(|(key, value)| (key.clone(), from_json(value))).collect()),
    }
}

/// The value at a dotted key in nested maps. A key that itself contains dots, such as that of a tag, is found too.
pub(super) fn dotted<'a>(value: &'a Value, key: &str) -> &'a Value {
    let Value::Map(map) = value else { return &Value::None };
    map.get(key)
        .or_else(|| key.split_once('.').and_then(|(first, rest)| map.get(first).map(|inner| dotted(inner, rest))))
        .unwrap_or(&Value::None)
}

pub(super) fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::None => Ok(""),
        Value::String(text) => Ok(text),
        other => Err(format!("a text is needed here, not a {}", kind(other))),
    }
}

/// A single value as text. The error is the kind of a list or map.
pub(super) fn display(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::None => Ok(String::new()),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Float(n) => Ok(n.to_string()),
        Value::String(s) => Ok(s.clone()),
        Value::List(_) | Value::Map(_) => Err(kind(value)),
    }
}

/// The longest text that a function makes of others, in bytes.
pub(super) const MAX_TEXT: usize = 1 << 20;

pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::None => "none",
        Value::Bool(_) => "bool",
        Value::Integer(_) | Value::Float(_) => "number",
        Value::String(_) => "text",
        Value::List(_) => "list",
        Value::Map(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_both_ways() {
        let json = serde_json::json!({"a": [1, -2.5, true, null, "x"], "b": {}});
        assert_eq!(to_json(&from_json(&json)), json);
    }
}
