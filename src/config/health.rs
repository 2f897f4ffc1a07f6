//! `[services.NAME.health]`.

use std::ops::RangeInclusive;

use hyper::http::uri::{Authority, PathAndQuery};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{FieldFault, HealthCheck, Percent, Probe};
use crate::units::{TimeSpan, duration};

/// The valid statuses (RFC 9110, section 15).
const STATUSES: RangeInclusive<u16> = 100..=599;

/// The statuses of a backend that works, unless configured: a success, or a redirect.
const GOOD: RangeInclusive<u16> = 200..=399;

/// The most successes or failures in a row that can be configured: more would be a mistake.
const MOST_IN_A_ROW: u32 = 1000;

/// How elasticd itself checks whether a backend works.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "HealthCheck")]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// `"http"`: the backend answers a `GET` in plain HTTP/1.1. `"tcp"`: it accepts a connection. TLS is not spoken.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["http", "tcp"]))]
    pub kind: String,
    /// For `http`: the path that is asked for, with its query if it has one. Left out: `/`.
    pub path: Option<String>,
    /// For `http`: the `Host` header. Left out: the address and the port that are asked.
    pub host: Option<String>,
    /// For `http`: the statuses of a backend that works, such as `204`, `"200-299"` or a list of them. Redirects
    /// are not followed. Left out: `"200-399"`.
    pub status: Option<RawStatus>,
    /// The time between the starts of two checks of one backend, ±10 % jitter: 100 ms to 1 h.
    #[serde(default = "default_interval")]
    pub interval: TimeSpan,
    /// How long one check may take in all; at most `interval`. Left out: `"2s"`, or `interval` if that is shorter.
    pub timeout: Option<TimeSpan>,
    /// How many successes in a row bring a failing backend back. A new backend needs one alone.
    #[serde(default = "default_rise")]
    #[schemars(range(min = 1, max = 1000))]
    pub rise: u32,
    /// How many failures in a row take a backend out.
    #[serde(default = "default_fall")]
    #[schemars(range(min = 1, max = 1000))]
    pub fall: u32,
    /// The port that is checked. Left out: the backend's own.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// If fewer than this part of the backends would be left, the failure is taken for the sidecar's own, and no backend is
    /// taken out.
    #[serde(default = "default_panic")]
    pub panic: Percent,
}

const DEFAULTS: HealthCheck = HealthCheck::new(Probe::Tcp);

fn default_interval() -> TimeSpan {
    TimeSpan(DEFAULTS.interval)
}

fn default_rise() -> u32 {
    DEFAULTS.rise
}

fn default_fall() -> u32 {
    DEFAULTS.fall
}

fn default_panic() -> Percent {
    DEFAULTS.panic
}

/// One status or range of them, or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Status")]
#[serde(untagged, expecting = "expected a status such as 204, a range such as \"200-299\", or a list of them")]
pub enum RawStatus {
    /// One status, or one range.
    One(RawRange),
    /// Several.
    Many(Vec<RawRange>),
}

/// One status, or a range of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Range")]
#[serde(untagged, expecting = "expected a status such as 204, or a range such as \"200-299\"")]
pub enum RawRange {
    /// A status, 100 to 599.
    Number(u16),
    /// A range, such as `200-299`.
    Text(String),
}

