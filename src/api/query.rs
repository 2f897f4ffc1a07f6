//! A request's query: what keys it may have, and what they hold.

use std::time::Duration;

use jiff::SignedDuration;

use super::error::{Problem, echo};

/// The longest time a request may wait for a change.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(300);

/// A query whose keys are known and stand once.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Takes the query apart. Keys without a value have the empty one.
    pub(super) fn new(query: &str, allowed: &'static [&'static str]) -> Result<Self, Problem> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // What does not decode stays as it is, and is then refused.
            let decoded = |text: &str| decode(text).unwrap_or_else(|| text.to_owned());
            let (key, value) = (decoded(key), decoded(value));
            let Some(key) = allowed.iter().find(|allowed| **allowed == key) else {
                return Err(Problem::UnknownKey { key: echo(&key), allowed });
            };
            if found.get(key).is_some() {
                return Err(Problem::RepeatedKey { key });
            }
            found.0.push((key, value));
        }
        Ok(found)
    }

    /// A key's value.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == key).map(|(_, value)| value.as_str())
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

    /// `wait` and `revision`: how long to wait until the revision is another one. Without `wait`, no time; without
    /// `revision`, until there is any.
    pub(super) fn wait(&self) -> Result<Option<Wait>, Problem> {
        let revision = self.parsed("revision", "a revision, such as 7", |text| text.parse().ok())?;
        let bound = self.parsed("wait", "a time of up to 5m, such as 55s", duration)?;
        let is_given = bound.is_some() || revision.is_some();
        Ok(is_given.then(|| Wait { bound: bound.unwrap_or_default(), revision }))
    }
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

/// Percent-decodes. `None`: a `%` without two hexadecimal digits, or no UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(bytes.next()?)? * 16 + hex(bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(query: &str) -> Result<Option<Wait>, String> {
        Query::new(query, &["wait", "revision"]).and_then(|query| query.wait()).map_err(|problem| problem.to_string())
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
            ("wait=6m", "the query key \"wait\" does not take \"6m\": use a time of up to 5m, such as 55s"),
            ("wait=-1s", "the query key \"wait\" does not take \"-1s\": use a time of up to 5m, such as 55s"),
            ("revision=-1", "the query key \"revision\" does not take \"-1\": use a revision, such as 7"),
        ] {
            assert_eq!(wait(query), Err(problem.to_owned()));
        }
    }
}
