//! One service, from what its providers report to what is served of it. Knows no clock but the time it is told.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::clock::Step;
use super::guard::{self, DropConfirmations, Hold};
use super::registration::Registered;
use super::report::{Excluded, ServiceReport, SourceReport};
use super::times;
use super::traffic_policy::{self, EffectiveSet, TrafficPolicy};
use crate::health::evaluate::UNCHECKED;
use crate::health::{self, HealthReport};
use crate::model::{
    Backend, BackendState, Exclusion, Instance, Member, Name, Origin, Reason, Selection, Service, Sources, select,
};

/// What the guard accepted of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// When the provider reported it last; to the second once it was on disk.
    #[serde(with = "times")]
    pub observed: SystemTime,
    /// Ordered by id.
    pub members: Vec<Member>,
}

/// What is known of a service beside what is served, and kept across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedService {
    /// By provider.
    pub sources: BTreeMap<Name, Source>,
    /// What time does to those that have come or gone of late.
    #[serde(default, skip_serializing_if = "TrafficPolicy::is_default")]
    pub shape: TrafficPolicy,
    /// Who fails the sidecar's own checks.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub failing: BTreeSet<String>,
    /// The tags that created it. `None`: it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A set that the guard holds back, and why.
#[derive(Debug, Clone)]
struct Held {
    hold: Hold,
    source: Source,
}

/// One service.
#[derive(Debug)]
pub struct Pool {
    service: Arc<Service>,
    kept: PersistedService,
    suspicions: BTreeMap<Name, DropConfirmations>,
    held: BTreeMap<Name, Held>,
    /// Providers that have answered or failed since elasticd started.
    heard: BTreeSet<Name>,
    /// Providers of which a set was taken since elasticd started.
    confirmed: BTreeSet<Name>,
    /// Of each provider's last complete answer.
    excluded: BTreeMap<Name, Excluded>,
    health: Option<HealthReport>,
    /// Who failed the sidecar's own checks before a restart.
    failed: BTreeSet<String>,
    /// Whether anything was ever served.
    is_served: bool,
    /// Who is left out of what was last served, though a provider's set has it.
    out: Arc<[Exclusion]>,
}

/// The registered backends of one service, by id.
type Registrations = BTreeMap<String, Registered>;

/// By id; who is left out; until when that holds.
type Gathered<'a> = (BTreeMap<String, Cow<'a, Member>>, Vec<Exclusion>, Option<SystemTime>);

/// What is served of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Ordered by id.
    pub backends: Vec<Backend>,
    /// When this would be something else, if nothing is heard meanwhile.
    pub next: Option<SystemTime>,
}

impl Pool {
    /// A service of which this much was kept; `is_served` says whether it is in the snapshot already.
    pub fn new(service: Service, kept: PersistedService, is_served: bool) -> Self {
        let mut pool = Self {
            service: Arc::new(service),
            failed: kept.failing.clone(),
            kept,
            suspicions: BTreeMap::new(),
            held: BTreeMap::new(),
            heard: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            excluded: BTreeMap::new(),
            health: None,
            is_served,
            out: Arc::default(),
        };
        pool.forget_strangers();
        pool
    }

    /// The service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// What is to be kept across restarts.
    pub fn kept(&self) -> &PersistedService {
        &self.kept
    }

    /// A service that tags have just created.
    pub fn created(service: Service, origin: Origin) -> Self {
        Self::new(service, PersistedService { origin: Some(origin), ..PersistedService::default() }, false)
    }

    /// Whether tags created it, and nothing is left of it.
    pub fn is_spent(&self) -> bool {
        let is_empty = |source: &Source| source.members.is_empty();
        self.kept.origin.is_some() && self.held.is_empty() && self.kept.sources.values().all(is_empty)
    }

    /// Takes up another configuration of the same service.
    pub fn reconfigure(&mut self, service: Service, origin: Option<Origin>) {
        self.kept.origin = origin;
        if service.health.is_none() {
            self.health = None;
            self.kept.failing.clear();
        }
        self.service = Arc::new(service);
        self.forget_strangers();
    }

    fn forget_strangers(&mut self) {
        let providers = &self.service.providers;
        self.kept.sources.retain(|name, _| providers.contains(name));
        self.held.retain(|name, _| providers.contains(name));
        self.excluded.retain(|name, _| providers.contains(name));
        self.suspicions.retain(|name, _| providers.contains(name));
    }

