//! Events of changes: EventBridge puts EC2's and Auto Scaling's events into an SQS queue, and each is a reason to
//! poll now rather than at the next interval.
//!
//! A message is a hint and nothing else: what runs is only ever taken from EC2 itself. So a queue that is lost, or lies,
//! costs latency, or a poll in vain, and never correctness.
//!
//! `DescribeInstances` is eventually consistent (EC2 API reference, "Eventual consistency"), and an event may arrive
//! before the change shows there. So a hint leads to two polls: one at once, and one five seconds later.

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

/// The shortest time from the beginning of one poll to that of the next, if an event asks for it: a deployment causes
/// hundreds of them in a few seconds.
const MIN_GAP: Duration = Duration::from_secs(1);

/// How long after a poll that an event caused a second one follows, should the first have been too early. What shows
/// later still is found at the interval.
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
    schedule: EventSchedule,
}

impl Events {
    /// Nothing is read before it is waited for.
    pub fn new(queue: Queue) -> Self {
        Self { step: ReusableBoxFuture::new(queue.step()), schedule: EventSchedule::default() }
    }

    /// A poll begins now: it serves all events that arrived so far.
    pub fn poll_begins(&mut self) {
        self.schedule.begins(Instant::now());
    }

    /// The poll succeeded. One that is given up counts as failed.
    pub const fn poll_succeeded(&mut self) {
        self.schedule.failures = 0;
    }

    /// Returns when an event asks for a poll.
    pub async fn changed(&mut self) {
        loop {
            let due = self.schedule.due();
            if due.is_some_and(|due| due <= Instant::now()) {
                return;
            }
            let read = poll_fn(|context| self.step.poll(context));
            tokio::select! {
                (queue, is_event) = read => {
                    self.schedule.has_event |= is_event;
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
struct EventSchedule {
    /// An event arrived since the last poll began.
    has_event: bool,
    follow_up: Option<Instant>,
    /// When the last poll began.
    polled: Option<Instant>,
    /// Polls that failed since one succeeded, counting the one under way.
    failures: u32,
}

impl EventSchedule {
    fn begins(&mut self, now: Instant) {
        if std::mem::take(&mut self.has_event) {
            self.follow_up = Some(now + FOLLOW_UP);
        } else if self.follow_up.is_some_and(|due| due <= now) {
            self.follow_up = None;
        }
        self.polled = Some(now);
        self.failures = self.failures.saturating_add(1);
    }

    /// `None`: no event asks for one.
    fn due(&self) -> Option<Instant> {
        let wanted = if self.has_event { self.polled } else { self.follow_up };
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
    fn due(schedule: &EventSchedule, start: Instant) -> Option<u64> {
        schedule.due().map(|due| (due - start).as_secs())
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_event_leads_to_a_poll_and_to_one_more() {
        let start = Instant::now();
        let mut schedule = EventSchedule::default();
        schedule.begins(start);
        schedule.failures = 0;
        assert_eq!(due(&schedule, start), None, "there was no event");
        schedule.has_event = true;
        assert_eq!(due(&schedule, start), Some(1), "not before the shortest gap, and long past after an interval");
        schedule.begins(at(start, 100));
        schedule.failures = 0;
        assert_eq!(due(&schedule, start), Some(105), "EC2 may not have shown it yet");
        // A poll in between, for another reason, is too early to stand in for it.
        schedule.begins(at(start, 102));
        schedule.failures = 0;
        assert_eq!(due(&schedule, start), Some(105));
        schedule.begins(at(start, 105));
        schedule.failures = 0;
        assert_eq!(due(&schedule, start), None, "there is no third");
    }

    #[test]
    fn an_event_during_a_poll_asks_for_another() {
        let start = Instant::now();
        let mut schedule = EventSchedule { has_event: true, ..EventSchedule::default() };
        schedule.begins(start);
        schedule.has_event = true;
        schedule.failures = 0;
        assert_eq!(due(&schedule, start), Some(1));
    }

    #[test]
    fn events_do_not_undo_the_back_off() {
        let start = Instant::now();
        let mut schedule = EventSchedule::default();
        let gaps: Vec<_> = (0..7)
            .map(|n| {
                // Each poll fails, or is given up, and events go on arriving.
                schedule.begins(at(start, n * 1000));
                schedule.has_event = true;
                due(&schedule, start).map(|due| due - n * 1000)
            })
            .collect();
        assert_eq!(gaps, [30, 60, 120, 240, 480, 480, 480].map(Some));
        schedule.failures = 0;
        assert_eq!(due(&schedule, start), Some(6001), "a success ends it");
    }
}
