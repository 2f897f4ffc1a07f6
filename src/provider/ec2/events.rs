//! Changes told by AWS: EventBridge puts EC2's and Auto Scaling's events into an SQS queue, and each is a reason to
//! poll now rather than at the next interval.
//!
//! A message is a hint and nothing else: what runs is only ever taken from EC2 itself. So a queue that is lost, or lies,
//! costs latency, or a poll in vain, and never correctness.
//!
//! `DescribeInstances` is eventually consistent (EC2 API reference, "Eventual consistency"), and an event may be told
//! before it shows there. So a hint leads to two polls: one at once, and one five seconds later.

mod config;
mod error;
mod message;
mod queue;

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use crate::sys::backoff::{Backoff, Jitter};

pub use self::config::{Config, Raw};
pub use self::error::Error;
pub(super) use self::queue::Queue;

/// The shortest time from the beginning of one poll to that of the next, if an event asks for it: a deployment tells
/// hundreds of them in a few seconds.
const MIN_GAP: Duration = Duration::from_secs(1);

/// How long after a poll that an event asked for another one follows, should the first have been too early. One: what
/// shows later still is left to the interval.
const FOLLOW_UP: Duration = Duration::from_secs(5);

/// The shortest time from a poll that failed to one that an event asks for. It doubles with each failure, up to sixteen
/// times, as the poll loop's own pauses do when it is throttled at the default interval.
const FAILED_GAP: Backoff = Backoff::constant(Duration::from_secs(30), Duration::from_secs(480), Jitter::None);

/// When events ask for a poll.
///
/// No task of its own: the queue is read while [`changed`](Self::changed) is waited for, and what was begun goes on the
/// next time, if that was given up. It ends with the value.
#[derive(Debug)]
pub(super) struct Events {
    /// The read under way. It comes back with the queue, and whether there was an event.
    step: ReusableBoxFuture<'static, (Queue, bool)>,
    pace: PollSchedule,
}

impl Events {
    /// Nothing is read before it is waited for.
    pub fn new(queue: Queue) -> Self {
        Self { step: ReusableBoxFuture::new(queue.step()), pace: PollSchedule::default() }
    }

    /// A poll begins now: it serves all events told so far.
    pub fn poll_begins(&mut self) {
        self.pace.begins(Instant::now());
    }

    /// The poll brought the whole set. One that is given up is one that failed.
    pub const fn poll_succeeded(&mut self) {
        self.pace.failures = 0;
    }

    /// Returns when an event asks for a poll.
    pub async fn changed(&mut self) {
        loop {
            let due = self.pace.due();
            if due.is_some_and(|due| due <= Instant::now()) {
                return;
            }
            let read = poll_fn(|context| self.step.poll(context));
            tokio::select! {
                (queue, is_event) = read => {
                    self.pace.is_told |= is_event;
                    self.step.set(queue.step());
                }
                () = sleep_until(due) => return,
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// When the next poll is due for an event.
#[derive(Debug, Default)]
struct PollSchedule {
    /// An event was told since the last poll began.
    is_told: bool,
    follow_up: Option<Instant>,
    /// When the last poll began.
    polled: Option<Instant>,
    /// Polls that failed since one succeeded, counting the one under way.
    failures: u32,
}

impl PollSchedule {
    fn begins(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_told) {
            self.follow_up = Some(now + FOLLOW_UP);
        } else if self.follow_up.is_some_and(|due| due <= now) {
            self.follow_up = None;
        }
        self.polled = Some(now);
        self.failures = self.failures.saturating_add(1);
    }

    /// `None`: no event asks for one.
    fn due(&self) -> Option<Instant> {
        let wanted = if self.is_told { self.polled } else { self.follow_up };
        let polled = self.polled?;
        let gap = match self.failures {
            0 => MIN_GAP,
            failures => FAILED_GAP.delay_after(failures - 1),
        };
        wanted.map(|wanted| wanted.max(polled + gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In seconds after `start`.
    fn due(pace: &PollSchedule, start: Instant) -> Option<u64> {
        pace.due().map(|due| (due - start).as_secs())
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_event_leads_to_a_poll_and_to_one_more() {
        let start = Instant::now();
        let mut pace = PollSchedule::default();
        pace.begins(start);
        pace.failures = 0;
        assert_eq!(due(&pace, start), None, "nothing was told");
        pace.is_told = true;
        assert_eq!(due(&pace, start), Some(1), "not before the shortest gap, and long past after an interval");
        pace.begins(at(start, 100));
        pace.failures = 0;
        assert_eq!(due(&pace, start), Some(105), "EC2 may not have shown it yet");
        // A poll in between, for another reason, is too early to stand in for it.
        pace.begins(at(start, 102));
        pace.failures = 0;
        assert_eq!(due(&pace, start), Some(105));
        pace.begins(at(start, 105));
        pace.failures = 0;
        assert_eq!(due(&pace, start), None, "there is no third");
    }

    #[test]
    fn an_event_during_a_poll_asks_for_another() {
        let start = Instant::now();
        let mut pace = PollSchedule { is_told: true, ..PollSchedule::default() };
        pace.begins(start);
        pace.is_told = true;
        pace.failures = 0;
        assert_eq!(due(&pace, start), Some(1));
    }

    #[test]
    fn events_do_not_undo_the_back_off() {
        let start = Instant::now();
        let mut pace = PollSchedule::default();
        let gaps: Vec<_> = (0..7)
            .map(|n| {
                // Each poll fails, or is given up, and events go on being told.
                pace.begins(at(start, n * 1000));
                pace.is_told = true;
                due(&pace, start).map(|due| due - n * 1000)
            })
            .collect();
        assert_eq!(gaps, [30, 60, 120, 240, 480, 480, 480].map(Some));
        pace.failures = 0;
        assert_eq!(due(&pace, start), Some(6001), "a success ends it");
    }
}
