//! Exponential back-off and jitter.
//!
//! Jitter keeps those that failed, or started, in the same moment from trying again in the same moment. The kinds are
//! those of Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): full jitter spreads retries
//! the widest, equal jitter never waits less than half of the delay.

use std::time::Duration;

/// How a delay is drawn at random from the one that was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// The delay as it is.
    None,
    /// Uniform within so many percent (0 to 100) of the delay, to either side: for what is done at an interval.
    PlusMinus {
        /// How many percent.
        percent: u8,
    },
    /// Uniform from half of the delay to all of it.
    Equal,
    /// Uniform from `least`, or the delay itself if that is shorter, to all of the delay.
    Full {
        /// The shortest delay that chance may draw; more than zero keeps a failure from being retried in a hot loop.
        least: Duration,
    },
}

impl Jitter {
    /// Draws a delay.
    pub fn apply(self, delay: Duration) -> Duration {
        self.at(delay, fastrand::f64())
    }

    /// The delay at `chance`, from 0 for the shortest to 1 for the longest.
    fn at(self, delay: Duration, chance: f64) -> Duration {
        let (least, most) = match self {
            Self::None => (delay, delay),
            Self::PlusMinus { percent } => {
                let part = f64::from(percent.min(100)) / 100.0;
                (scaled(delay, 1.0 - part), scaled(delay, 1.0 + part))
            }
            Self::Equal => (delay / 2, delay),
            Self::Full { least } => (least.min(delay), delay),
        };
        least.saturating_add(scaled(most - least, chance)).min(most)
    }
}

/// `Duration::mul_f64` panics where the product is too large.
fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// Why there is no such back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Without a first delay, every delay is zero: failures would be retried in a hot loop.
    #[error("the first delay is zero")]
    ZeroFirst,
    /// The bounds are the wrong way round.
    #[error("the longest delay is shorter than the first one")]
    MaxBelowFirst,
    /// More jitter than delay.
    #[error("the jitter is more than 100 percent")]
    TooMuchJitter,
}

/// A jittered exponential back-off: the delay doubles with each failure in a row, up to a longest one, and is jittered
/// after that. With [`Jitter::PlusMinus`] a delay may so be longer than the longest by that jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    jitter: Jitter,
    failures: u32,
}

impl Backoff {
    /// A back-off from `first` to `max`.
    ///
    /// # Errors
    ///
    /// `first` is zero, `max` is shorter than `first`, or the jitter is more than 100 percent.
    pub const fn new(first: Duration, max: Duration, jitter: Jitter) -> Result<Self, Invalid> {
        if first.is_zero() {
            return Err(Invalid::ZeroFirst);
        }
        if max.as_nanos() < first.as_nanos() {
            return Err(Invalid::MaxBelowFirst);
        }
        if matches!(jitter, Jitter::PlusMinus { percent } if percent > 100) {
            return Err(Invalid::TooMuchJitter);
        }
        Ok(Self { first, max, jitter, failures: 0 })
    }

    /// [`new`](Self::new) for constants, whose faults then are errors of the compiler.
    ///
    /// # Panics
    ///
    /// Where `new` returns an error.
    pub const fn constant(first: Duration, max: Duration, jitter: Jitter) -> Self {
        match Self::new(first, max, jitter) {
            Ok(backoff) => backoff,
            Err(_) => panic!("the first delay must not be zero, and not be longer than the longest one"),
        }
    }

    /// The delay before the next attempt, after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// An attempt succeeded: the next delay is the first one again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many delays were taken since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The delay after so many failures before the latest one, where they are counted elsewhere.
    pub fn delay_after(&self, failures: u32) -> Duration {
        self.jitter.apply(self.base(failures))
    }

