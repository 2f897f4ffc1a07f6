//! The wording of faults that reading finds: what is wrong, and what to write instead.

use std::ops::Range;

use figment::error::{Actual, Kind};
use figment::value::Value;

use super::keys::{SECTIONS, keys_of, most_similar};
use super::top::raw::RawTop;

/// What is wrong with the key at `path` below `place`, where `found` is. `more` are keys that are known at `place` beside
/// those that `kind` names.
pub fn explain(kind: &Kind, place: &[String], path: &[String], found: Option<&Value>, more: &[&str]) -> String {
    match kind {
        Kind::UnknownField(name, known) => {
            let top: &[&str] = if place.is_empty() { SECTIONS } else { &[] };
            let known = if path.len() == 1 { [*known, more, top].concat() } else { known.to_vec() };
            unknown_key(name, place, path, found, &known)
        }
        Kind::MissingField(name) => format!("the key {name} is missing"),
        Kind::InvalidType(actual, expected) => wrong_type(actual, expected, place, path),
        other => other.to_string(),
    }
}

fn unknown_key(name: &str, place: &[String], path: &[String], found: Option<&Value>, known: &[&str]) -> String {
    if known.is_empty() {
        return "unknown key; none is expected here".to_owned();
    }
    let similar = most_similar(name, known);
    if let (true, Some(Value::Dict(_, tables))) = (place.is_empty() && path.len() == 1, found) {
        let inner = tables.iter().find(|(_, value)| matches!(value, Value::Dict(..))).map(|(name, _)| name.as_str());
        if let Some(section) = similar {
            let inner = inner.map(|inner| format!(".{inner}")).unwrap_or_default();
            return format!("unknown section: did you mean [{section}{inner}]?");
        }
        return format!("unknown section; the sections are {}", SECTIONS.join(", "));
    }
    let is_top = keys_of::<RawTop>().iter().any(|key| key == name);
    if !place.is_empty() && is_top && !SECTIONS.contains(&name) {
        return format!("unknown key here: `{name}` belongs at the top, before the first [section]");
    }
    let keys = known.join(", ");
    match similar {
        Some(similar) => format!("unknown key: did you mean `{similar}`? The keys here are {keys}"),
        None => format!("unknown key; the keys here are {keys}"),
    }
}

fn wrong_type(actual: &Actual, expected: &str, place: &[String], path: &[String]) -> String {
    let key = path.last().map(String::as_str).unwrap_or_default();
    let is_frontend = place.first().is_some_and(|section| section == "frontends") && path.len() == 1;
    let expected = match (expected, key, actual) {
        (_, "output", Actual::Seq) if is_frontend => {
            let name = place.last().map(String::as_str).unwrap_or_default();
            return format!("one path in quotes is expected; for several outputs write [[frontends.{name}.outputs]]");
        }
        (_, "services", Actual::Map) if is_frontend => {
            return format!(
                "a list of names is expected, such as [\"web\"]; what holds for one service alone is written as \
                 [{}.service.NAME]",
                place.join(".")
            );
        }
        (_, "service", _) if is_frontend => {
            return format!(
                "tables such as [{}.service.web] are expected, of what holds for one service alone; names are listed as \
                 services = [\"web\"]",
                place.join(".")
            );
        }
        ("a map", "select" | "where", _) => "conditions such as { Role = \"web\" }".to_owned(),
        ("a map", ..) => "a table".to_owned(),
        (expected, ..) if expected.starts_with("struct") => "a table".to_owned(),
        ("a string" | "path string" | "str" | "string", ..) => match actual {
            Actual::Unsigned(number) => format!("a text: write \"{number}\", in quotes"),
            Actual::Signed(number) => format!("a text: write \"{number}\", in quotes"),
            _ => "a text in quotes".to_owned(),
        },
        ("a sequence", ..) => "a list, such as [\"…\", \"…\"]".to_owned(),
        ("a boolean", ..) => "true or false".to_owned(),
        ("u16", ..) => "a number from 0 to 65535".to_owned(),
        ("u32" | "u64" | "usize", ..) => "a whole number that is not negative".to_owned(),
        ("i64" | "i32", ..) => "a whole number".to_owned(),
        (other, ..) => other.to_owned(),
    };
    let found = match actual {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(number) => format!("the number {number}"),
        Actual::Signed(number) => format!("the number {number}"),
        Actual::Float(number) => format!("the number {number}"),
        // The text may be a secret in the wrong place.
        Actual::Str(_) | Actual::Char(_) => "a text".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        _ => "something else".to_owned(),
    };
    format!("found {found}, expected {expected}")
}

/// Where a file is no TOML, and why. The line itself is not repeated, as the parser would: it may hold a secret.
pub fn not_toml(text: &str, at: Option<Range<usize>>, why: &str) -> String {
    let before = at.and_then(|at| text.get(..at.start)).unwrap_or_default();
    let (line, last) = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default());
    let why = why.trim_end().replace('\n', ", ");
    let hint = match () {
        () if why.contains("literal string") => ": a text that begins with ' ends with ' on the same line",
        () if why.contains("basic string") => ": a text that begins with \" ends with \" on the same line",
        () => "",
    };
    format!("is not TOML: line {line} column {}: {why}{hint}", last.chars().count() + 1)
}
