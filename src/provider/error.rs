//! Why a poll yielded no set.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::units::HumanDuration;

/// Why a poll yielded no set: of which kind the failure is, and the provider's own error, whose message says what was
/// tried and what to do.
pub struct Error {
    kind: ErrorKind,
    source: Box<dyn StdError + Send + Sync>,
}

/// What sort of failure it was, whichever provider it was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The source asks for fewer calls: polls are widened rather than retried.
    Throttled,
    /// The source refuses our credentials, or what we ask with them; or they are missing.
    Denied,
    /// There is no source to ask: no connection, no such file or program.
    Unreachable,
    /// There was no complete answer in time.
    Timeout,
    /// The answer is not a complete, valid set.
    Invalid,
    /// The source itself failed, or this machine did.
    Failed,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// A poll that took longer than `limit`, the provider's `timeout`.
    pub fn timed_out(limit: Duration) -> Self {
        let limit = HumanDuration(limit);
        let message =
            format!("no complete answer within {limit}; raise the provider's `timeout` if its source is merely slow");
        Self::new(ErrorKind::Timeout, message)
    }

    /// What sort of failure it was.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the source asked for fewer calls.
    pub const fn is_throttled(&self) -> bool {
        matches!(self.kind, ErrorKind::Throttled)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind, self.source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.source()
    }
}

impl From<&io::Error> for ErrorKind {
    /// The kind of a failure to open or to connect.
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable,
        }
    }
}
