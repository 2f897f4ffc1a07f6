//! The duty of PID 1: to wait for orphans, and never for the children somebody else waits for.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::unconfined;

/// The children that are waited for where they were started. Locked while one is started, so that a child that ends
/// at once is never taken for an orphan.
static OURS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Marks a child as waited for by its starter, until dropped.
#[derive(Debug)]
pub struct Ours(i32);

impl Drop for Ours {
    fn drop(&mut self) {
        OURS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Starts a child that the caller waits for. To be called inside a tokio runtime.
///
/// # Errors
///
/// The child could not be started.
pub fn spawn(mut command: Command) -> io::Result<(Child, Ours)> {
    let runtime = Handle::current();
    unconfined::run(move || {
        let _in_it = runtime.enter();
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let pid = child.id().map_or(0, u32::cast_signed);
        ours.insert(pid);
        Ok((child, Ours(pid)))
    })
}

/// Waits for every ended child that nobody else waits for. Returns how many there were.
pub fn reap_orphans() -> usize {
    unconfined::run(|| {
        let ourselves = std::process::id().cast_signed();
        let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        procfs::process::all_processes()
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.stat().ok())
            .filter(|stat| stat.ppid == ourselves && stat.state == 'Z' && !ours.contains(&stat.pid))
            .filter(|stat| waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG)).is_ok())
            .count()
    })
}
