//! Which backends are in and which are out, from the results of probes. Pure.
//!
//! A backend is *up*, *down* or *new*. It is new when it joins a service that has backends up already, until its first
//! success; it is down once it failed often enough. Two rules keep a fault of this machine from taking backends out:
//!
//! - A backend goes down only after every other backend that seems healthy has been probed again since its failures
//!   began. When everything fails at once, the first one to fail often enough therefore does not go down before the
//!   others are seen to fail too, however the probes are spread and however few failures are needed.
//! - It goes down only if at least `panic` percent of those that are up or down passed their last check. New backends do
//!   not count: they take no traffic yet, and a failed scale-out says nothing about this machine.
//!
//! While too few pass, the service is in *panic*: no backend goes down, one that is down comes up as usual, and new ones
//! are up, since there are none better. When the panic ends, backends that still seem to fail are probed once more
//! before they go down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::pool::Target;
use crate::model::{HealthCheck, Percent};

/// Why a backend is out that has never been probed.
pub const NOT_CHECKED_YET: &str = "health check has not run yet";

/// Why a backend is out that failed before the restart and has not been probed since.
const FAILED_BEFORE_RESTART: &str = "it failed before elasticd was restarted";

/// The health of one service's backends.
#[derive(Debug)]
pub struct Evaluator {
    rise: u32,
    fall: u32,
    panic: Percent,
    members: BTreeMap<String, Member>,
    /// Counts events, so that their order is known.
    clock: u64,
    panicking: bool,
    /// When the last panic ended.
    recovered: u64,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    state: State,
    /// Successes in a row, or 0 after a failure.
    passes: u32,
    /// Failures in a row, or 0 after a success.
    failures: u32,
    /// What the last failure was.
    cause: String,
    /// When the first failure in a row was reported.
    failing_since: u64,
    /// When the last probe was started.
    started: u64,
    /// When the last probe that has ended was started.
    completed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
    New,
}

impl Member {
    const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            state: State::New,
            passes: 0,
            failures: 0,
            cause: String::new(),
            failing_since: 0,
            started: 0,
            completed: 0,
        }
    }

    const fn reset_counts(&mut self) {
        self.passes = 0;
        self.failures = 0;
    }

    /// Whether it is up and did not fail its last probe.
    fn is_healthy(&self) -> bool {
        self.state == State::Up && self.failures == 0
    }

    fn why_out(&self) -> String {
        if self.cause.is_empty() { NOT_CHECKED_YET.to_owned() } else { format!("health check failed: {}", self.cause) }
    }
}

impl Evaluator {
    /// Without any backends.
    pub const fn new(check: &HealthCheck) -> Self {
        let HealthCheck { rise, fall, panic, .. } = *check;
        Self { rise, fall, panic, members: BTreeMap::new(), clock: 0, panicking: false, recovered: 0 }
    }

    /// Replaces the check. Backends keep their states, and their counts too unless `reset_counts` says that the probe
    /// itself is another one.
    pub fn reconfigure(&mut self, check: &HealthCheck, reset_counts: bool) {
        (self.rise, self.fall, self.panic) = (check.rise, check.fall, check.panic);
        if reset_counts {
            self.members.values_mut().for_each(Member::reset_counts);
        }
        self.update();
    }

    /// Replaces the backends. Returns those to be probed at once, because they join others that are up.
    ///
    /// A backend that was absent or has another address is new. If no backend is up, as in the first set of a service,
    /// all of them are up until proven otherwise.
    pub fn set(&mut self, targets: &[Target]) -> Vec<String> {
        let mut former = std::mem::take(&mut self.members);
        for Target { id, address } in targets {
            let kept = former.remove(id).filter(|member| member.address == *address);
            self.members.insert(id.clone(), kept.unwrap_or_else(|| Member::new(*address)));
        }
        let mut unprobed = Vec::new();
        if self.members.values().any(|member| member.state == State::Up) {
            let is_unprobed = |member: &Member| member.state == State::New && member.started == 0;
            unprobed.extend(self.members.iter().filter(|(_, member)| is_unprobed(member)).map(|(id, _)| id.clone()));
        } else {
            self.members.values_mut().for_each(|member| member.state = State::Up);
        }
        self.update();
        unprobed
    }

