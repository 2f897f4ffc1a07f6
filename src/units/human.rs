//! Durations in messages, rounded.

use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::SpanPrinter;

/// Prints a duration for a message: `1m 30s`, `250ms`. Anything below a microsecond is left out, and from ten seconds on
/// anything below a second; [`duration`](super::duration) prints all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(duration) = *self;
        let shown = match duration.as_secs() {
            0..10 => Duration::new(duration.as_secs(), duration.subsec_micros() * 1000),
            seconds => Duration::from_secs(seconds),
        };
        f.write_str(&SpanPrinter::new().unsigned_duration_to_string(&shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (milliseconds, expected) in [
            (0, "0s"),
            (250, "250ms"),
            (1500, "1s 500ms"),
            (10_250, "10s"),
            (90_000, "1m 30s"),
            (3_600_000, "1h"),
            (90_000_000, "25h"),
        ] {
            assert_eq!(HumanDuration(Duration::from_millis(milliseconds)).to_string(), expected);
        }
        assert_eq!(HumanDuration(Duration::from_nanos(1_234_567)).to_string(), "1ms 234µs");
    }
}