impl Raw {
    /// The valid check.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(self) -> Result<HealthCheck, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let (interval, rise, fall) = (self.interval.0, self.rise, self.fall);
        let (shortest, longest) = (HealthCheck::INTERVALS.start(), HealthCheck::INTERVALS.end());
        if !HealthCheck::INTERVALS.contains(&interval) {
            let message = format!("{} is not from {} to {}", self.interval, duration(*shortest), duration(*longest));
            faults.push(FieldFault::new("interval", message));
        }
        let timeout = self.timeout.map_or(DEFAULTS.timeout.min(interval), Into::into);
        if timeout.is_zero() || timeout > interval {
            let message = format!("{} is not from 1ms to the interval, which is {}", duration(timeout), self.interval);
            faults.push(FieldFault::new("timeout", message));
        }
        for (key, number) in [("rise", rise), ("fall", fall)] {
            if !(1..=MOST_IN_A_ROW).contains(&number) {
                faults.push(FieldFault::new(key, format!("{number} is not from 1 to {MOST_IN_A_ROW}")));
            }
        }
        if self.port == Some(0) {
            let message = "0 is not a port: use 1 to 65535, or leave it out for the backend's own";
            faults.push(FieldFault::new("port", message));
        }
        let (port, panic) = (self.port, self.panic);
        let probe = self.probe(&mut faults);
        match probe {
            Some(probe) if faults.is_empty() => Ok(HealthCheck { probe, interval, timeout, rise, fall, port, panic }),
            _ => Err(faults),
        }
    }

    fn probe(self, faults: &mut Vec<FieldFault>) -> Option<Probe> {
        match self.kind.as_str() {
            "http" => Some(Probe::Http {
                path: path(self.path, faults),
                host: self.host.map(|host| checked_host(host, faults)),
                status: statuses(self.status, faults),
            }),
            "tcp" => {
                let keys =
                    [("path", self.path.is_some()), ("host", self.host.is_some()), ("status", self.status.is_some())];
                let foreign = keys.into_iter().filter(|(_, written)| *written);
                faults.extend(foreign.map(|(key, _)| FieldFault::new(key, "it is for type = \"http\"; leave it out")));
                Some(Probe::Tcp)
            }
            "https" => {
                let remedy = "ask in plain \"http\" (at another `port`, if need be), or only connect with \"tcp\"";
                faults.push(FieldFault::new("type", format!("health checks do not speak TLS; {remedy}")));
                None
            }
            other => {
                faults.push(FieldFault::new(
                    "type",
                    format!("{other:?} is not a type of health check; known: \"http\", \"tcp\""),
                ));
                None
            }
        }
    }
}

