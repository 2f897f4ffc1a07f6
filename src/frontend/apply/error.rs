//! Why a change was not made.

use crate::frontend::checking::{Refusal, Unread};
use crate::frontend::{proof, runtime};
use crate::sys::child::CommandError;
use crate::sys::{atomic_file, process};

/// Why a change was not made. The previous outputs are back in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The frontend's process was not found, for another reason than that it does not run.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// An output could not be written.
    #[error(transparent)]
    Write(#[from] atomic_file::Error),
    /// The frontend's own check fails.
    #[error(transparent)]
    Check(#[from] Refusal),
    /// Nothing would come of a reload. The new outputs stay in place.
    #[error("{0}; the frontend is not reloaded for it")]
    Unread(Unread),
    /// There is no room for the file that the check is to judge.
    #[error("there is no room in `state_dir` for the candidate that the check is to judge; free some space")]
    NoCandidate,
    /// The command failed.
    #[error("the reload failed: {0}")]
    Reload(#[source] CommandError),
    /// The command failed, and it cannot be seen whether the frontend runs. The new outputs have passed their check and
    /// stay, so that it can start with them.
    #[error(
        "the reload failed: {0}; the new configuration has passed its check and stays in place, and the reload is repeated"
    )]
    ReloadUnclear(#[source] CommandError),
    /// The command failed since there is no process that it could have reloaded.
    #[error("{absence} (and so the reload failed: {source})")]
    NothingToReload {
        /// Why no process is found.
        absence: Box<process::Error>,
        /// The command's own words.
        source: CommandError,
    },
    /// The runtime API cannot be used, or refuses.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A change cannot be applied over the runtime API, and there is no other way.
    #[error("{0}, and the frontend has no other `reload`")]
    NoReload(String),
    /// The frontend was asked to reload and did not.
    #[error(transparent)]
    Unproven(#[from] proof::Error),
    /// The previous outputs could not be restored.
    #[error("{cause}; and then the previous configuration could not be restored: {source}")]
    Rollback {
        /// Why they had to be.
        cause: Box<Self>,
        /// Why they could not.
        source: atomic_file::Error,
    },
}

impl Error {
    /// Whether the frontend crashed when it was asked to load the outputs.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Unproven(proof::Error::Ended { .. }))
    }

    /// Whether it means that the frontend does not run at present, rather than that it failed to reload.
    pub(super) const fn is_not_running(&self) -> bool {
        match self {
            Self::Process(error) => error.is_not_running(),
            Self::Runtime(error) => error.is_not_running(),
            Self::NothingToReload { .. } => true,
            _ => false,
        }
    }

    /// Whether the frontend has not come to it yet, rather than refused: it is at another reload.
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Unproven(proof::Error::Busy { .. }))
    }

    /// Whether the new outputs are in place all the same, and the frontend has yet to be asked or to be proven.
    pub const fn keeps_outputs(&self) -> bool {
        self.is_busy() || matches!(self, Self::Unread(_) | Self::ReloadUnclear(_))
    }
}