    /// Takes the backends down that failed before a restart, until they pass. If that would be all of them, none goes
    /// down.
    pub fn restore_failed(&mut self, failed: &BTreeSet<String>) {
        if self.members.keys().all(|id| failed.contains(id)) {
            return;
        }
        for (_, member) in self.members.iter_mut().filter(|(id, _)| failed.contains(*id)) {
            member.state = State::Down;
            FAILED_BEFORE_RESTART.clone_into(&mut member.cause);
        }
    }

    /// A probe of this backend starts.
    pub fn probe_started(&mut self, id: &str) {
        self.clock += 1;
        if let Some(member) = self.members.get_mut(id) {
            member.started = self.clock;
        }
    }

    /// A probe of this backend ended; an error is its cause. Returns whether [`out`](Self::out) or
    /// [`is_panicking`](Self::is_panicking) has changed.
    pub fn probe_ended(&mut self, id: &str, result: Result<(), String>) -> bool {
        self.clock += 1;
        let was_panicking = self.panicking;
        let Some(member) = self.members.get_mut(id) else { return false };
        let before = member.state;
        member.completed = member.started;
        let mut changed = false;
        match result {
            Ok(()) => {
                member.passes = member.passes.saturating_add(1);
                member.failures = 0;
                let needed = if before == State::New { 1 } else { self.rise };
                if member.passes >= needed {
                    member.state = State::Up;
                }
            }
            Err(cause) => {
                if member.failures == 0 {
                    member.failing_since = self.clock;
                }
                member.passes = 0;
                member.failures = member.failures.saturating_add(1);
                // The cause is reported only of backends that are out.
                changed = before != State::Up && member.cause != cause;
                member.cause = cause;
            }
        }
        changed |= member.state != before;
        changed |= self.update();
        changed || was_panicking != self.panicking
    }

    /// Takes down the backends that failed often enough, unless too few would be left. Returns whether any state changed.
    fn update(&mut self) -> bool {
        let (fall, recovered) = (self.fall, self.recovered);
        let failed = |member: &Member| member.state == State::Up && member.failures >= fall;
        if !self.panicking && !self.members.values().any(failed) {
            return false;
        }
        let healthy = || self.members.values().filter(|member| member.is_healthy());
        let left = healthy().count();
        // Every healthy backend has been probed again since then.
        let all_probed_since = healthy().map(|member| member.completed).min().unwrap_or(u64::MAX);
        let goes_down =
            |member: &Member| failed(member) && member.failing_since < all_probed_since && member.completed > recovered;
        let known = self.members.values().filter(|member| member.state != State::New).count();
        let too_few = left == 0 || left * 100 < known * usize::from(self.panic.0);
        // A panic that has begun lasts as long as it keeps any backend up.
        let keeps_up =
            self.members.values().any(|member| if self.panicking { failed(member) } else { goes_down(member) });
        match self.panicking {
            _ if too_few && keeps_up => {
                self.panicking = true;
                self.set_states(|member| member.state == State::New, State::Up)
            }
            true => {
                (self.panicking, self.recovered) = (false, self.clock);
                false
            }
            false => !too_few && self.set_states(goes_down, State::Down),
        }
    }

    fn set_states(&mut self, of: impl Fn(&Member) -> bool, state: State) -> bool {
        let mut any = false;
        for member in self.members.values_mut().filter(|member| of(member)) {
            member.state = state;
            // A backend that is up without ever having passed must not count as healthy.
            member.failures = member.failures.max(self.fall);
            any = true;
        }
        any
    }

    /// Whether so many backends fail that none is taken out.
    pub const fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// All backends by id, with their addresses.
    pub fn targets(&self) -> BTreeMap<String, SocketAddr> {
        self.members.iter().map(|(id, member)| (id.clone(), member.address)).collect()
    }

    /// Whether this backend is known and passed its last probe.
    pub fn passes(&self, id: &str) -> bool {
        self.members.get(id).is_some_and(|member| member.passes > 0)
    }

    /// The number of backends that are up and passed their last probe, or have not been probed yet.
    pub fn healthy(&self) -> usize {
        self.members.values().filter(|member| member.is_healthy()).count()
    }

    /// The backends that are out, and why, each in a sentence.
    pub fn out(&self) -> BTreeMap<String, String> {
        let out = self.members.iter().filter(|(_, member)| member.state != State::Up);
        out.map(|(id, member)| (id.clone(), member.why_out())).collect()
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
