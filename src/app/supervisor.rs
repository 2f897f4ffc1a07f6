//! The tasks of the daemon. One that ends before it was told to is noticed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::sys::human::HumanDuration;

/// Runs tasks that end only when told to.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, (String, CancellationToken)>,
    stop: CancellationToken,
}

impl Supervisor {
    /// Starts a task, and returns what tells it, and it alone, to stop.
    pub fn spawn<F>(&mut self, name: String, task: impl FnOnce(CancellationToken) -> F) -> CancellationToken
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.child_token();
        let handle = self.tasks.spawn(task(stop.clone()));
        self.names.insert(handle.id(), (name, stop.clone()));
        stop
    }

    /// Returns the name of a task that ended, or panicked, without having been told to stop. Cancel-safe.
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

    /// Tells all tasks to stop, and ends those that have not after `limit`.
    pub async fn drain(&mut self, limit: Duration) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(limit = %HumanDuration(limit), "work under way did not end in time; the next start goes on from it");
            self.tasks.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named_and_one_told_to_is_not() {
        let mut supervisor = Supervisor::default();
        let stop = supervisor.spawn("told".to_owned(), |stop| async move { stop.cancelled().await });
        stop.cancel();
        supervisor.spawn("panics".to_owned(), |_| async { panic!("on purpose") });
        assert_eq!(supervisor.ended().await, "panics");
        supervisor.spawn("ends".to_owned(), |_| async {});
        assert_eq!(supervisor.ended().await, "ends");
    }

    #[tokio::test(start_paused = true)]
    async fn draining_is_bounded() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("deaf".to_owned(), |_| std::future::pending());
        supervisor.drain(Duration::from_secs(5)).await;
    }
}
