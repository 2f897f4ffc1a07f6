//! Faults of templates, and their places.

use std::fmt;

use super::source::Source;

/// Why a template cannot be compiled or rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a valid template.
    #[error("{0}")]
    Compile(Fault),
    /// It uses a value that does not exist, or calls a function with a wrong argument.
    #[error("{0}")]
    Render(Fault),
    /// The same fault, found by rendering the template with sample data.
    #[error("{fault} (found with {with})")]
    Trial {
        /// The fault.
        fault: Fault,
        /// The sample data, in words.
        with: &'static str,
    },
}

/// A fault of a template, displayed as `nginx/upstreams.conf line 3 column 8: there is no `b.adress`: write `address`?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The template's name.
    pub name: String,
    /// The line and the column (in characters), both counted from 1, if the place is known.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some((line, column)) = self.place {
            write!(f, " line {line} column {column}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl Fault {
    /// A fault at a byte offset of the template's text.
    pub(in crate::frontend) fn at(name: &str, text: &str, offset: usize, reason: impl Into<String>) -> Self {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let place = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        Self { name: name.to_owned(), place: Some(place), reason: reason.into() }
    }

    /// The fault that an error of the engine reports of a template or of what it includes.
    ///
    /// The engine counts some columns by display width and others by bytes, so its columns are wrong if the text contains
    /// anything but printable ASCII. `retry` then makes the engine report the error of ASCII copies of the same length.
    pub(super) fn locate(
        source: &Source,
        error: &upon::Error,
        retry: impl FnOnce(&Source) -> Option<upon::Error>,
    ) -> Self {
        let (place, reason) = parse(error);
        let includes = source.includes.iter().map(|(name, text)| (name.clone(), ascii_copy(text))).collect();
        let copy = Source { name: source.name.clone(), text: ascii_copy(&source.text), includes };
        let place = if copy == *source {
            place
        } else {
            retry(&copy).map(|error| parse(&error)).filter(|(_, again)| *again == reason).and_then(|(place, _)| place)
        };
        let found = place.and_then(|place| {
            let text = source.text_of(&place.name);
            Some((offset(text, (place.line, place.column))?, text, place.name))
        });
        match found {
            Some((at, text, name)) => Self::at(&name, text, at, explain(&reason, text, at)),
            None => Self { name: source.name.clone(), place: None, reason },
        }
    }
}

/// A text of the same length in bytes in which each byte is one column wide, and that is the same to the engine.
fn ascii_copy(text: &str) -> String {
    let mut copy = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | ' '..='~' => copy.push(c),
            c if c.is_ascii() => copy.push(' '),
            c => (0..c.len_utf8()).for_each(|_| copy.push('x')),
        }
    }
    copy
}

/// Where the engine found an error.
struct Place {
    /// The template's name, or that of what it includes.
    name: String,
    line: usize,
    column: usize,
}

/// Place and reason, from the engine's report, the only place that has them.
fn parse(error: &upon::Error) -> (Option<Place>, String) {
    let report = format!("{error:#}");
    let line = |mark: &str| report.lines().find_map(|line| line.trim_start().strip_prefix(mark));
    let place = line("--> ").and_then(|place| {
        let mut parts = place.rsplitn(3, ':');
        let (column, line, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Place { name: name.to_owned(), line: line.parse().ok()?, column: column.parse().ok()? })
    });
    let reason = line("= reason: ").map(str::to_owned).unwrap_or_else(|| {
        let short = error.to_string();
        short.split_once(": ").map_or(short.as_str(), |(_, reason)| reason).to_owned()
    });
    (place, reason)
}

/// The byte offset of a line and a column, with the column counted in bytes.
fn offset(text: &str, (line, column): (usize, usize)) -> Option<usize> {
    let line_start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let at = line_start + column.checked_sub(1)?;
    text.is_char_boundary(at).then_some(at)
}

const BACKEND: &[&str] = &["id", "address", "port", "zone", "weight", "state", "tags"];
const SERVICE: &[&str] = &["name", "revision", "backends", "vars"];
const TOP: &[&str] = &["services", "revision", "vars", "own", "frontend"];
const LOOP: &[&str] = &["index", "first", "last"];

/// Adds what exists instead, if the engine reports that something does not.
fn explain(reason: &str, text: &str, at: usize) -> String {
    if reason.starts_with("unexpected end ") {
        // The engine takes any two closing braces for its own, even outside its tags.
        return format!("{reason}; if these braces are the frontend's own, put a space between them");
    }
    if reason != "not found in map" && reason != "not found in this scope" {
        return reason.to_owned();
    }
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '?');
    let start = text[..at].rfind(|c| !part(c)).map_or(0, |i| i + text[i..].chars().next().map_or(0, char::len_utf8));
    let whole = &text[start..];
    let whole = &whole[..whole.find(|c| !part(c)).unwrap_or(whole.len())];
    if reason == "not found in this scope" && whole.contains('?') {
        // If `?.` finds nothing in a loop's variable, the engine reports the variable itself as missing.
        return format!("`{whole}` finds nothing, and `?.` does not work with a loop's variable: {GET}");
    }
    let member = text[at..].trim_start_matches(['.', '?']);
    let member_start = text.len() - member.len();
    let end = member.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(member.len());
    let (path, field) = (&text[start..member_start + end], &member[..end]);
    format!("there is no `{path}`: {}", remedy(path, field))
}

const GET: &str = "write `tags | get: \"KEY\", \"default\"` instead";

fn remedy(path: &str, field: &str) -> String {
    let parents: Vec<_> = path.split(['.', '?']).filter(|part| !part.is_empty()).collect();
    match parents.as_slice() {
        [.., "tags", _] => format!("not every backend has that tag; {GET}"),
        ["vars", _] | [_, "vars", _] => format!("set `{field}` among the frontend's vars, or write `vars?.{field}`"),
        ["loop", _] => list("a loop has", LOOP),
        [_] => list("at the top level there are", TOP) + "; names from a loop or `with` exist only inside it",
        _ => {
            let known: Vec<_> = BACKEND.iter().chain(SERVICE).copied().collect();
            match similar::get_close_matches(field, &known, 1, 0.6).as_slice() {
                [close, ..] => format!("write `{close}`?"),
                [] => format!("{}; {}", list("a backend has", BACKEND), list("a service has", SERVICE)),
            }
        }
    }
}

fn list(lead: &str, names: &[&str]) -> String {
    format!("{lead} {}", names.join(", "))
}
