//! The functions templates may call, as filters (`{{ b.zone | default: "none" }}`) or directly.
//!
//! | function | gives |
//! | --- | --- |
//! | `map \| get: "key", default` | the map's value, or the default; for keys that are no identifiers |
//! | `value \| default: other` | the value, or the other where it is absent or the empty text |
//! | `backend \| hostport` | `address:port`, an IPv6 address in brackets |
//! | `address \| bracket` | the address, in brackets if it is an IPv6 one |
//! | `list \| join: ", "` | the items as one text |
//! | `text \| split: ","` | the list of its parts |
//! | `text \| lower`, `upper` | the text in that case |
//! | `text \| replace: "from", "to"` | the text with every occurrence replaced |
//! | `value \| length` | how many items a list or map has, or characters a text |
//! | `value \| is_empty` | whether it is absent, or of length 0 |
//! | `a \| eq: b`, `a \| ne: b` | whether they are the same, or not |
//! | `value \| contains: part` | whether a list has the item, a map the key, a text the part |
//! | `text \| starts_with: "x"` | whether it does |
//! | `list \| group_by: "key"` | a map from each value of that (dotted) key to the list of its items |
//! | `list \| pad: n` | the list, made `n` items long with absent ones; one that is longer stays as it is |
//! | `list \| where: "key", value` | the items with that value of the (dotted) key |
//! | `list \| without: "key", value` | the items with another one |
//! | `list \| max: "key"` | the largest whole number that the items have at that (dotted) key; 0 if none has one |
//! | `n \| scale: most, limit` | the number itself if `most` is within `limit`, else its share `n * limit / most`, at least 1 |
//!
//! Names as some frontends want them are in [`identifiers`].
//!
//! Where a text is expected, an absent value counts as the empty one. Two formatters end an expression: `json` writes
//! a complete JSON literal, escaped for its place like any value; `raw` writes the value as it is: only for what no
//! tag can reach.

pub mod identifiers;

use std::collections::BTreeMap;

use upon::{Engine, Value};

type Map = BTreeMap<String, Value>;

/// Adds every function to the engine.
pub(super) fn install(engine: &mut Engine<'static>) {
    engine.add_function("get", get);
    engine.add_function("default", default);
    engine.add_function("hostport", hostport);
    engine.add_function("bracket", bracket);
    engine.add_function("join", join);
    engine.add_function("split", split);
    engine.add_function("lower", |v: &Value| text(v).map(str::to_lowercase));
    engine.add_function("upper", |v: &Value| text(v).map(str::to_uppercase));
    engine.add_function("replace", |v: &Value, from: &str, to: String| text(v).map(|t| t.replace(from, &to)));
    engine.add_function("length", |v: &Value| length(v));
    engine.add_function("is_empty", |v: &Value| length(v).map(|n| n == 0));
    engine.add_function("eq", |a: &Value, b: &Value| a == b);
    engine.add_function("ne", |a: &Value, b: &Value| a != b);
    engine.add_function("contains", contains);
    engine.add_function("starts_with", |v: &Value, start: &str| text(v).map(|t| t.starts_with(start)));
    engine.add_function("group_by", group_by);
    engine.add_function("pad", pad);
    engine.add_function("where", |list: &[Value], key: &str, value: Value| filter(list, key, &value, true));
    engine.add_function("without", |list: &[Value], key: &str, value: Value| filter(list, key, &value, false));
    engine.add_function("max", max);
    engine.add_function("scale", scale);
    identifiers::install(engine);
}

