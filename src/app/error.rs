//! Why elasticd did not start, or stopped.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Faults;
use crate::model::Name;
use crate::sys::lock;
use crate::{api, frontend};

/// Why elasticd did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Faults),
    /// The state directory cannot be created.
    #[error("cannot create `state_dir` {path}: {source}; create it, writable for elasticd's user")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state directory cannot be locked.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The thread that starts programs cannot be started.
    #[error("cannot start a thread: {0}; raise TasksMax= of the systemd unit, or `ulimit -u`")]
    Thread(#[source] io::Error),
    /// A socket cannot be opened.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// A frontend's worker cannot be built.
    #[error("frontends.{name}: {source}")]
    Frontend {
        /// The frontend.
        name: Name,
        /// Why.
        source: frontend::BuildError,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
    /// A task ended that never should.
    #[error("{0} ended unexpectedly, so elasticd stops; the log says why, please report it")]
    Ended(String),
}

impl From<&Error> for ExitCode {
    /// The codes are those of sysexits.h, as far as it has one.
    fn from(error: &Error) -> Self {
        match error {
            Error::Config(_) => Self::from(78),
            Error::Ended(_) => Self::from(70),
            Error::StateDir { .. }
            | Error::Lock(_)
            | Error::Thread(_)
            | Error::Api(_)
            | Error::Frontend { .. }
            | Error::Signals(_) => Self::from(1),
        }
    }
}
