//! The one writer of snapshots.
//!
//! Observations come in; each is judged for every service of its provider, and what the guard accepts becomes the next
//! revision. An observation that is an error changes nothing but the account of it.

pub mod guard;
pub mod registration;
mod report;
pub mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use report::{ProviderReport, Report, ServiceReport};

use crate::model::{Backend, Exclusion, Instance, Name, Selection, Service, ServiceSet, Snapshot, select};
use crate::provider::Observation;
use guard::Suspicion;
use registration::{Registered, Registrations};
use state::{Restored, State};

/// How many faulty instances are named in one log line.
const NAMED: usize = 5;

/// What the registry is told beside observations.
#[derive(Debug)]
pub enum Event {
    /// A poll ended.
    Observed(Observation),
    /// The configuration was reloaded.
    Reconfigured {
        /// The services from now on.
        services: Vec<Service>,
        /// The providers from now on, with their types.
        providers: BTreeMap<Name, &'static str>,
    },
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
    services: Vec<Service>,
    suspicions: BTreeMap<Name, Suspicion>,
    /// What the guard accepted of each service's provider.
    accepted: BTreeMap<Name, Vec<Backend>>,
    /// What it holds back.
    held: BTreeMap<Name, Vec<Backend>>,
    state: State,
    known: Restored,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    report: watch::Sender<Arc<Report>>,
}

