//! The keys above all sections and of `[api]`, as they are written.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::api;
use crate::config::paths::DEFAULT_SOCKET;
use crate::units::FileMode;

/// Whether elasticd gives up, at its start, the privileges that it does not need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confine {
    /// As far as the kernel lets it.
    #[default]
    Auto,
    /// It keeps them: for commands that must gain privileges, such as `sudo`.
    Off,
}

/// The keys above all sections, and `[api]`.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Top")]
#[serde(deny_unknown_fields)]
pub struct RawTop {
    /// The directory of the last known backends and of the apply records; one elasticd each. A change needs a restart.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Our own availability zone, for services that prefer it. Left out: the metadata service is asked.
    pub zone: Option<String>,
    /// Whether elasticd gives up, at its start, the privileges that it does not need. A change needs a restart.
    #[serde(default)]
    pub confine: Confine,
    /// Whether files are removed that elasticd wrote and that are no outputs any more: an output was moved, its frontend
    /// removed, or its service is gone. A frontend's own `prune` comes first. Otherwise they are named in the log and in
    /// `elasticd status`, and `elasticd outputs --prune` removes them. A file that was edited since is never removed.
    #[serde(default)]
    pub prune: bool,
    /// The sockets that elasticd answers on. A change needs a restart.
    #[serde(default)]
    pub api: RawApi,
}

/// The sockets that elasticd answers on.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Api")]
#[serde(deny_unknown_fields, default)]
pub struct RawApi {
    /// The path of the query socket, at most 107 bytes.
    pub socket: PathBuf,
    /// The path of the admin socket, whose mode is 0600: root and elasticd's own user may change things there. Left out:
    /// `admin.sock` beside `socket`. Empty: there is none.
    pub admin_socket: Option<PathBuf>,
    /// The mode of the query socket.
    pub mode: FileMode,
    /// The group of the query socket, by name or number. Left out: elasticd's own.
    pub group: Option<String>,
    /// The most connections that are served at once; further ones wait.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// The TCP address for `/metrics`, `/healthz` and `/readyz` alone. Left out: none.
    #[serde(deserialize_with = "tcp_address")]
    #[schemars(with = "Option<String>", example = "127.0.0.1:9464")]
    pub metrics: Option<SocketAddr>,
}

impl Default for RawApi {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            admin_socket: None,
            mode: FileMode(0o660),
            group: None,
            max_connections: api::Config::MAX_CONNECTIONS,
            metrics: None,
        }
    }
}

fn default_state_dir() -> PathBuf {
    "/var/lib/elasticd".into()
}

fn tcp_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refused = |_| {
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(9464);
        D::Error::custom(format!("{text:?} is not an address with a port: write \"127.0.0.1:{port}\""))
    };
    text.parse().map(Some).map_err(refused)
}
