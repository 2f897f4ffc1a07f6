//! Starts the daemon's tasks, and handles signals and requests to reload while they run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_tokio::Signals;

use super::daemon::{ApiState, Daemon, Inputs, Parts};
use super::error::Error;
use super::supervisor::Supervisor;
use crate::config::Config;
use crate::sys::{reaper, systemd};

/// How long changes under way may take to end after a stop was asked for. The next start goes on from the apply records
/// of those that do not.
const DRAIN: Duration = Duration::from_secs(5);

impl Daemon {
    /// Starts everything.
    pub(super) fn start(file: PathBuf, config: Config, api_state: ApiState, inputs: Inputs, parts: Parts) -> Self {
        let Parts { registry, workers, links, own_zone, api } = parts;
        let Inputs { controls, registry_inbox, reloads } = inputs;
        let mut daemon = Daemon {
            file,
            report: registry.report(),
            config,
            events: controls.registry,
            refresh: controls.refresh,
            reloads,
            api_state,
            supervisor: Supervisor::default(),
            pollers: BTreeMap::new(),
            workers: BTreeMap::new(),
            is_finding_zone: false,
            unconfined: links.unconfined.clone(),
            links,
            own_zone,
            publisher: None,
        };
        daemon.supervisor.spawn("the API".to_owned(), |stop| api.serve(stop));
        daemon.start_health_checks(registry.health_pools());
        // It waits for the disk while it saves its state.
        daemon.supervisor.spawn_on_thread("the registry".to_owned(), |stop| registry.run(registry_inbox, stop));
        daemon.start_pollers();
        daemon.find_zone();
        daemon.start_publisher();
        for worker in &workers {
            daemon.index_outputs(worker.name());
        }
        for worker in workers {
            daemon.start_worker(worker, &[]);
        }
        daemon.publish_frontends();
        daemon.watch_readiness();
        daemon
    }

    /// Stops every task, within [`DRAIN`].
    pub(super) async fn drain(&mut self) {
        self.supervisor.drain(DRAIN).await;
    }

    /// Handles signals, and reloads that the admin API asks for, until SIGTERM or SIGINT.
    ///
    /// # Errors
    ///
    /// A task ended unexpectedly.
    pub(super) async fn supervise(&mut self, signals: &mut Signals) -> Result<(), Error> {
        let watchdog = systemd::watchdog_interval();
        let mut pruned = self.links.prune.clone();
        self.find_orphans(self.config.prune).await;
        let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_hours(1)));
        loop {
            tokio::select! {
                ended = self.supervisor.ended() => return Err(Error::Ended(ended)),
                _ = alive.tick() => systemd::alive(),
                Ok(()) = pruned.changed() => self.find_orphans(true).await,
                // The sender is held by the API, whose end the supervisor would notice.
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
        self.refresh.send_modify(|requests| *requests += 1);
    }
}
