//! The one writer of snapshots.
//!
//! Providers' observations come in as events. Each is evaluated for every service of its provider, and the sets that
//! the guard accepts become the next revision. A failed poll changes nothing but the provider's report.

mod change;
mod clock;
pub mod guard;
mod held;
mod pool;
mod publish;
mod reconfigure;
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

pub use change::{Change, ChangeError};
pub use held::HeldSet;
pub use report::{ProviderReport, Report, ServiceReport};

use crate::health::{self, HealthReport};
use crate::model::{Name, Pattern, Service, Snapshot};
use crate::provider::{ApiUsage, Error, Observation};
use clock::Clock;
use pool::Pool;
use state::{SavedState, State};

/// The part of the configuration that the registry needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The configured services.
    pub services: Vec<Service>,
    /// The patterns by which tags create further services.
    pub patterns: Vec<Pattern>,
    /// The providers.
    pub providers: BTreeMap<Name, ProviderSettings>,
    /// Our own zone, if it is configured.
    pub zone: Option<String>,
}

/// The part of a provider's configuration that the registry needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderSettings {
    /// The type, as the configuration writes it.
    pub type_name: &'static str,
    /// The time between two polls.
    pub interval: Duration,
}

/// Everything that can change what the registry serves.
#[derive(Debug)]
pub enum Event {
    /// A poll ended.
    Observed(Observation),
    /// The configuration was reloaded.
    Reconfigured(Settings),
    /// Our own zone was found.
    ZoneFound(String),
    /// The result of our own health checks of a service changed.
    HealthChecked(HealthReport),
    /// A change was asked for. The answer is the service's revision afterwards.
    Change(Change, oneshot::Sender<Result<u64, ChangeError>>),
}

/// The one writer of snapshots.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    pools: BTreeMap<Name, Pool>,
    /// Why tags created no service, by pattern, as last logged.
    pattern_faults: BTreeMap<Name, Vec<String>>,
    zone_found: Option<String>,
    clock: Clock,
    /// `None`: nothing is written to disk.
    state: Option<State>,
    saved: SavedState,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    report: watch::Sender<Arc<Report>>,
    health_pools: watch::Sender<Arc<Vec<health::Pool>>>,
}

impl Registry {
    /// Restores the state saved in `state_dir`, if there is any.
    pub fn build(settings: Settings, state_dir: &Path) -> Self {
        let state = State::new(state_dir);
        let saved = state.load().unwrap_or_else(|error| {
            tracing::error!(%error, "saved state not restored; services wait for their first discovery");
            None
        });
        Self::with(settings, Some(state), saved.unwrap_or_default())
    }

    /// A registry that starts from the state in `state_dir` and writes nothing: for a dry run.
    pub fn trial(settings: Settings, state_dir: &Path) -> Self {
        let saved = State::new(state_dir).read().ok().flatten();
        Self::with(settings, None, saved.unwrap_or_default())
    }

    fn with(settings: Settings, state: Option<State>, saved: SavedState) -> Self {
        let mut registry = Self {
            settings: Settings::default(),
            pools: BTreeMap::new(),
            pattern_faults: BTreeMap::new(),
            zone_found: None,
            clock: Clock::new(),
            state,
            saved,
            snapshots: watch::Sender::new(None),
            report: watch::Sender::new(Arc::default()),
            health_pools: watch::Sender::new(Arc::default()),
        };
        registration::renew_all(&mut registry.saved.registered, SystemTime::now());
        registry.reconfigure(settings);
        registry
    }