    /// Takes note that a provider failed to answer.
    pub fn fail(&mut self, provider: &Name) {
        self.heard.insert(provider.clone());
    }

    /// Judges a provider's complete answer. The guard looks at each provider's set by itself: that of another one
    /// does not make up for what is missing.
    pub fn observe(&mut self, provider: &Name, instances: &[Instance], at: SystemTime) {
        let Selection { members, exclusions } = select(&self.service, instances);
        let excluded = Excluded::from(exclusions);
        let service = &self.service.name;
        excluded.log_news(service, self.excluded.get(provider));
        self.excluded.insert(provider.clone(), excluded);
        self.heard.insert(provider.clone());
        let taking = |members: &[Member]| members.iter().filter(|m| m.backend.state == BackendState::Up).count();
        let current = self.kept.sources.get(provider).map(|source| taking(&source.members));
        let suspicion = self.suspicions.entry(provider.clone()).or_default();
        // What others observed may be told again: seen twice, it is still one observation.
        if self.held.get(provider).is_some_and(|held| held.source.observed >= at) {
            suspicion.again();
        }
        let verdict = guard::evaluate(&self.service.guard, current, taking(&members), suspicion);
        let source = Source { observed: at, members };
        match verdict {
            Err(hold) => {
                if !self.held.contains_key(provider) {
                    tracing::warn!(%service, %provider, "held back: {hold}");
                }
                self.held.insert(provider.clone(), Held { hold, source });
            }
            Ok(()) => {
                if self.held.remove(provider).is_some() {
                    tracing::info!(%service, %provider, "no longer held back");
                }
                self.accept(provider.clone(), source);
            }
        }
    }

    fn accept(&mut self, provider: Name, source: Source) {
        self.confirmed.insert(provider.clone());
        self.kept.sources.insert(provider, source);
    }

    /// Takes what is held back. Returns how many backends that are; `None`: nothing is held back.
    pub fn accept_held(&mut self) -> Option<usize> {
        let held = std::mem::take(&mut self.held);
        let count = held.values().map(|held| held.source.members.len()).sum();
        let any = !held.is_empty();
        for (provider, Held { source, .. }) in held {
            self.suspicions.remove(&provider);
            self.accept(provider, source);
        }
        any.then_some(count)
    }

    /// Moves what is due along with a clock that was set.
    pub fn shift(&mut self, step: Step) {
        let held = self.held.values_mut().map(|held| &mut held.source);
        self.kept.sources.values_mut().chain(held).for_each(|source| step.shift(&mut source.observed));
        self.kept.shape.shift(step);
    }

    /// Takes what the sidecar's own checks found.
    pub fn judge_health(&mut self, verdicts: HealthReport) {
        if self.service.health.is_some() {
            self.kept.failing = verdicts.out.keys().cloned().collect();
            self.health = Some(verdicts);
        }
    }

