use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};

use crate::model::{Name, Snapshot};
use crate::sys::confine;
use crate::{registry, status};

/// The reports of the publisher to a fleet, and of what is read from fleets.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The publisher's, if there is one.
    pub publisher: Option<watch::Receiver<Arc<status::Publisher>>>,
    /// Those of providers that read from a fleet.
    pub readers: BTreeMap<Name, watch::Receiver<Arc<status::Reader>>>,
}

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The newest snapshot. `None`: nothing is known yet.
    pub snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The registry's report.
    pub registry: watch::Receiver<Arc<registry::Report>>,
    /// The report of each frontend's worker.
    pub frontends: watch::Receiver<Arc<BTreeMap<Name, watch::Receiver<Arc<status::Frontend>>>>>,
    /// Whether elasticd is ready.
    pub ready: watch::Receiver<bool>,
    /// What is published to a fleet, and read from one.
    pub fleet: watch::Receiver<Arc<Fleet>>,
    /// Files that elasticd wrote for frontends that are not configured any more.
    pub orphaned_outputs: watch::Receiver<Arc<Vec<status::OrphanedOutput>>>,
    /// When elasticd started.
    pub started: SystemTime,
    /// What elasticd has given up the right to do.
    pub confinement: Arc<confine::Report>,
    /// Where changes go that are asked for.
    pub controls: Controls,
}

/// Where changes go that are asked for on the admin listener.
#[derive(Debug, Clone)]
pub struct Controls {
    /// Changed to have every provider polled now.
    pub refresh: watch::Sender<u64>,
    /// Changed to have files removed that are no outputs any more.
    pub prune: watch::Sender<u64>,
    /// Reloads the configuration. The answer says why it was refused, if it was.
    pub reload: mpsc::Sender<oneshot::Sender<Result<(), String>>>,
    /// Changes to services.
    pub registry: mpsc::Sender<registry::Event>,
}

impl Controls {
    /// Controls of nothing: every change is answered as if elasticd was stopping.
    pub fn disconnected() -> Self {
        Self {
            refresh: watch::Sender::new(0),
            prune: watch::Sender::new(0),
            reload: mpsc::channel(1).0,
            registry: mpsc::channel(1).0,
        }
    }
}
