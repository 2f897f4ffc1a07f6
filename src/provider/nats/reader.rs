//! The task that watches a fleet's bucket, for as long as the provider exists.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::Store;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{self, Error, KeyUpdate, REQUEST, Session};
use super::format::{self, Heartbeat, Manifest, Position};
use super::set_assembler::{Offer, SetAssembler};
use crate::model::{Instance, Name};
use crate::provider::ErrorKind;
use crate::status;
use crate::sys::atomic_file;
use crate::sys::regular_file;

/// Chunks requested at once.
const AT_ONCE: usize = 16;

/// The pause before an incomplete set is requested again: a replica may be behind.
const AGAIN: Duration = Duration::from_millis(300);

/// So many heartbeats may be missing, and this much more, before the fleet counts as silent.
const HEARTBEATS: u32 = 3;

/// The least time after which the fleet counts as silent: a new leader's takeover takes up to ten seconds.
const LEAST_SILENCE: Duration = Duration::from_secs(20);

/// What the provider answers from.
#[derive(Debug, Clone)]
pub struct View {
    /// The whole set.
    pub set: Option<Arc<Vec<Instance>>>,
    /// When something new was last heard, or when the reader was started.
    pub heard: Instant,
    /// How long the fleet may be silent.
    pub patience: Duration,
    /// Why there is nothing newer, if the cause is NATS or what is stored there.
    pub problem: Option<Problem>,
    /// Why there is nothing newer, as far as the publisher says.
    pub failing: Option<String>,
    /// What the status shows of it.
    pub reading: Arc<status::Reader>,
}

/// Why nothing newer can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of which kind it is.
    pub kind: ErrorKind,
    /// What happened, and what to do.
    pub message: String,
}

impl Problem {
    /// The first poll came before the first answer.
    pub(super) fn unanswered() -> Self {
        Self { kind: ErrorKind::Unreachable, message: "NATS has not answered yet".to_owned() }
    }

