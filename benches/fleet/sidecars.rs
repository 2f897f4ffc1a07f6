//! Sidecars: the real program, and readers in this process of which there may be more.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use elasticd::model::Instance;
use elasticd::provider::nats::{self, Nats};
use elasticd::provider::poll::{self, PollSchedule};
use elasticd::provider::{Observation, Provider};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::harness::elasticd::Elasticd;
use crate::harness::until_or;
use crate::publisher::{self, Change, Moment};

/// The file that each writes, with nothing set that would make it faster.
const FILE: &str = "services.json";

/// What changes reach.
pub trait Sidecars {
    /// So many.
    fn count(&self) -> usize;
    /// Attaches more, and waits until each has a set.
    fn grow(&mut self, url: &str, to: usize);
    /// Says what is to come.
    fn expect(&mut self, change: &Change);
    /// Waits until each has it, which was made then; when each had.
    fn reached(&mut self, change: &Change, made: Moment) -> Vec<SystemTime>;
    /// The processor time that all have had.
    fn processor(&self) -> Duration;
}

/// Processes of the real program.
#[derive(Default)]
pub struct Processes(Vec<Elasticd>);

/// One process, started, that writes the service's file.
pub fn sidecar(url: &str) -> Elasticd {
    let provider = publisher::provider();
    Elasticd::new(&format!(
        "[providers.{provider}]\ntype = 'nats'\nurl = '{url}'\nfleet = 'bench'\n\
         [services.web]\nprovider = '{provider}'\nselect = {{ Role = 'web' }}\nport = 80\n\
         [frontends.json]\ntype = 'json'\noutput = 'DIR/{FILE}'\n"
    ))
    .start()
}

/// How far behind the file system's clock may be, which ticks.
const TICK: Duration = Duration::from_millis(20);

/// When its file was swapped for one that shows the change, by the file system's clock. `None`: it was not.
fn swapped(sidecar: &Elasticd, change: &Change, made: Moment) -> Option<SystemTime> {
    let path = sidecar.path(FILE);
    let meta = fs::metadata(&path).ok()?;
    let since = Duration::new(meta.ctime().try_into().ok()?, meta.ctime_nsec().try_into().ok()?);
    let at = SystemTime::UNIX_EPOCH + since;
    // The file is only read if it may be another one.
    let is_it = at + TICK >= made.clock && fs::read_to_string(&path).ok()?.contains(&change.id) == change.is_there;
    is_it.then_some(at.max(made.clock))
}

impl Processes {
    /// The process id of one.
    pub fn pid(&self, which: usize) -> i32 {
        self.0[which].pid().as_raw()
    }
}

impl Sidecars for Processes {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn grow(&mut self, url: &str, to: usize) {
        let before = self.0.len();
        self.0.extend((before..to).map(|_| sidecar(url)));
        self.0[before..].iter().for_each(Elasticd::await_ready);
    }

    fn expect(&mut self, _: &Change) {}

    fn reached(&mut self, change: &Change, made: Moment) -> Vec<SystemTime> {
        let times = RefCell::new(vec![None; self.0.len()]);
        let missing =
            || times.borrow().iter().zip(&self.0).find(|(time, _)| time.is_none()).map(|(_, late)| late.log());
        until_or(
            || format!("every file is swapped:\n{}", missing().unwrap_or_default()),
            || {
                let mut times = times.borrow_mut();
                for (time, sidecar) in times.iter_mut().zip(&self.0).filter(|(time, _)| time.is_none()) {
                    *time = swapped(sidecar, change, made);
                }
                times.iter().copied().collect()
            },
        )
    }

    fn processor(&self) -> Duration {
        (0..self.count()).map(|which| publisher::processor(self.pid(which))).sum()
    }
}

/// The `nats` provider and the loop that polls it, so often, in this process.
pub struct Tasks {
    runtime: Runtime,
    stop: CancellationToken,
    board: Arc<Mutex<Board>>,
}

/// What is looked for, and when each had it.
#[derive(Default)]
struct Board {
    wanted: Option<(String, bool)>,
    seen: Vec<Option<SystemTime>>,
}

impl Board {
    fn see(&mut self, reader: usize, set: &[Instance]) {
        let is_it = match &self.wanted {
            Some((id, is_there)) => set.iter().any(|instance| instance.id == *id) == *is_there,
            None => true,
        };
        if is_it {
            self.seen[reader].get_or_insert_with(SystemTime::now);
        }
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().expect("no panic while locked")
}

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        Self { runtime, stop: CancellationToken::new(), board: Arc::default() }
    }

    fn spawn(&self, url: &str, reader: usize) {
        let config = nats::Config {
            connection: publisher::connection(url),
            provider: publisher::provider(),
            fallback: None,
            state: None,
        };
        let (sender, mut observations) = mpsc::channel::<Observation>(1);
        let (board, stop) = (Arc::clone(&self.board), self.stop.clone());
        self.runtime.spawn(async move {
            let provider: Box<dyn Provider> = Box::new(Nats::new(&config));
            let pace = PollSchedule { interval: Duration::from_secs(15), timeout: Duration::from_secs(10) };
            // No poll is asked for.
            let refresh = watch::Sender::new(0);
            let poll = poll::run(publisher::provider(), provider, pace, refresh.subscribe(), sender, stop);
            let note = async {
                while let Some(observation) = observations.recv().await {
                    if let Ok(set) = &observation.result {
                        lock(&board).see(reader, set);
                    }
                }
            };
            tokio::join!(poll, note);
        });
    }

    fn await_all(&self) -> Vec<SystemTime> {
        let missing = || lock(&self.board).seen.iter().filter(|seen| seen.is_none()).count();
        until_or(
            || format!("{} readers have it not", missing()),
            || lock(&self.board).seen.iter().copied().collect::<Option<Vec<_>>>(),
        )
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sidecars for Tasks {
    fn count(&self) -> usize {
        lock(&self.board).seen.len()
    }

    fn grow(&mut self, url: &str, to: usize) {
        let before = self.count();
        lock(&self.board).seen.resize(to, None);
        (before..to).for_each(|reader| self.spawn(url, reader));
        self.await_all();
    }

    fn expect(&mut self, change: &Change) {
        let mut board = lock(&self.board);
        board.wanted = Some((change.id.clone(), change.is_there));
        board.seen.fill(None);
    }

    fn reached(&mut self, _: &Change, _: Moment) -> Vec<SystemTime> {
        self.await_all()
    }

    fn processor(&self) -> Duration {
        publisher::processor(std::process::id().cast_signed())
    }
}
