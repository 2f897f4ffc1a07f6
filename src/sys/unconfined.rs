//! The threads beside those that serve: one that is not confined, which starts programs and examines processes, and one
//! for each directory that outputs are written to, which can write nowhere else.
//!
//! Landlock denies a confined thread what its children need (a check writes logs, a reload anything), and it denies a
//! look at processes that are not confined like it (`/proc/PID/exe`). It also goes by the directory itself rather than
//! by its name, and cannot be widened: a directory that is made anew gets a new thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinHandle;

use super::confine::{self, Report, WRITING};
use super::directory::{self, Directory};

/// Enough for what these threads do; they are mostly asleep.
const STACK: usize = 512 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs the jobs it is sent, one after the other.
#[derive(Debug, Clone)]
struct WorkerThread(Sender<Job>);

#[derive(Debug)]
struct Writer {
    /// The device and inode of the directory that the thread can write.
    identity: (u64, u64),
    thread: WorkerThread,
}

#[derive(Debug, Default)]
struct Shared {
    thread: Option<WorkerThread>,
    /// Runs the futures that start programs themselves. It has threads of its own, so that none of the runtime that
    /// serves is started by a thread that is not confined, whose rights it would inherit.
    runtime: OnceCell<Handle>,
    /// Where new versions of outputs wait.
    staging: OnceLock<File>,
    /// The directories outputs are written to, each with its thread once that was needed.
    writers: Mutex<BTreeMap<PathBuf, Option<Writer>>>,
    /// The children that are waited for where they were started.
    children: Mutex<BTreeSet<i32>>,
}

/// A handle of these threads, cheap to clone. The default one has none: where nothing is confined, the caller's thread
/// (or, of the asynchronous functions, one of tokio's blocking threads) does the work itself.
#[derive(Debug, Clone, Default)]
pub struct Unconfined(Arc<Shared>);

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

    fn send(&self, job: impl FnOnce() + Send + 'static) {
        self.0.send(Box::new(job)).expect("the thread ends with the process");
    }

    fn run_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        self.send(move || drop(answer.send(work())));
        answered.recv().expect("a job does not panic")
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = oneshot::channel();
        self.send(move || drop(answer.send(work())));
        answered.await.expect("a job does not panic")
    }
}

