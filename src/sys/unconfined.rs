//! The threads beside those that serve: one outside all confinement, which starts programs and looks at processes, and
//! one for each directory that outputs are written to, which can write nowhere else.
//!
//! Landlock keeps a confined thread from what its children could not do without (a check writes logs, a reload
//! anything), and from looking at processes that are not confined like it (`/proc/PID/exe`). It also goes by the
//! directory itself rather than by its name, and cannot be widened: a directory that is made anew gets a new thread.
//!
//! Before [`start`], and where nothing is confined, all of it is done by whoever asks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use super::confine::{self, Report, WRITING};

/// Enough for what these threads do; they are mostly asleep.
const STACK: usize = 512 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does what it is sent, in that order.
#[derive(Debug, Clone)]
struct WorkerThread(Sender<Job>);

static UNCONFINED: OnceLock<WorkerThread> = OnceLock::new();

/// The directories outputs are written to, each with the directory that its thread can write, once it was needed.
static WRITERS: Mutex<BTreeMap<PathBuf, Option<Writer>>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct Writer {
    /// Device and inode.
    identity: (u64, u64),
    thread: WorkerThread,
}

impl WorkerThread {
    fn start(name: &str, prepare: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (sender, jobs) = channel::<Job>();
        let work = move || {
            prepare();
            jobs.into_iter().for_each(|job| job());
        };
        std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work)?;
        Ok(Self(sender))
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        self.0.send(Box::new(move || drop(answer.send(work())))).expect("the thread ends with the process");
        answered.recv().expect("what it is sent does not panic")
    }
}

/// Starts the thread that stays outside. To be called once, before the caller confines itself.
///
/// # Errors
///
/// There is no thread to be had.
pub fn start() -> io::Result<()> {
    let thread = WorkerThread::start("outside", || {})?;
    UNCONFINED.set(thread).map_err(|_| io::ErrorKind::AlreadyExists.into())
}

/// Has `work` done outside, and waits for it.
///
/// # Panics
///
/// If `work` does.
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match UNCONFINED.get() {
        Some(unconfined) => unconfined.run(work),
        None => work(),
    }
}

/// Takes these directories for ones that outputs are written to, for as long as the process lives: what is being
/// replaced may still have something to put back.
pub fn allow_directory(directories: impl IntoIterator<Item = PathBuf>) {
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    for directory in directories {
        writers.entry(directory).or_default();
    }
}

/// Has `work`, which writes into `directory`, done by a thread that can write nowhere else, and waits for it. Into a
/// directory that was never admitted the caller writes itself, as far as it may.
///
/// # Errors
///
/// The directory cannot be opened; nothing was done.
pub fn write_in<T: Send + 'static>(directory: &Path, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    match writer(directory)? {
        Some(thread) => Ok(thread.run(work)),
        None => Ok(work()),
    }
}

fn writer(directory: &Path) -> io::Result<Option<WorkerThread>> {
    let Some(unconfined) = UNCONFINED.get() else { return Ok(None) };
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(known) = writers.get_mut(directory) else { return Ok(None) };
    let opened = confine::directory(directory)?;
    let metadata = opened.metadata()?;
    let identity = (metadata.dev(), metadata.ino());
    if let Some(writer) = known.as_ref().filter(|writer| writer.identity == identity) {
        return Ok(Some(writer.thread.clone()));
    }
    let thread = unconfined.run(move || start_writer(opened))?;
    *known = Some(Writer { identity, thread: thread.clone() });
    Ok(Some(thread))
}

/// What keeps it from being confined has been reported of the serving threads already.
fn start_writer(directory: File) -> io::Result<WorkerThread> {
    WorkerThread::start("writer", move || confine::thread([&directory], WRITING, &mut Report::default()))
}

/// A future that is polled outside, for what starts programs where nobody can see it.
#[expect(missing_debug_implementations, reason = "a future has none")]
pub struct Unconfined<T>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> Unconfined<T> {
    /// Of a future that is not being polled yet.
    pub fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<T: Send + 'static> Future for Unconfined<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut future = self.0.take().expect("it is not polled again once it is ready");
        let (waker, runtime) = (context.waker().clone(), Handle::current());
        let (polled, future) = run(move || {
            let _in_it = runtime.enter();
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            (polled, future)
        });
        if polled.is_pending() {
            self.0 = Some(future);
        }
        polled
    }
}
