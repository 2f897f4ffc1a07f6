//! Regular expressions, in the syntax of the crate regex: their time is bounded by the length of the text, and their size
//! here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};
use upon::{Engine, Value};

use super::values::{MAX_TEXT, text};

/// The most memory that one expression may take, compiled.
const MAX_COMPILED: usize = 1 << 20;

/// The most expressions that are kept: templates have few, and a template may make them of tags.
const MAX_KEPT: usize = 64;

/// Compiled expressions, as a template uses one again for each backend.
#[derive(Debug, Clone, Default)]
pub(super) struct Expressions(Arc<Mutex<HashMap<String, Regex>>>);

impl Expressions {
    /// The compiled expression.
    ///
    /// # Errors
    ///
    /// It is none, or too large.
    pub(super) fn get(&self, expression: &str) -> Result<Regex, String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = kept.get(expression) {
            return Ok(regex.clone());
        }
        let regex = RegexBuilder::new(expression).size_limit(MAX_COMPILED).build().map_err(|error| {
            // The last line says what is wrong, those before it draw where.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("{expression:?} is no regular expression: {reason}")
        })?;
        if kept.len() == MAX_KEPT {
            kept.clear();
        }
        kept.insert(expression.to_owned(), regex.clone());
        Ok(regex)
    }
}

/// Adds every function to the engine.
pub(super) fn install(engine: &mut Engine<'static>, expressions: &Expressions) {
    let known = expressions.clone();
    engine.add_function("matches", move |value: &Value, expression: &str| {
        Ok::<_, String>(known.get(expression)?.is_match(text(value)?))
    });
    let known = expressions.clone();
    engine.add_function("capture", move |value: &Value, expression: &str| {
        let regex = known.get(expression)?;
        let captures = regex.captures(text(value)?);
        // The first group that took part, or all of it if there are none.
        let group = |captures: regex::Captures<'_>| {
            let groups = captures.iter().skip(usize::from(captures.len() > 1));
            groups.flatten().next().map(|found| found.as_str().to_owned())
        };
        Ok::<_, String>(captures.and_then(group))
    });
    let known = expressions.clone();
    engine.add_function("regex_replace", move |value: &Value, expression: &str, by: String| {
        let replaced = known.get(expression)?.replace_all(text(value)?, by.as_str()).into_owned();
        if replaced.len() > MAX_TEXT {
            return Err(format!("`regex_replace` makes no text of more than {MAX_TEXT} bytes"));
        }
        Ok(replaced)
    });
}
