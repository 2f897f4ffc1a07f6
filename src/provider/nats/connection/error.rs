//! Errors of the connection and of the bucket, each with what to do about it.

use async_nats::{ConnectError, ConnectErrorKind};

use super::super::format;
use super::Config;
use crate::provider::ErrorKind;
use crate::sys::text::chain;

/// Why there is no use of the bucket. Every message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server answers.
    #[error("no NATS server answers at {urls}: {why}; check `url`, that the server runs, and what is between")]
    Unreachable {
        /// Where it was sought.
        urls: String,
        /// Why not.
        why: String,
    },
    /// The server refuses our credentials.
    #[error(
        "NATS at {urls} refuses our credentials ({why}); check credentials_file or nkey_file and the server's users"
    )]
    Unauthorized {
        /// Where.
        urls: String,
        /// Its words.
        why: String,
    },
    /// TLS failed.
    #[error(
        "no TLS with NATS at {urls}: {why}; check that `url` names the host in the server's certificate, and that ca_file holds its issuer"
    )]
    Tls {
        /// Where.
        urls: String,
        /// Why.
        why: String,
    },
    /// A file of ours cannot be used.
    #[error("cannot use {file}: {why}; write it anew, readable for elasticd's user")]
    File {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// A permission is missing.
    #[error(
        "NATS does not permit us: {0}; grant the subject to our user (the README lists what publishers and sidecars need)"
    )]
    Denied(String),
    /// There is no bucket.
    #[error("NATS has no bucket {bucket:?}; start a publisher that may create it, or create it: nats kv add {bucket}")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// The connection broke.
    #[error("the connection to NATS at {urls} is lost: {why}")]
    Lost {
        /// Where it was.
        urls: String,
        /// Why.
        why: String,
    },
    /// A request failed.
    #[error("NATS could not {what}: {why}; see the server's log, and whether JetStream is enabled and has a quorum")]
    Request {
        /// The request.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The bucket holds a value that cannot be used.
    #[error("in NATS' bucket {bucket}: {source}")]
    Content {
        /// The bucket.
        bucket: String,
        /// What is wrong.
        source: format::Error,
    },
}

impl Error {
    /// Of which kind it is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Tls { .. } | Self::Lost { .. } => ErrorKind::Unreachable,
            Self::Unauthorized { .. } | Self::Denied(_) => ErrorKind::Denied,
            Self::Content { .. } => ErrorKind::Invalid,
            Self::File { .. } | Self::NoBucket { .. } | Self::Request { .. } => ErrorKind::Failed,
        }
    }

    /// Why there is no connection.
    pub(super) fn unconnected(config: &Config, error: &ConnectError) -> Self {
        let (urls, why) = (config.places(), chain(error));
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Self::Unauthorized { urls, why }
            }
            ConnectErrorKind::Tls => Self::Tls { urls, why },
            // rustls speaks through I/O errors.
            _ if ["certificate", "tls", "handshake", "InvalidContentType"].iter().any(|word| why.contains(word)) => {
                Self::Tls { urls, why }
            }
            _ => Self::Unreachable { urls, why },
        }
    }
}