    /// The snapshots. `None` until the set of some service is known.
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.subscribe()
    }

    /// The report, which is replaced after every event.
    pub fn report(&self) -> watch::Receiver<Arc<Report>> {
        self.report.subscribe()
    }

    /// The backends that our own health checks should probe.
    pub fn health_pools(&self) -> watch::Receiver<Arc<Vec<health::Pool>>> {
        self.health_pools.subscribe()
    }

    /// Handles events until stopped, or until every sender is gone. Blocks while the state is saved, and is therefore to be
    /// run on a thread of its own.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: CancellationToken) {
        // When something changes without an event: a registration ends, a weight rises, a drain ends.
        let mut due = Some(SystemTime::now());
        loop {
            let due_time = async {
                match due {
                    Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
                    None => std::future::pending().await,
                }
            };
            due = tokio::select! {
                () = shutdown.cancelled() => break,
                event = events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => break,
                },
                () = due_time => self.settle_now(),
            }
        }
        // Polls that change nothing are not written to disk, so the observation times there are old: written once here.
        if !self.saved.snapshot.services.is_empty()
            && let Err(error) = self.save()
        {
            tracing::error!(%error, "state not saved at shutdown");
        }
    }

    /// Handles one event. Returns when [`settle`](Self::settle) is due if no other event comes before.
    pub fn handle(&mut self, event: Event) -> Option<SystemTime> {
        // Before anything of the event is stored: its times are those of the clock after a step.
        let now = self.adjusted_now();
        match event {
            Event::Observed(observation) => self.observe(observation),
            Event::Reconfigured(settings) => self.reconfigure(settings),
            Event::ZoneFound(zone) => {
                tracing::info!(zone, "own zone found");
                self.zone_found = Some(zone);
            }
            Event::HealthChecked(report) => {
                if let Some(pool) = self.pools.get_mut(&report.service) {
                    pool.set_health(report);
                }
            }
            Event::Change(change, answer) => {
                let service = change.service().clone();
                let result = change::apply(change, &mut self.pools, &mut self.saved.registered, now);
                let due = self.settle_now();
                let revision = self.saved.snapshot.services.get(&service).map_or(0, |set| set.revision);
                // The client may have gone.
                let _ = answer.send(result.map(|()| revision));
                return due;
            }
        }
        self.settle_now()
    }

    fn settle_now(&mut self) -> Option<SystemTime> {
        let now = self.adjusted_now();
        self.settle(now)
    }

    /// The time. If the system clock was stepped, every timer is moved along with it.
    fn adjusted_now(&mut self) -> SystemTime {
        let (now, step) = self.clock.read();
        if let Some(step) = step {
            tracing::warn!(%step, "system clock stepped; timers adjusted");
            registration::shift(&mut self.saved.registered, step);
            self.pools.values_mut().for_each(|pool| pool.shift(step));
        }
        now
    }

    fn zone(&self) -> Option<&str> {
        self.settings.zone.as_deref().or(self.zone_found.as_deref())
    }

    /// Updates the provider's report, and passes the result on to the services of the provider.
    fn observe(&mut self, observation: Observation) {
        let Observation { provider, at, took, cost, result } = observation;
        if !self.settings.providers.contains_key(&provider) {
            // The poll was under way when the provider was removed from the configuration.
            return;
        }
        let mut report = Report::clone(&self.report.borrow());
        let account = report.providers.entry(provider.clone()).or_default();
        let status = &mut account.status;
        status.polls += 1;
        status.poll_duration_seconds = took.as_secs_f64();
        // A provider that does not count throttled calls may still fail with a throttling error.
        let throttles = cost.throttles.max(u64::from(result.as_ref().is_err_and(Error::is_throttled)));
        status.usage += ApiUsage { throttles, ..cost };
        match result {
            Err(error) => {
                status.failures += 1;
                let error = error.to_string();
                if status.error.as_ref() != Some(&error) {
                    let is_known = |pool: &Pool| pool.persisted().sources.contains_key(&provider);
                    if status.age_seconds.is_some() || self.pools.values().any(is_known) {
                        tracing::warn!(%provider, %error, "poll failed; keeping the last known set");
                    } else {
                        tracing::warn!(%provider, %error, "poll failed; nothing is known of this provider yet");
                    }
                }
                status.error = Some(error);
                for pool in self.pools.values_mut().filter(|pool| pool.service().providers.contains(&provider)) {
                    pool.poll_failed(&provider);
                }
            }
            Ok(instances) => {
                if status.error.take().is_some() {
                    tracing::info!(%provider, "polls succeed again");
                }
                status.age_seconds = Some(at.into());
                status.instances = instances.len();
                account.instances = instances.into();
                let instances = Arc::clone(&account.instances);
                self.create_services(&provider, &instances);
                let interval = self.settings.providers.get(&provider).map(|provider| provider.interval);
                for pool in self.pools.values_mut().filter(|pool| pool.service().providers.contains(&provider)) {
                    pool.observe(&provider, &instances, at, interval);
                }
                self.pools.retain(|_, pool| !pool.is_obsolete());
            }
        }
        self.report.send_replace(Arc::new(report));
    }
}
