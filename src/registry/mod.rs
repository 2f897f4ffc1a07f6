//! The one writer of snapshots.
//!
//! Observations come in; each is judged for every service of its provider, and what the guard accepts becomes the next
//! revision. An observation that is an error changes nothing but the account of it.

mod clock;
pub mod guard;
mod pool;
pub mod registration;
mod report;
pub mod state;
mod times;
mod traffic_policy;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use report::{Excluded, MAX_EXCLUSIONS, ProviderReport, Report, ServiceReport, SourceReport};

use crate::health::{self, HealthReport};
use crate::model::{Backend, Created, Instance, Name, Pattern, Service, ServiceSet, Snapshot};
use crate::provider::{Error, Observation};
use clock::Clock;
use pool::{PersistedService, Pool, Served};
use registration::Registered;
use state::{Restored, State};

use crate::sys::atomic_file;

/// What the registry is configured with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The services.
    pub services: Vec<Service>,
    /// What creates more of them.
    pub patterns: Vec<Pattern>,
    /// The providers, with their types.
    pub providers: BTreeMap<Name, &'static str>,
    /// Our own zone, if it is configured.
    pub zone: Option<String>,
}

/// What the registry is told beside observations.
#[derive(Debug)]
pub enum Event {
    /// A poll ended.
    Observed(Observation),
    /// The configuration was reloaded.
    Reconfigured(Settings),
    /// Our own zone was found out.
    Located(String),
    /// The sidecar's own checks found something.
    Checked(HealthReport),
    /// A person or a program asks for a change.
    Asked(Request, oneshot::Sender<Result<u64, Refusal>>),
}

/// A change that somebody asks for. The answer is the service's revision afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The set that is held back is right.
    Accept {
        /// The service.
        service: Name,
    },
    /// The backend is one of the service's for `ttl`, unless it is registered anew.
    Register {
        /// The service.
        service: Name,
        /// The backend.
        backend: Backend,
        /// For how long, as [`registration::TTL`] bounds it.
        ttl: Duration,
    },
    /// The backend is not registered any more.
    Deregister {
        /// The service.
        service: Name,
        /// The backend's id.
        id: String,
    },
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such service.
    #[error("there is no service {0}")]
    NoService(Name),
    /// Nothing is held back.
    #[error("nothing is held back for service {0}")]
    NotHeld(Name),
    /// The backend is not registered.
    #[error("no backend {id:?} is registered for service {service}; what a provider reports cannot be taken out")]
    NotRegistered {
        /// The service.
        service: Name,
        /// The backend's id.
        id: String,
    },
    /// There are too many.
    #[error("service {0} has {most} registered backends, which is the most there may be", most = registration::MOST)]
    TooMany(Name),
}

/// The one writer of snapshots.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    pools: BTreeMap<Name, Pool>,
    /// What patterns could not do, by pattern, so that it is logged once.
    faults: BTreeMap<Name, Vec<String>>,
    located: Option<String>,
    clock: Clock,
    /// `None`: nothing is kept.
    state: Option<State>,
    known: Restored,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    report: watch::Sender<Arc<Report>>,
    to_check: watch::Sender<Arc<Vec<health::Pool>>>,
}

impl Registry {
    /// Restores the last known good from `state_dir`, if there is one.
    pub fn build(settings: Settings, state_dir: &Path) -> Self {
        let state = State::new(state_dir);
        let known = state.load().unwrap_or_else(|error| {
            tracing::error!(%error, "the last known good is not restored");
            None
        });
        Self::with(settings, Some(state), known.unwrap_or_default())
    }

    /// A registry that writes nothing and goes on from what the one of `state_dir` knows: for a trial.
    pub fn trial(settings: Settings, state_dir: &Path) -> Self {
        let known = State::new(state_dir).read().ok().flatten();
        Self::with(settings, None, known.unwrap_or_default())
    }

    fn with(settings: Settings, state: Option<State>, known: Restored) -> Self {
        let mut registry = Self {
            settings: Settings::default(),
            pools: BTreeMap::new(),
            faults: BTreeMap::new(),
            located: None,
            clock: Clock::new(),
            state,
            known,
            snapshots: watch::Sender::new(None),
            report: watch::Sender::new(Arc::default()),
            to_check: watch::Sender::new(Arc::default()),
        };
        registration::renew(&mut registry.known.registered, SystemTime::now());
        registry.reconfigure(settings);
        registry
    }

