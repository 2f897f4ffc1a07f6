//! What runs: started, watched, reloaded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_tokio::Signals;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::supervisor::Supervisor;
use super::{Error, Inputs, QUEUE};
use crate::api::{self, Api};
use crate::config::{self, Config, Fault, Faults};
use crate::frontend::{self, Worker};
use crate::health;
use crate::model::{Name, Selector};
use crate::provider::{self, Observation, poll};
use crate::readiness::{self, Frontends};
use crate::registry::{self, Registry};
use crate::status;
use crate::sys::backoff::Jitter;
use crate::sys::unconfined::Unconfined;
use crate::sys::{reaper, systemd};

/// How long a change under way may take to end after a stop was asked for. What does not end is taken up again at the
/// next start, from its apply record.
const DRAIN: Duration = Duration::from_secs(5);

/// The pause after our own zone was not found out, strayed by half.
const LOCATE_AGAIN: Duration = Duration::from_secs(30);

/// What runs, and what it was configured from.
pub(super) struct Daemon {
    file: PathBuf,
    config: Config,
    events: mpsc::Sender<registry::Event>,
    snapshots: watch::Receiver<Option<Arc<crate::model::Snapshot>>>,
    report: watch::Receiver<Arc<registry::Report>>,
    refresh: watch::Sender<u64>,
    reloads: mpsc::Receiver<oneshot::Sender<Result<(), String>>>,
    shown: Shown,
    supervisor: Supervisor,
    pollers: BTreeMap<Name, (Poller, CancellationToken)>,
    workers: BTreeMap<Name, RunningWorker>,
    is_locating: bool,
    unconfined: Unconfined,
    publisher: Option<RunningPublisher>,
}

/// What the API is shown of it.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Whether the first complete pass is over.
    pub(super) ready: watch::Sender<bool>,
    pub(super) frontends: watch::Sender<Frontends>,
    pub(super) fleet: watch::Sender<Arc<api::Fleet>>,
}

struct RunningPublisher {
    config: crate::fleet::Config,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// All that a poller depends on: if none of it changes, a reload of the configuration leaves it alone.
#[derive(PartialEq)]
struct Poller {
    provider: config::Provider,
    selectors: Vec<Selector>,
}

struct RunningWorker {
    config: frontend::Config,
    stop: CancellationToken,
    ended: CancellationToken,
    report: watch::Receiver<Arc<status::Frontend>>,
}

impl RunningWorker {
    /// Has it stop after the change it is at. Returns what is cancelled once it has.
    fn leave(self) -> CancellationToken {
        self.stop.cancel();
        self.ended
    }
}

impl Daemon {
    /// Starts everything.
    pub(super) fn start(
        file: PathBuf,
        config: Config,
        shown: Shown,
        inputs: Inputs,
        registry: Registry,
        workers: Vec<Worker>,
        api: Api,
        unconfined: Unconfined,
    ) -> Self {
        let Inputs { controls, registry_inbox, reloads } = inputs;
        let mut daemon = Daemon {
            file,
            snapshots: registry.snapshots(),
            report: registry.report(),
            config,
            events: controls.registry,
            refresh: controls.refresh,
            reloads,
            shown,
            supervisor: Supervisor::default(),
            pollers: BTreeMap::new(),
            workers: BTreeMap::new(),
            is_locating: false,
            unconfined,
            publisher: None,
        };
        daemon.supervisor.spawn("the API".to_owned(), |stop| api.serve(stop));
        daemon.start_checks(registry.health_pools());
        // It saves its state, and waits for the disk.
        daemon.supervisor.spawn_on_thread("the registry".to_owned(), |stop| registry.run(registry_inbox, stop));
        daemon.start_pollers();
        daemon.start_locating();
        daemon.start_publisher();
        for worker in workers {
            daemon.start_worker(worker, &[]);
        }
        daemon.publish_frontends();
        daemon.watch_readiness();
        daemon
    }

    /// Stops everything, within bounds.
    pub(super) async fn drain(&mut self) {
        self.supervisor.drain(DRAIN).await;
    }