/// Visible ASCII alone: anything else could end the line of the request that contains it.
fn is_visible(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

fn path(path: Option<String>, faults: &mut Vec<FieldFault>) -> String {
    let path = path.unwrap_or_else(|| "/".to_owned());
    let valid =
        path.starts_with('/') && is_visible(&path) && !path.contains('#') && path.parse::<PathAndQuery>().is_ok();
    if !valid {
        faults.push(FieldFault::new("path", format!(
            "{path:?} is not a path such as \"/healthz\": it begins with \"/\", and has neither spaces nor \"#\" nor \
             anything outside ASCII (write those as %20 and the like)"
        )));
    }
    path
}

fn checked_host(host: String, faults: &mut Vec<FieldFault>) -> String {
    let valid = is_visible(&host) && !host.contains('@') && host.parse::<Authority>().is_ok();
    if !valid {
        faults.push(FieldFault::new(
            "host",
            format!("{host:?} is not a host such as \"www.example.com\" or \"www.example.com:8080\""),
        ));
    }
    host
}

fn statuses(raw: Option<RawStatus>, faults: &mut Vec<FieldFault>) -> Vec<RangeInclusive<u16>> {
    let ranges = match raw {
        None => return vec![GOOD],
        Some(RawStatus::One(range)) => vec![range],
        Some(RawStatus::Many(ranges)) => ranges,
    };
    if ranges.is_empty() {
        faults.push(FieldFault::new("status", "it is an empty list, which no answer could ever match"));
    }
    ranges.iter().filter_map(|range| statuses_of(range).map_err(|fault| faults.push(fault)).ok()).collect()
}

fn statuses_of(raw: &RawRange) -> Result<RangeInclusive<u16>, FieldFault> {
    let read = |text: &str| text.trim().parse::<u16>().ok();
    let (written, ends) = match raw {
        RawRange::Number(status) => (status.to_string(), Some((*status, *status))),
        RawRange::Text(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            (format!("{text:?}"), read(first).zip(read(last)))
        }
    };
    ends.filter(|(first, last)| first <= last && STATUSES.contains(first) && STATUSES.contains(last))
        .map(|(first, last)| first..=last)
        .ok_or_else(|| {
            let message = format!("{written} is not a status from 100 to 599, nor a range such as \"200-299\"");
            FieldFault::new("status", message)
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn resolve(json: &str) -> Result<HealthCheck, Vec<String>> {
        serde_json::from_str::<Raw>(json)
            .expect("a raw check")
            .resolve()
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn http(status: Vec<RangeInclusive<u16>>) -> Probe {
        Probe::Http { path: "/".to_owned(), host: None, status }
    }

    #[test]
    fn a_type_alone_means_the_defaults() {
        assert_eq!(resolve(r#"{"type": "tcp"}"#), Ok(HealthCheck::new(Probe::Tcp)));
        assert_eq!(resolve(r#"{"type": "http"}"#), Ok(HealthCheck::new(http(vec![200..=399]))));
        assert!(serde_json::from_str::<Raw>("{}").is_err(), "a type is wanted");
    }

    #[test]
    fn everything_written_holds() {
        let check = resolve(
            r#"{"type": "http", "path": "/healthz?deep=1", "host": "www.example.com:8080", "status": [204, "300-399"],
                "interval": "1m", "timeout": "500ms", "rise": 1, "fall": 5, "port": 9000, "panic": "20%"}"#,
        );
        let probe = Probe::Http {
            path: "/healthz?deep=1".to_owned(),
            host: Some("www.example.com:8080".to_owned()),
            status: vec![204..=204, 300..=399],
        };
        let expected = HealthCheck {
            probe,
            interval: Duration::from_secs(60),
            timeout: Duration::from_millis(500),
            rise: 1,
            fall: 5,
            port: Some(9000),
            panic: Percent(20),
        };
        assert_eq!(check, Ok(expected));
    }

    #[test]
    fn statuses_are_written_as_people_write_them() {
        for (written, expected) in [
            ("200", vec![200..=200]),
            (r#""200""#, vec![200..=200]),
            (r#""200-299""#, vec![200..=299]),
            (r#"[200, "300 - 399"]"#, vec![200..=200, 300..=399]),
        ] {
            let check = resolve(&format!(r#"{{"type": "http", "status": {written}}}"#));
            assert_eq!(check.map(|check| check.probe), Ok(http(expected)), "{written}");
        }
        for written in ["99", "600", r#""""#, r#""2xx""#, r#""299-200""#, r#""200-""#, r#""-299""#, r#""1-600""#, "[]"]
        {
            let faults = resolve(&format!(r#"{{"type": "http", "status": {written}}}"#)).expect_err(written);
            assert!(faults.len() == 1 && faults[0].starts_with("status: "), "{written}: {faults:?}");
        }
    }

    #[test]
    fn a_short_interval_shortens_the_timeout_that_is_not_written() {
        let check = resolve(r#"{"type": "tcp", "interval": "1s"}"#).expect("valid");
        assert_eq!(check.timeout, Duration::from_secs(1));
    }

    #[test]
    fn nothing_can_be_slipped_into_the_request() {
        for bad in ["", "healthz", "/a b", "/a\\r\\nX: y", "/a\\n", "/\\u00e4", "/a#b", "/\\u0000", "/\\u007f"] {
            let faults = resolve(&format!(r#"{{"type": "http", "path": "{bad}"}}"#)).expect_err(bad);
            assert!(faults.len() == 1 && faults[0].starts_with("path: "), "{bad}: {faults:?}");
        }
        for bad in ["", "a b", "a\\r\\nX: y", "\\u00e4", "a/b", "me@a", "a?b", "a\\u0000", "http://a"] {
            let faults = resolve(&format!(r#"{{"type": "http", "host": "{bad}"}}"#)).expect_err(bad);
            assert!(faults.len() == 1 && faults[0].starts_with("host: "), "{bad}: {faults:?}");
        }
    }

    #[test]
    fn all_faults_are_reported_each_with_its_key() {
        let keys = |json: &str| -> Vec<String> {
            let faults = resolve(json).expect_err("faulty");
            faults.iter().filter_map(|fault| fault.split(':').next().map(str::to_owned)).collect()
        };
        let faulty = r#"{"type": "http", "path": "x", "host": " ", "status": [99, "x"], "interval": "2h", "timeout": "0s", "rise": 0,
                         "fall": 1001, "port": 0}"#;
        let expected = ["interval", "timeout", "rise", "fall", "port", "path", "host", "status", "status"];
        assert_eq!(keys(faulty), expected);
        let foreign = r#"{"type": "tcp", "path": "/", "host": "a", "status": 200, "interval": "1s", "timeout": "2s"}"#;
        assert_eq!(keys(foreign), ["timeout", "path", "host", "status"]);
        assert_eq!(keys(r#"{"type": "https", "interval": "1ms"}"#), ["interval", "type"]);
        assert_eq!(keys(r#"{"type": "icmp"}"#), ["type"]);
        for unknown in [r#"{"type": "tcp", "retries": 3}"#, r#"{"type": "tcp", "panic": "half"}"#] {
            assert!(serde_json::from_str::<Raw>(unknown).is_err(), "{unknown}");
        }
    }
}
