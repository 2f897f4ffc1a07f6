//! The wall clock, and by how much somebody sets it. Time that has passed is told by the steady clock beside it: what
//! is due in a minute is due in a minute, whatever NTP or a person does to the wall clock meanwhile.

use std::time::{Duration, Instant, SystemTime};

/// What is not yet a step, but how exactly two clocks are read and one of them is slewed.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Both clocks as they were looked at last.
#[derive(Debug)]
pub struct Clock {
    wall: SystemTime,
    steady: Instant,
}

/// By how much the wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It shows more than the time that has passed.
    Forward(Duration),
    /// It shows less.
    Back(Duration),
}

impl Clock {
    /// From now on.
    pub fn new() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// The wall clock's time, and its step since the last look.
    pub fn look(&mut self) -> (SystemTime, Option<Step>) {
        let (wall, steady) = (SystemTime::now(), Instant::now());
        (wall, self.step(wall, steady))
    }

    fn step(&mut self, wall: SystemTime, steady: Instant) -> Option<Step> {
        let expected = self.wall + steady.saturating_duration_since(self.steady);
        *self = Self { wall, steady };
        let step = match wall.duration_since(expected) {
            Ok(by) => Step::Forward(by),
            Err(error) => Step::Back(error.duration()),
        };
        let (Step::Forward(by) | Step::Back(by)) = step;
        (by >= TOLERANCE).then_some(step)
    }
}

impl Step {
    /// Where a point in time lies on the clock as it was set.
    pub fn shift(self, time: &mut SystemTime) {
        let shifted = match self {
            Self::Forward(by) => time.checked_add(by),
            Self::Back(by) => time.checked_sub(by),
        };
        *time = shifted.unwrap_or(*time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_passes_is_no_step_and_a_step_moves_what_is_due() {
        let second = Duration::from_secs(1);
        let (wall, steady) = (SystemTime::UNIX_EPOCH + 1_000_000 * second, Instant::now());
        let mut clock = Clock { wall, steady };
        assert_eq!(clock.step(wall + 3600 * second, steady + 3600 * second), None);
        assert_eq!(clock.step(wall + 7300 * second, steady + 3700 * second), Some(Step::Forward(3600 * second)));
        assert_eq!(clock.step(wall + 7301 * second, steady + 3701 * second), None, "told once");
        assert_eq!(clock.step(wall, steady + 3702 * second), Some(Step::Back(7302 * second)));
        let mut due = wall;
        Step::Forward(9 * second).shift(&mut due);
        Step::Back(7 * second).shift(&mut due);
        assert_eq!(due, wall + 2 * second);
    }
}
