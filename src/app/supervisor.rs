//! The tasks of the daemon. A task that ends without having been stopped is noticed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::units::HumanDuration;

/// Runs tasks that end only when they are stopped.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, (String, CancellationToken)>,
    stop: CancellationToken,
    /// Aborts tasks on threads of their own that did not stop in time.
    abort: CancellationToken,
}

impl Supervisor {
    /// Starts a task. The token returned stops it, and no other task.
    pub fn spawn<F>(&mut self, name: String, task: impl FnOnce(CancellationToken) -> F) -> CancellationToken
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.child_token();
        let handle = self.tasks.spawn(task(stop.clone()));
        self.names.insert(handle.id(), (name, stop.clone()));
        stop
    }

    /// The same for a task that may block between the points at which it waits: it gets a thread of its own, so that
    /// it never holds up those that answer.
    pub fn spawn_on_thread<F>(
        &mut self,
        name: String,
        task: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> CancellationToken
    where
        F: Future<Output = ()>,
    {
        let (stop, abort, runtime) = (self.stop.child_token(), self.abort.clone(), Handle::current());
        let stopped = stop.clone();
        let run = move || {
            runtime.block_on(abort.run_until_cancelled(task(stopped)));
        };
        let handle = self.tasks.spawn_blocking(run);
        self.names.insert(handle.id(), (name, stop.clone()));
        stop
    }

    /// Returns the name of a task that ended, or panicked, without having been stopped. Cancel-safe.
    pub async fn ended(&mut self) -> String {
        loop {
            let (id, panicked) = match self.tasks.join_next_with_id().await {
                None => std::future::pending().await,
                Some(Ok((id, ()))) => (id, false),
                Some(Err(error)) => (error.id(), error.is_panic()),
            };
            let Some((name, stop)) = self.names.remove(&id) else { continue };
            if panicked || !stop.is_cancelled() {
                return name;
            }
        }
    }

    /// Stops all tasks, and aborts those that still run after `limit`.
    pub async fn drain(&mut self, limit: Duration) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(limit = %HumanDuration(limit), "work under way did not end in time; the next start goes on from it");
            self.abort.cancel();
            self.tasks.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named_and_one_that_was_stopped_is_not() {
        let mut supervisor = Supervisor::default();
        let stop = supervisor.spawn("stopped".to_owned(), |stop| async move { stop.cancelled().await });
        stop.cancel();
        supervisor.spawn("panics".to_owned(), |_| async { panic!("on purpose") });
        assert_eq!(supervisor.ended().await, "panics");
        supervisor.spawn("ends".to_owned(), |_| async {});
        assert_eq!(supervisor.ended().await, "ends");
    }

    #[tokio::test]
    async fn a_task_that_blocks_holds_nothing_up_and_is_ended_like_any_other() {
        let mut supervisor = Supervisor::default();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let stop = supervisor.spawn_on_thread("blocks".to_owned(), |stop| async move {
            released.recv().expect("told");
            stop.cancelled().await;
        });
        release.send(()).expect("it waits");
        stop.cancel();
        supervisor.spawn_on_thread("panics".to_owned(), |_| async { panic!("on purpose") });
        assert_eq!(supervisor.ended().await, "panics");
        supervisor.spawn_on_thread("deaf".to_owned(), |_| std::future::pending());
        supervisor.drain(Duration::from_millis(50)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn draining_is_bounded() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("deaf".to_owned(), |_| std::future::pending());
        supervisor.drain(Duration::from_secs(5)).await;
    }
}
