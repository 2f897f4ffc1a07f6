//! Processes: found, identified, signalled. A reused PID is never signalled.

mod error;
mod find;
mod pid_file;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use error::{Error, Unexamined};
pub use find::{Executable, Find};
use pid_file::PidFile;
use procfs::ProcError;
use procfs::process::Process as ProcEntry;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};
use serde::{Deserialize, Serialize};

use super::regular_file;
use super::signal_state::SignalState;
use super::unconfined::Unconfined;

/// Which process, for as long as the machine is up: a PID alone may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
}

/// A living, identified process, held by a descriptor that can mean no other.
#[derive(Debug)]
pub struct Process {
    /// Which one.
    pub identity: Identity,
    pidfd: OwnedFd,
}

impl Process {
    /// Finds the process and makes sure of its identity. By executable, that takes a look at every process of the
    /// machine.
    ///
    /// # Errors
    ///
    /// There is none, or it is not what it should be.
    pub async fn find(unconfined: &Unconfined, find: &Find) -> Result<Self, Error> {
        let find = find.clone();
        unconfined.run(move || Self::find_here(&find)).await
    }

    /// The same on the calling thread, which must not be confined. Blocks.
    ///
    /// # Errors
    ///
    /// There is none, or it is not what it should be.
    pub fn find_here(find: &Find) -> Result<Self, Error> {
        match find {
            Find::PidFile { path, executable } => Self::by_pid_file(path, executable),
            Find::Match { executable } => Self::by_executable(executable),
        }
    }

    /// Holds a process that was found before, if it still runs.
    pub fn hold(identity: Identity) -> Option<Self> {
        let pidfd = held(identity.pid)?;
        self::identity(identity.pid).filter(|now| *now == identity)?;
        Self::still_there(identity, pidfd)
    }

    /// Whether it has ended: the kernel says so of the descriptor, without a look at `/proc`.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.pidfd)
    }

    fn by_pid_file(path: &Path, executable: &Executable) -> Result<Self, Error> {
        let pid_file = PidFile::read(path)?;
        let pid = pid_file.pid;
        if pid == std::process::id().cast_signed() {
            return Err(Error::Ourselves(path.to_owned()));
        }
        let stale = || Error::Stale { path: path.to_owned(), pid };
        let pidfd = held(pid).ok_or_else(stale)?;
        let identity = identity(pid).ok_or_else(stale)?;
        let found = executable_of(pid)?.ok_or_else(stale)?;
        if !executable.is(&found) {
            return Err(Error::OtherProgram { path: path.to_owned(), pid, found, expected: executable.clone() });
        }
        // Otherwise a user who may write the file could have us signal processes that the user may not signal.
        let (owner, group) = user_and_group_of(pid).ok_or_else(stale)?;
        if let Some(who) = pid_file.stranger((owner, group)) {
            return Err(Error::Untrusted { path: path.to_owned(), pid, owner, who });
        }
        Self::still_there(identity, pidfd).ok_or_else(stale)
    }

    fn by_executable(executable: &Executable) -> Result<Self, Error> {
        let ours = std::process::id().cast_signed();
        let mut unexamined: Option<Unexamined> = None;
        let mut hidden = None;
        let mut runs_it = |entry: &ProcEntry| match entry.exe() {
            Ok(exe) => executable.is(&exe),
            Err(ProcError::PermissionDenied(_)) => {
                unexamined.get_or_insert(Unexamined { count: 0, first: entry.pid() }).count += 1;
                // Everybody may see the name that the kernel gave it when it was started.
                if entry.stat().is_ok_and(|stat| alive(&stat) && executable.has_command_name(&stat.comm)) {
                    hidden.get_or_insert(entry.pid());
                }
                false
            }
            Err(_) => false,
        };
        let running: Vec<_> = entries()
            .filter(|entry| entry.pid() != ours && runs_it(entry))
            .filter_map(|entry| entry.stat().ok())
            .filter(alive)
            .collect();
        let mut roots: Vec<_> =
            running.iter().filter(|stat| !running.iter().any(|other| other.pid == stat.ppid)).collect();
        // Any user may start a program of that name: where root or we run one, that is the frontend.
        let is_trusted = |stat: &procfs::process::Stat| owner_of(stat.pid).is_some_and(regular_file::is_trusted);
        if roots.iter().any(|stat| is_trusted(stat)) {
            roots.retain(|stat| is_trusted(stat));
        }
        match roots.as_slice() {
            [] => match hidden {
                Some(pid) => Err(Error::Hidden { pid, source: io::ErrorKind::PermissionDenied.into() }),
                None => Err(Error::NoMatch { executable: executable.clone(), unexamined }),
            },
            [root] => {
                let found = held(root.pid).and_then(|pidfd| {
                    let identity = identity(root.pid).filter(|found| found.start_ticks == root.starttime)?;
                    let runs = executable_of(root.pid).ok()??;
                    executable.is(&runs).then(|| Self::still_there(identity, pidfd))?
                });
                found.ok_or_else(|| Error::NoMatch { executable: executable.clone(), unexamined: None })
            }
            several => {
                let mut pids: Vec<_> = several.iter().map(|stat| stat.pid).collect();
                pids.sort_unstable();
                Err(Error::Ambiguous { executable: executable.clone(), pids })
            }
        }
    }

    /// `None`: it has ended. As long as the process that a descriptor means has not, its PID is nobody else's: what was
    /// seen under that PID since the descriptor was opened was seen of it. A start time is no such proof: it is counted
    /// in hundredths of a second, in which a PID can be reused.
    fn still_there(identity: Identity, pidfd: OwnedFd) -> Option<Self> {
        (!has_ended(&pidfd)).then_some(Self { identity, pidfd })
    }

    /// Sends a signal through the descriptor.
    ///
    /// # Errors
    ///
    /// The kernel refused; the process may also have gone since.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = self.identity.pid;
        pidfd_send_signal(&self.pidfd, signal).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => Error::Ended(pid),
            other => Error::Refused { pid, source: other.into() },
        })
    }

    /// Whether it would act on `signal` at once, as [`SignalState::of`] has it.
    pub async fn signal_state(
        &self,
        unconfined: &Unconfined,
        signal: Signal,
        caught_when_ready: Option<Signal>,
    ) -> SignalState {
        let pid = self.identity.pid;
        unconfined.run(move || SignalState::of(pid, signal, caught_when_ready)).await
    }

    /// Whether [`signal`](Self::signal) would be permitted; nothing is sent.
    ///
    /// # Errors
    ///
    /// The kernel would refuse.
    pub fn may_signal(&self) -> Result<(), Error> {
        let pid = self.identity.pid;
        let Some(asked) = Pid::from_raw(pid) else { return Ok(()) };
        test_kill_process(asked).map_err(|errno| Error::Refused { pid, source: errno.into() })
    }

    /// The processes it has started, with the titles they give themselves.
    pub async fn children(&self, unconfined: &Unconfined) -> Vec<Child> {
        let parent = self.identity.pid;
        let child = move |entry: ProcEntry| {
            let stat = entry.stat().ok().filter(alive).filter(|stat| stat.ppid == parent)?;
            let title = entry.cmdline().unwrap_or_default().join(" ");
            Some(Child { identity: Identity { pid: stat.pid, start_ticks: stat.starttime }, title })
        };
        let look = move || match listed_children(parent) {
            Some(pids) => pids.into_iter().filter_map(|pid| ProcEntry::new(pid).ok()).filter_map(child).collect(),
            None => entries().filter_map(child).collect(),
        };
        unconfined.run(look).await
    }
}

