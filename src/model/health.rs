//! How a service's backends are asked whether they are well.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Percent;

/// How often a backend is asked, how, and what follows from its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Between the starts of two probes of one backend: 100 ms to 1 h, ±10 % jitter.
    pub interval: Duration,
    /// How long one probe may take in all; at most `interval`.
    pub timeout: Duration,
    /// How many successes in a row bring a failing backend back; at least 1. A backend that is new needs one alone, as
    /// in Envoy, where the first answer to a new host decides (Envoy API reference, `HealthCheck.healthy_threshold`).
    pub rise: u32,
    /// How many failures in a row take a backend out; at least 1.
    pub fall: u32,
    /// The port that is asked, if not the backend's own.
    pub port: Option<u16>,
    /// If fewer than this share of the backends would be left, that is taken for the sidecar's own fault, and nobody is
    /// taken out. However small it is, the last one never is.
    pub panic: Percent,
}

impl HealthCheck {
    /// The shortest and the longest `interval`.
    pub const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);

    /// This probe with the defaults: every 5 s, for at most 2 s; 2 successes, 3 failures; 50%.
    pub const fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            port: None,
            panic: Percent(50),
        }
    }
}

/// What is asked of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// That it accepts a connection.
    Tcp,
    /// That it answers a `GET` in plain HTTP/1.1. A redirect is an answer, and is not followed.
    Http {
        /// The path, with its query if it has one; it begins with `/`.
        path: String,
        /// The `Host` header, if not the address and the port that are asked.
        host: Option<String>,
        /// The statuses of which the answer must have one, 100 to 599.
        status: Vec<RangeInclusive<u16>>,
    },
}
