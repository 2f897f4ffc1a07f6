//! A program with all that it starts, in a process group of its own, which is ended when it is dropped.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;

use super::reaper::{self, Ours};
use super::unconfined::Unconfined;

/// How long a program is given to end between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// How often a blocking thread checks in that time whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A running program. Dropped, the whole group gets SIGTERM at once, and SIGKILL when the program has ended or two
/// seconds later; the runtime does not end before. Until then the program is not reaped: its PID, which is also the
/// group's, cannot become another process's.
#[derive(Debug)]
pub struct Group(Option<Running>);

#[derive(Debug)]
struct Running {
    child: Child,
    group: Pid,
    pidfd: AsyncFd<OwnedFd>,
    _ours: Ours,
    _turn: Option<OwnedSemaphorePermit>,
}

#[expect(deprecated, reason = "its successor is unsafe, for descriptors that are not owned; this one is")]
fn readiness(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

impl Group {
    /// Starts a program without standard input, whose output is read. `turn` is held until everything has ended.
    ///
    /// # Errors
    ///
    /// It could not be started.
    pub async fn start(
        unconfined: &Unconfined,
        mut command: Command,
        turn: Option<OwnedSemaphorePermit>,
    ) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let (child, ours) = reaper::spawn(unconfined, command).await?;
        let id = child.id().map_or(0, u32::cast_signed);
        let pid = rustix::process::Pid::from_raw(id).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = readiness(pidfd_open(pid, PidfdFlags::empty())?)?;
        Ok(Self(Some(Running { child, group: Pid::from_raw(id), pidfd, _ours: ours, _turn: turn })))
    }

    /// Its standard output and its standard error; `None` from the second time on.
    pub fn outputs(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        let child = &mut self.0.as_mut()?.child;
        Some((child.stdout.take()?, child.stderr.take()?))
    }

    /// Returns when the program itself has ended. What it started may run on.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub async fn ended(&self) -> io::Result<()> {
        match &self.0 {
            Some(running) => running.pidfd.readable().await.map(drop),
            None => Ok(()),
        }
    }

    /// Kills the group: the program, if it has not ended, and all that it started and that stayed in its group.
    pub fn kill(&self) {
        if let Some(running) = &self.0 {
            let _ = killpg(running.group, Signal::SIGKILL);
        }
    }

    /// Waits for the program, and returns how it ended. What it started and left behind runs on.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub async fn reap(mut self) -> io::Result<ExitStatus> {
        let mut running = self.0.take().expect("it is taken only here and where the group is ended");
        running.child.wait().await
    }

    /// Ends the group: SIGTERM, and SIGKILL when the program has ended, or two seconds later. Returns after that.
    pub async fn terminate(mut self) {
        let Some(mut running) = self.0.take() else { return };
        // Either may find the group gone already.
        let _ = killpg(running.group, Signal::SIGTERM);
        let _ = tokio::time::timeout(TERM_GRACE, running.pidfd.readable()).await;
        let _ = killpg(running.group, Signal::SIGKILL);
        let _ = running.child.wait().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        let _ = killpg(running.group, Signal::SIGTERM);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(|| running.end())),
            Err(_) => running.end(),
        }
    }
}

impl Running {
    fn end(mut self) {
        let deadline = Instant::now() + TERM_GRACE;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        let _ = killpg(self.group, Signal::SIGKILL);
        // Only a program that waits for a broken file system outlives that for long; it is then left alone.
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline + TERM_GRACE {
            std::thread::sleep(LOOK);
        }
    }

    /// Whether it has, without reaping it.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.pidfd)), options), Ok(None))
    }
}
