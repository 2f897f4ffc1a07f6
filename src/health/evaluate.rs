//! Who is in and who is out, from the results of probes: pure.
//!
//! A backend is *up*, *down* or *new*. Down are those that went out, new are those that joined a service others already
//! served, until their first success. Two things keep the sidecar's own faults from taking backends out:
//!
//! - A backend goes down only once every other that seems well has been asked again since its failures began. So
//!   when everything fails at once, the first to have failed often enough does not go down before the others are seen
//!   to fail too, however the probes are spread and however few failures suffice.
//! - It goes down only if then at least `panic` percent of those that are up or down have passed their last check. New
//!   ones do not count: they carry no traffic yet, so a failed scale-out says nothing about the sidecar.
//!
//! While too few pass, that is a *panic*: nobody goes down, who was down comes back as ever, and who is new is up, for
//! there is nothing better. When it ends, those who still seem to fail are asked once more before they go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::Target;
use crate::model::{HealthCheck, Percent};

/// Why one is out that has never been asked.
pub const UNCHECKED: &str = "has not been checked yet";

/// The cause of one that has not been asked since the restart.
const RECALLED: &str = "it did before elasticd was restarted";

/// The verdict on one service's backends.
#[derive(Debug)]
pub struct Judge {
    rise: u32,
    fall: u32,
    panic: Percent,
    members: BTreeMap<String, Member>,
    /// Counts what happens, so that it is known what came before what.
    clock: u64,
    panicking: bool,
    /// When the last panic ended.
    recovered: u64,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    standing: Standing,
    /// Successes in a row, or 0 after a failure.
    passes: u32,
    /// Failures in a row, or 0 after a success.
    failures: u32,
    /// What the last failure was.
    cause: String,
    /// When the first failure of the row was known.
    failing_since: u64,
    /// When the probe under way, or else the last one, began.
    asked: u64,
    /// When the last probe that ended had begun.
    heard: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Up,
    Down,
    New,
}

impl Member {
    const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            standing: Standing::New,
            passes: 0,
            failures: 0,
            cause: String::new(),
            failing_since: 0,
            asked: 0,
            heard: 0,
        }
    }

    const fn forget(&mut self) {
        self.passes = 0;
        self.failures = 0;
    }

    /// Whether it is up, and nothing speaks against it.
    fn is_sound(&self) -> bool {
        self.standing == Standing::Up && self.failures == 0
    }

    fn why(&self) -> String {
        if self.cause.is_empty() { UNCHECKED.to_owned() } else { format!("fails its health check: {}", self.cause) }
    }
}

impl Judge {
    /// A judge who knows nobody yet.
    pub const fn new(check: &HealthCheck) -> Self {
        let HealthCheck { rise, fall, panic, .. } = *check;
        Self { rise, fall, panic, members: BTreeMap::new(), clock: 0, panicking: false, recovered: 0 }
    }

    /// Another check from now on. HealthReport stand. What was counted stands too, unless `forget` says that it was
    /// something else that was counted.
    pub fn reconfigure(&mut self, check: &HealthCheck, forget: bool) {
        (self.rise, self.fall, self.panic) = (check.rise, check.fall, check.panic);
        if forget {
            self.members.values_mut().for_each(Member::forget);
        }
        self.decide();
    }

    /// These are the backends from now on. Returns those that should be asked at once, for they join others.
    ///
    /// One that has another address, or was away, is new. Where nobody is left who is up (in the first pool there is
    /// nobody else), everybody counts as up until proven otherwise.
    pub fn set(&mut self, targets: &[Target]) -> Vec<String> {
        let mut former = std::mem::take(&mut self.members);
        for Target { id, address } in targets {
            let kept = former.remove(id).filter(|member| member.address == *address);
            self.members.insert(id.clone(), kept.unwrap_or_else(|| Member::new(*address)));
        }
        let mut unasked = Vec::new();
        if self.members.values().any(|member| member.standing == Standing::Up) {
            let is_unasked = |member: &Member| member.standing == Standing::New && member.asked == 0;
            unasked.extend(self.members.iter().filter(|(_, member)| is_unasked(member)).map(|(id, _)| id.clone()));
        } else {
            self.members.values_mut().for_each(|member| member.standing = Standing::Up);
        }
        self.decide();
        unasked
    }

