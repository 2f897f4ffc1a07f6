//! The rules of leading: pure, with the time as an argument.

use std::time::{Duration, Instant};

use crate::provider::nats::format::Leader;

/// The time limits of leading, each by the clock of the process that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `leader_ttl`: within this time after a leader has failed another one leads.
    pub bound: Duration,
}

impl Rules {
    /// Between two renewals, and between two reads of the leader key.
    pub fn tick(self) -> Duration {
        self.bound / 10
    }

    /// How long a leader goes on without a renewal.
    pub fn hold(self) -> Duration {
        self.bound * 4 / 10
    }

    /// After how long without a renewal another publisher takes over. Longer than [`hold`](Self::hold), so that two that lead
    /// at a time are the exception that the fence is for; and short enough for looks, takeover and first poll to fit
    /// into the bound.
    pub fn silence(self) -> Duration {
        self.bound * 6 / 10
    }
}

/// What the leader key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its revision; 0 if there never was one.
    pub revision: u64,
    /// Its value; none if there is none, or it was deleted.
    pub leader: Option<Leader>,
}

/// What a follower is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read the key again after a tick.
    Wait,
    /// Replace this revision.
    Take {
        /// The revision that was read.
        expected: u64,
    },
}

/// A publisher that does not lead.
#[derive(Debug, Clone)]
pub struct Follower {
    rules: Rules,
    own: String,
    seen: Option<(u64, Instant)>,
}

impl Follower {
    /// A follower that has not read the key yet. `own` is its id.
    pub const fn new(rules: Rules, own: String) -> Self {
        Self { rules, own, seen: None }
    }

    /// What to do about what the leader key holds at `now`.
    pub fn check(&mut self, found: &Found, now: Instant) -> Step {
        let take = Step::Take { expected: found.revision };
        // Our own lead, which the connection was lost for, need not be waited out.
        if found.leader.as_ref().is_none_or(|leader| leader.released || leader.id == self.own) {
            return take;
        }
        match self.seen {
            // Another revision, even a lower one, as a restored store has, shows that a leader is active.
            Some((revision, since)) if revision == found.revision => {
                if now.saturating_duration_since(since) >= self.rules.silence() { take } else { Step::Wait }
            }
            _ => {
                self.seen = Some((found.revision, now));
                Step::Wait
            }
        }
    }
}

/// The term of a publisher that takes over and knows of terms up to `known`. `clock` is in milliseconds since 1970: it only matters
/// when a store was lost, and with it the knowledge.
pub fn next_term(known: u64, clock: u64) -> u64 {
    known.saturating_add(1).max(clock)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::provider::nats::format::{FORMAT, Stamp};

    const RULES: Rules = Rules { bound: Duration::from_secs(10) };

    fn found(revision: u64, released: bool) -> Found {
        let leader = Leader {
            stamp: Stamp { format: FORMAT, fleet: "shop".to_owned() },
            term: 1,
            id: "a".to_owned(),
            host: "a".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            renewals: revision,
            released,
        };
        Found { revision, leader: Some(leader) }
    }

    #[test]
    fn takes_what_is_free_at_once_and_what_is_silent_after_its_time() {
        let mut follower = Follower::new(RULES, "b".to_owned());
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(tenths * 100);
        assert_eq!(follower.check(&Found { revision: 0, leader: None }, start), Step::Take { expected: 0 });
        assert_eq!(follower.check(&found(7, true), start), Step::Take { expected: 7 });
        let mut own = Follower::new(RULES, "a".to_owned());
        assert_eq!(own.check(&found(8, false), start), Step::Take { expected: 8 });
        assert_eq!(follower.check(&found(8, false), at(0)), Step::Wait);
        assert_eq!(follower.check(&found(8, false), at(59)), Step::Wait);
        assert_eq!(follower.check(&found(9, false), at(60)), Step::Wait);
        assert_eq!(follower.check(&found(9, false), at(119)), Step::Wait);
        assert_eq!(follower.check(&found(3, false), at(120)), Step::Wait);
        assert_eq!(follower.check(&found(3, false), at(180)), Step::Take { expected: 3 });
    }

    #[test]
    fn a_leader_gives_up_before_others_take_over_and_all_fits_into_the_bound() {
        // Renewed, seen a tick later at the latest, silent, seen a tick later, and two ticks for the rest.
        assert!(RULES.hold() + RULES.tick() < RULES.silence());
        assert!(RULES.tick() + RULES.silence() + RULES.tick() + 2 * RULES.tick() <= RULES.bound);
    }

    proptest! {
        #[test]
        fn terms_grow_whatever_the_clock_says(mut known in 0u64..1 << 50, clocks in prop::collection::vec(any::<u32>(), 1..20)) {
            for clock in clocks {
                let next = next_term(known, u64::from(clock));
                prop_assert!(next > known);
                known = next;
            }
        }
    }
}
