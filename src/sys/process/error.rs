//! Why a process was not found or not signalled.

use std::io;
use std::path::PathBuf;

use super::find::Executable;
use crate::sys::access::Stranger;

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
