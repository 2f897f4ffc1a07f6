//! Changes to a running elasticd, over its admin socket.

use std::net::SocketAddr;
use std::path::Path;

use hyper::Method;

use super::client;
use crate::api::types::Done;
use crate::model::Name;
use crate::sys::http;

/// Accepts the newly observed set that the guard holds, so that it is served.
#[derive(Debug, Clone, clap::Args)]
pub struct AcceptArgs {
    /// The service's name
    service: Name,
}

/// Registers a backend beside those that the service's provider reports, or renews its registration.
#[derive(Debug, Clone, clap::Args)]
pub struct RegisterArgs {
    /// The service's name
    service: Name,
    /// The backend's id
    id: String,
    /// Its address, as `ip:port`
    address: SocketAddr,
    /// How long it is registered, such as `30s`; up to `24h`
    #[arg(long, default_value = "30s")]
    ttl: String,
    /// Its weight, 0 to 256
    #[arg(long, default_value_t = 1)]
    weight: u16,
    /// Its zone
    #[arg(long)]
    zone: Option<String>,
}

/// Removes a registered backend.
#[derive(Debug, Clone, clap::Args)]
pub struct DeregisterArgs {
    /// The service's name
    service: Name,
    /// The backend's id
    id: String,
}

/// A change to ask for.
#[derive(Debug)]
pub enum Change<'a> {
    /// Poll every provider now.
    Refresh,
    /// Remove files that are no outputs any more.
    Prune,
    /// Reload the configuration.
    Reload,
    /// See [`AcceptArgs`].
    Accept(&'a AcceptArgs),
    /// See [`RegisterArgs`].
    Register(&'a RegisterArgs),
    /// See [`DeregisterArgs`].
    Deregister(&'a DeregisterArgs),
}

impl Change<'_> {
    /// Asks for it on the admin socket, and prints the result.
    ///
    /// # Errors
    ///
    /// If elasticd cannot be asked or refuses, or the output cannot be written.
    pub async fn run(self, socket: &Path) -> Result<(), client::Error> {
        let (method, path, body) = match self {
            Self::Refresh => (Method::POST, "/v1/refresh".to_owned(), String::new()),
            Self::Prune => (Method::POST, "/v1/outputs/prune".to_owned(), String::new()),
            Self::Reload => (Method::POST, "/v1/reload".to_owned(), String::new()),
            Self::Accept(args) => (Method::POST, format!("/v1/services/{}/accept", args.service), String::new()),
            Self::Register(args) => {
                let RegisterArgs { service, id, address, ttl, weight, zone } = args;
                let (ip, port) = (address.ip(), address.port());
                let body = serde_json::json!({"address": ip, "port": port, "ttl": ttl, "weight": weight, "zone": zone});
                let path = format!("/v1/services/{service}/backends/{}", http::encode(id));
                (Method::PUT, path, body.to_string())
            }
            Self::Deregister(DeregisterArgs { service, id }) => {
                (Method::DELETE, format!("/v1/services/{service}/backends/{}", http::encode(id)), String::new())
            }
        };
        let answer = client::send(socket, method, &path, &body).await?;
        let Done { done, revision } = client::parse(socket, &path, &answer)?;
        let revision = revision.map_or_else(String::new, |revision| format!(", revision {revision}"));
        client::write_out(format!("{done}{revision}\n").as_bytes())
    }
}
