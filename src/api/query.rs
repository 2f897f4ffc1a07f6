//! A request's query: which keys it may have, and their values.

use std::borrow::Cow;
use std::time::Duration;

use jiff::SignedDuration;
use percent_encoding::percent_decode_str;
use schemars::{Schema, json_schema};

use super::error::{Problem, echo};

/// The longest time a request may wait for a change.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(300);

/// Keys that a resource takes at most.
const MAX_KEYS: usize = 3;

/// A query key that a resource takes.
#[derive(Debug)]
pub(super) struct Parameter {
    /// The key.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) description: &'static str,
    /// Its JSON Schema.
    pub(super) schema: fn() -> Schema,
}

/// The representation.
pub(super) const FORMAT: Parameter = Parameter {
    name: "format",
    description: "The representation.",
    schema: || json_schema!({ "type": "string", "enum": ["json", "text"] }),
};

/// How long to wait for a change.
pub(super) const WAIT: Parameter = Parameter {
    name: "wait",
    description: "How long to wait for a revision other than `revision`, up to 5m. Without `revision`: for any.",
    schema: || brief_wait("Up to 5m."),
};

/// The revision that the client has.
pub(super) const REVISION: Parameter = Parameter {
    name: "revision",
    description: "The revision that the client has: if there is no other after `wait`, the answer is 304.",
    schema: || json_schema!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
};

/// What a backend is picked by.
pub(super) const KEY: Parameter = Parameter {
    name: "key",
    description: "The same key is given the same backend by every sidecar, as long as that backend exists.",
    schema: || json_schema!({ "type": "string" }),
};

/// Which backends are preferred.
pub(super) const ZONE: Parameter = Parameter {
    name: "zone",
    description: "Backends in this zone are preferred.",
    schema: || json_schema!({ "type": "string" }),
};

/// The schema of a time to wait.
pub(super) fn brief_wait(description: &str) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^[0-9]{1,2}(ms|s)$",
        "description": description,
        "example": "55s",
    })
}

/// A query whose keys are known and given once.
#[derive(Debug)]
pub(super) struct Query<'a> {
    allowed: &'static [Parameter],
    /// The value of each key allowed, in their order.
    values: [Option<Cow<'a, str>>; MAX_KEYS],
}

impl<'a> Query<'a> {
    /// Takes the query apart. Keys without a value have the empty one. Up to [`MAX_KEYS`] keys can be `allowed`.
    pub(super) fn new(query: &'a str, allowed: &'static [Parameter]) -> Result<Self, Problem> {
        let mut values = [const { None }; MAX_KEYS];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decoded(key);
            let Some((known, found)) = allowed.iter().zip(&mut values).find(|(allowed, _)| allowed.name == key) else {
                let allowed = allowed.iter().map(|allowed| allowed.name).collect();
                return Err(Problem::UnknownKey { key: echo(&key), allowed });
            };
            if found.replace(decoded(value)).is_some() {
                return Err(Problem::RepeatedKey { key: known.name });
            }
        }
        Ok(Self { allowed, values })
    }

    /// A key's value.
    pub(super) fn get(&self, key: &str) -> Option<&Cow<'a, str>> {
        self.allowed.iter().zip(&self.values).find(|(allowed, _)| allowed.name == key)?.1.as_ref()
    }

    /// A key's value, turned into what it means.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        parse(value).map(Some).ok_or_else(|| Problem::BadValue { key, value: echo(value), expected })
    }

    /// `format`; JSON if it is not given.
    pub(super) fn format(&self) -> Result<Format, Problem> {
        let format = self.parsed("format", "json or text", |text| match text {
            "json" => Some(Format::Json),
            "text" => Some(Format::Text),
            _ => None,
        })?;
        Ok(format.unwrap_or(Format::Json))
    }

    /// `wait` and `revision`: how long to wait until the revision is another one. Without `wait`, no time; without
    /// `revision`, until there is any.
    pub(super) fn wait(&self) -> Result<Option<Wait>, Problem> {
        let revision = self.parsed("revision", "a revision, such as 7", |text| text.parse().ok())?;
        let bound = self.parsed("wait", "a time of up to 5m, such as 55s", duration)?;
        let is_given = bound.is_some() || revision.is_some();
        Ok(is_given.then(|| Wait { bound: bound.unwrap_or_default(), revision }))
    }
}

/// The representation asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON.
    Json,
    /// One `ip:port` a line.
    Text,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// How long at most.
    pub(super) bound: Duration,
    /// The revision that the client has. `None`: it has none.
    pub(super) revision: Option<u64>,
}

/// A time of up to [`MAX_WAIT`].
pub(super) fn duration(text: &str) -> Option<Duration> {
    let duration = Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()?;
    (duration <= MAX_WAIT).then_some(duration)
}

/// Percent-decodes. A `%` without two hexadecimal digits stays as it is, and so does a text that would not be UTF-8.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(query: &str) -> Result<Option<Wait>, String> {
        Query::new(query, &[WAIT, REVISION]).and_then(|query| query.wait()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn copies_only_what_is_encoded() {
        assert!(matches!(decoded("web"), Cow::Borrowed("web")));
        assert_eq!(decoded("w%65b%20"), "web ");
        for text in ["%", "50%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(text), text);
        }
    }

    #[test]
    fn a_wait_has_a_bound_and_a_revision() {
        let some = |seconds, revision| Ok(Some(Wait { bound: Duration::from_secs(seconds), revision }));
        assert_eq!(wait(""), Ok(None));
        assert_eq!(wait("wait=55s&revision=7"), some(55, Some(7)));
        assert_eq!(wait("wait=5m&revision=18446744073709551615"), some(300, Some(u64::MAX)));
        assert_eq!(wait("wait=55s"), some(55, None));
        assert_eq!(wait("revision=7"), some(0, Some(7)));
        for (query, problem) in [
            ("wait=6m", "invalid value \"6m\" of query key \"wait\": use a time of up to 5m, such as 55s"),
            ("wait=-1s", "invalid value \"-1s\" of query key \"wait\": use a time of up to 5m, such as 55s"),
            ("revision=-1", "invalid value \"-1\" of query key \"revision\": use a revision, such as 7"),
        ] {
            assert_eq!(wait(query), Err(problem.to_owned()));
        }
    }
}