    fn invalid(message: impl ToString) -> Self {
        Self { kind: ErrorKind::Invalid, message: message.to_string() }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What is watched, and what is known of it.
#[derive(Debug)]
pub(super) struct Reader {
    pub connection: connection::Config,
    pub provider: Name,
    /// Where the highest position seen is kept.
    pub state: Option<PathBuf>,
    /// Whether it is stored there, or only read.
    pub stores_position: bool,
    pub assembler: SetAssembler,
    pub view: watch::Sender<View>,
}

impl Reader {
    /// Never returns.
    pub async fn run(mut self) {
        if let Some(path) = &self.state {
            self.assembler = SetAssembler::new(stored(path).await);
        }
        let mut failures = 0;
        loop {
            let Err(error) = self.session(&mut failures).await;
            let was_lost = matches!(error, Error::Lost { .. });
            self.update(|view| {
                Arc::make_mut(&mut view.reading).connected = false;
                // A connection that comes back at once is not reported.
                if !was_lost || failures > 0 {
                    view.problem = Some(Problem::from(&error));
                }
            });
            let readers = self.view.borrow().reading.readers;
            tokio::time::sleep(connection::pause(failures, readers)).await;
            failures += 1;
        }
    }

    fn update(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| {
            change(view);
            let problem = view.problem.as_ref().map(|problem| problem.message.clone());
            let error = problem.or_else(|| view.failing.clone());
            Arc::make_mut(&mut view.reading).error = error;
        });
    }

    /// Watches until the connection or the watch fails.
    async fn session(&mut self, failures: &mut u32) -> Result<std::convert::Infallible, Error> {
        let session = Session::open(&self.connection, "elasticd sidecar").await?;
        let store = session.bucket().await?;
        let keys = format::watch_key(&self.provider);
        let mut watch = session.watch(&store, &keys).await?;
        *failures = 0;
        self.update(|view| {
            Arc::make_mut(&mut view.reading).connected = true;
            // What is stored arrives in a moment; until then there is no problem to report.
            view.problem = (view.set.is_none() && watch.is_empty).then(|| self.nothing_published());
        });
        // A manifest whose chunks were not all to be had.
        let mut pending: Option<Manifest> = None;
        let mut opened = Instant::now();
        loop {
            let silent = {
                let view = self.view.borrow();
                view.heard.max(opened) + view.patience
            };
            tokio::select! {
                written = watch.next() => self.take_update(&session, &store, written?, &mut pending).await,
                () = tokio::time::sleep(AGAIN), if pending.is_some() => {
                    if let Some(manifest) = pending.take() {
                        self.fetch(&session, &store, manifest, &mut pending).await;
                    }
                }
                // The watch may have lost its stream without an error: it is begun again, from what is stored.
                () = tokio::time::sleep_until(silent) => {
                    opened = Instant::now();
                    session.bucket().await?;
                    watch = session.watch(&store, &keys).await?;
                }
                error = session.lost() => return Err(error),
            }
        }
    }

    fn nothing_published(&self) -> Problem {
        let message = format!(
            "nothing of the provider {} was published in NATS' bucket {} yet: start a publisher that has it",
            self.provider, self.connection.bucket
        );
        Problem { kind: ErrorKind::Failed, message }
    }

    async fn take_update(
        &mut self,
        session: &Session,
        store: &Store,
        written: KeyUpdate,
        pending: &mut Option<Manifest>,
    ) {
        let (fleet, key) = (&self.connection.fleet, &written.key);
        let Some(value) = written.value else {
            let why =
                format!("the key {key} was deleted in NATS; keeping the last known set until a leader writes it again");
            return self.refuse(Problem::invalid(why));
        };
        if *key == format::set_key(&self.provider) {
            match format::decode::<Manifest>(key, &value, fleet) {
                Ok(manifest) => self.fetch(session, store, manifest, pending).await,
                Err(error) => self.refuse(Problem::invalid(session.content(error))),
            }
        } else if *key == format::heartbeat_key(&self.provider) {
            match format::decode::<Heartbeat>(key, &value, fleet) {
                Ok(heartbeat) => self.take_heartbeat(heartbeat),
                Err(error) => self.refuse(Problem::invalid(session.content(error))),
            }
        }
    }

    fn refuse(&self, problem: Problem) {
        self.update(|view| view.problem = Some(problem));
    }

    fn take_heartbeat(&mut self, heartbeat: Heartbeat) {
        if !self.assembler.hear(heartbeat) {
            return;
        }
        let Some(heartbeat) = self.assembler.heartbeat().cloned() else { return };
        let is_complete = heartbeat.position == self.assembler.floor();
        self.update(|view| {
            view.heard = Instant::now();
            view.patience = (Duration::from_millis(heartbeat.every_ms) * HEARTBEATS).max(LEAST_SILENCE);
            view.failing =
                heartbeat.error.map(|error| format!("the publisher on {} fails to poll: {error}", heartbeat.host));
            if is_complete {
                view.problem = None;
            }
            let reading = Arc::make_mut(&mut view.reading);
            reading.leader = Some(heartbeat.host);
            reading.leader_age_seconds = Some(format::system_time(heartbeat.since).into());
            reading.readers = heartbeat.readers.or(reading.readers);
        });
        self.update_reading();
    }

    async fn fetch(&mut self, session: &Session, store: &Store, manifest: Manifest, pending: &mut Option<Manifest>) {
        *pending = None;
        let missing = match self.assembler.offer(&manifest) {
            Offer::Same => return,
            Offer::Nothing => return self.refuse_if_empty(),
            Offer::Older => {
                return self.refuse(Problem::invalid(format!(
                    "NATS' bucket {} holds the set {}, which is older than the set {} that was seen here: it is not \
                     applied; was the store restored? The next leader publishes a newer one; to take the older one, stop this \
                     elasticd and remove {} in its state_dir",
                    self.connection.bucket,
                    manifest.position,
                    self.assembler.floor(),
                    self.state
                        .as_ref()
                        .and_then(|path| path.file_name())
                        .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                )));
            }
            Offer::Missing(missing) => missing,
        };
        let get = async |hash: String| {
            let key = format::chunk_key(&self.provider, &hash);
            let bytes = session.ask("hand out a chunk", store.get(key)).await?;
            Ok::<_, Error>(bytes.map(|bytes| (hash, bytes.to_vec())))
        };
        let fetched: Vec<_> = stream::iter(missing).map(get).buffer_unordered(AT_ONCE).collect().await;
        let fetched: Result<Vec<_>, Error> = fetched.into_iter().collect();
        let taken = match fetched {
            Ok(fetched) => {
                let fetched: Vec<_> = fetched.into_iter().flatten().collect();
                self.assembler.take(&manifest, &fetched).map_err(|error| session.content(error))
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => {
                self.store_position().await;
                self.update(|view| {
                    view.set = self.assembler.set().cloned();
                    view.heard = Instant::now();
                    view.problem = None;
                });
                self.update_reading();
            }
            // A chunk that is gone belonged to a set that has been replaced: its successor is on the way.
            Err(error) => {
                self.refuse(Problem::from(&error));
                *pending = Some(manifest);
            }
        }
    }

    fn refuse_if_empty(&self) {
        if self.assembler.set().is_none() {
            self.refuse(self.nothing_published());
        }
    }

    fn update_reading(&self) {
        let Position { term, number } = self.assembler.floor();
        self.update(|view| {
            let reading = Arc::make_mut(&mut view.reading);
            reading.instances = self.assembler.set().map_or(0, |set| set.len());
            let position = self.assembler.set().is_some().then_some((term, number));
            (reading.term, reading.sequence) = position.unzip();
            reading.age_seconds = self.assembler.observed().map(|at| format::system_time(at).into());
        });
    }

    /// Stores the position for the next start.
    async fn store_position(&self) {
        let Some(path) = self.state.clone().filter(|_| self.stores_position) else { return };
        let bytes = format::encode(&self.assembler.floor());
        let write = move || atomic_file::write(&path, &bytes);
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "position in the fleet's sets not stored"),
            Err(_) => tracing::warn!("position in the fleet's sets not stored"),
        }
    }
}

/// The stored position. The lowest one if it cannot be read: any set is then taken.
async fn stored(path: &std::path::Path) -> Position {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || regular_file::read_own(&path)).await;
    let bytes = read.ok().and_then(Result::ok).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// The shortest patience there is.
pub(super) const fn least_patience() -> Duration {
    LEAST_SILENCE
}

/// How long the first answer is waited for.
pub(super) const FIRST: Duration = REQUEST.saturating_mul(2);
