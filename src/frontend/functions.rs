//! The functions that templates can call, as filters (`{{ b.zone | default: "none" }}`) or directly.
//!
//! `docs/reference/templates.md` describes each, with an example that a test runs.

pub mod identifiers;
mod lists;
mod numbers;
mod parameters;
mod regexes;
pub mod server_ids;
mod values;

use std::collections::BTreeMap;

use upon::{Engine, Value};
pub(super) use values::{Map, from_json, to_json};
use values::{display, dotted, kind, text};

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
    engine.add_function("kind", kind);
    identifiers::install(engine);
    server_ids::install(engine);
    lists::install(engine);
    numbers::install(engine);
    let expressions = regexes::Expressions::default();
    regexes::install(engine, &expressions);
    parameters::install(engine, &expressions);
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
mod tests;
