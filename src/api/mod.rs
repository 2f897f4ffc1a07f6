//! The query socket: HTTP/1.1 over a Unix socket, and optionally the health and metrics resources over TCP.
//!
//! [`Api::bind`] does all that can fail; [`Api::serve`] cannot fail. Everything answered is read from [`Sources`].

mod admin;
mod answer;
mod choice;
mod clock;
mod context;
mod documents;
mod endpoints;
mod error;
mod events;
mod explain;
mod headers;
mod health;
mod limits;
mod metrics;
mod openapi;
mod pick;
mod query;
mod resource;
mod respond;
mod route;
mod routes;
mod server;
mod services;
mod sources;
mod status;
#[cfg(test)]
mod testing;
pub mod types;
mod xds;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::sys::unix_socket;
use answer::Answers;
pub use limits::Limits;
use route::ListenerKind;
pub use sources::{Controls, Fleet, Sources};

/// Connections the metrics listener serves at once. A scraper needs one or two; what is beyond waits.
const METRICS_CONNECTIONS: usize = 32;

/// Connections the admin listener serves at once.
const ADMIN_CONNECTIONS: usize = 64;

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The query socket's path.
    pub socket: PathBuf,
    /// Its permission bits, 0 to 0o777.
    pub mode: u32,
    /// Its group; that of the process (or of a set-group-id directory) if none is given.
    pub gid: Option<u32>,
    /// The admin socket's path, with mode 0600. `None`: there is none, and nothing can be changed over the API.
    pub admin_socket: Option<PathBuf>,
    /// Connections served at once on the query socket, at least 1; what is beyond waits. By default
    /// [`Config::MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// A TCP address that serves `/metrics`, `/healthz` and `/readyz` and nothing else. Off unless given.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// The default of [`max_connections`](Self::max_connections): the file descriptors a service gets by default
    /// (systemd's soft `LimitNOFILE`) are as many.
    pub const MAX_CONNECTIONS: usize = 1024;
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The query socket.
    #[error(transparent)]
    Socket(#[from] unix_socket::Error),
    /// The metrics listener.
    #[error(
        "cannot serve metrics on {address}: {cause}; set api.metrics to a free address of this machine, or leave it out"
    )]
    Metrics {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// The API's listeners, bound and not yet served.
#[derive(Debug)]
pub struct Api {
    query: unix_socket::Listener,
    admin: Option<unix_socket::Listener>,
    metrics: Option<TcpListener>,
    max_connections: usize,
    answers: Arc<Answers>,
    limits: Limits,
}

impl Api {
    /// Binds all listeners. To be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// Whatever keeps a listener from its address; nothing is left behind but the socket's `.lock` file.
    pub fn bind(config: &Config, sources: Sources) -> Result<Self, Error> {
        let metrics = config.metrics.map(bind_tcp).transpose()?;
        let mut inherited = unix_socket::inherited();
        let mut bind = |path: &Path, mode, gid| match inherited.iter().position(|listener| listener.path() == path) {
            Some(index) => Ok(inherited.swap_remove(index)),
            None => unix_socket::bind(path, mode, gid),
        };
        let query = bind(&config.socket, config.mode, config.gid)?;
        let admin = config.admin_socket.as_deref().map(|path| bind(path, 0o600, None)).transpose()?;
        for listener in inherited {
            tracing::warn!(path = %listener.path().display(), "inherited socket ignored: it is neither api.socket nor api.admin_socket");
        }
        Ok(Self {
            query,
            admin,
            metrics,
            max_connections: config.max_connections.max(1),
            answers: Arc::new(Answers::new(sources)),
            limits: Limits::default(),
        })
    }

    /// With other limits than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address the metrics listener got, if there is one: the port that port 0 became.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `shutdown`, then ends requests under way within [`Limits::drain`].
    ///
    /// # Panics
    ///
    /// If answering a request panics: the process should not live on half-working.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { query, admin, metrics, max_connections, answers, limits } = self;
        let server = |kind, connections| server::Server {
            kind,
            connections,
            answers: Arc::clone(&answers),
            limits: limits.clone(),
            shutdown: shutdown.clone(),
        };
        let metrics = async {
            if let Some(listener) = metrics {
                server(ListenerKind::Metrics, METRICS_CONNECTIONS).run(listener).await;
            }
        };
        let admin = async {
            if let Some(listener) = admin {
                server(ListenerKind::Admin, ADMIN_CONNECTIONS).run(listener).await;
            }
        };
        tokio::join!(server(ListenerKind::Query, max_connections).run(query), admin, metrics);
    }
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|cause| Error::Metrics { address, cause })
}
