//! The composition root: [`App::build`] does everything that can fail, [`App::run`] supervises, reloads and drains.

mod bootstrap;
mod daemon;
mod error;
mod reload;
mod supervise;
mod supervisor;
mod tasks;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_tokio::Signals;
use tokio::sync::{mpsc, watch};

use crate::api::{self, Api};
use crate::config::Config;
use crate::frontend;
use crate::registry::Registry;
use crate::sys::lock::DirectoryLock;
use crate::sys::{confine, systemd};
pub use bootstrap::Bootstrap;
use daemon::{ApiState, Daemon, Inputs, Parts, QUEUE};
pub use error::Error;
use reload::log_warnings;
use tasks::build_worker;

/// All parts of elasticd, built but not yet running.
#[expect(missing_debug_implementations, reason = "the stream of signals has none")]
pub struct App {
    file: PathBuf,
    config: Config,
    confinement: Arc<confine::Report>,
    parts: Parts,
    api_state: ApiState,
    signals: Signals,
    inputs: Inputs,
    lock: DirectoryLock,
}

impl App {
    /// Builds everything that the configuration asks for.
    ///
    /// # Errors
    ///
    /// Something could not be built; nothing has been started.
    pub fn build(bootstrap: Bootstrap) -> Result<Self, Error> {
        let Bootstrap { file, config, lock, confinement, unconfined } = bootstrap;
        let signals = Signals::new([SIGHUP, SIGUSR1, SIGTERM, SIGINT, SIGCHLD]).map_err(Error::Signals)?;
        let registry = Registry::build(config.settings(), &config.state_dir);
        let (prune, own_zone) = (watch::Sender::new(0), watch::Sender::new(None));
        let links = frontend::Links {
            snapshots: registry.snapshots(),
            own_zone: own_zone.subscribe(),
            unconfined: unconfined.clone(),
            outputs: frontend::OutputIndex::default(),
            prune: prune.subscribe(),
        };
        let workers = config.frontends.iter().map(|f| build_worker(f, &config, &links)).collect::<Result<_, _>>()?;
        let api_state = ApiState::default();
        let (registry_events, registry_inbox) = mpsc::channel(QUEUE);
        let (reload, reloads) = mpsc::channel(QUEUE);
        let controls = api::Controls { refresh: watch::Sender::new(0), prune, reload, registry: registry_events };
        let inputs = Inputs { controls: controls.clone(), registry_inbox, reloads };
        let sources = api::Sources {
            snapshot: registry.snapshots(),
            registry: registry.report(),
            frontends: api_state.frontends.subscribe(),
            ready: api_state.ready.subscribe(),
            fleet: api_state.fleet.subscribe(),
            orphaned_outputs: api_state.orphaned_outputs.subscribe(),
            started: SystemTime::now(),
            confinement: Arc::clone(&confinement),
            controls,
        };
        let api = Api::bind(&config.api, sources)?;
        let parts = Parts { registry, workers, links, own_zone, api };
        Ok(Self { file, config, confinement, parts, api_state, signals, inputs, lock })
    }

    /// Runs until SIGTERM or SIGINT.
    ///
    /// SIGHUP reloads the configuration; one with faults is reported and changes nothing. SIGUSR1 polls now.
    ///
    /// # Errors
    ///
    /// A task ended unexpectedly.
    pub async fn run(self) -> Result<(), Error> {
        let Self { file, config, confinement, parts, api_state, mut signals, inputs, lock } = self;
        let _held_until_the_end = lock;
        tracing::info!(config = %file.display(), socket = %config.api.socket.display(), confined = %confinement, "started");
        log_warnings(&config);
        let mut daemon = Daemon::start(file, config, api_state, inputs, parts);
        let ended = daemon.supervise(&mut signals).await;
        systemd::stopping();
        tracing::info!("stopping");
        daemon.drain().await;
        ended
    }
}
