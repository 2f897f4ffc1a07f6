//! Parameters of one server, from the configuration and from its tags.
//!
//! A table such as `{ max_conns = 100, backup = { tag = "Backup" } }` gives each parameter a value, or the tag that holds it.
//! What comes from a tag must have a form that the template knows of the parameter: a frontend refuses its whole
//! configuration for one value that it cannot read.

use upon::{Engine, Value};

use super::regexes::Expressions;
use super::values::{display, dotted, kind};

/// The form of a parameter that is either there or not.
const FLAG: &str = "flag";

/// The form of the value of a tag where the template knows none of the parameter.
const WORD: &str = "[A-Za-z0-9._:/%+-]{1,255}";

/// Adds `parameters` to the engine.
pub(super) fn install(engine: &mut Engine<'static>, expressions: &Expressions) {
    let expressions = expressions.clone();
    engine.add_function("parameters", move |backend: &Value, wanted: &Value, forms: Value| {
        parameters(backend, wanted, &forms, &expressions)
    });
}

/// A list of `{name, value, is_flag}`; a flag has no value.
fn parameters(backend: &Value, wanted: &Value, forms: &Value, expressions: &Expressions) -> Result<Vec<Value>, String> {
    let Value::Map(forms) = forms else {
        return Err(format!("`parameters` needs a map of the parameters' forms, not a {}", kind(forms)));
    };
    let wanted = match wanted {
        // The operator's own words, as they are.
        Value::String(text) if text.is_empty() => return Ok(Vec::new()),
        Value::String(text) => return Ok(vec![parameter(text, Value::None, true)]),
        Value::None => return Ok(Vec::new()),
        Value::Map(wanted) => wanted,
        other => return Err(format!("parameters are a text or a table, not a {}", kind(other))),
    };
    let each = wanted.iter().map(|(name, value)| {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) {
            return Err(format!("{name:?} is no name of a parameter"));
        }
        let form = match forms.get(name) {
            Some(Value::String(form)) => Some(form.as_str()),
            _ => None,
        };
        Ok(found(name, value, backend)?.map(|found| found.check(name, form, expressions)).transpose()?.flatten())
    });
    each.filter_map(Result::transpose).collect()
}

fn parameter(name: &str, value: Value, is_flag: bool) -> Value {
    Value::from([("name", Value::from(name)), ("value", value), ("is_flag", Value::Bool(is_flag))])
}

/// The value of a parameter.
struct Found<'v> {
    value: &'v Value,
    /// The tag that holds it.
    tag: Option<&'v str>,
}

/// The value that the configuration gives a parameter, or the backend's tag. `None`: it has none.
fn found<'v>(name: &str, value: &'v Value, backend: &'v Value) -> Result<Option<Found<'v>>, String> {
    let Value::Map(rule) = value else { return Ok(Some(Found { value, tag: None })) };
    let unknown = rule.keys().find(|key| !matches!(key.as_str(), "tag" | "default"));
    let (Some(Value::String(tag)), None) = (rule.get("tag"), unknown) else {
        return Err(format!("parameter {name}: write {{ tag = \"KEY\" }}, or {{ tag = \"KEY\", default = … }}"));
    };
    // A spare server is of no backend yet.
    let held = match dotted(backend, "tags") {
        Value::Map(tags) => tags.get(tag),
        _ => None,
    };
    Ok(match held {
        Some(value) => Some(Found { value, tag: Some(tag) }),
        None => rule.get("default").map(|value| Found { value, tag: None }),
    })
}

impl Found<'_> {
    /// The parameter to be written. `None`: it is a flag that is not set.
    fn check(&self, name: &str, form: Option<&str>, expressions: &Expressions) -> Result<Option<Value>, String> {
        let from = self.tag.map(|tag| format!(" (tag {tag})")).unwrap_or_default();
        let text = display(self.value).map_err(|kind| format!("parameter {name}{from} is a {kind}"))?;
        if form == Some(FLAG) || matches!(self.value, Value::Bool(_)) {
            return match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok(Some(parameter(name, Value::None, true))),
                "false" | "no" | "off" | "0" | "" => Ok(None),
                _ => Err(format!("parameter {name}{from} is {text:?}: write \"true\" or \"false\"")),
            };
        }
        // What the operator writes is only checked where it is known what must be written.
        let form = form.or_else(|| self.tag.map(|_| WORD));
        if let Some(form) = form
            && !expressions.get(&format!("^(?:{form})$"))?.is_match(&text)
        {
            return Err(format!("parameter {name}{from} is {text:?}: it must have the form {form}"));
        }
        Ok(Some(parameter(name, Value::String(text), false)))
    }
}