/// The value as JSON. A float that JSON cannot write (NaN, infinity) becomes `null`.
pub(super) fn to_json(value: &Value) -> serde_json::Value {
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

/// The inverse of [`to_json`]. A number outside `i64` becomes a float.
pub(super) fn from_json(value: &serde_json::Value) -> Value {
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

fn get(map: &Map, key: &str, default: Value) -> Value {
    map.get(key).cloned().unwrap_or(default)
}

fn default(value: &Value, default: Value) -> Value {
    match value {
        Value::None => default,
        Value::String(s) if s.is_empty() => default,
        value => value.clone(),
    }
}

fn hostport(backend: &Map) -> Result<String, String> {
    match (backend.get("address"), backend.get("port")) {
        (Some(Value::String(address)), Some(Value::Integer(port))) => Ok(format!("{}:{port}", bracket(address))),
        _ => Err("`hostport` needs a backend, with its `address` and `port`: write `{{ b | hostport }}`".to_owned()),
    }
}

fn bracket(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn join(list: &[Value], separator: &str) -> Result<String, String> {
    let items: Result<Vec<_>, _> = list.iter().map(display).collect();
    items.map(|items| items.join(separator)).map_err(|kind| format!("`join` cannot join a list that holds a {kind}"))
}

fn split(value: &Value, separator: &str) -> Result<Vec<String>, String> {
    if separator.is_empty() {
        return Err("`split` needs a separator that is not empty".to_owned());
    }
    let whole = text(value)?;
    Ok(if whole.is_empty() { Vec::new() } else { whole.split(separator).map(str::to_owned).collect() })
}

fn length(value: &Value) -> Result<i64, String> {
    let length = match value {
        Value::None => 0,
        Value::String(s) => s.chars().count(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("a {} has no length: give it a list, a map or a text", kind(other))),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}

fn contains(value: &Value, part: &Value) -> Result<bool, String> {
    match (value, part) {
        (Value::List(list), part) => Ok(list.contains(part)),
        (Value::Map(map), Value::String(key)) => Ok(map.contains_key(key)),
        (Value::None, _) => Ok(false),
        (Value::String(whole), Value::String(part)) => Ok(whole.contains(part)),
        (value, part) => Err(format!("`contains` cannot look for a {} in a {}", kind(part), kind(value))),
    }
}

fn group_by(list: &[Value], key: &str) -> Result<Map, String> {
    let mut groups = BTreeMap::<String, Vec<Value>>::new();
    for item in list {
        let group = display(dotted(item, key)).map_err(|kind| format!("`group_by` cannot group by a {kind}"))?;
        groups.entry(group).or_default().push(item.clone());
    }
    Ok(groups.into_iter().map(|(group, items)| (group, Value::List(items))).collect())
}

fn pad(list: &[Value], length: i64) -> Result<Vec<Value>, String> {
    /// More than any frontend has servers; a slip of the thread must not cost all memory.
    const LONGEST: i64 = 100_000;
    let length = usize::try_from(length.min(LONGEST)).map_err(|_| format!("`pad` cannot make {length} items"))?;
    Ok(list.iter().cloned().chain(std::iter::repeat(Value::None)).take(length.max(list.len())).collect())
}

fn filter(list: &[Value], key: &str, value: &Value, equal: bool) -> Vec<Value> {
    list.iter().filter(|item| (dotted(item, key) == value) == equal).cloned().collect()
}

fn max(list: &[Value], key: &str) -> i64 {
    let number = |item| if let Value::Integer(n) = dotted(item, key) { Some(*n) } else { None };
    list.iter().filter_map(number).max().unwrap_or(0)
}

/// To two decimal places.
#[expect(clippy::cast_precision_loss, reason = "weights are small")]
fn scale(n: i64, most: i64, limit: i64) -> Value {
    if most <= limit {
        return Value::Integer(n);
    }
    let share = n as f64 * limit as f64 / most as f64;
    Value::Float(((share * 100.0).round() / 100.0).max(1.0))
}

/// Follows a dotted key into nested maps. A key that itself holds dots (a tag's) is found whole.
fn dotted<'a>(value: &'a Value, key: &str) -> &'a Value {
    let Value::Map(map) = value else { return &Value::None };
    map.get(key)
        .or_else(|| key.split_once('.').and_then(|(first, rest)| map.get(first).map(|inner| dotted(inner, rest))))
        .unwrap_or(&Value::None)
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::None => Ok(""),
        Value::String(text) => Ok(text),
        other => Err(format!("a text is needed here, not a {}", kind(other))),
    }
}

/// A single value as text; the kind of one that is not single.
fn display(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::None => Ok(String::new()),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Float(n) => Ok(n.to_string()),
        Value::String(s) => Ok(s.clone()),
        Value::List(_) | Value::Map(_) => Err(kind(value)),
    }
}

