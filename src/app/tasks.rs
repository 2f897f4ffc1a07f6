//! The tasks of the daemon: one for each provider and each frontend, and those that exist once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::daemon::{Daemon, Poller, QUEUE, RunningPublisher, RunningWorker};
use super::error::Error;
use crate::config::Config;
use crate::frontend::{self, Worker, orphans};
use crate::model::Name;
use crate::provider::{self, Observation, poll};
use crate::sys::backoff::Jitter;
use crate::{health, readiness, registry};

/// The pause before the next attempt to find our own zone, ±50 %.
const ZONE_RETRY: Duration = Duration::from_secs(30);

impl Daemon {
    /// Starts the pollers of new and changed providers, and stops those of removed ones.
    pub(super) fn start_pollers(&mut self) {
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
            self.api_state.fleet.send_modify(|fleet| drop(Arc::make_mut(fleet).readers.remove(&name)));
            stop.cancel();
        }
    }

    pub(super) fn start_poller(&mut self, name: &Name, poller: &Poller) -> CancellationToken {
        let built = poller
            .provider
            .config
            .build(&provider::BuildContext { selectors: &poller.selectors, unconfined: &self.unconfined });
        if let Some(reading) = built.fleet_reading() {
            self.api_state.fleet.send_modify(|fleet| drop(Arc::make_mut(fleet).readers.insert(name.clone(), reading)));
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

    /// Starts the configured publisher, once the one it replaces has given up leadership.
    pub(super) fn start_publisher(&mut self) {
        if self.publisher.as_ref().map(|running| &running.config) == self.config.publish.as_ref() {
            return;
        }
        let before = self.publisher.take().map(|running| {
            running.stop.cancel();
            running.ended
        });
        let Some(config) = self.config.publish.clone() else {
            self.api_state.fleet.send_modify(|fleet| Arc::make_mut(fleet).publisher = None);
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
        self.api_state.fleet.send_modify(|fleet| Arc::make_mut(fleet).publisher = Some(publisher.report()));
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

    /// Starts a worker, once the worker it replaces and the `gone` ones have stopped: one of these may have written the
    /// same outputs under another name.
    pub(super) fn start_worker(&mut self, worker: Worker, gone: &[CancellationToken]) {
        let name = worker.name().clone();
        let Some(config) = self.config.frontends.iter().find(|frontend| frontend.name == name).cloned() else { return };
        let report = worker.report();
        let before: Vec<_> =
            self.workers.remove(&name).map(RunningWorker::stop).into_iter().chain(gone.iter().cloned()).collect();
        let ended = CancellationToken::new();
        let done = ended.clone().drop_guard();
        // It waits for the disk while it stages outputs and saves its apply record.
        let stop = self.supervisor.spawn_on_thread(format!("the worker of {name}"), |stop| async move {
            let _done = done;
            for before in before {
                before.cancelled().await;
            }
            worker.run(stop).await;
        });
        self.workers.insert(name, RunningWorker { config, stop, ended, report });
    }

    /// Tells all workers the outputs of a frontend, before any of them looks for files that are no outputs any more.
    pub(super) fn index_outputs(&self, name: &Name) {
        if let Some(frontend) = self.config.frontends.iter().find(|frontend| frontend.name == *name) {
            self.links.outputs.set_configured(frontend);
        }
    }

    /// Names the files of frontends that are not configured any more, and removes them if `is_pruned`.
    pub(super) async fn find_orphans(&self, is_pruned: bool) {
        let configured: BTreeSet<_> = self.config.frontends.iter().map(|frontend| frontend.name.clone()).collect();
        let (state_dir, links) = (self.config.state_dir.clone(), self.links.clone());
        let logged = Arc::clone(&self.api_state.orphaned_outputs.borrow());
        let find = move || {
            let found = orphans::of_removed_frontends(&state_dir, &configured, &links.outputs);
            found.iter().filter(|orphan| !logged.contains(orphan)).for_each(orphans::log);
            if is_pruned { orphans::remove(&state_dir, &links.unconfined, found) } else { found }
        };
        let left = tokio::task::spawn_blocking(find).await.expect("looking at files does not panic");
        self.api_state.orphaned_outputs.send_replace(Arc::new(left));
    }

    /// Starts a task that finds our own zone, if a service prefers it, or a frontend writes what depends on it, and it is not
    /// configured.
    pub(super) fn find_zone(&mut self) {
        let is_wanted = self.config.all_services().any(|service| service.prefer.is_some())
            || self.config.frontends.iter().any(|frontend| frontend.depends_on_own_zone);
        if self.is_finding_zone || self.config.zone.is_some() || !is_wanted {
            return;
        }
        self.is_finding_zone = true;
        let (events, own_zone) = (self.events.clone(), self.own_zone.clone());
        let locate = async move {
            let mut logged = false;
            let zone = loop {
                match provider::own_zone().await {
                    Ok(zone) => break zone,
                    Err(error) if !logged => {
                        tracing::warn!(%error, "own zone unknown; backends of all zones are served until it is found");
                        logged = true;
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(Jitter::PlusMinus { percent: 50 }.apply(ZONE_RETRY)).await;
            };
            own_zone.send_replace(Some(zone.clone()));
            // The registry only ends by being stopped or by a panic, of which the supervisor knows.
            let _ = events.send(registry::Event::ZoneFound(zone)).await;
            std::future::pending::<()>().await;
        };
        self.supervisor.spawn("the search for our own zone".to_owned(), |stop| async move {
            stop.run_until_cancelled(locate).await;
        });
    }

    /// Starts our own health checks of backends: one task for all services, which is idle if no service has any.
    pub(super) fn start_health_checks(&mut self, pools: watch::Receiver<Arc<Vec<health::Pool>>>) {
        let (sender, mut reports) = mpsc::channel(QUEUE);
        let events = self.events.clone();
        let forward = async move {
            while let Some(report) = reports.recv().await {
                if events.send(registry::Event::HealthChecked(report)).await.is_err() {
                    return;
                }
            }
        };
        self.supervisor.spawn("the health checks".to_owned(), |stop| async move {
            tokio::join!(health::run(pools, sender, stop), forward);
        });
    }

    pub(super) fn publish_frontends(&self) {
        let reports = self.workers.iter().map(|(name, worker)| (name.clone(), worker.report.clone()));
        self.api_state.frontends.send_replace(Arc::new(reports.collect()));
    }

    pub(super) fn watch_readiness(&mut self) {
        let services = self.config.frontends.iter().map(|f| (f.name.clone(), f.services.clone())).collect();
        let first_pass = readiness::first_pass(
            self.report.clone(),
            self.api_state.frontends.subscribe(),
            services,
            self.api_state.ready.clone(),
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
    links: &frontend::Links,
) -> Result<Worker, Error> {
    Worker::build(frontend.clone(), &config.state_dir, links.clone())
        .map_err(|source| Error::Frontend { name: frontend.name.clone(), source })
}