    /// Obeys signals and orders until told to stop.
    ///
    /// # Errors
    ///
    /// A part of elasticd ended by itself.
    pub(super) async fn supervise(&mut self, signals: &mut Signals) -> Result<(), Error> {
        let watchdog = systemd::watchdog_interval();
        let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_hours(1)));
        loop {
            tokio::select! {
                ended = self.supervisor.ended() => return Err(Error::Ended(ended)),
                _ = alive.tick() => systemd::alive(),
                // The API, which the supervisor watches, holds the other end.
                Some(answer) = self.reloads.recv() => {
                    // The client may have gone.
                    let _ = answer.send(self.reload().await.map_err(|error| error.to_string()));
                }
                signal = signals.next() => match signal {
                    Some(SIGHUP) => drop(self.reload().await),
                    Some(SIGUSR1) => self.poll_now(),
                    Some(SIGCHLD) => {
                        if std::process::id() == 1 {
                            reaper::reap_orphans(&self.unconfined).await;
                        }
                    }
                    Some(SIGTERM | SIGINT) | None => return Ok(()),
                    Some(_) => {}
                },
            }
        }
    }

    fn poll_now(&self) {
        tracing::info!("polling every provider on request");
        self.refresh.send_modify(|asked| *asked += 1);
    }

    /// Takes up what the configuration file now says, or, if anything is wrong with it, nothing.
    async fn reload(&mut self) -> Result<(), Error> {
        if *self.shown.ready.borrow() {
            systemd::reloading();
        }
        let reloaded = self.try_reload().await;
        match &reloaded {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => tracing::error!(%error, "configuration refused; the previous one is kept"),
        }
        // systemd must hear the end of the reload, but not that a start still under way has come to its end.
        if *self.shown.ready.borrow() {
            systemd::ready();
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<(), Error> {
        let file = self.file.clone();
        let new = tokio::task::spawn_blocking(move || Config::load(&file)).await.expect("it does not panic")?;
        let fixed = [
            ("state_dir", new.state_dir != self.config.state_dir),
            ("confine", new.confine != self.config.confine),
            ("api", new.api != self.config.api),
        ];
        let fault = |key: &str| Fault {
            place: Some(self.file.display().to_string()),
            key: key.to_owned(),
            message: "cannot change while elasticd runs: restart it".to_owned(),
        };
        let faults: Vec<_> = fixed.iter().filter(|(_, changed)| *changed).map(|(key, _)| fault(key)).collect();
        if !faults.is_empty() {
            return Err(Faults(faults).into());
        }
        let changed: Vec<_> =
            new.frontends.iter().filter(|f| self.workers.get(&f.name).is_none_or(|w| w.config != **f)).collect();
        let workers: Vec<_> = changed
            .into_iter()
            .map(|f| build_worker(f, &new, &self.snapshots, &self.unconfined))
            .collect::<Result<_, _>>()?;
        // From here on nothing can fail.
        self.unconfined.allow_directories(new.output_directories());
        self.config = new;
        let reconfigured = registry::Event::Reconfigured(self.config.settings());
        // The registry only ends by being stopped or by a panic, of which the supervisor knows.
        let _ = self.events.send(reconfigured).await;
        let is_gone = |name: &Name| self.config.frontends.iter().all(|frontend| frontend.name != *name);
        let gone: Vec<_> =
            self.workers.extract_if(.., |name, _| is_gone(name)).map(|(_, worker)| worker.leave()).collect();
        for worker in workers {
            self.start_worker(worker, &gone);
        }
        self.publish_frontends();
        self.start_pollers();
        self.start_locating();
        self.start_publisher();
        // What changed in a service shows at once, and not only at its provider's next poll.
        self.refresh.send_modify(|asked| *asked += 1);
        Ok(())
    }

    /// Starts the pollers that the configuration asks for and do not run yet, and stops those it asks for no more.
    fn start_pollers(&mut self) {
        let mut running = std::mem::take(&mut self.pollers);
        for (name, provider) in self.config.providers.clone() {
            let selectors = self.config.selectors(&name);
            if selectors.is_empty() {
                if self.config.extra_selectors(&name).is_empty() {
                    tracing::warn!(provider = %name, "provider is not polled, as no service uses it");
                }
                continue;
            }
            let poller = Poller { provider, selectors };
            match running.remove(&name) {
                Some((same, stop)) if same == poller => {
                    self.pollers.insert(name, (same, stop));
                }
                changed => {
                    if let Some((_, stop)) = changed {
                        stop.cancel();
                    }
                    let stop = self.start_poller(&name, &poller);
                    self.pollers.insert(name, (poller, stop));
                }
            }
        }
        for (name, (_, stop)) in running {
            self.shown.fleet.send_modify(|fleet| drop(Arc::make_mut(fleet).readers.remove(&name)));
            stop.cancel();
        }
    }

    /// Starts the publisher that the configuration asks for, once the one it replaces has given the lead away.
    fn start_publisher(&mut self) {
        if self.publisher.as_ref().map(|running| &running.config) == self.config.publish.as_ref() {
            return;
        }
        let before = self.publisher.take().map(|running| {
            running.stop.cancel();
            running.ended
        });
        let Some(config) = self.config.publish.clone() else {
            self.shown.fleet.send_modify(|fleet| Arc::make_mut(fleet).publisher = None);
            return;
        };
        for name in self.config.polled_twice() {
            let reader = crate::fleet::TYPE.unwrap_or_default();
            tracing::warn!(
                provider = %name, reader,
                "provider is polled twice, for the fleet and for our own services; let the services use a provider of type reader"
            );
        }
        let publisher = crate::fleet::Publisher::new(config.clone(), self.refresh.subscribe(), self.unconfined.clone());
        self.shown.fleet.send_modify(|fleet| Arc::make_mut(fleet).publisher = Some(publisher.report()));
        let ended = CancellationToken::new();
        let done = ended.clone().drop_guard();
        let stop = self.supervisor.spawn("the publisher".to_owned(), |stop| async move {
            let _done = done;
            if let Some(before) = before {
                before.cancelled().await;
            }
            publisher.run(stop).await;
        });
        self.publisher = Some(RunningPublisher { config, stop, ended });
    }

    fn start_poller(&mut self, name: &Name, poller: &Poller) -> CancellationToken {
        let built = poller
            .provider
            .config
            .build(&provider::BuildContext { selectors: &poller.selectors, unconfined: &self.unconfined });
        if let Some(reading) = built.fleet_reading() {
            self.shown.fleet.send_modify(|fleet| drop(Arc::make_mut(fleet).readers.insert(name.clone(), reading)));
        }
        let (sender, mut observations) = mpsc::channel::<Observation>(1);
        let events = self.events.clone();
        let forward = async move {
            while let Some(observation) = observations.recv().await {
                if events.send(registry::Event::Observed(observation)).await.is_err() {
                    return;
                }
            }
        };
        let (name, pace, refresh) = (name.clone(), poller.provider.pace, self.refresh.subscribe());
        self.supervisor.spawn(format!("the poller of {name}"), |stop| async move {
            tokio::join!(poll::run(name, built, pace, refresh, sender, stop), forward);
        })
    }

    /// Looks for our own zone, if a service wants to know it and nobody has said.
    fn start_locating(&mut self) {
        let wants_it = self.config.all_services().any(|service| service.prefer.is_some());
        if self.is_locating || self.config.zone.is_some() || !wants_it {
            return;
        }
        self.is_locating = true;
        let events = self.events.clone();
        let locate = async move {
            let mut complained = false;
            let zone = loop {
                match provider::own_zone().await {
                    Ok(zone) => break zone,
                    Err(error) if !complained => {
                        tracing::warn!(%error, "own zone unknown; backends of all zones are served until it is found");
                        complained = true;
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(Jitter::PlusMinus { percent: 50 }.apply(LOCATE_AGAIN)).await;
            };
            // The registry only ends by being stopped or by a panic, of which the supervisor knows.
            let _ = events.send(registry::Event::ZoneFound(zone)).await;
            std::future::pending::<()>().await;
        };
        self.supervisor.spawn("the search for our own zone".to_owned(), |stop| async move {
            stop.run_until_cancelled(locate).await;
        });
    }

    /// Starts the sidecar's own checks of backends: one task for all services, which has nothing to do without any.
    fn start_checks(&mut self, pools: watch::Receiver<Arc<Vec<health::Pool>>>) {
        let (sender, mut verdicts) = mpsc::channel(QUEUE);
        let events = self.events.clone();
        let forward = async move {
            while let Some(verdicts) = verdicts.recv().await {
                if events.send(registry::Event::HealthChecked(verdicts)).await.is_err() {
                    return;
                }
            }
        };
        self.supervisor.spawn("the health checks".to_owned(), |stop| async move {
            tokio::join!(health::run(pools, sender, stop), forward);
        });
    }

    /// Starts a worker, once the one it replaces has brought its change to an end, and so have those that are `gone`: one
    /// of them may have had its outputs under another name.
    fn start_worker(&mut self, worker: Worker, gone: &[CancellationToken]) {
        let name = worker.name().clone();
        let Some(config) = self.config.frontends.iter().find(|frontend| frontend.name == name).cloned() else { return };
        let report = worker.report();
        let before: Vec<_> =
            self.workers.remove(&name).map(RunningWorker::leave).into_iter().chain(gone.iter().cloned()).collect();
        let ended = CancellationToken::new();
        let done = ended.clone().drop_guard();
        // It waits for the disk: to stage outputs, to save its apply record.
        let stop = self.supervisor.spawn_on_thread(format!("the worker of {name}"), |stop| async move {
            let _done = done;
            for before in before {
                before.cancelled().await;
            }
            worker.run(stop).await;
        });
        self.workers.insert(name, RunningWorker { config, stop, ended, report });
    }

    fn publish_frontends(&self) {
        let reports = self.workers.iter().map(|(name, worker)| (name.clone(), worker.report.clone()));
        self.shown.frontends.send_replace(Arc::new(reports.collect()));
    }

    fn watch_readiness(&mut self) {
        let services = self.config.frontends.iter().map(|f| (f.name.clone(), f.services.clone())).collect();
        let first_pass = readiness::first_pass(
            self.report.clone(),
            self.shown.frontends.subscribe(),
            services,
            self.shown.ready.clone(),
        );
        let status = readiness::status_line(self.report.clone());
        self.supervisor.spawn("readiness".to_owned(), |stop| async move {
            stop.run_until_cancelled(async { tokio::join!(first_pass, status) }).await;
        });
    }
}

/// Builds the worker of a frontend.
///
/// # Errors
///
/// [`Error::Frontend`].
pub(super) fn build_worker(
    frontend: &frontend::Config,
    config: &Config,
    snapshots: &watch::Receiver<Option<Arc<crate::model::Snapshot>>>,
    unconfined: &Unconfined,
) -> Result<Worker, Error> {
    Worker::build(frontend.clone(), &config.state_dir, snapshots.clone(), unconfined.clone())
        .map_err(|source| Error::Frontend { name: frontend.name.clone(), source })
}