impl Registry {
    /// Restores the last known good from `state_dir`, if there is one.
    pub fn build(services: Vec<Service>, providers: BTreeMap<Name, &'static str>, state_dir: &Path) -> Self {
        let state = State::new(state_dir);
        let known = state.load().unwrap_or_else(|error| {
            tracing::error!(%error, "the last known good is not restored");
            None
        });
        let mut registry = Self {
            services: Vec::new(),
            suspicions: BTreeMap::new(),
            accepted: BTreeMap::new(),
            held: BTreeMap::new(),
            state,
            known: known.unwrap_or_default(),
            snapshots: watch::Sender::new(None),
            report: watch::Sender::new(Arc::default()),
        };
        for (name, set) in &registry.known.snapshot.services {
            let registered = registry.known.registered.get(name);
            let is_observed = |backend: &&Backend| registered.is_none_or(|all| !all.contains_key(&backend.id));
            registry.accepted.insert(name.clone(), set.backends.iter().filter(is_observed).cloned().collect());
        }
        registration::renew(&mut registry.known.registered, SystemTime::now());
        registry.reconfigure(services, providers);
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

    /// Takes events until told to stop, or until nobody sends any more.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: CancellationToken) {
        loop {
            let next_expiry = tokio::task::block_in_place(|| self.expire());
            let expired = async {
                match next_expiry {
                    Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = events.recv() => match event {
                    Some(event) => tokio::task::block_in_place(|| self.take(event)),
                    None => break,
                },
                () = expired => {}
            }
        }
        // Unchanged polls write nothing, so that the ages on disk lag: they are brought up to date once, at the end.
        if !self.known.snapshot.services.is_empty()
            && let Err(error) = self.state.save(&self.known)
        {
            tracing::error!(%error, "the last known good is not kept");
        }
    }

    /// Takes one event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Observed(observation) => self.observe(observation),
            Event::Reconfigured { services, providers } => self.reconfigure(services, providers),
            Event::Asked(request, answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(self.comply(request));
            }
        }
    }

    fn comply(&mut self, request: Request) -> Result<u64, Refusal> {
        let service = match &request {
            Request::Accept { service } | Request::Register { service, .. } | Request::Deregister { service, .. } => {
                service.clone()
            }
        };
        if !self.services.iter().any(|known| known.name == service) {
            return Err(Refusal::NoService(service));
        }
        let mut report = Report::clone(&self.report.borrow());
        match request {
            Request::Accept { .. } => {
                let backends = self.held.remove(&service).ok_or_else(|| Refusal::NotHeld(service.clone()))?;
                tracing::info!(%service, backends = backends.len(), "what was held back is accepted by request");
                self.suspicions.remove(&service);
                self.accepted.insert(service.clone(), backends);
                if let Some(account) = report.services.get_mut(&service) {
                    account.held = None;
                    account.restored = false;
                }
            }
            Request::Register { backend, ttl, .. } => {
                let registered = self.known.registered.entry(service.clone()).or_default();
                if registered.len() >= registration::MOST && !registered.contains_key(&backend.id) {
                    return Err(Refusal::TooMany(service));
                }
                registered.insert(backend.id.clone(), Registered::new(backend, ttl, SystemTime::now()));
            }
            Request::Deregister { id, .. } => {
                let registered = self.known.registered.get_mut(&service);
                if registered.and_then(|registered| registered.remove(&id)).is_none() {
                    return Err(Refusal::NotRegistered { service, id });
                }
            }
        }
        self.settle(&mut report);
        self.report.send_replace(Arc::new(report));
        Ok(self.known.snapshot.services.get(&service).map_or(0, |set| set.revision))
    }

    /// Takes out the registrations whose time is over. Returns when the next one's will be.
    fn expire(&mut self) -> Option<SystemTime> {
        let count = |all: &Registrations| all.values().map(BTreeMap::len).sum::<usize>();
        let before = count(&self.known.registered);
        let next = registration::expire(&mut self.known.registered, SystemTime::now());
        if count(&self.known.registered) != before {
            let mut report = Report::clone(&self.report.borrow());
            self.settle(&mut report);
            self.report.send_replace(Arc::new(report));
        }
        next
    }

    /// Publishes the next revision, if what was accepted and what is registered come to another one.
    fn settle(&mut self, report: &mut Report) {
        let mut next = self.known.snapshot.clone();
        next.revision += 1;
        let mut changed = false;
        for service in &self.services {
            // Nothing is served of a service before its provider has answered.
            let Some(accepted) = self.accepted.get(&service.name) else { continue };
            let backends = registration::merge(accepted, self.known.registered.get(&service.name));
            let current = next.services.get(&service.name);
            if current.is_none_or(|set| *set.backends != *backends) {
                changed = true;
                log_change(&service.name, current.map_or(&[], |set| &set.backends), &backends, next.revision);
                let set = ServiceSet { revision: next.revision, backends: backends.into_owned() };
                next.services.insert(service.name.clone(), Arc::new(set));
            }
        }
        if changed {
            self.known.snapshot = next;
            self.publish(report);
        }
        self.describe(report);
    }

    fn observe(&mut self, observation: Observation) {
        let Observation { provider, at, took, result } = observation;
        if !self.report.borrow().providers.contains_key(&provider) {
            // It was under way when the provider was taken out of the configuration.
            return;
        }
        let mut report = Report::clone(&self.report.borrow());
        let account = report.providers.entry(provider.clone()).or_default();
        account.polls += 1;
        account.last_duration = took.as_secs_f64();
        match result {
            Err(error) => {
                account.failures += 1;
                account.throttles += u64::from(error.is_throttled());
                let message = error.to_string();
                if account.error.as_ref() != Some(&message) {
                    tracing::warn!(%provider, error = message, "a poll failed; what is known stands");
                }
                account.error = Some(message);
            }
            Ok(instances) => {
                if account.error.take().is_some() {
                    tracing::info!(%provider, "polls succeed again");
                }
                account.last_success = Some(at);
                account.instances = instances.len();
                self.accept(&provider, &instances, at, &mut report);
            }
        }
        self.report.send_replace(Arc::new(report));
    }

    /// Judges a complete set for every service of its provider, and publishes what changed.
    fn accept(&mut self, provider: &Name, instances: &[Instance], at: SystemTime, report: &mut Report) {
        for service in self.services.iter().filter(|service| service.provider == *provider) {
            let Selection { backends, exclusions } = select(service, instances);
            let current = self.accepted.get(&service.name).map(Vec::len);
            let suspicion = self.suspicions.entry(service.name.clone()).or_default();
            let verdict = guard::judge(&service.guard, current, backends.len(), suspicion);
            let account = report.services.entry(service.name.clone()).or_insert_with(|| unknown(service));
            log_faults(&service.name, &account.exclusions, &exclusions);
            account.exclusions = exclusions;
            match verdict {
                Err(hold) => {
                    if account.held.is_none() {
                        tracing::warn!(service = %service.name, "held back: {hold}");
                    }
                    account.held = Some(hold);
                    self.held.insert(service.name.clone(), backends);
                }
                Ok(()) => {
                    if account.held.take().is_some() {
                        tracing::info!(service = %service.name, "no longer held back");
                    }
                    self.held.remove(&service.name);
                    account.observed = Some(at);
                    account.restored = false;
                    self.known.observed.insert(service.name.clone(), at);
                    self.accepted.insert(service.name.clone(), backends);
                }
            }
        }
        self.settle(report);
    }

    /// Takes up new services and forgets those that are gone.
    fn reconfigure(&mut self, services: Vec<Service>, providers: BTreeMap<Name, &'static str>) {
        let mut report = Report::clone(&self.report.borrow());
        report.providers.retain(|name, _| providers.contains_key(name));
        for (name, type_name) in providers {
            report.providers.entry(name).or_default().type_name = type_name;
        }
        let named = |name: &Name| services.iter().any(|service| service.name == *name);
        report.services.retain(|name, _| named(name));
        self.suspicions.retain(|name, _| named(name));
        self.known.observed.retain(|name, _| named(name));
        self.known.registered.retain(|name, _| named(name));
        self.accepted.retain(|name, _| named(name));
        self.held.retain(|name, _| named(name));
        let before = self.known.snapshot.services.len();
        self.known.snapshot.services.retain(|name, _| named(name));
        for service in &services {
            let account = report.services.entry(service.name.clone()).or_insert_with(|| {
                let observed = self.known.observed.get(&service.name).copied();
                let restored = self.known.snapshot.services.contains_key(&service.name);
                ServiceReport { observed, restored, ..unknown(service) }
            });
            account.provider = service.provider.clone();
        }
        self.services = services;
        if self.known.snapshot.services.len() != before {
            self.known.snapshot.revision += 1;
            self.publish(&mut report);
        } else if before > 0 && self.snapshots.borrow().is_none() {
            self.snapshots.send_replace(Some(Arc::new(self.known.snapshot.clone())));
        }
        self.describe(&mut report);
        self.report.send_replace(Arc::new(report));
    }

    /// Saved first: a revision that anybody has seen is never used again for other backends.
    fn publish(&mut self, report: &mut Report) {
        match self.state.save(&self.known) {
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

    fn describe(&self, report: &mut Report) {
        for (name, account) in &mut report.services {
            if let Some(set) = self.known.snapshot.services.get(name) {
                account.backends = Some(set.backends.len());
                account.revision = set.revision;
            }
        }
    }
}

fn unknown(service: &Service) -> ServiceReport {
    ServiceReport {
        provider: service.provider.clone(),
        backends: None,
        revision: 0,
        observed: None,
        restored: false,
        held: None,
        exclusions: Vec::new(),
    }
}

fn log_change(service: &Name, old: &[Backend], new: &[Backend], revision: u64) {
    let before: BTreeMap<&str, &Backend> = old.iter().map(|backend| (backend.id.as_str(), backend)).collect();
    let kept = new.iter().filter_map(|backend| Some((backend, *before.get(backend.id.as_str())?)));
    let (kept, altered) =
        kept.fold((0, 0), |(kept, altered), (new, old)| (kept + 1, altered + usize::from(new != old)));
    let (added, removed) = (new.len() - kept, old.len() - kept);
    tracing::info!("{service}: +{added} -{removed} ~{altered}, {} backends, revision {revision}", new.len());
}

/// Only what somebody must mend, and only when it is new.
fn log_faults(service: &Name, before: &[Exclusion], now: &[Exclusion]) {
    let mut new = now.iter().filter(|exclusion| exclusion.reason.is_fault() && !before.contains(exclusion));
    for exclusion in new.by_ref().take(NAMED) {
        tracing::warn!("{service}: {:?} is left out: {}", exclusion.id, exclusion.reason);
    }
    let more = new.count();
    if more > 0 {
        tracing::warn!("{service}: {more} more instances are left out for such reasons; /v1/status names them");
    }
}
