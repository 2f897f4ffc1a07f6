//! One service, from what its providers report to the set that is served. Pure: the time is an argument.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::clock::ClockStep;
use super::guard::{self, DropConfirmations, Hold};
use super::held::HeldSet;
use super::registration::Registered;
use super::report::{self, ServiceReport};
use super::times;
use super::traffic_policy::{EffectiveSet, PolicyInput, TrafficPolicy};
use crate::health::evaluate::NOT_CHECKED_YET;
use crate::health::{self, HealthReport};
use crate::model::{
    Backend, BackendState, Exclusion, Instance, Member, Name, Origin, Reason, Selection, Service, SourcesMode, select,
};
use crate::status::{self, Exclusions};

/// The set that the guard last accepted of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedSet {
    /// When the provider last reported it, to the second once it was on disk.
    #[serde(with = "times")]
    pub observed: SystemTime,
    /// Ordered by id.
    pub members: Vec<Member>,
}

/// Everything about a service, beside its published set, that is kept across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedService {
    /// By provider.
    pub sources: BTreeMap<Name, AcceptedSet>,
    /// The backends that joined or left a short time ago.
    #[serde(rename = "shape", default, skip_serializing_if = "TrafficPolicy::is_default")]
    pub traffic: TrafficPolicy,
    /// The ids of the backends that fail our own health check.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub failing: BTreeSet<String>,
    /// The tags that created the service. `None`: it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A set that the guard holds, and how it is described.
#[derive(Debug, Clone)]
struct Held {
    description: HeldSet,
    set: AcceptedSet,
}

/// One service.
#[derive(Debug)]
pub struct Pool {
    service: Arc<Service>,
    persisted: PersistedService,
    drop_confirmations: BTreeMap<Name, DropConfirmations>,
    held: BTreeMap<Name, Held>,
    /// Providers that have answered or failed since elasticd started.
    polled: BTreeSet<Name>,
    /// Providers of which a set was accepted since elasticd started.
    confirmed: BTreeSet<Name>,
    /// By each provider's last complete answer.
    excluded: BTreeMap<Name, Exclusions>,
    health: Option<HealthReport>,
    /// Backends that failed our own health check before the restart.
    failing_before_restart: BTreeSet<String>,
    /// Whether a set of this service was ever served.
    is_served: bool,
    /// The members of accepted sets that are not in the set last served.
    excluded_members: Arc<[Exclusion]>,
}

/// The registered backends of one service, by id.
type Registrations = BTreeMap<String, Registered>;

/// The members that count, before the traffic policy.
struct Gathered<'a> {
    /// By id.
    members: BTreeMap<String, Cow<'a, Member>>,
    excluded: Vec<Exclusion>,
    /// When this changes without a further event.
    next_change: Option<SystemTime>,
}

/// The set to be served of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Ordered by id.
    pub backends: Vec<Backend>,
    /// When this changes without a further event.
    pub next_change: Option<SystemTime>,
}

impl Pool {
    /// A service with the state kept of it; `is_served` says whether the published snapshot has it already.
    pub fn new(service: Service, persisted: PersistedService, is_served: bool) -> Self {
        let mut pool = Self {
            service: Arc::new(service),
            failing_before_restart: persisted.failing.clone(),
            persisted,
            drop_confirmations: BTreeMap::new(),
            held: BTreeMap::new(),
            polled: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            excluded: BTreeMap::new(),
            health: None,
            is_served,
            excluded_members: Arc::default(),
        };
        pool.forget_removed_providers();
        pool
    }

    /// The service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The state to be kept across restarts.
    pub fn persisted(&self) -> &PersistedService {
        &self.persisted
    }

    /// A service that tags have just created.
    pub fn created(service: Service, origin: Origin) -> Self {
        Self::new(service, PersistedService { origin: Some(origin), ..PersistedService::default() }, false)
    }

    /// Whether tags created the service, and it has no backends left.
    pub fn is_obsolete(&self) -> bool {
        let is_empty = |source: &AcceptedSet| source.members.is_empty();
        self.persisted.origin.is_some() && self.held.is_empty() && self.persisted.sources.values().all(is_empty)
    }

    /// Replaces the configuration of the service.
    pub fn reconfigure(&mut self, service: Service, origin: Option<Origin>) {
        self.persisted.origin = origin;
        if service.health.is_none() {
            self.health = None;
            self.persisted.failing.clear();
        }
        self.service = Arc::new(service);
        self.forget_removed_providers();
    }

    fn forget_removed_providers(&mut self) {
        let providers = &self.service.providers;
        self.persisted.sources.retain(|name, _| providers.contains(name));
        self.held.retain(|name, _| providers.contains(name));
        self.excluded.retain(|name, _| providers.contains(name));
        self.drop_confirmations.retain(|name, _| providers.contains(name));
    }

    /// Notes that a poll of the provider failed.
    pub fn poll_failed(&mut self, provider: &Name) {
        self.polled.insert(provider.clone());
    }

