//! `elasticd fleet`: who publishes, and how old what is read has become.

use std::path::Path;

use super::client::{self, table};
use super::status::{ago, span};
use crate::api::fleet::{Fleet, Publisher, Reader};
use crate::api::status::Status;

/// Shows who leads the fleet, since when, and revision and age of each set as seen by this node.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

const PATH: &str = "/v1/status";

/// Asks the elasticd that listens on `socket`, and prints the answer.
///
/// # Errors
///
/// If it cannot be asked, or the output cannot be written.
pub async fn run(args: &Args, socket: &Path) -> Result<(), client::Error> {
    let body = client::get(socket, PATH).await?;
    let status: Status = client::parse(socket, PATH, &body)?;
    if args.json {
        let json = serde_json::to_vec(&status.fleet).expect("plain data always serialises");
        return client::write_out(&[&json[..], b"\n"].concat());
    }
    let text = status.fleet.as_ref().map_or_else(|| NO_FLEET.to_owned(), human);
    client::write_out(text.as_bytes())
}

const NO_FLEET: &str = "this elasticd has no part in a fleet: it has neither [publish] nor a provider of type nats\n";

fn human(fleet: &Fleet) -> String {
    let mut text = fleet.publisher.as_ref().map(publisher).unwrap_or_default();
    if fleet.readers.is_empty() {
        return text;
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let header = ["READS", "FLEET", "BUCKET", "LEADER", "LEADS", "TERM", "SET", "OBSERVED", "INSTANCES", "READERS"];
    let rows = fleet.readers.iter().map(|(name, reader)| row(name.as_str(), reader));
    text.push_str(&table(&std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>()));
    for (name, reader) in &fleet.readers {
        if !reader.connected {
            text.push_str(&format!("  {name}: not connected to NATS at this time\n"));
        }
        if let Some(fallback) = &reader.fallback {
            let polls = &reader.fallback_polls;
            text.push_str(&format!(
                "  {name}: the fleet is silent: {fallback} is polled directly, {polls} time{} so far\n",
                if *polls == 1 { "" } else { "s" }
            ));
        }
        if let Some(error) = &reader.error {
            text.push_str(&client::plain(&format!("  {name}: {error}\n")));
        }
    }
    text
}

fn number<T: ToString>(number: Option<T>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn row(name: &str, reader: &Reader) -> Vec<String> {
    vec![
        name.to_owned(),
        reader.fleet.clone(),
        reader.bucket.clone(),
        number(reader.leader.as_ref()),
        reader.leads_for_seconds.map_or_else(|| "?".to_owned(), |age| format!("for {}", span(age))),
        number(reader.term),
        number(reader.number),
        ago(reader.age_seconds),
        reader.instances.to_string(),
        number(reader.readers),
    ]
}

fn publisher(publisher: &Publisher) -> String {
    let leads = publisher.leads_for_seconds.map(|age| format!(" for {}", span(age))).unwrap_or_default();
    let who = match (&publisher.leader, publisher.leads) {
        (_, true) => format!("this publisher leads{leads}"),
        (Some(leader), false) => format!("{leader} leads{leads}, this publisher stands by"),
        (None, false) => "nobody leads".to_owned(),
    };
    let mut text = client::plain(&format!(
        "fleet {}, bucket {}: {who}, term {}, {} readers\n",
        publisher.fleet,
        publisher.bucket,
        publisher.term,
        number(publisher.readers),
    ));
    if let Some(error) = &publisher.error {
        text.push_str(&client::plain(&format!("  {error}\n")));
    }
    let header = ["PUBLISHES", "POLLS", "FAILED", "CALLS", "SETS", "BYTES", "INSTANCES", "OBSERVED"];
    let rows = publisher.providers.iter().map(|(name, p)| {
        let counts = [p.polls, p.failures, p.calls, p.sets, p.bytes, p.instances as u64].map(|n| n.to_string());
        [name.to_string()].into_iter().chain(counts).chain([ago(p.age_seconds)]).collect()
    });
    text.push_str(&table(&std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>()));
    for (name, error) in publisher.providers.iter().filter_map(|(name, p)| Some((name, p.error.as_ref()?))) {
        text.push_str(&client::plain(&format!("  {name}: {error}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_are_tables_with_remarks() {
        let json = r#"{
            "publisher": {"fleet": "shop", "bucket": "elasticd", "leads": false, "leader": "p1", "leads_for_seconds": 61,
                "term": 7, "takeovers": 0, "readers": 3, "error": null, "providers": {"prod": {"polls": 0, "failures": 0,
                "calls": 0, "pages": 0, "throttles": 0, "sets": 0, "bytes": 0, "instances": 0, "age_seconds": null, "error": null}}},
            "readers": {"prod": {"fleet": "shop", "bucket": "elasticd", "provider": "prod", "connected": false,
                "leader": "p1", "leads_for_seconds": 61, "term": 7, "number": 2, "age_seconds": 5, "instances": 4,
                "readers": 3, "fallback": "direct", "fallback_polls": 1, "error": "no NATS"}}}"#;
        let fleet: Fleet = serde_json::from_str(json).expect("readable");
        assert_eq!(
            human(&fleet),
            "fleet shop, bucket elasticd: p1 leads for 1m1s, this publisher stands by, term 7, 3 readers
PUBLISHES  POLLS  FAILED  CALLS  SETS  BYTES  INSTANCES  OBSERVED
prod       0      0       0      0     0      0          never

READS  FLEET  BUCKET    LEADER  LEADS     TERM  SET  OBSERVED  INSTANCES  READERS
prod   shop   elasticd  p1      for 1m1s  7     2    5s ago    4          3
  prod: not connected to NATS at this time
  prod: the fleet is silent: direct is polled directly, 1 time so far
  prod: no NATS
"
        );
    }
}
