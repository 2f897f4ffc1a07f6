//! The running daemon: its configuration, its channels and its tasks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::supervisor::Supervisor;
use crate::model::{Name, Selector};
use crate::readiness::Frontends;
use crate::sys::unconfined::Unconfined;
use crate::{api, config, fleet, frontend, registry, status};

/// The number of events, commands or reports that may wait in a channel.
pub(super) const QUEUE: usize = 16;

/// Everything that runs, and the configuration it runs with.
pub(super) struct Daemon {
    pub(super) file: PathBuf,
    pub(super) config: config::Config,
    pub(super) events: mpsc::Sender<registry::Event>,
    pub(super) report: watch::Receiver<Arc<registry::Report>>,
    pub(super) refresh: watch::Sender<u64>,
    pub(super) reloads: mpsc::Receiver<ReloadAnswer>,
    pub(super) api_state: ApiState,
    pub(super) supervisor: Supervisor,
    pub(super) pollers: BTreeMap<Name, (Poller, CancellationToken)>,
    pub(super) workers: BTreeMap<Name, RunningWorker>,
    pub(super) is_finding_zone: bool,
    /// Our own zone, once it was found; for frontends.
    pub(super) own_zone: watch::Sender<Option<String>>,
    pub(super) unconfined: Unconfined,
    pub(super) links: frontend::Links,
    pub(super) publisher: Option<RunningPublisher>,
}

/// Where the outcome of a reload that the admin API asked for is sent.
pub(super) type ReloadAnswer = oneshot::Sender<Result<(), String>>;

/// The channels by which the admin API controls the daemon, with both of their ends.
pub(super) struct Inputs {
    pub(super) controls: api::Controls,
    pub(super) registry_inbox: mpsc::Receiver<registry::Event>,
    pub(super) reloads: mpsc::Receiver<ReloadAnswer>,
}

/// The parts that are built first, and then run as tasks.
pub(super) struct Parts {
    pub(super) registry: registry::Registry,
    pub(super) workers: Vec<frontend::Worker>,
    pub(super) links: frontend::Links,
    pub(super) own_zone: watch::Sender<Option<String>>,
    pub(super) api: api::Api,
}

/// The state that the API reads, besides the registry's.
#[derive(Debug, Default)]
pub(super) struct ApiState {
    /// Whether every service has been discovered and every frontend attempted once.
    pub(super) ready: watch::Sender<bool>,
    pub(super) frontends: watch::Sender<Frontends>,
    pub(super) fleet: watch::Sender<Arc<api::Fleet>>,
    /// Files that elasticd wrote for frontends that are not configured any more.
    pub(super) orphaned_outputs: watch::Sender<Arc<Vec<status::OrphanedOutput>>>,
}

/// Everything a poller depends on. If none of it changes, a reload of the configuration does not restart the poller.
#[derive(PartialEq)]
pub(super) struct Poller {
    pub(super) provider: config::Provider,
    pub(super) selectors: Vec<Selector>,
}

pub(super) struct RunningWorker {
    pub(super) config: frontend::Config,
    pub(super) stop: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) report: watch::Receiver<Arc<status::Frontend>>,
}

pub(super) struct RunningPublisher {
    pub(super) config: fleet::Config,
    pub(super) stop: CancellationToken,
    pub(super) ended: CancellationToken,
}

impl RunningWorker {
    /// Stops the worker after the change that is under way. The token returned is cancelled once it has stopped.
    pub(super) fn stop(self) -> CancellationToken {
        self.stop.cancel();
        self.ended
    }
}
