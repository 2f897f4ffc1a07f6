//! Starting children, and the duty of PID 1: to wait for orphans, and never for children that are waited for elsewhere.

use std::io;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::unconfined::Unconfined;

/// Marks a child as waited for by its starter, until dropped.
#[derive(Debug)]
pub struct Ours {
    pid: i32,
    unconfined: Unconfined,
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.unconfined.children().remove(&self.pid);
    }
}

/// Starts a child that the caller waits for.
///
/// # Errors
///
/// The child could not be started.
pub async fn spawn(unconfined: &Unconfined, mut command: Command) -> io::Result<(Child, Ours)> {
    let (runtime, registered) = (Handle::current(), unconfined.clone());
    let start = move || {
        let _in_it = runtime.enter();
        let mut ours = registered.children();
        let child = command.spawn()?;
        let pid = child.id().map_or(0, u32::cast_signed);
        ours.insert(pid);
        drop(ours);
        Ok((child, Ours { pid, unconfined: registered }))
    };
    unconfined.run(start).await
}

/// Waits for every ended child that nobody else waits for. Returns how many there were.
pub async fn reap_orphans(unconfined: &Unconfined) -> usize {
    let registered = unconfined.clone();
    let reap = move || {
        let ourselves = std::process::id().cast_signed();
        let ours = registered.children();
        procfs::process::all_processes()
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.stat().ok())
            .filter(|stat| stat.ppid == ourselves && stat.state == 'Z' && !ours.contains(&stat.pid))
            .filter(|stat| waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG)).is_ok())
            .count()
    };
    unconfined.run(reap).await
}