    /// The same before jitter.
    pub fn base(&self, failures: u32) -> Duration {
        // Beyond that any delay has overflowed, or has long been the longest.
        self.first.saturating_mul(1 << failures.min(31)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn jitters() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::None),
            (0u8..=100).prop_map(|percent| Jitter::PlusMinus { percent }),
            Just(Jitter::Equal),
            (0u64..10_000).prop_map(|ms| Jitter::Full { least: Duration::from_millis(ms) }),
        ]
    }

    #[test]
    fn it_doubles_to_its_longest_and_starts_again_after_a_success() {
        let mut backoff = Backoff::constant(SECOND, 60 * SECOND, Jitter::None);
        let delays: Vec<_> = (0..8).map(|_| backoff.next_delay().as_secs()).collect();
        assert_eq!((delays, backoff.failures()), (vec![1, 2, 4, 8, 16, 32, 60, 60], 8));
        backoff.reset();
        assert_eq!((backoff.next_delay(), backoff.failures()), (SECOND, 1));
        assert_eq!(backoff.delay_after(u32::MAX), 60 * SECOND);
    }

    #[test]
    fn it_is_validated_where_it_is_built() {
        assert_eq!(Backoff::new(Duration::ZERO, SECOND, Jitter::None), Err(Invalid::ZeroFirst));
        assert_eq!(Backoff::new(2 * SECOND, SECOND, Jitter::None), Err(Invalid::MaxBelowFirst));
        let jitter = Jitter::PlusMinus { percent: 101 };
        assert_eq!(Backoff::new(SECOND, SECOND, jitter), Err(Invalid::TooMuchJitter));
    }

    #[test]
    fn each_jitter_has_the_range_that_it_is_documented_to_have() {
        let range = |jitter: Jitter| (jitter.at(10 * SECOND, 0.0).as_millis(), jitter.at(10 * SECOND, 1.0).as_millis());
        assert_eq!(range(Jitter::None), (10_000, 10_000));
        assert_eq!(range(Jitter::PlusMinus { percent: 10 }), (9_000, 11_000));
        assert_eq!(range(Jitter::Equal), (5_000, 10_000));
        assert_eq!(range(Jitter::Full { least: SECOND / 5 }), (200, 10_000));
        assert_eq!(range(Jitter::Full { least: 20 * SECOND }), (10_000, 10_000));
    }

    #[test]
    fn chance_uses_all_of_the_range() {
        let drawn: Vec<_> = (0..1000).map(|_| Jitter::Full { least: Duration::ZERO }.apply(SECOND)).collect();
        let below = |bound: Duration| drawn.iter().filter(|delay| **delay < bound).count();
        assert!(below(SECOND / 10) > 20 && below(SECOND * 9 / 10) < 980, "{drawn:?}");
    }

    proptest! {
        #[test]
        fn no_delay_leaves_its_bounds(
            first in 1u64..100_000, more in 0u64..10_000_000, jitter in jitters(), failures in any::<u32>(),
        ) {
            let (first, max) = (Duration::from_millis(first), Duration::from_millis(first + more));
            let backoff = Backoff::new(first, max, jitter).expect("valid");
            let base = backoff.base(failures);
            prop_assert!(first <= base && base <= max);
            prop_assert!(base <= backoff.base(failures.saturating_add(1)));
            let delay = backoff.delay_after(failures);
            let (least, most) = match jitter {
                Jitter::None => (base, base),
                Jitter::PlusMinus { .. } => (jitter.at(base, 0.0), jitter.at(base, 1.0)),
                Jitter::Equal => (base / 2, base),
                Jitter::Full { least } => (least.min(base), base),
            };
            prop_assert!(least <= delay && delay <= most, "{least:?} <= {delay:?} <= {most:?}");
        }

        #[test]
        fn no_duration_is_too_long(secs in any::<u64>(), nanos in 0u32..1_000_000_000, jitter in jitters(), chance in 0.0..=1.0) {
            let delay = Duration::new(secs, nanos);
            let (least, most, drawn) = (jitter.at(delay, 0.0), jitter.at(delay, 1.0), jitter.at(delay, chance));
            prop_assert!(least <= drawn && drawn <= most, "{least:?} <= {drawn:?} <= {most:?}");
        }
    }
}
