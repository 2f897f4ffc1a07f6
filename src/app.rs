//! The composition root: [`App::build`] does all that can fail, [`App::run`] supervises, reloads and drains.

mod bootstrap;
mod daemon;
mod supervisor;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_tokio::Signals;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{self, Api};
use crate::config::{Config, Faults};
use crate::frontend::{self, Worker};
use crate::model::Name;
use crate::registry::{self, Registry};
use crate::sys::lock::{self, DirectoryLock};
use crate::sys::unconfined::Unconfined;
use crate::sys::{confine, systemd};
pub use bootstrap::Bootstrap;
use daemon::{Daemon, Shown, build_worker};

/// Observations that may wait for the registry.
const QUEUE: usize = 16;

/// Why elasticd did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Faults),
    /// The state directory cannot be created.
    #[error("cannot create `state_dir` {path}: {source}; create it, writable for elasticd's user")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state directory cannot be locked.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The thread that starts programs cannot be started.
    #[error("cannot start a thread: {0}; allow elasticd some more tasks")]
    Thread(#[source] io::Error),
    /// A socket cannot be opened.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// A frontend's worker cannot be built.
    #[error("frontends.{name}: {source}")]
    Frontend {
        /// The frontend.
        name: Name,
        /// Why.
        source: frontend::BuildError,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
    /// A part of elasticd ended that never should.
    #[error("{0} ended unexpectedly; elasticd stops rather than live on half-working")]
    Ended(String),
}

impl From<&Error> for ExitCode {
    /// The codes are those of sysexits.h, as far as it has one.
    fn from(error: &Error) -> Self {
        match error {
            Error::Config(_) => Self::from(78),
            Error::Ended(_) => Self::from(70),
            Error::StateDir { .. }
            | Error::Lock(_)
            | Error::Thread(_)
            | Error::Api(_)
            | Error::Frontend { .. }
            | Error::Signals(_) => Self::from(1),
        }
    }
}

/// What is asked of the running parts, and where it arrives.
struct Inputs {
    controls: api::Controls,
    registry_inbox: mpsc::Receiver<registry::Event>,
    reloads: mpsc::Receiver<oneshot::Sender<Result<(), String>>>,
}

/// Everything elasticd consists of, built and not yet running.
#[expect(missing_debug_implementations, reason = "the stream of signals has none")]
pub struct App {
    file: PathBuf,
    config: Config,
    confinement: Arc<confine::Report>,
    registry: Registry,
    workers: Vec<Worker>,
    api: Api,
    shown: Shown,
    signals: Signals,
    inputs: Inputs,
    lock: DirectoryLock,
    unconfined: Unconfined,
}

impl App {
    /// Builds everything that the configuration asks for.
    ///
    /// # Errors
    ///
    /// Something could not be built; nothing has been started.
    pub fn build(ground: Bootstrap) -> Result<Self, Error> {
        let Bootstrap { file, config, lock, confinement, unconfined } = ground;
        let signals = Signals::new([SIGHUP, SIGUSR1, SIGTERM, SIGINT, SIGCHLD]).map_err(Error::Signals)?;
        let registry = Registry::build(config.settings(), &config.state_dir);
        let workers = config
            .frontends
            .iter()
            .map(|f| build_worker(f, &config, &registry.snapshots(), &unconfined))
            .collect::<Result<_, _>>()?;
        let shown = Shown::default();
        let (registry_events, registry_inbox) = mpsc::channel(QUEUE);
        let (reload, reloads) = mpsc::channel(QUEUE);
        let controls = api::Controls { refresh: watch::Sender::new(0), reload, registry: registry_events };
        let inputs = Inputs { controls: controls.clone(), registry_inbox, reloads };
        let sources = api::Sources {
            snapshot: registry.snapshots(),
            registry: registry.report(),
            frontends: shown.frontends.subscribe(),
            ready: shown.ready.subscribe(),
            fleet: shown.fleet.subscribe(),
            started: SystemTime::now(),
            confinement: Arc::clone(&confinement),
            controls,
        };
        let api = Api::bind(&config.api, sources)?;
        Ok(Self { file, config, confinement, registry, workers, api, shown, signals, inputs, lock, unconfined })
    }

    /// Runs until SIGTERM or SIGINT.
    ///
    /// SIGHUP reloads the configuration; one with faults is reported and changes nothing. SIGUSR1 polls now.
    ///
    /// # Errors
    ///
    /// A part of elasticd ended by itself.
    pub async fn run(self) -> Result<(), Error> {
        let Self { file, config, confinement, registry, workers, api, shown, mut signals, inputs, lock, unconfined } =
            self;
        let _held_until_the_end = lock;
        tracing::info!(config = %file.display(), socket = %config.api.socket.display(), confined = %confinement, "started");
        let mut daemon = Daemon::start(file, config, shown, inputs, registry, workers, api, unconfined);
        let ended = daemon.supervise(&mut signals).await;
        systemd::stopping();
        tracing::info!("stopping");
        daemon.drain().await;
        ended
    }
}
