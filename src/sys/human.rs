//! Values in the form that people write.

use std::fmt::{self, Display};
use std::time::Duration;

use jiff::fmt::friendly::SpanPrinter;

/// A duration as the configuration writes it: `1m 30s`, `250ms`. Anything below a microsecond is left out, and from ten
/// seconds on anything below a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(duration) = *self;
        let shown = match duration.as_secs() {
            0..10 => Duration::new(duration.as_secs(), duration.subsec_micros() * 1000),
            seconds => Duration::from_secs(seconds),
        };
        f.write_str(&SpanPrinter::new().unsigned_duration_to_string(&shown))
    }
}

/// The first `max` of these, separated by commas, and how many more there are.
pub fn list<T: Display>(items: impl IntoIterator<Item = T>, max: usize) -> String {
    let mut items = items.into_iter();
    let text = items.by_ref().take(max).map(|item| item.to_string()).collect::<Vec<_>>().join(", ");
    match items.count() {
        0 => text,
        more => format!("{text} and {more} more"),
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

    #[test]
    fn a_list_names_some_and_counts_the_rest() {
        assert_eq!(list(["a", "b"], 2), "a, b");
        assert_eq!(list(["a", "b", "c", "d"], 2), "a, b and 2 more");
    }
}