const fn kind(value: &Value) -> &'static str {
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
    use crate::frontend::escape::Escape;

    fn render(template: &str) -> String {
        let mut engine = Engine::new();
        install(&mut engine);
        Escape::None.install(&mut engine, template);
        let four = upon::value! { address: "10.0.0.1", port: 80, zone: "a", tags: { a: "1" } };
        let six = upon::value! { address: "2001:db8::1", port: 81, zone: (), tags: { a: "2" } };
        let context = upon::value! { list: ["x", "y"], text: "Ab, cd", none: (), four: four, six: six };
        engine.add_template("t", template.to_owned()).expect("it compiles");
        engine.template("t").render(context).to_string().unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn each_does_what_its_line_says() {
        for (template, expected) in [
            (r#"{{ four.tags | get: "a", "-" }}{{ four.tags | get: "x:y", "-" }}"#, "1-"),
            (r#"{{ four.zone | default: "?" }}{{ none | default: "?" }}{{ "" | default: 1 }}"#, "a?1"),
            ("{{ four | hostport }} {{ six | hostport }}", "10.0.0.1:80 [2001:db8::1]:81"),
            ("{{ four.address | bracket }} {{ six.address | bracket }}", "10.0.0.1 [2001:db8::1]"),
            (r#"{{ list | join: "-" }}{{ text | split: ", " | join: "|" }}"#, "x-yAb|cd"),
            ("{{ text | lower }}{{ text | upper }}{{ none | lower }}", "ab, cdAB, CD"),
            (r#"{{ text | replace: ", ", "" }}"#, "Abcd"),
            ("{{ list | length }}{{ text | length }}{{ none | length }}", "260"),
            ("{{ list | is_empty }} {{ none | is_empty }}", "false true"),
            (r#"{{ four.port | eq: 80 }} {{ four.zone | ne: "a" }}"#, "true false"),
            (
                r#"{{ list | contains: "x" }} {{ four.tags | contains: "b" }} {{ text | contains: "b," }}"#,
                "true false true",
            ),
            (r#"{{ text | starts_with: "Ab" }}"#, "true"),
            (r#"{% for z, l in [four, six] | group_by: "tags.a" %}{{ z }}:{{ l | length }} {% endfor %}"#, "1:1 2:1 "),
            ("{% for x in list | pad: 3 %}<{{ x }}>{% endfor %}{{ list | pad: 1 | length }}", "<x><y><>2"),
            (r#"{% for b in [four, six] | where: "tags.a", "2" %}{{ b.port }}{% endfor %}"#, "81"),
            (r#"{% for b in [four, six] | without: "tags.a", "2" %}{{ b.port }}{% endfor %}"#, "80"),
            (r#"{{ [four, six] | max: "port" }}{{ [four] | max: "zone" }}"#, "810"),
            ("{{ 7 | scale: 100, 100 }} {{ 100 | scale: 256, 100 }} {{ 256 | scale: 256, 100 }}", "7 39.06 100"),
            ("{{ 1 | scale: 256, 100 }}", "1"),
            ("{{ four.tags | json }}{{ none | json }}", r#"{"a":"1"}null"#),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn a_wrong_use_is_explained() {
        assert!(render("{{ text | hostport }}").contains("expects map argument"));
        assert!(render("{{ four.tags | hostport }}").contains("needs a backend"));
        assert!(render("{{ list | lower }}").contains("not a list"));
        assert!(render("{{ list }}").contains("use a loop, `join` or `json`"));
    }

    /// All services and backends of VCL share one namespace, in which letters have no case.

    #[test]
    fn json_goes_both_ways() {
        let json = serde_json::json!({"a": [1, -2.5, true, null, "x"], "b": {}});
        assert_eq!(to_json(&from_json(&json)), json);
    }
}