    /// Evaluates a provider's complete answer; the provider is polled every `interval`. The guard evaluates the set of
    /// each provider by itself: backends of another provider do not make up for missing ones.
    pub fn observe(&mut self, provider: &Name, instances: &[Instance], at: SystemTime, interval: Option<Duration>) {
        let Selection { members, exclusions } = select(&self.service, instances);
        let excluded = Exclusions::from(exclusions);
        let service = &self.service.name;
        report::log_new_faults(&excluded, service, self.excluded.get(provider));
        self.excluded.insert(provider.clone(), excluded);
        self.polled.insert(provider.clone());
        let current = self.persisted.sources.get(provider).map(|source| up(&source.members).count());
        let confirmations = self.drop_confirmations.entry(provider.clone()).or_default();
        // A provider may deliver the same observation again, as a fleet's does: it still counts once.
        if self.held.get(provider).is_some_and(|held| held.set.observed >= at) {
            confirmations.undo_last();
        }
        let reported = up(&members).count();
        let result = guard::evaluate(&self.service.guard, current, reported, confirmations);
        match result {
            Err(hold) => {
                let description = self.describe_held(provider, hold, &members, interval);
                if !self.held.contains_key(provider) {
                    let served = current.unwrap_or(0);
                    tracing::warn!(%service, %provider, served, reported, reason = %description, "reported set held");
                }
                let set = AcceptedSet { observed: at, members };
                self.held.insert(provider.clone(), Held { description, set });
            }
            Ok(()) => {
                if self.held.remove(provider).is_some() {
                    tracing::info!(%service, %provider, reported, "reported set accepted; no set is held any more");
                }
                self.accept(provider.clone(), AcceptedSet { observed: at, members });
            }
        }
    }

    fn describe_held(&self, provider: &Name, hold: Hold, reported: &[Member], interval: Option<Duration>) -> HeldSet {
        let current = self.persisted.sources.get(provider).map(|source| source.members.as_slice()).unwrap_or_default();
        let reported: BTreeSet<_> = up(reported).collect();
        let missing = up(current).filter(|id| !reported.contains(id));
        HeldSet {
            service: self.service.name.clone(),
            provider: provider.clone(),
            hold,
            missing: missing.map(str::to_owned).collect(),
            max_drop: self.service.guard.max_drop,
            interval,
        }
    }

    fn accept(&mut self, provider: Name, set: AcceptedSet) {
        self.confirmed.insert(provider.clone());
        self.persisted.sources.insert(provider, set);
    }

    /// Accepts every held set. Returns how many backends they have; `None`: no set is held.
    pub fn accept_held(&mut self) -> Option<usize> {
        let held = std::mem::take(&mut self.held);
        let count = held.values().map(|held| held.set.members.len()).sum();
        let any = !held.is_empty();
        for (provider, Held { set, .. }) in held {
            self.drop_confirmations.remove(&provider);
            self.accept(provider, set);
        }
        any.then_some(count)
    }

    /// Moves every timer along with the system clock.
    pub fn shift(&mut self, step: ClockStep) {
        let held = self.held.values_mut().map(|held| &mut held.set);
        self.persisted.sources.values_mut().chain(held).for_each(|source| step.shift(&mut source.observed));
        self.persisted.traffic.shift(step);
    }

    /// Takes the results of our own health checks.
    pub fn set_health(&mut self, report: HealthReport) {
        if self.service.health.is_some() {
            self.persisted.failing = report.out.keys().cloned().collect();
            self.health = Some(report);
        }
    }

