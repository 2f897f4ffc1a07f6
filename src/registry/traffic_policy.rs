//! From a service's members to the set that is served: without backends that are too young, unhealthy or in another
//! zone, with reduced weights for those that joined a short time ago (slow start), and with those that left while they
//! drain. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::clock::ClockStep;
use super::times;
use crate::model::{Backend, BackendState, Exclusion, MAX_WEIGHT, Member, Prefer, Reason, Service};

/// The number of steps in which slow start raises a weight. Each step is a change for the frontend.
const STEPS: u16 = 10;

/// The state of slow start and drain for the backends of one service. The field names on disk are those of format 3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficPolicy {
    /// The backends that took traffic when the set was last served. Empty unless slow start or drain needs it.
    #[serde(rename = "taking", default, skip_serializing_if = "BTreeMap::is_empty")]
    active: BTreeMap<String, Backend>,
    /// The backends in slow start, and when each joined.
    #[serde(rename = "rising", default, skip_serializing_if = "BTreeMap::is_empty")]
    starting: BTreeMap<String, Seconds>,
    /// The backends that left and are still served with weight 0.
    #[serde(rename = "leaving", default, skip_serializing_if = "BTreeMap::is_empty")]
    draining: BTreeMap<String, Draining>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Seconds(#[serde(with = "times")] SystemTime);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Draining {
    backend: Backend,
    #[serde(with = "times")]
    until: SystemTime,
}

/// What the policy depends on besides the service and its members.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The current time.
    pub now: SystemTime,
    /// Our own zone, if it is known.
    pub zone: Option<&'a str>,
    /// The backends that fail our own health check, by id, and why. `None`: there is no health check.
    pub failing: Option<&'a BTreeMap<String, String>>,
    /// Whether no set of the service has been served before.
    pub is_first: bool,
}

/// The set to be served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveSet {
    /// Ordered by id.
    pub backends: Vec<Backend>,
    /// The members that are not served, and why.
    pub exclusions: Vec<Exclusion>,
    /// When the set changes without a further event.
    pub next_change: Option<SystemTime>,
}

impl TrafficPolicy {
    /// The set to be served of these members, ordered by id and without duplicates.
    ///
    /// A rule that would exclude every backend is not applied.
    pub fn apply(&mut self, service: &Service, members: Vec<Member>, input: &PolicyInput<'_>) -> EffectiveSet {
        let mut effective = EffectiveSet::default();
        let is_up = |member: &Member| member.backend.state == BackendState::Up;
        let (mut up, draining): (Vec<_>, Vec<_>) = members.into_iter().partition(is_up);
        // When the backend becomes old enough, if it is not yet.
        let too_young_until = |member: &Member| {
            let end = member.launched.map(|at| SystemTime::from(at) + service.min_age);
            end.filter(|end| *end > input.now)
        };
        effective.next_change = up.iter().filter_map(too_young_until).min();
        up = effective
            .exclude(up, |member| too_young_until(member).map(|_| Reason::TooYoung { min_age: service.min_age }));
        if let Some(failing) = input.failing {
            up = effective.exclude(up, |member| {
                failing.get(&member.backend.id).map(|why| Reason::Unhealthy { why: why.clone() })
            });
        }
        if let (Some(Prefer { at_least }), Some(zone)) = (service.prefer, input.zone) {
            let is_near = |member: &Member| member.backend.zone.as_deref() == Some(zone);
            if at_least.is_met_by(up.iter().filter(|member| is_near(member)).count(), up.len()) {
                up = effective.exclude(up, |member| {
                    let other = || Reason::OtherZone { zone: member.backend.zone.clone(), own: zone.to_owned() };
                    (!is_near(member)).then(other)
                });
            }
        }
        if let Some(duration) = service.slow_start {
            self.apply_slow_start(&mut up, duration, input, &mut effective.next_change);
        } else {
            self.starting.clear();
        }
        let mut backends: BTreeMap<String, Backend> = up.into_iter().map(by_id).collect();
        self.apply_drain(&backends, service.drain, input.now);
        self.active = match service.drain.is_zero() && service.slow_start.is_none() {
            true => BTreeMap::new(),
            false => backends.clone(),
        };
        backends.extend(draining.into_iter().map(by_id));
        for (id, draining) in &self.draining {
            effective.next_change = earlier(effective.next_change, draining.until);
            backends.entry(id.clone()).or_insert_with(|| draining.backend.clone());
        }
        effective.backends = backends.into_values().collect();
        effective
    }

