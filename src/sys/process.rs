//! Processes: found, identified, signalled. A reused PID is never signalled.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use procfs::ProcError;
use procfs::process::Process as ProcEntry;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};
use serde::{Deserialize, Serialize};

use super::access::{self, Stranger};
use super::regular_file;
use super::signal_state::SignalState;
use super::text;
use super::unconfined::Unconfined;

/// The longest pid file worth reading, in bytes.
const MAX_PID_FILE: usize = 64;

/// Which process, for as long as the machine is up: a PID alone may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
}

/// The program a process must be running: an absolute path, or a file name in any directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable(String);

impl Executable {
    /// `/usr/sbin/nginx`, or just `nginx`.
    pub fn new(path_or_name: impl Into<String>) -> Self {
        Self(path_or_name.into())
    }

    fn is(&self, exe: &Path) -> bool {
        // The kernel marks a program whose file was replaced, as an upgrade does.
        let exe = exe.to_string_lossy();
        let exe = exe.strip_suffix(" (deleted)").unwrap_or(&exe);
        if self.0.contains('/') { exe == self.0 } else { exe.rsplit('/').next() == Some(&self.0) }
    }
}

impl Executable {
    /// Whether the kernel calls a process so that runs it (`/proc/PID/comm`): by the file's name, cut after 15 bytes.
    fn has_command_name(&self, command: &str) -> bool {
        const MAX: usize = 15;
        let name = self.0.rsplit('/').next().unwrap_or_default();
        let end = name.len().min(MAX);
        !name.is_empty() && name.as_bytes()[..end] == *command.as_bytes()
    }
}

impl fmt::Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a process is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// Its PID stands in a file; it must run `executable`.
    PidFile {
        /// The file.
        path: PathBuf,
        /// The program.
        executable: Executable,
    },
    /// It is the only process that runs `executable` and whose parent does not.
    Match {
        /// The program.
        executable: Executable,
    },
}

impl Find {
    /// Its pid file, if it is found by one.
    pub fn pid_file(&self) -> Option<&Path> {
        match self {
            Self::PidFile { path, .. } => Some(path),
            Self::Match { .. } => None,
        }
    }

    /// The program that the process must run.
    pub fn executable(&self) -> &Executable {
        let (Self::PidFile { executable, .. } | Self::Match { executable }) = self;
        executable
    }
}

/// Why a process was not found or not signalled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pid file does not exist.
    #[error("the pid file {0} does not exist; is the frontend running, and does it write its PID there?")]
    NoPidFile(PathBuf),
    /// The pid file is empty.
    #[error("the pid file {0} is empty; is the frontend just starting?")]
    EmptyPidFile(PathBuf),
    /// The pid file could not be read.
    #[error("cannot read the pid file {path}: {source}")]
    UnreadablePidFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pid file does not hold a number.
    #[error("the pid file {path} holds {found:?}, not a PID; does `pid_file` name the right file?")]
    BadPidFile {
        /// The file.
        path: PathBuf,
        /// How it begins.
        found: String,
    },
    /// No process has this PID, or it is a zombie.
    #[error("the pid file {path} names PID {pid}, and no such process runs; is the frontend stopped?")]
    Stale {
        /// The file.
        path: PathBuf,
        /// The PID.
        pid: i32,
    },
    /// The PID is our own.
    #[error(
        "the pid file {0} names elasticd itself: the frontend runs in another PID namespace; share it \
         (Kubernetes: shareProcessNamespace, Docker: --pid=container:NAME, ECS: pidMode) and set `pid_file = \"\"`, so \
         that the frontend is found by its executable"
    )]
    Ourselves(PathBuf),
    /// The process runs another program.
    #[error(
        "the pid file {path} names PID {pid}, which runs {found} and not {expected}; nothing was signalled. \
         Correct `pid_file` or `executable`"
    )]
    OtherProgram {
        /// The file.
        path: PathBuf,
        /// The PID.
        pid: i32,
        /// What it runs.
        found: PathBuf,
        /// What it should run.
        expected: Executable,
    },
    /// The pid file can be written by somebody who may not signal the process.
    #[error(
        "the pid file {path} names PID {pid} of user {owner} and can be written by {who}: by others than that user, root and \
         elasticd; nothing was signalled. Use `chown root` and `chmod 0644` on it"
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// The PID.
        pid: i32,
        /// Who runs it.
        owner: u32,
        /// Who can write the file.
        who: Stranger,
    },
    /// The kernel does not let us see what the process runs.
    #[error(
        "the frontend seems to be PID {pid}, and elasticd may not see what that runs: {source}; run elasticd with the \
         frontend's user and group (both count), or give it CAP_SYS_PTRACE and CAP_KILL"
    )]
    Hidden {
        /// The PID.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// No process runs the program.
    #[error("no process runs {executable}{}", no_match_remedy(.unexamined))]
    NoMatch {
        /// The program.
        executable: Executable,
        /// Processes that could not be examined. `None`: there were none.
        unexamined: Option<Unexamined>,
    },
    /// Several do.
    #[error("PIDs {pids:?} all run {executable}; set `pid_file` to say which one is meant")]
    Ambiguous {
        /// The program.
        executable: Executable,
        /// The PIDs, ascending.
        pids: Vec<i32>,
    },
    /// It was found, and has ended since.
    #[error("PID {0} has ended just now; is the frontend being restarted?")]
    Ended(i32),
    /// The kernel refused the signal.
    #[error("cannot signal PID {pid}: {source}; run elasticd as the frontend's user, or give it CAP_KILL")]
    Refused {
        /// The PID.
        pid: i32,
        /// Why.
        source: io::Error,
    },
}

