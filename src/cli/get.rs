//! `elasticd get`: one service's backends.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;

use super::client::{self, table};
use crate::api::types::Service;
use crate::model::{Backend, Name};

/// Shows a service's backends: a table on a terminal, otherwise one `ip:port` a line.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The service's name
    pub service: Name,
    /// Print what the socket answers, as JSON
    #[arg(long, conflicts_with = "text")]
    pub json: bool,
    /// Print one `ip:port` a line, on a terminal too
    #[arg(long)]
    pub text: bool,
}

/// Asks the elasticd that listens on `socket`, and prints the answer.
///
/// # Errors
///
/// If it cannot be asked, knows no such service, or the output cannot be written.
pub async fn run(args: &Args, socket: &Path) -> Result<(), client::Error> {
    let path = format!("/v1/services/{}", args.service);
    if args.text || (!args.json && !std::io::stdout().is_terminal()) {
        return client::write_out(&client::get(socket, &format!("{path}?format=text")).await?);
    }
    let body = client::get(socket, &path).await?;
    if args.json {
        return client::write_out(&[&body[..], b"\n"].concat());
    }
    client::write_out(human(&client::parse(socket, &path, &body)?).as_bytes())
}

fn human(service: &Service<'_>) -> String {
    let count = service.backends.len();
    let noun = if count == 1 { "backend" } else { "backends" };
    let mut text = format!("{}: {count} {noun}, revision {}\n", service.name, service.revision);
    if count > 0 {
        let header = ["ID", "ADDRESS", "ZONE", "WEIGHT", "STATE"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(header).chain(service.backends.iter().map(row)).collect();
        text.push_str(&table(&rows));
    }
    text
}

fn row(backend: &Backend) -> Vec<String> {
    vec![
        backend.id.clone(),
        SocketAddr::new(backend.address, backend.port).to_string(),
        backend.zone.clone().unwrap_or_else(|| "-".to_owned()),
        backend.weight.to_string(),
        backend.state.as_str().to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_table() {
        let service = serde_json::from_str(
            r#"{"name":"web","revision":7,"backends":[
                {"id":"i-1","address":"10.0.0.1","port":80,"zone":"eu-west-1a","weight":1,"state":"up","tags":{}},
                {"id":"i-22","address":"2001:db8::1","port":8080,"zone":null,"weight":100,"state":"up","tags":{}}]}"#,
        )
        .expect("a service");
        assert_eq!(
            human(&service),
            "web: 2 backends, revision 7\n\
             ID    ADDRESS             ZONE        WEIGHT  STATE\n\
             i-1   10.0.0.1:80         eu-west-1a  1       up\n\
             i-22  [2001:db8::1]:8080  -           100     up\n"
        );
        let empty = serde_json::from_str(r#"{"name":"db","revision":1,"backends":[]}"#).expect("a service");
        assert_eq!(human(&empty), "db: 0 backends, revision 1\n");
    }
}
