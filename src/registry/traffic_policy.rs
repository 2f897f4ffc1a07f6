//! From a service's members to what is served of it: who is too young, fails its checks or is in another zone, who
//! comes slowly to its weight, and who has gone and drains. Knows no clock but the time it is told.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::clock::Step;
use super::times;
use crate::model::{Backend, BackendState, Exclusion, MAX_WEIGHT, Member, Prefer, Reason, Service};

/// In how many steps a backend that joins comes to its full weight. Each is a change for the frontend.
const STEPS: u16 = 10;

/// What time does to the backends of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficPolicy {
    /// Who takes traffic, as last served.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    taking: BTreeMap<String, Backend>,
    /// Since when those who are not at their full weight yet take traffic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    rising: BTreeMap<String, Seconds>,
    /// Who has gone, and stays with weight 0 until then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    leaving: BTreeMap<String, Leaving>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Seconds(#[serde(with = "times")] SystemTime);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Leaving {
    backend: Backend,
    #[serde(with = "times")]
    until: SystemTime,
}

/// What else decides.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The time.
    pub now: SystemTime,
    /// Our own zone, if it is known.
    pub zone: Option<&'a str>,
    /// Who fails the sidecar's own checks, and how.
    pub failing: Option<&'a BTreeMap<String, String>>,
    /// Whether nothing of the service has been served before.
    pub is_first: bool,
}

/// What is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveSet {
    /// Ordered by id.
    pub backends: Vec<Backend>,
    /// Who is left out.
    pub exclusions: Vec<Exclusion>,
    /// When this would be something else, if nothing else changes.
    pub next: Option<SystemTime>,
}

impl TrafficPolicy {
    /// What is served of these members, ordered by id and without duplicates.
    ///
    /// None of the rules ever takes the last backend: one that would is left aside.
    pub fn apply(&mut self, service: &Service, members: Vec<Member>, input: &PolicyInput<'_>) -> EffectiveSet {
        let mut effective = EffectiveSet::default();
        let is_up = |member: &Member| member.backend.state == BackendState::Up;
        let (mut up, draining): (Vec<_>, Vec<_>) = members.into_iter().partition(is_up);
        let old_enough = |member: &Member| {
            let end = member.launched.map(|at| SystemTime::from(at) + service.min_age);
            end.filter(|end| *end > input.now)
        };
        effective.next = up.iter().filter_map(old_enough).min();
        up = effective.keep(up, |member| old_enough(member).map(|_| Reason::TooYoung { min_age: service.min_age }));
        if let Some(failing) = input.failing {
            up = effective
                .keep(up, |member| failing.get(&member.backend.id).map(|why| Reason::Unhealthy { why: why.clone() }));
        }
        if let (Some(Prefer { at_least }), Some(zone)) = (service.prefer, input.zone) {
            let is_near = |member: &Member| member.backend.zone.as_deref() == Some(zone);
            if at_least.is_met_by(up.iter().filter(|member| is_near(member)).count(), up.len()) {
                up = effective.keep(up, |member| (!is_near(member)).then_some(Reason::OtherZone));
            }
        }
        if let Some(ramp) = service.slow_start {
            self.apply_slow_start(&mut up, ramp, input, &mut effective.next);
        } else {
            self.rising.clear();
        }
        let mut backends: BTreeMap<String, Backend> = up.into_iter().map(of_member).collect();
        self.apply_drain(&backends, service.drain, input.now);
        self.taking = match service.drain.is_zero() && service.slow_start.is_none() {
            true => BTreeMap::new(),
            false => backends.clone(),
        };
        backends.extend(draining.into_iter().map(of_member));
        for (id, leaving) in &self.leaving {
            effective.next = earlier(effective.next, leaving.until);
            backends.entry(id.clone()).or_insert_with(|| leaving.backend.clone());
        }
        effective.backends = backends.into_values().collect();
        effective
    }

    /// Whether time does nothing to anybody.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Moves what is due along with a clock that was set.
    pub fn shift(&mut self, step: Step) {
        self.rising.values_mut().for_each(|since| step.shift(&mut since.0));
        self.leaving.values_mut().for_each(|leaving| step.shift(&mut leaving.until));
    }

    /// Gives those who have just joined a part of their weight. All weights are multiplied, so that there is something
    /// to take a part of.
    fn apply_slow_start(
        &mut self,
        up: &mut [Member],
        ramp: Duration,
        input: &PolicyInput<'_>,
        next: &mut Option<SystemTime>,
    ) {
        let heaviest = up.iter().map(|member| member.backend.weight).max().unwrap_or(1).max(1);
        let scale = STEPS.min(MAX_WEIGHT / heaviest).max(1);
        let mut rising = BTreeMap::new();
        for Member { backend, launched } in up {
            let full = backend.weight * scale;
            backend.weight = full;
            let known = self.rising.get(&backend.id).copied();
            let since = match known {
                Some(since) => since,
                // Nobody has taken less until now: only what is really new may need time.
                None if input.is_first => match launched {
                    Some(at) => Seconds(SystemTime::from(*at)),
                    None => continue,
                },
                None if self.taking.contains_key(&backend.id) => continue,
                None => Seconds(input.now),
            };
            let elapsed = input.now.duration_since(since.0).unwrap_or_default();
            if elapsed >= ramp {
                continue;
            }
            let step = ramp / u32::from(STEPS);
            let done = u32::try_from(elapsed.as_nanos() / step.as_nanos().max(1)).unwrap_or(u32::MAX);
            let share = u16::try_from(done + 1).unwrap_or(STEPS).min(STEPS);
            if full > 0 {
                backend.weight =
                    u16::try_from(u32::from(full) * u32::from(share) / u32::from(STEPS)).unwrap_or(full).max(1);
            }
            *next = earlier(*next, since.0 + step * (done + 1));
            rising.insert(backend.id.clone(), since);
        }
        self.rising = rising;
    }

    /// Whoever took traffic and does so no more drains for a while; whoever is back does not.
    fn apply_drain(&mut self, up: &BTreeMap<String, Backend>, drain: Duration, now: SystemTime) {
        if !drain.is_zero() {
            for (id, backend) in std::mem::take(&mut self.taking) {
                let backend = Backend { weight: 0, state: BackendState::Draining, ..backend };
                self.leaving.entry(id).or_insert(Leaving { backend, until: now + drain });
            }
        }
        // A shorter `drain` holds for those who are leaving already, too; zero lets all of them go.
        self.leaving.retain(|id, leaving| leaving.until > now && leaving.until <= now + drain && !up.contains_key(id));
    }
}

impl EffectiveSet {
    /// Keeps the members for which `out` has no reason; all, if that would be none.
    fn keep(&mut self, members: Vec<Member>, out: impl Fn(&Member) -> Option<Reason>) -> Vec<Member> {
        let reasons: Vec<_> = members.iter().map(out).collect();
        if reasons.iter().all(Option::is_some) {
            return members;
        }
        let mut kept = Vec::with_capacity(members.len());
        for (member, reason) in members.into_iter().zip(reasons) {
            match reason {
                None => kept.push(member),
                Some(reason) => self.exclusions.push(Exclusion { id: member.backend.id, reason }),
            }
        }
        kept
    }
}

fn of_member(member: Member) -> (String, Backend) {
    (member.backend.id.clone(), member.backend)
}

fn earlier(next: Option<SystemTime>, at: SystemTime) -> Option<SystemTime> {
    Some(next.map_or(at, |next| next.min(at)))
}

#[cfg(test)]
#[path = "traffic_policy_tests.rs"]
mod tests;