    /// Whether no backend is in slow start or draining, so that there is nothing to keep.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Moves every timer along with the system clock.
    pub fn shift(&mut self, step: ClockStep) {
        self.starting.values_mut().for_each(|since| step.shift(&mut since.0));
        self.draining.values_mut().for_each(|draining| step.shift(&mut draining.until));
    }

    /// Reduces the weights of backends that joined less than `duration` ago. All weights are multiplied first, so that
    /// even a weight of 1 can be raised in steps.
    fn apply_slow_start(
        &mut self,
        up: &mut [Member],
        duration: Duration,
        input: &PolicyInput<'_>,
        next_change: &mut Option<SystemTime>,
    ) {
        let heaviest = up.iter().map(|member| member.backend.weight).max().unwrap_or(1).max(1);
        let scale = STEPS.min(MAX_WEIGHT / heaviest).max(1);
        let mut starting = BTreeMap::new();
        for Member { backend, launched } in up {
            let full = backend.weight * scale;
            backend.weight = full;
            let since = match self.starting.get(&backend.id).copied() {
                Some(since) => since,
                // The first set of a service gets full weights at once, except machines that were just launched.
                None if input.is_first => match launched {
                    Some(at) => Seconds(SystemTime::from(*at)),
                    None => continue,
                },
                None if self.active.contains_key(&backend.id) => continue,
                None => Seconds(input.now),
            };
            let elapsed = input.now.duration_since(since.0).unwrap_or_default();
            if elapsed >= duration {
                continue;
            }
            let step = duration / u32::from(STEPS);
            let done = u32::try_from(elapsed.as_nanos() / step.as_nanos().max(1)).unwrap_or(u32::MAX);
            let share = u16::try_from(done + 1).unwrap_or(STEPS).min(STEPS);
            if full > 0 {
                backend.weight =
                    u16::try_from(u32::from(full) * u32::from(share) / u32::from(STEPS)).unwrap_or(full).max(1);
            }
            *next_change = earlier(*next_change, since.0 + step * (done + 1));
            starting.insert(backend.id.clone(), since);
        }
        self.starting = starting;
    }

    /// Backends that took traffic and no longer do drain for a while, unless they come back.
    fn apply_drain(&mut self, up: &BTreeMap<String, Backend>, drain: Duration, now: SystemTime) {
        if !drain.is_zero() {
            for (id, backend) in std::mem::take(&mut self.active) {
                let backend = Backend { weight: 0, state: BackendState::Draining, ..backend };
                self.draining.entry(id).or_insert(Draining { backend, until: now + drain });
            }
        }
        // A `drain` that was made shorter applies to those that drain already; at zero all of them are removed.
        self.draining.retain(|id, entry| entry.until > now && entry.until <= now + drain && !up.contains_key(id));
    }
}

impl EffectiveSet {
    /// Returns the members for which `rule` gives no reason to exclude them; all of them, if that would be none.
    fn exclude(&mut self, members: Vec<Member>, rule: impl Fn(&Member) -> Option<Reason>) -> Vec<Member> {
        let reasons: Vec<_> = members.iter().map(rule).collect();
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

fn by_id(member: Member) -> (String, Backend) {
    (member.backend.id.clone(), member.backend)
}

fn earlier(next: Option<SystemTime>, at: SystemTime) -> Option<SystemTime> {
    Some(next.map_or(at, |next| next.min(at)))
}

#[cfg(test)]
#[path = "traffic_policy_tests.rs"]
mod tests;