    /// The snapshots. `None` until a service is known.
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.subscribe()
    }

    /// The registry's account of itself.
    pub fn report(&self) -> watch::Receiver<Arc<Report>> {
        self.report.subscribe()
    }

    /// Whom the sidecar's own checks should ask.
    pub fn to_check(&self) -> watch::Receiver<Arc<Vec<health::Pool>>> {
        self.to_check.subscribe()
    }

    /// Takes events until told to stop, or until nobody sends any more.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: CancellationToken) {
        // What is due by itself: a registration, a weight, the end of a drain.
        let mut due = Some(SystemTime::now());
        loop {
            let time = async {
                match due {
                    Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
                    None => std::future::pending().await,
                }
            };
            due = tokio::select! {
                () = shutdown.cancelled() => break,
                event = events.recv() => match event {
                    Some(event) => tokio::task::block_in_place(|| self.take(event)),
                    None => break,
                },
                () = time => tokio::task::block_in_place(|| self.settle_now()),
            }
        }
        // Unchanged polls write nothing, so that the ages on disk lag: they are brought up to date once, at the end.
        if !self.known.snapshot.services.is_empty()
            && let Err(error) = self.save()
        {
            tracing::error!(%error, "the last known good is not kept");
        }
    }

    /// Takes one event. Returns when [`settle`](Self::settle) is due, if nothing happens meanwhile.
    pub fn take(&mut self, event: Event) -> Option<SystemTime> {
        // What the event brings is of the time after any step.
        self.now();
        match event {
            Event::Observed(observation) => self.observe(observation),
            Event::Reconfigured(settings) => self.reconfigure(settings),
            Event::Located(zone) => {
                tracing::info!(zone, "our own zone is known");
                self.located = Some(zone);
            }
            Event::Checked(verdicts) => {
                if let Some(pool) = self.pools.get_mut(&verdicts.service) {
                    pool.judge_health(verdicts);
                }
            }
            Event::Asked(request, answer) => {
                let service = request.service().clone();
                let complied = self.comply(request);
                let due = self.settle_now();
                let revision = self.known.snapshot.services.get(&service).map_or(0, |set| set.revision);
                // Whoever asked may have gone.
                let _ = answer.send(complied.map(|()| revision));
                return due;
            }
        }
        self.settle_now()
    }

    fn settle_now(&mut self) -> Option<SystemTime> {
        let now = self.now();
        self.settle(now)
    }

    /// The time. Where the clock was set, all that is due is moved along with it.
    fn now(&mut self) -> SystemTime {
        let (now, step) = self.clock.look();
        if let Some(step) = step {
            tracing::warn!(?step, "the clock was set; what is due is due when it would have been");
            registration::shift(&mut self.known.registered, step);
            self.pools.values_mut().for_each(|pool| pool.shift(step));
        }
        now
    }

    fn comply(&mut self, request: Request) -> Result<(), Refusal> {
        let now = self.now();
        let service = request.service().clone();
        let Some(pool) = self.pools.get_mut(&service) else { return Err(Refusal::NoService(service)) };
        match request {
            Request::Accept { .. } => {
                let backends = pool.accept_held().ok_or_else(|| Refusal::NotHeld(service.clone()))?;
                tracing::info!(%service, backends, "what was held back is accepted by request");
            }
            Request::Register { backend, ttl, .. } => {
                let registered = self.known.registered.entry(service.clone()).or_default();
                if registered.len() >= registration::MOST && !registered.contains_key(&backend.id) {
                    return Err(Refusal::TooMany(service));
                }
                registered.insert(backend.id.clone(), Registered::new(backend, ttl, now));
            }
            Request::Deregister { id, .. } => {
                let registered = self.known.registered.get_mut(&service);
                if registered.and_then(|registered| registered.remove(&id)).is_none() {
                    return Err(Refusal::NotRegistered { service, id });
                }
            }
        }
        Ok(())
    }

    /// Publishes the next revision, if what is to be served at `now` comes to another one. Returns when that may
    /// change by itself.
    pub fn settle(&mut self, now: SystemTime) -> Option<SystemTime> {
        let mut due = registration::expire(&mut self.known.registered, now);
        let mut changed = BTreeMap::new();
        let zone = self.settings.zone.as_ref().or(self.located.as_ref());
        for (name, pool) in &mut self.pools {
            let registered = self.known.registered.get(name);
            let Some(Served { backends, next }) = pool.serve(now, zone.map(String::as_str), registered) else {
                continue;
            };
            due = [due, next].into_iter().flatten().min();
            let current = self.known.snapshot.services.get(name);
            if current.is_none_or(|set| set.backends != backends) {
                changed.insert(name.clone(), backends);
            }
        }
        // A service that a pattern created goes when nobody asks for it any more.
        let gone: Vec<_> =
            self.known.snapshot.services.keys().filter(|name| !self.pools.contains_key(*name)).cloned().collect();
        let mut report = Report::clone(&self.report.borrow());
        if !changed.is_empty() || !gone.is_empty() {
            // The snapshot that others hold is theirs: what is not changed is shared with it.
            let snapshot = &mut self.known.snapshot;
            snapshot.revision += 1;
            for name in gone {
                snapshot.services.remove(&name);
            }
            for (name, backends) in changed {
                let current = snapshot.services.get(&name);
                log_change(&name, current.map_or(&[], |set| &set.backends), &backends, snapshot.revision);
                let set = ServiceSet { revision: snapshot.revision, backends };
                snapshot.services.insert(name, Arc::new(set));
            }
            self.publish(&mut report);
        }
        self.describe(report);
        self.ask_for_checks(now);
        due
    }

    fn observe(&mut self, observation: Observation) {
        let Observation { provider, at, took, cost, result } = observation;
        if !self.settings.providers.contains_key(&provider) {
            // It was under way when the provider was taken out of the configuration.
            return;
        }
        let mut report = Report::clone(&self.report.borrow());
        let account = report.providers.entry(provider.clone()).or_default();
        account.polls += 1;
        account.last_duration = took.as_secs_f64();
        account.calls += cost.calls;
        account.pages += cost.pages;
        // A source that does not count may still say so.
        account.throttles += cost.throttles.max(u64::from(result.as_ref().is_err_and(Error::is_throttled)));
        match result {
            Err(error) => {
                account.failures += 1;
                let message = error.to_string();
                if account.error.as_ref() != Some(&message) {
                    tracing::warn!(%provider, error = message, "a poll failed; what is known stands");
                }
                account.error = Some(message);
                for pool in self.pools.values_mut().filter(|pool| pool.service().providers.contains(&provider)) {
                    pool.fail(&provider);
                }
            }
            Ok(instances) => {
                if account.error.take().is_some() {
                    tracing::info!(%provider, "polls succeed again");
                }
                account.last_success = Some(at);
                account.instances = instances.into();
                let instances = Arc::clone(&account.instances);
                self.create(&provider, &instances);
                for pool in self.pools.values_mut().filter(|pool| pool.service().providers.contains(&provider)) {
                    pool.observe(&provider, &instances, at);
                }
                self.pools.retain(|_, pool| !pool.is_spent());
            }
        }
        self.report.send_replace(Arc::new(report));
    }

    /// Takes up the services that a provider's tags create, and drops those of which nothing is left.
    fn create(&mut self, provider: &Name, instances: &[Instance]) {
        for pattern in self.settings.patterns.iter().filter(|pattern| pattern.base.providers.contains(provider)) {
            let Created { mut services, mut faults } = pattern.expand(instances);
            for service in &self.settings.services {
                if services.remove(&service.name).is_some() {
                    faults.push(format!(
                        "a service {} is configured: the one that tags create is left out",
                        service.name
                    ));
                }
            }
            if self.faults.get(&pattern.base.name) != Some(&faults) {
                for fault in faults.iter().take(report::NAMED) {
                    tracing::warn!(pattern = %pattern.base.name, "no service is created: {fault}");
                }
                self.faults.insert(pattern.base.name.clone(), faults);
            }
            for (name, (service, origin)) in services {
                self.pools.entry(name).or_insert_with(|| Pool::created(service, origin));
            }
        }
    }

    /// Takes up new services and forgets those that are gone.
    fn reconfigure(&mut self, settings: Settings) {
        let mut report = Report::clone(&self.report.borrow());
        report.providers.retain(|name, _| settings.providers.contains_key(name));
        for (name, type_name) in &settings.providers {
            report.providers.entry(name.clone()).or_default().type_name = type_name;
        }
        self.report.send_replace(Arc::new(report));
        let mut pools = std::mem::take(&mut self.pools);
        let mut kept = std::mem::take(&mut self.known.pools);
        let origins = pools.values().map(Pool::kept).chain(kept.values()).filter_map(|kept| kept.origin.as_ref());
        let created = origins.filter_map(|origin| {
            let pattern = settings.patterns.iter().find(|pattern| pattern.base.name == origin.pattern)?;
            Some((pattern.service(origin).ok()?, Some(origin.clone())))
        });
        let configured = settings.services.iter().map(|service| (service.clone(), None));
        // Those configured come last, and so have the last word.
        let services: BTreeMap<Name, _> =
            created.collect::<Vec<_>>().into_iter().chain(configured).map(|of| (of.0.name.clone(), of)).collect();
        for (name, (service, origin)) in services {
            let pool = match pools.remove(&name) {
                Some(mut pool) => {
                    pool.reconfigure(service, origin);
                    pool
                }
                None => {
                    let is_served = self.known.snapshot.services.contains_key(&name);
                    let kept = PersistedService { origin, ..kept.remove(&name).unwrap_or_default() };
                    Pool::new(service, kept, is_served)
                }
            };
            self.pools.insert(name, pool);
        }
        self.known.registered.retain(|name, _| self.pools.contains_key(name));
        self.settings = settings;
        self.settle_now();
        // What was restored is served from the start.
        if !self.known.snapshot.services.is_empty() && self.snapshots.borrow().is_none() {
            self.snapshots.send_replace(Some(Arc::new(self.known.snapshot.clone())));
        }
    }

    /// Saved first: a revision that anybody has seen is never used again for other backends.
    fn publish(&mut self, report: &mut Report) {
        match self.save() {
            Ok(()) => {
                if report.state_error.take().is_some() {
                    tracing::info!("the last known good is kept again");
                }
            }
            Err(error) => {
                let message = error.to_string();
                if report.state_error.is_none() {
                    tracing::error!(error = message, "the last known good is not kept; a restart would go back");
                }
                report.state_error = Some(message);
            }
        }
        self.snapshots.send_replace(Some(Arc::new(self.known.snapshot.clone())));
    }

    fn save(&self) -> Result<(), atomic_file::Error> {
        let Some(state) = &self.state else { return Ok(()) };
        let pools = self.pools.iter().map(|(name, pool)| (name, pool.kept())).collect();
        state.save(&self.known.snapshot, &self.known.registered, &pools)
    }

    fn describe(&self, mut report: Report) {
        report.zone = self.settings.zone.clone().or_else(|| self.located.clone());
        report.services = self
            .pools
            .iter()
            .map(|(name, pool)| {
                let served = self.known.snapshot.services.get(name);
                let served = served.map(|set| (set.revision, set.backends.len()));
                (name.clone(), Arc::new(pool.report(served)))
            })
            .collect();
        self.report.send_replace(Arc::new(report));
    }

    fn ask_for_checks(&self, now: SystemTime) {
        let pools: Vec<_> =
            self.pools.iter().filter_map(|(name, pool)| pool.to_check(now, self.known.registered.get(name))).collect();
        self.to_check.send_if_modified(|current| {
            let changed = **current != pools;
            if changed {
                *current = Arc::new(pools);
            }
            changed
        });
    }
}

impl Request {
    /// The service that it is about.
    pub const fn service(&self) -> &Name {
        match self {
            Self::Accept { service } | Self::Register { service, .. } | Self::Deregister { service, .. } => service,
        }
    }
}

fn log_change(service: &Name, old: &[Backend], new: &[Backend], revision: u64) {
    let before: BTreeMap<&str, &Backend> = old.iter().map(|backend| (backend.id.as_str(), backend)).collect();
    let kept = new.iter().filter_map(|backend| Some((backend, *before.get(backend.id.as_str())?)));
    let (kept, altered) =
        kept.fold((0, 0), |(kept, altered), (new, old)| (kept + 1, altered + usize::from(new != old)));
    // A state that somebody wrote by hand may have an id twice.
    let (added, removed) = (new.len() - kept, old.len().saturating_sub(kept));
    tracing::info!("{service}: +{added} -{removed} ~{altered}, {} backends, revision {revision}", new.len());
}
