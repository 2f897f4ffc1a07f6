//! The one writer of snapshots.
//!
//! Observations come in; each is judged for every service of its provider, and what the guard accepts becomes the next
//! revision. An observation that is an error changes nothing but the account of it.

pub mod guard;
mod report;
pub mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use report::{ProviderReport, Report, ServiceReport};

use crate::model::{Backend, Exclusion, Instance, Name, Selection, Service, ServiceSet, Snapshot, select};
use crate::provider::Observation;
use guard::Suspicion;
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
}

/// The one writer of snapshots.
#[derive(Debug)]
pub struct Registry {
    services: Vec<Service>,
    suspicions: BTreeMap<Name, Suspicion>,
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
            state,
            known: known.unwrap_or_default(),
            snapshots: watch::Sender::new(None),
            report: watch::Sender::new(Arc::default()),
        };
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
        while let Some(Some(event)) = shutdown.run_until_cancelled(events.recv()).await {
            tokio::task::block_in_place(|| self.take(event));
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
        }
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
        let mut next = self.known.snapshot.clone();
        next.revision += 1;
        let mut changed = false;
        for service in self.services.iter().filter(|service| service.provider == *provider) {
            let Selection { backends, exclusions } = select(service, instances);
            let current = next.services.get(&service.name);
            let suspicion = self.suspicions.entry(service.name.clone()).or_default();
            let verdict =
                guard::judge(&service.guard, current.map(|set| set.backends.len()), backends.len(), suspicion);
            let account = report.services.entry(service.name.clone()).or_insert_with(|| unknown(service));
            log_faults(&service.name, &account.exclusions, &exclusions);
            account.exclusions = exclusions;
            match verdict {
                Err(hold) => {
                    if account.held.is_none() {
                        tracing::warn!(service = %service.name, "held back: {hold}");
                    }
                    account.held = Some(hold);
                }
                Ok(()) => {
                    if account.held.take().is_some() {
                        tracing::info!(service = %service.name, "no longer held back");
                    }
                    account.observed = Some(at);
                    account.restored = false;
                    self.known.observed.insert(service.name.clone(), at);
                    if current.is_none_or(|set| set.backends != backends) {
                        changed = true;
                        log_change(&service.name, current.map_or(&[], |set| &set.backends), &backends, next.revision);
                        let set = ServiceSet { revision: next.revision, backends };
                        next.services.insert(service.name.clone(), Arc::new(set));
                    }
                }
            }
        }
        if changed {
            self.known.snapshot = next;
            self.publish(report);
        }
        self.describe(report);
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