    /// Whom the sidecar's own checks should ask. `None`: they are not wanted.
    pub fn to_check(&self, now: SystemTime, registered: Option<&Registrations>) -> Option<health::Pool> {
        let check = self.service.health.clone()?;
        let (members, ..) = self.gather(now, registered);
        let up = members.into_values().filter(|member| member.backend.state == BackendState::Up);
        let target = |member: Cow<'_, Member>| health::Target {
            id: member.backend.id.clone(),
            address: serves_at(&member.backend),
        };
        Some(health::Pool {
            service: self.service.name.clone(),
            check,
            targets: up.map(target).collect(),
            failed: self.failed.clone(),
        })
    }

    /// What is to be served at `now`, in our own `zone`, with the `registered` backends. `None`: not enough is known
    /// yet. Which is so until every provider has answered or failed once, and one of them has answered: the part of a
    /// set must never be served as the whole.
    pub fn serve(&mut self, now: SystemTime, zone: Option<&str>, registered: Option<&Registrations>) -> Option<Served> {
        let has_all =
            self.service.providers.iter().all(|p| self.heard.contains(p) || self.kept.sources.contains_key(p));
        if !has_all || self.kept.sources.is_empty() {
            return None;
        }
        let (members, mut out, expiry) = self.gather(now, registered);
        let members: Vec<_> = members.into_values().map(Cow::into_owned).collect();
        let failing = self.failing(&members);
        let input = traffic_policy::PolicyInput { now, zone, failing: failing.as_ref(), is_first: !self.is_served };
        let EffectiveSet { backends, exclusions, next } = self.kept.shape.apply(&self.service, members, &input);
        self.is_served = true;
        out.extend(exclusions);
        out.sort_by(|a, b| a.id.cmp(&b.id));
        self.out = out.into();
        Some(Served { backends, next: [next, expiry].into_iter().flatten().min() })
    }

    /// Who fails the sidecar's own checks, and how. Whoever has not been asked yet may fail, too. `None`: there are no
    /// checks, or nobody has been asked at all.
    fn failing(&self, members: &[Member]) -> Option<BTreeMap<String, String>> {
        let Some(verdicts) = &self.health else {
            let failed = self.failed.iter().map(|id| (id.clone(), UNCHECKED.to_owned()));
            return self.service.health.is_some().then(|| failed.collect());
        };
        let mut failing = verdicts.out.clone();
        for Member { backend, .. } in members.iter().filter(|member| member.backend.state == BackendState::Up) {
            if verdicts.targets.get(&backend.id) != Some(&serves_at(backend)) {
                failing.insert(backend.id.clone(), UNCHECKED.to_owned());
            }
        }
        Some(failing)
    }

    /// Those who count among what the providers reported, with those `registered`; those who do not; and when that
    /// changes by itself.
    fn gather(&self, now: SystemTime, registered: Option<&Registrations>) -> Gathered<'_> {
        let ends = |source: &Source| self.service.expire.and_then(|expire| source.observed.checked_add(expire));
        let is_alive = |source: &Source| ends(source).is_none_or(|end| end > now);
        let known: Vec<_> =
            self.service.providers.iter().filter_map(|name| Some((name, self.kept.sources.get(name)?))).collect();
        // What is old is better than nothing.
        let any_alive = known.iter().any(|(_, source)| is_alive(source));
        let counts = |source: &Source| !any_alive || is_alive(source);
        let has_any = |source: &Source| source.members.iter().any(|member| member.backend.state == BackendState::Up);
        let chosen = match self.service.sources {
            Sources::Union => None,
            Sources::Failover => {
                let of_use = || known.iter().filter(|(_, source)| counts(source));
                of_use().find(|(_, source)| has_any(source)).or_else(|| of_use().next()).map(|(name, _)| *name)
            }
        };
        let mut members: BTreeMap<String, Cow<'_, Member>> = BTreeMap::new();
        let mut out = Vec::new();
        for (name, source) in &known {
            let why = match chosen {
                _ if !counts(source) => Some("has been silent for longer than the service's `expire`"),
                Some(chosen) if chosen != *name => Some("stands by for another one"),
                _ => None,
            };
            for member in &source.members {
                match why {
                    Some(why) => {
                        let reason = Reason::Unused { provider: (*name).clone(), why };
                        out.push(Exclusion { id: member.backend.id.clone(), reason });
                    }
                    // The provider named first has the last word.
                    None => drop(members.entry(member.backend.id.clone()).or_insert(Cow::Borrowed(member))),
                }
            }
        }
        let next = known.iter().filter_map(|(_, source)| ends(source)).filter(|end| *end > now).min();
        for (id, Registered { backend, .. }) in registered.into_iter().flatten() {
            // It stands for a provider's of the same id: somebody wanted it so, and for a bounded time.
            members.insert(id.clone(), Cow::Owned(Member { backend: backend.clone(), launched: None }));
        }
        (members, out, next.filter(|_| known.len() > 1))
    }

    /// The account of it; `served` is what the snapshot has of it: the revision, and how many backends.
    pub fn report(&self, served: Option<(u64, usize)>) -> ServiceReport {
        let source = |name: &Name| {
            let source = self.kept.sources.get(name);
            SourceReport {
                provider: name.clone(),
                backends: source.map(|source| source.members.len()),
                observed: source.map(|source| source.observed),
                held: self.held.get(name).map(|held| held.hold.clone()),
            }
        };
        let mut excluded = Excluded::from(self.out.to_vec());
        for more in self.excluded.values() {
            excluded.merge(more);
        }
        ServiceReport {
            service: Arc::clone(&self.service),
            sources: self.service.providers.iter().map(source).collect(),
            backends: served.map(|(_, backends)| backends),
            revision: served.map_or(0, |(revision, _)| revision),
            restored: served.is_some() && self.kept.sources.keys().any(|name| !self.confirmed.contains(name)),
            excluded,
            out: Arc::clone(&self.out),
            panicking: self.health.as_ref().is_some_and(|verdicts| verdicts.panicking),
        }
    }
}

fn serves_at(backend: &Backend) -> SocketAddr {
    (backend.address, backend.port).into()
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