    /// These failed before elasticd was restarted, and are out until they pass; all of them are in if that is everybody.
    pub fn recall(&mut self, failed: &BTreeSet<String>) {
        if self.members.keys().all(|id| failed.contains(id)) {
            return;
        }
        for (_, member) in self.members.iter_mut().filter(|(id, _)| failed.contains(*id)) {
            member.standing = Standing::Down;
            RECALLED.clone_into(&mut member.cause);
        }
    }

    /// A probe of this backend begins.
    pub fn begin(&mut self, id: &str) {
        self.clock += 1;
        if let Some(member) = self.members.get_mut(id) {
            member.asked = self.clock;
        }
    }

    /// The probe of this backend ended, as an error with the cause. Returns whether any verdict has changed.
    pub fn note(&mut self, id: &str, result: Result<(), String>) -> bool {
        self.clock += 1;
        let panicked = self.panicking;
        let Some(member) = self.members.get_mut(id) else { return false };
        let before = member.standing;
        member.heard = member.asked;
        let mut changed = false;
        match result {
            Ok(()) => {
                member.passes = member.passes.saturating_add(1);
                member.failures = 0;
                let enough = if before == Standing::New { 1 } else { self.rise };
                if member.passes >= enough {
                    member.standing = Standing::Up;
                }
            }
            Err(cause) => {
                if member.failures == 0 {
                    member.failing_since = self.clock;
                }
                member.passes = 0;
                member.failures = member.failures.saturating_add(1);
                // Only for those that are out is the cause part of the verdict.
                changed = before != Standing::Up && member.cause != cause;
                member.cause = cause;
            }
        }
        changed |= member.standing != before;
        changed |= self.decide();
        changed || panicked != self.panicking
    }

    /// Takes out whoever must go, unless too few would be left. Returns whether that changes who is in.
    fn decide(&mut self) -> bool {
        let (fall, recovered) = (self.fall, self.recovered);
        let condemned = |member: &Member| member.standing == Standing::Up && member.failures >= fall;
        if !self.panicking && !self.members.values().any(condemned) {
            return false;
        }
        let sound = || self.members.values().filter(|member| member.is_sound());
        let left = sound().count();
        let heard = sound().map(|member| member.heard).min().unwrap_or(u64::MAX);
        let ripe = |member: &Member| condemned(member) && member.failing_since < heard && member.heard > recovered;
        let known = self.members.values().filter(|member| member.standing != Standing::New).count();
        let too_few = left == 0 || left * 100 < known * usize::from(self.panic.0);
        // Once declared, it lasts while anybody is spared by it, whoever was asked when.
        let spares = self.members.values().any(|member| if self.panicking { condemned(member) } else { ripe(member) });
        match self.panicking {
            _ if too_few && spares => {
                self.panicking = true;
                self.move_all(|member| member.standing == Standing::New, Standing::Up)
            }
            true => {
                (self.panicking, self.recovered) = (false, self.clock);
                false
            }
            false => !too_few && self.move_all(ripe, Standing::Down),
        }
    }

    fn move_all(&mut self, whom: impl Fn(&Member) -> bool, to: Standing) -> bool {
        let mut any = false;
        for member in self.members.values_mut().filter(|member| whom(member)) {
            member.standing = to;
            // Who is up without ever having passed must not count as sound.
            member.failures = member.failures.max(self.fall);
            any = true;
        }
        any
    }

    /// Whether so many fail that nobody is taken out.
    pub const fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// Everybody who is asked, by id.
    pub fn targets(&self) -> BTreeMap<String, SocketAddr> {
        self.members.iter().map(|(id, member)| (id.clone(), member.address)).collect()
    }

    /// Whether this backend is asked, and passed the last time.
    pub fn passes(&self, id: &str) -> bool {
        self.members.get(id).is_some_and(|member| member.passes > 0)
    }

    /// How many are up and passed their last check, or have not been asked yet.
    pub fn sound(&self) -> usize {
        self.members.values().filter(|member| member.is_sound()).count()
    }

    /// Who is out, and why, to be read after "it".
    pub fn out(&self) -> BTreeMap<String, String> {
        let out = self.members.iter().filter(|(_, member)| member.standing != Standing::Up);
        out.map(|(id, member)| (id.clone(), member.why())).collect()
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