impl Unconfined {
    /// Starts the thread that stays unconfined. To be called before the caller confines itself.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start() -> io::Result<Self> {
        let thread = WorkerThread::start("unconfined", || {})?;
        Ok(Self(Arc::new(Shared { thread: Some(thread), ..Shared::default() })))
    }

    /// Runs `work` on the unconfined thread. Blocks until it is done.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn run_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.0.thread {
            Some(thread) => thread.run_blocking(work),
            None => work(),
        }
    }

    /// Runs `work` on the unconfined thread. If the future is dropped, the work is done nonetheless.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.0.thread {
            Some(thread) => thread.run(work).await,
            None => joined(tokio::task::spawn_blocking(work).await),
        }
    }

    /// Runs a future on a thread that is not confined either, for code that starts programs without asking us to. If
    /// this future is dropped, so is the other.
    ///
    /// # Panics
    ///
    /// If the future does.
    pub async fn run_future<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let Some(thread) = &self.0.thread else { return future.await };
        let runtime = self.0.runtime.get_or_init(|| thread.run(start_runtime)).await;
        let mut task = AbortOnDrop(runtime.spawn(future));
        joined((&mut task.0).await)
    }

    /// Allows outputs in these directories, for as long as the process lives: a frontend that is being replaced may
    /// still have to restore something.
    pub fn allow_directories(&self, directories: impl IntoIterator<Item = PathBuf>) {
        let mut writers = locked(&self.0.writers);
        for directory in directories {
            writers.entry(directory).or_default();
        }
    }

    /// The directory in which new versions of outputs wait, and from which they are moved to their places: every thread
    /// that writes outputs may write there, too. To be called once, before there are any.
    pub fn set_staging(&self, directory: File) {
        let _ = self.0.staging.set(directory);
    }

    /// Runs `work`, which writes into `directory`, on a thread that can write nowhere else. Into a directory that was
    /// never allowed the caller writes itself, as far as its rights go. Blocks until it is done.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened, or others decide where it is; nothing was done.
    pub fn write_in<T: Send + 'static>(
        &self,
        directory: &Path,
        work: impl FnOnce(&Directory) -> T + Send + 'static,
    ) -> Result<T, directory::Error> {
        let opened = Directory::open(directory)?;
        match self.writer(directory, &opened)? {
            Some(thread) => Ok(thread.run_blocking(move || work(&opened))),
            None => Ok(work(&opened)),
        }
    }

    fn writer(&self, path: &Path, opened: &Directory) -> io::Result<Option<WorkerThread>> {
        let Some(unconfined) = &self.0.thread else { return Ok(None) };
        let mut writers = locked(&self.0.writers);
        let Some(known) = writers.get_mut(path) else { return Ok(None) };
        let identity = opened.identity()?;
        if let Some(writer) = known.as_ref().filter(|writer| writer.identity == identity) {
            return Ok(Some(writer.thread.clone()));
        }
        let mut allowed = vec![File::from(opened.as_fd().try_clone_to_owned()?)];
        allowed.extend(self.0.staging.get().map(File::try_clone).transpose()?);
        let thread = unconfined.run_blocking(move || start_writer(allowed))?;
        *known = Some(Writer { identity, thread: thread.clone() });
        Ok(Some(thread))
    }

    /// The children that are waited for where they were started. Locked while one is started, so that a child that ends
    /// at once is not taken for an orphan.
    pub(super) fn children(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        locked(&self.0.children)
    }
}

/// What keeps it from being confined has been reported of the serving threads already.
fn start_writer(directories: Vec<File>) -> io::Result<WorkerThread> {
    WorkerThread::start("writer", move || confine::thread(&directories, WRITING, &mut Report::default()))
}

fn start_runtime() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs a few file descriptors, and nothing else");
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("credentials".to_owned()).spawn(run).expect("a thread can be started");
    handle
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The task's result; its panic goes on here.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => panic!("nothing cancels the work: {error}"),
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread_name() -> Option<String> {
        std::thread::current().name().map(str::to_owned)
    }

    #[tokio::test]
    async fn work_is_done_by_the_thread_if_there_is_one_and_by_the_caller_if_not() {
        let here = thread_name();
        assert_eq!(Unconfined::default().run_blocking(thread_name), here);
        let unconfined = Unconfined::start().expect("a thread");
        assert_eq!(unconfined.run_blocking(thread_name).as_deref(), Some("unconfined"));
        assert_eq!(unconfined.run(thread_name).await.as_deref(), Some("unconfined"));
        assert_eq!(unconfined.run_future(async { thread_name() }).await.as_deref(), Some("credentials"));
    }

    #[tokio::test]
    async fn waiting_for_the_thread_holds_nothing_else_up() {
        let unconfined = Unconfined::start().expect("a thread");
        let (release, released) = channel::<()>();
        let waiting = unconfined.run(move || released.recv().is_ok());
        // On the only thread of this runtime: were it blocked, nothing would ever be sent.
        let (done, ()) = tokio::join!(waiting, async { release.send(()).expect("the thread waits") });
        assert!(done);
    }

    #[tokio::test]
    async fn a_future_that_is_dropped_ends_the_other() {
        struct Ends(Option<oneshot::Sender<()>>);
        impl Drop for Ends {
            fn drop(&mut self) {
                let _ = self.0.take().map(|ended| ended.send(()));
            }
        }
        let unconfined = Unconfined::start().expect("a thread");
        let (ended, has_ended) = oneshot::channel();
        let guard = Ends(Some(ended));
        let endless = unconfined.run_future(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), endless).await.is_err());
        has_ended.await.expect("it was dropped");
    }
}