/// Processes of which the kernel does not let us see what they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexamined {
    /// How many there are.
    pub count: usize,
    /// The PID of the first one.
    pub first: i32,
}

fn no_match_remedy(unexamined: &Option<Unexamined>) -> String {
    match unexamined {
        None => "; is the frontend running, in a PID namespace that elasticd shares?".to_owned(),
        Some(Unexamined { count, first }) => format!(
            " among those that can be examined, and {count} cannot (PID {first} is the first: permission denied); is the \
             frontend running? If it is, run elasticd with its user and group, or give elasticd CAP_SYS_PTRACE"
        ),
    }
}

impl Error {
    /// Whether it means that the frontend does not run at present, rather than that something is set up wrongly.
    pub const fn is_not_running(&self) -> bool {
        match self {
            Self::NoPidFile(_) | Self::EmptyPidFile(_) | Self::Stale { .. } | Self::NoMatch { .. } | Self::Ended(_) => {
                true
            }
            Self::UnreadablePidFile { .. }
            | Self::BadPidFile { .. }
            | Self::Ourselves(_)
            | Self::OtherProgram { .. }
            | Self::Untrusted { .. }
            | Self::Hidden { .. }
            | Self::Ambiguous { .. }
            | Self::Refused { .. } => false,
        }
    }
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

/// What a pid file says, and who can write it.
struct PidFile {
    pid: i32,
    file: std::fs::File,
    stat: rustix::fs::Stat,
}

impl PidFile {
    fn read(path: &Path) -> Result<Self, Error> {
        use std::io::Read;
        let mut text = String::new();
        let read = |file: std::fs::File| {
            let stat = rustix::fs::fstat(&file)?;
            (&file).take(MAX_PID_FILE as u64).read_to_string(&mut text).map(|_| (file, stat))
        };
        let (file, stat) = regular_file::open(path).and_then(read).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoPidFile(path.to_owned()),
            io::ErrorKind::InvalidData => Error::BadPidFile { path: path.to_owned(), found: "binary data".to_owned() },
            _ => Error::UnreadablePidFile { path: path.to_owned(), source },
        })?;
        let digits = text.trim();
        if digits.is_empty() {
            return Err(Error::EmptyPidFile(path.to_owned()));
        }
        let pid = digits
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
            .ok_or_else(|| Error::BadPidFile { path: path.to_owned(), found: text::shorten(digits, 20) })?;
        Ok(Self { pid, file, stat })
    }

    /// Who else may write it than root, elasticd and the process's own user and group.
    fn stranger(&self, (user, group): (u32, u32)) -> Option<Stranger> {
        let owner = self.stat.st_uid;
        let is_owners_own = owner == user || regular_file::is_trusted(owner);
        let owner = Some(Stranger::Owner(owner)).filter(|_| !is_owners_own);
        owner.or_else(|| access::stranger_among_others(&self.file, &self.stat, Some((user, group))))
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
