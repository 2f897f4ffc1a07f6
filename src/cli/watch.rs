//! `elasticd watch`: changes as they happen.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::client;
use crate::api::types::{Change, Service};
use crate::model::{Backend, Name};

/// Shows every change of the services' backends until it is interrupted: a line for each backend that comes or goes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only this service
    pub service: Option<Name>,
    /// Print each event's data, one JSON document a line
    #[arg(long)]
    pub json: bool,
}

const PATH: &str = "/v1/watch";

/// Prints the events of the elasticd that listens on `socket` until they end.
///
/// # Errors
///
/// If it cannot be asked, or the output cannot be written.
pub async fn run(args: &Args, socket: &Path) -> Result<(), client::Error> {
    let mut stream = client::connect_to(socket).await?;
    let garbled = |cause: String| client::Error::Garbled { socket: socket.into(), path: PATH.to_owned(), cause };
    // In HTTP/1.0, so that the body is the events alone, without chunks.
    let request = format!("GET {PATH} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| garbled(error.to_string()))?;
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next_line().await.map_err(|error| garbled(error.to_string()))?.unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(garbled(format!("it begins with {status:?}")));
    }
    let mut known = BTreeMap::new();
    while let Some(line) = lines.next_line().await.map_err(|error| garbled(error.to_string()))? {
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if args.json {
            client::write_out(format!("{data}\n").as_bytes())?;
            continue;
        }
        let event: Change<'_> = client::parse(socket, PATH, data.as_bytes())?;
        let text = describe(event, args.service.as_ref(), &mut known);
        client::write_out(client::plain(&text).as_bytes())?;
    }
    Ok(())
}

/// Describes an event to a reader who knows the backends in `known`, and adds it to them.
fn describe(event: Change<'_>, wanted: Option<&Name>, known: &mut BTreeMap<Name, Vec<Backend>>) -> String {
    let is_wanted = |name: &Name| wanted.is_none_or(|wanted| wanted == name);
    let mut text = String::new();
    for name in event.gone.into_iter().filter(is_wanted) {
        known.remove(&name);
        text += &format!("{name}: gone\n");
    }
    for Service { name, revision, backends } in event.services.into_iter().filter(|service| is_wanted(&service.name)) {
        let (name, backends) = (name.into_owned(), backends.into_owned());
        let before = known.insert(name.clone(), backends.clone());
        text += &format!("{name}: {} backends, revision {revision}\n", backends.len());
        let before = before.unwrap_or_default();
        let marked = |mark: char, some: &[Backend], others: &[Backend]| -> String {
            let new = some.iter().filter(|backend| !others.contains(backend));
            new.map(|b| {
                format!("  {mark} {} {} weight {}\n", b.id, std::net::SocketAddr::new(b.address, b.port), b.weight)
            })
            .collect()
        };
        text += &marked('-', &before, &backends);
        text += &marked('+', &backends, &before);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_came_and_what_went() {
        let mut known = BTreeMap::new();
        let mut say = |json: &str, wanted: Option<&Name>| {
            describe(serde_json::from_str(json).expect("an event"), wanted, &mut known)
        };
        let set = |port: u16| {
            format!(
                r#"{{"revision":1,"services":[{{"name":"web","revision":{port},"backends":[{{"id":"a","address":"10.0.0.1",
                "port":{port},"zone":null,"weight":1,"state":"up","tags":{{}}}}]}}]}}"#
            )
        };
        assert_eq!(say(&set(80), None), "web: 1 backends, revision 80\n  + a 10.0.0.1:80 weight 1\n");
        assert_eq!(
            say(&set(81), None),
            "web: 1 backends, revision 81\n  - a 10.0.0.1:80 weight 1\n  + a 10.0.0.1:81 weight 1\n"
        );
        assert_eq!(say(&set(82), Some(&"db".parse().expect("a name"))), "");
        assert_eq!(say(r#"{"revision":2,"services":[],"gone":["web"]}"#, None), "web: gone\n");
    }
}