    /// The backends that our own health checks should probe. `None`: the service has no health check.
    pub fn health_pool(&self, now: SystemTime, registered: Option<&Registrations>) -> Option<health::Pool> {
        let check = self.service.health.clone()?;
        let members = self.gather(now, registered).members;
        let targets = members.into_values().filter(|member| member.backend.state == BackendState::Up);
        let target = |member: Cow<'_, Member>| health::Target {
            id: member.backend.id.clone(),
            address: socket_address(&member.backend),
        };
        Some(health::Pool {
            service: self.service.name.clone(),
            check,
            targets: targets.map(target).collect(),
            failed: self.failing_before_restart.clone(),
        })
    }

    /// The set to be served at `now`, in our own `zone`, with the `registered` backends.
    ///
    /// `None`: not enough is known yet. That is so until every provider has answered or failed once and at least one
    /// has answered: an incomplete set must never be served as the whole.
    pub fn serve(&mut self, now: SystemTime, zone: Option<&str>, registered: Option<&Registrations>) -> Option<Served> {
        let sources = &self.persisted.sources;
        let is_complete = self.service.providers.iter().all(|p| self.polled.contains(p) || sources.contains_key(p));
        if !is_complete || sources.is_empty() {
            return None;
        }
        let Gathered { members, mut excluded, next_change: next_expiry } = self.gather(now, registered);
        let members: Vec<_> = members.into_values().map(Cow::into_owned).collect();
        let failing = self.failing(&members);
        let input = PolicyInput { now, zone, failing: failing.as_ref(), is_first: !self.is_served };
        let EffectiveSet { backends, exclusions, next_change } =
            self.persisted.traffic.apply(&self.service, members, &input);
        self.is_served = true;
        excluded.extend(exclusions);
        excluded.sort_by(|a, b| a.id.cmp(&b.id));
        self.excluded_members = excluded.into();
        Some(Served { backends, next_change: [next_change, next_expiry].into_iter().flatten().min() })
    }

    /// The backends that fail our own health checks, and how. One that has not been probed yet counts as failing.
    /// `None`: there are no health checks.
    fn failing(&self, members: &[Member]) -> Option<BTreeMap<String, String>> {
        let Some(report) = &self.health else {
            let failing = self.failing_before_restart.iter().map(|id| (id.clone(), NOT_CHECKED_YET.to_owned()));
            return self.service.health.is_some().then(|| failing.collect());
        };
        let mut failing = report.out.clone();
        for Member { backend, .. } in members.iter().filter(|member| member.backend.state == BackendState::Up) {
            if report.targets.get(&backend.id) != Some(&socket_address(backend)) {
                failing.insert(backend.id.clone(), NOT_CHECKED_YET.to_owned());
            }
        }
        Some(failing)
    }

    /// The members of the sets that count at `now`, and the registered backends.
    fn gather(&self, now: SystemTime, registered: Option<&Registrations>) -> Gathered<'_> {
        let expiry = |source: &AcceptedSet| self.service.expire.and_then(|expire| source.observed.checked_add(expire));
        let is_fresh = |source: &AcceptedSet| expiry(source).is_none_or(|end| end > now);
        let sources = &self.persisted.sources;
        let known: Vec<_> = self.service.providers.iter().filter_map(|name| Some((name, sources.get(name)?))).collect();
        // If every set has expired, all of them count: old backends are better than none.
        let any_fresh = known.iter().any(|(_, source)| is_fresh(source));
        let counts = |source: &AcceptedSet| !any_fresh || is_fresh(source);
        let has_any =
            |source: &AcceptedSet| source.members.iter().any(|member| member.backend.state == BackendState::Up);
        let chosen = match self.service.sources {
            SourcesMode::Union => None,
            SourcesMode::Failover => {
                let usable = || known.iter().filter(|(_, source)| counts(source));
                usable().find(|(_, source)| has_any(source)).or_else(|| usable().next()).map(|(name, _)| *name)
            }
        };
        let mut members: BTreeMap<String, Cow<'_, Member>> = BTreeMap::new();
        let mut excluded = Vec::new();
        for (name, source) in &known {
            let why = match chosen {
                _ if !counts(source) => Some("has not answered for longer than the service's `expire`"),
                Some(chosen) if chosen != *name => Some("is on standby (`sources = \"failover\"`)"),
                _ => None,
            };
            for member in &source.members {
                match why {
                    Some(why) => {
                        let reason = Reason::Unused { provider: (*name).clone(), why };
                        excluded.push(Exclusion { id: member.backend.id.clone(), reason });
                    }
                    // Of two providers that report the same id, the one named first counts.
                    None => drop(members.entry(member.backend.id.clone()).or_insert(Cow::Borrowed(member))),
                }
            }
        }
        let next_change = known.iter().filter_map(|(_, source)| expiry(source)).filter(|end| *end > now).min();
        for (id, Registered { backend, .. }) in registered.into_iter().flatten() {
            // A registered backend replaces a reported one of the same id, for as long as the registration lasts.
            members.insert(id.clone(), Cow::Owned(Member { backend: backend.clone(), launched: None }));
        }
        Gathered { members, excluded, next_change: next_change.filter(|_| known.len() > 1) }
    }

    /// The service's report; `served` is the revision and the number of backends that the snapshot has of it.
    pub fn report(&self, served: Option<(u64, usize)>) -> ServiceReport {
        let sources = &self.persisted.sources;
        let source = |name: &Name| status::Source {
            provider: name.clone(),
            backends: sources.get(name).map(|source| source.members.len()),
            age_seconds: sources.get(name).map(|source| source.observed.into()),
            held: self.held.get(name).map(|held| (&held.description).into()),
        };
        let mut exclusions = Exclusions::from(self.excluded_members.to_vec());
        for more in self.excluded.values() {
            exclusions.merge(more);
        }
        let status = status::Service {
            backends: served.map(|(_, backends)| backends),
            revision: served.map_or(0, |(revision, _)| revision),
            restored: served.is_some() && sources.keys().any(|name| !self.confirmed.contains(name)),
            panic_mode: self.health.as_ref().is_some_and(|report| report.panicking),
            exclusions,
            ..status::Service::of(self.service.providers.iter().map(source).collect())
        };
        let (service, excluded_members) = (Arc::clone(&self.service), Arc::clone(&self.excluded_members));
        ServiceReport { status: Arc::new(status), service, excluded_members }
    }
}

/// The ids of those that take traffic.
fn up(members: &[Member]) -> impl Iterator<Item = &str> {
    let up = members.iter().filter(|member| member.backend.state == BackendState::Up);
    up.map(|member| member.backend.id.as_str())
}

fn socket_address(backend: &Backend) -> SocketAddr {
    (backend.address, backend.port).into()
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
