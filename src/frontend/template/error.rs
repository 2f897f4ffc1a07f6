//! What is wrong with a template, and where.

use std::fmt;

/// Why a template cannot be used, or could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no template.
    #[error("{0}")]
    Compile(Fault),
    /// It names what is not there, or gives a function what it cannot take.
    #[error("{0}")]
    Render(Fault),
    /// The same, found by rendering what was made up for it.
    #[error("{fault} (seen with {with})")]
    Trial {
        /// What is wrong.
        fault: Fault,
        /// With what it was rendered.
        with: &'static str,
    },
}

/// One fault of a template. Shown as `nginx/upstreams.conf line 3 column 8: what is wrong, and what to write instead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The template's name.
    pub name: String,
    /// The line and the column (in characters), both from 1, if the fault lies anywhere in particular.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
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
    /// A fault at a byte of the template's text.
    pub(super) fn at(name: &str, text: &str, offset: usize, reason: impl Into<String>) -> Self {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let place = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        Self { name: name.to_owned(), place: Some(place), reason: reason.into() }
    }

    /// Puts the engine's error into one line.
    ///
    /// The engine counts some columns by display width and others by bytes, and so points beside the fault if the text
    /// holds anything but printable ASCII. `retry` is then asked what it says of a twin of the text, equal in bytes.
    pub(super) fn locate(
        name: &str,
        text: &str,
        error: &upon::Error,
        retry: impl FnOnce(&str) -> Option<upon::Error>,
    ) -> Self {
        let (place, reason) = parse(error);
        let twin = twin(text);
        let place = if twin == text {
            place
        } else {
            retry(&twin).map(|error| parse(&error)).filter(|(_, again)| *again == reason).and_then(|(place, _)| place)
        };
        match place.and_then(|place| offset(text, place)) {
            Some(at) => Self::at(name, text, at, explain(&reason, text, at)),
            None => Self { name: name.to_owned(), place: None, reason },
        }
    }
}

/// The same bytes for the engine's eye, each printed one column wide.
fn twin(text: &str) -> String {
    let mut twin = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | ' '..='~' => twin.push(c),
            c if c.is_ascii() => twin.push(' '),
            c => (0..c.len_utf8()).for_each(|_| twin.push('x')),
        }
    }
    twin
}

/// Takes line, column and reason from the engine's report: it has no other way to tell them.
fn parse(error: &upon::Error) -> (Option<(usize, usize)>, String) {
    let report = format!("{error:#}");
    let line = |mark: &str| report.lines().find_map(|line| line.trim_start().strip_prefix(mark));
    let place = line("--> ").and_then(|place| {
        let mut parts = place.rsplitn(3, ':');
        let (column, line) = (parts.next()?, parts.next()?);
        Some((line.parse().ok()?, column.parse().ok()?))
    });
    let reason = line("= reason: ").map(str::to_owned).unwrap_or_else(|| {
        let short = error.to_string();
        short.split_once(": ").map_or(short.as_str(), |(_, reason)| reason).to_owned()
    });
    (place, reason)
}

/// The byte at a line and a column, the column counted in bytes.
fn offset(text: &str, (line, column): (usize, usize)) -> Option<usize> {
    let line_start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let at = line_start + column.checked_sub(1)?;
    text.is_char_boundary(at).then_some(at)
}

const BACKEND: &[&str] = &["id", "address", "port", "zone", "weight", "state", "tags"];
const SERVICE: &[&str] = &["name", "revision", "backends"];
const TOP: &[&str] = &["services", "revision", "vars"];
const LOOP: &[&str] = &["index", "first", "last"];

/// Says what there is instead, where the engine says that something is not.
fn explain(reason: &str, text: &str, at: usize) -> String {
    if reason.starts_with("unexpected end ") {
        // The engine takes any two closing braces for its own, outside of its tags too.
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
        // The engine gives up on a loop's variable where `?.` finds nothing in it, and blames the variable.
        return format!("`{whole}` finds nothing, and `?.` is no help with a loop's variable: {GET}");
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
        ["vars", _] => format!("set `{field}` among the frontend's vars, or write `vars?.{field}`"),
        ["loop", _] => list("a loop has", LOOP),
        [_] => list("at the top there are", TOP) + "; what a loop or `with` names is known only inside it",
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
