//! `elasticd pick`: one backend.

use std::net::SocketAddr;
use std::path::Path;

use super::client;
use crate::model::{Backend, Name};
use crate::sys::http;

/// Picks one backend of a service, by weight.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The service's name
    pub service: Name,
    /// The same key is given the same backend by every sidecar, as long as that backend exists
    #[arg(long)]
    pub key: Option<String>,
    /// Prefer backends in this zone
    #[arg(long)]
    pub zone: Option<String>,
    /// Print what the socket answers, as JSON, rather than `ip:port`
    #[arg(long)]
    pub json: bool,
}

/// Asks the elasticd that listens on `socket`, and prints the answer.
///
/// # Errors
///
/// If it cannot be asked, knows no such service, the service has no backend, or the output cannot be written.
pub async fn run(args: &Args, socket: &Path) -> Result<(), client::Error> {
    let given = |(key, value): (&str, &Option<String>)| Some(format!("{key}={}", http::encode(value.as_deref()?)));
    let query: Vec<_> = [("key", &args.key), ("zone", &args.zone)].into_iter().filter_map(given).collect();
    let path = format!("/v1/services/{}/pick?{}", args.service, query.join("&"));
    let body = client::get(socket, &path).await?;
    if args.json {
        return client::write_out(&[&body[..], b"\n"].concat());
    }
    let backend: Backend = client::parse(socket, &path, &body)?;
    client::write_out(format!("{}\n", SocketAddr::new(backend.address, backend.port)).as_bytes())
}
