//! The functions that templates can call, as filters (`{{ b.zone | default: "none" }}`) or directly.
//!
//! | function | result |
//! | --- | --- |
//! | `map \| get: "key", default` | the map's value at the key, or the default; for keys that are not identifiers |
//! | `value \| default: other` | the value, or the other if the value is absent or an empty text |
//! | `backend \| hostport` | `address:port`, an IPv6 address in brackets |
//! | `address \| bracket` | the address, in brackets if it is an IPv6 address |
//! | `list \| join: ", "` | the items as one text |
//! | `text \| split: ","` | the list of its parts |
//! | `text \| lower`, `upper` | the text in that case |
//! | `text \| replace: "from", "to"` | the text with every occurrence replaced |
//! | `value \| length` | the number of items of a list or map, or of characters of a text |
//! | `value \| is_empty` | whether the value is absent or of length 0 |
//! | `a \| eq: b`, `a \| ne: b` | whether the two are equal, or not |
//! | `value \| contains: part` | whether a list contains the item, a map the key, or a text the part |
//! | `text \| starts_with: "x"` | whether the text starts with `x` |
//! | `list \| group_by: "key"` | a map from each value of that (dotted) key to the list of its items |
//! | `list \| pad: n` | the list, filled up to `n` items with absent ones; a longer list is returned unchanged |
//! | `list \| where: "key", value` | the items with that value of the (dotted) key |
//! | `list \| without: "key", value` | the items with any other value of it |
//! | `list \| max: "key"` | the largest integer that the items have at that (dotted) key; 0 if no item has one |
//! | `n \| scale: most, limit` | the number itself if `most` is at most `limit`, otherwise `n * limit / most` with two decimal places, at least 1 |
//!
//! Functions that make identifiers for some frontends are in [`identifiers`], numbers for HAProxy's servers in
//! [`server_ids`].
//!
//! Where a text is expected, an absent value counts as an empty one. Two formatters can end an expression: `json` writes
//! a complete JSON literal, escaped for its place like any value; `raw` writes the value without escaping, and must not be
//! used for anything that comes from tags.

pub mod identifiers;
pub mod server_ids;
mod values;

use std::collections::BTreeMap;

use upon::{Engine, Value};
use values::{Map, display, dotted, kind, text};
pub(super) use values::{from_json, to_json};

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
    server_ids::install(engine);
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
    /// More than the servers of any frontend; bounds the memory that a typo in a template can take.
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

#[expect(clippy::cast_precision_loss, reason = "weights are small")]
fn scale(n: i64, most: i64, limit: i64) -> Value {
    if most <= limit {
        return Value::Integer(n);
    }
    let share = n as f64 * limit as f64 / most as f64;
    Value::Float(((share * 100.0).round() / 100.0).max(1.0))
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
    fn functions_do_what_the_table_says() {
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
    fn wrong_arguments_are_explained() {
        assert!(render("{{ text | hostport }}").contains("expects map argument"));
        assert!(render("{{ four.tags | hostport }}").contains("needs a backend"));
        assert!(render("{{ list | lower }}").contains("not a list"));
        assert!(render("{{ list }}").contains("use a loop, `join` or `json`"));
    }
}
