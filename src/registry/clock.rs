//! The system clock, and by how much it was stepped. The monotonic clock beside it tells how much time has really
//! passed, so that a timer of one minute takes one minute even if NTP or an operator sets the system clock meanwhile.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::units::HumanDuration;

/// Differences below this are no step: the clocks are not read at the same instant, and NTP slews the system clock.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Both clocks as they were last read.
#[derive(Debug)]
pub struct Clock {
    system: SystemTime,
    monotonic: Instant,
}

/// By how much the system clock was stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// It advanced by so much more than the time that passed.
    Forward(Duration),
    /// It advanced by so much less.
    Back(Duration),
}

impl Clock {
    /// Both clocks, read now.
    pub fn new() -> Self {
        Self { system: SystemTime::now(), monotonic: Instant::now() }
    }

    /// The system time, and the step since the last reading.
    pub fn read(&mut self) -> (SystemTime, Option<ClockStep>) {
        let (system, monotonic) = (SystemTime::now(), Instant::now());
        (system, self.step(system, monotonic))
    }

    fn step(&mut self, system: SystemTime, monotonic: Instant) -> Option<ClockStep> {
        let expected = self.system + monotonic.saturating_duration_since(self.monotonic);
        *self = Self { system, monotonic };
        let step = match system.duration_since(expected) {
            Ok(by) => ClockStep::Forward(by),
            Err(error) => ClockStep::Back(error.duration()),
        };
        let (ClockStep::Forward(by) | ClockStep::Back(by)) = step;
        (by >= TOLERANCE).then_some(step)
    }
}

impl ClockStep {
    /// Moves a point in time by the step, so that it is as far away as it was before.
    pub fn shift(self, time: &mut SystemTime) {
        let shifted = match self {
            Self::Forward(by) => time.checked_add(by),
            Self::Back(by) => time.checked_sub(by),
        };
        *time = shifted.unwrap_or(*time);
    }
}

impl fmt::Display for ClockStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(by) => write!(f, "{} forward", HumanDuration(*by)),
            Self::Back(by) => write!(f, "{} back", HumanDuration(*by)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_passes_is_no_step_and_a_step_moves_what_is_due() {
        let second = Duration::from_secs(1);
        let (system, monotonic) = (SystemTime::UNIX_EPOCH + 1_000_000 * second, Instant::now());
        let mut clock = Clock { system, monotonic };
        assert_eq!(clock.step(system + 3600 * second, monotonic + 3600 * second), None);
        assert_eq!(
            clock.step(system + 7300 * second, monotonic + 3700 * second),
            Some(ClockStep::Forward(3600 * second))
        );
        assert_eq!(clock.step(system + 7301 * second, monotonic + 3701 * second), None, "reported once");
        assert_eq!(clock.step(system, monotonic + 3702 * second), Some(ClockStep::Back(7302 * second)));
        let mut due = system;
        ClockStep::Forward(9 * second).shift(&mut due);
        ClockStep::Back(7 * second).shift(&mut due);
        assert_eq!(due, system + 2 * second);
    }
}