/// A process started by another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Which one.
    pub identity: Identity,
    /// Its command line, which servers rewrite to say what they are at.
    pub title: String,
}

/// When a process and its parent started, in ticks since boot, if both run the same program. `None`: they do not, or
/// it cannot be seen.
pub async fn parent_of_same_program(unconfined: &Unconfined, pid: i32) -> Option<(u64, u64)> {
    let look = move || {
        let child = ProcEntry::new(pid).ok()?;
        let stat = child.stat().ok().filter(alive)?;
        let parent = ProcEntry::new(stat.ppid).ok()?;
        (child.exe().ok()? == parent.exe().ok()?).then_some((stat.starttime, parent.stat().ok()?.starttime))
    };
    unconfined.run(look).await
}

/// A pidfd that can be read means a process that has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut ended, Some(&Timespec::default())) != Ok(0)
}

/// A descriptor that means the process which has this PID now, and no other.
fn held(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// The identity of a living process. `None`: no such process, or a zombie.
fn identity(pid: i32) -> Option<Identity> {
    let stat = ProcEntry::new(pid).and_then(|entry| entry.stat()).ok().filter(alive)?;
    Some(Identity { pid, start_ticks: stat.starttime })
}

/// As the kernel lists them, which spares a look at every process of the machine. `None`: it keeps no such list.
fn listed_children(pid: i32) -> Option<Vec<i32>> {
    let tasks = ProcEntry::new(pid).ok()?.tasks().ok()?;
    let children = tasks.flatten().map(|task| task.children()).collect::<Result<Vec<_>, _>>().ok()?;
    Some(children.into_iter().flatten().map(u32::cast_signed).collect())
}

fn executable_of(pid: i32) -> Result<Option<PathBuf>, Error> {
    match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Hidden { pid, source }),
    }
}

/// The user whom a process belongs to, by the rights it has to act. `None`: it is gone.
fn owner_of(pid: i32) -> Option<u32> {
    user_and_group_of(pid).map(|(user, _)| user)
}

/// The same with the group.
fn user_and_group_of(pid: i32) -> Option<(u32, u32)> {
    ProcEntry::new(pid).and_then(|entry| entry.status()).ok().map(|status| (status.euid, status.egid))
}

/// A zombie still has a PID and still takes signals, but nothing will ever act on them.
fn alive(stat: &procfs::process::Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X' | 'x')
}

fn entries() -> impl Iterator<Item = ProcEntry> {
    procfs::process::all_processes().into_iter().flatten().flatten()
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
