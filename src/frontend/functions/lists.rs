//! Functions of lists, and `concat` and `fail`.

use std::cmp::Ordering;
use std::collections::HashSet;

use upon::{Engine, Value};

use super::numbers::Number;
use super::values::{MAX_TEXT, display, dotted, kind, to_json};

/// The most items of a list that is made of two.
const MAX_ITEMS: usize = 1_000_000;

/// Adds every function to the engine.
pub(super) fn install(engine: &mut Engine<'static>) {
    engine.add_function("first", |list: &Value| items("first", list).map(|list| list.first().cloned()));
    engine.add_function("last", |list: &Value| items("last", list).map(|list| list.last().cloned()));
    engine.add_function("reverse", |list: &Value| {
        items("reverse", list).map(|list| list.iter().rev().cloned().collect::<Vec<_>>())
    });
    engine.add_function("unique", |list: &Value| items("unique", list).map(unique));
    engine.add_function("sort", |list: &Value| items("sort", list).map(|list| sorted(list, |item| item)));
    engine.add_function("sort_by", |list: &Value, key: &str| {
        items("sort_by", list).map(|list| sorted(list, |item| dotted(item, key)))
    });
    engine.add_function("sum", |list: &Value, key: &str| sum(items("sum", list)?, key));
    engine.add_function("concat", concat);
    engine.add_function("fail", |message: &str| Err::<Value, _>(message.to_owned()));
    engine.add_function("primary_zone", primary_zone);
}

/// The items of a list; an absent value counts as an empty one.
fn items<'v>(function: &str, value: &'v Value) -> Result<&'v [Value], String> {
    match value {
        Value::List(list) => Ok(list),
        Value::None => Ok(&[]),
        other => Err(format!("`{function}` needs a list, not a {}", kind(other))),
    }
}

fn unique(list: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    list.iter().filter(|item| seen.insert(to_json(item).to_string())).cloned().collect()
}

fn sorted(list: &[Value], key: impl Fn(&Value) -> &Value) -> Vec<Value> {
    let mut sorted = list.to_vec();
    sorted.sort_by(|a, b| order(key(a), key(b)));
    sorted
}

/// Absent values first, then numbers and texts that are numbers, then other texts, then all others, which are equal.
fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match (value, Number::of(value)) {
        (Value::None, _) => 0,
        (_, Some(_)) => 1,
        (Value::String(_), None) => 2,
        _ => 3,
    };
    rank(a).cmp(&rank(b)).then_with(|| match (Number::of(a), Number::of(b), a, b) {
        (Some(Number::Whole(a)), Some(Number::Whole(b)), ..) => a.cmp(&b),
        (Some(a), Some(b), ..) => a.fraction().total_cmp(&b.fraction()),
        (_, _, Value::String(a), Value::String(b)) => a.cmp(b),
        _ => Ordering::Equal,
    })
}

fn sum(list: &[Value], key: &str) -> Result<i64, String> {
    let whole = |item: &Value| match Number::of(dotted(item, key)) {
        Some(Number::Whole(n)) => Ok(n),
        Some(Number::Fraction(_)) | None => {
            let found = display(dotted(item, key)).unwrap_or_default();
            Err(format!("`sum` needs a whole number at {key:?} of each item, and found {found:?}"))
        }
    };
    let too_large = || "`sum`: the result is too large".to_owned();
    list.iter().try_fold(0_i64, |sum, item| sum.checked_add(whole(item)?).ok_or_else(too_large))
}

/// Two lists as one, or two single values as one text.
fn concat(a: &Value, b: &Value) -> Result<Value, String> {
    if let (Value::List(a), Value::List(b)) = (a, b) {
        if a.len() + b.len() > MAX_ITEMS {
            return Err(format!("`concat` makes no list of more than {MAX_ITEMS} items"));
        }
        return Ok(Value::List(a.iter().chain(b).cloned().collect()));
    }
    let single =
        |value| display(value).map_err(|kind| format!("`concat` joins two lists or two single values, not a {kind}"));
    let (a, b) = (single(a)?, single(b)?);
    if a.len() + b.len() > MAX_TEXT {
        return Err(format!("`concat` makes no text of more than {MAX_TEXT} bytes"));
    }
    Ok(Value::String(a + &b))
}

/// Our own zone, if backends of other zones are to take traffic only where none of our own zone can (`mode` is `backup`).
/// Absent if they are like all others (`mode` is empty), if our own zone is not known, or has no backend that takes traffic.
fn primary_zone(mode: &Value, backends: &Value, own: Value) -> Result<Value, String> {
    match mode {
        Value::String(mode) if mode == "backup" => {}
        Value::String(mode) if mode.is_empty() => return Ok(Value::None),
        other => {
            let found = display(other).unwrap_or_default();
            return Err(format!("`other_zones` is {found:?}: write \"backup\", or \"\" for backends like all others"));
        }
    }
    let takes_traffic = |b: &&Value| *dotted(b, "weight") != Value::Integer(0);
    let is_ours = items("primary_zone", backends)?.iter().filter(takes_traffic).any(|b| *dotted(b, "zone") == own);
    Ok(if is_ours && own != Value::None { own } else { Value::None })
}
