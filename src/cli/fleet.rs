//! `elasticd fleet`: which publisher leads, and how old the sets are that are read.

use std::path::Path;

use super::client::{self, table};
use super::status::{ago, counter_cells, header_with_counters, span};
use crate::status::{Fleet, Publisher, Reader, Status};

/// Shows which publisher leads the fleet and since when, and how old each set is as seen by this host.
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

const NO_FLEET: &str = "no fleet is configured: there is neither [publish] nor a provider of type nats\n";

fn human(fleet: &Fleet) -> String {
    let mut text = fleet.publisher.as_deref().map(publisher).unwrap_or_default();
    if fleet.readers.is_empty() {
        return text;
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let header =
        ["READ", "FLEET", "BUCKET", "LEADER", "LEADER SINCE", "TERM", "SEQUENCE", "OBSERVED", "INSTANCES", "READERS"];
    let header = header_with_counters(&header, &fleet.readers);
    let rows = fleet.readers.iter().map(|(name, reader)| row(name.as_str(), reader));
    text.push_str(&table(&std::iter::once(header).chain(rows).collect::<Vec<_>>()));
    for (name, reader) in &fleet.readers {
        if !reader.connected {
            text.push_str(&format!("  {name}: not connected to NATS at this time\n"));
        }
        if let Some(fallback) = &reader.fallback {
            text.push_str(&format!("  {name}: the fleet is silent, so provider {fallback} is polled directly\n"));
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
    let mut row = vec![
        name.to_owned(),
        reader.fleet.clone(),
        reader.bucket.clone(),
        number(reader.leader.as_ref()),
        reader.leader_age_seconds.map_or_else(|| "?".to_owned(), |age| ago(Some(age))),
        number(reader.term),
        number(reader.sequence),
        ago(reader.age_seconds),
        reader.instances.to_string(),
        number(reader.readers),
    ];
    row.extend(counter_cells(reader));
    row
}

fn publisher(publisher: &Publisher) -> String {
    let since = publisher.leader_age_seconds.map(|age| format!(" for {}", span(age))).unwrap_or_default();
    let leader = match (&publisher.leader, publisher.is_leader) {
        (_, true) => format!("this publisher is the leader{since}"),
        (Some(leader), false) => format!("{leader} is the leader{since}, this publisher is on standby"),
        (None, false) => "there is no leader".to_owned(),
    };
    let mut text = client::plain(&format!(
        "fleet {}, bucket {}: {leader}, term {}, {} readers\n",
        publisher.fleet,
        publisher.bucket,
        publisher.term,
        number(publisher.readers),
    ));
    if let Some(error) = &publisher.error {
        text.push_str(&client::plain(&format!("  {error}\n")));
    }
    let header = header_with_counters(&["PUBLISHED", "INSTANCES", "OBSERVED"], &publisher.providers);
    let rows = publisher.providers.iter().map(|(name, published)| {
        let row = [name.to_string(), published.instances.to_string(), ago(published.age_seconds)];
        row.into_iter().chain(counter_cells(published)).collect()
    });
    text.push_str(&table(&std::iter::once(header).chain(rows).collect::<Vec<_>>()));
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
            "publisher": {"fleet": "shop", "bucket": "elasticd", "is_leader": false, "leader": "p1", "leader_age_seconds": 61,
                "term": 7, "takeovers": 0, "readers": 3, "error": null, "providers": {"prod": {"polls": 0, "failures": 0,
                "calls": 0, "pages": 0, "throttles": 0, "sets": 0, "bytes": 0, "instances": 0, "age_seconds": null, "error": null}}},
            "readers": {"prod": {"fleet": "shop", "bucket": "elasticd", "provider": "prod", "connected": false,
                "leader": "p1", "leader_age_seconds": 61, "term": 7, "sequence": 2, "age_seconds": 5, "instances": 4,
                "readers": 3, "fallback": "direct", "fallback_polls": 1, "error": "no NATS"}}}"#;
        let fleet: Fleet = serde_json::from_str(json).expect("readable");
        assert_eq!(
            human(&fleet),
            "fleet shop, bucket elasticd: p1 is the leader for 1m 1s, this publisher is on standby, term 7, 3 readers
PUBLISHED  INSTANCES  OBSERVED  POLLS  FAILURES  CALLS  PAGES  THROTTLES  SETS  BYTES
prod       0          never     0      0         0      0      0          0     0

READ  FLEET  BUCKET    LEADER  LEADER SINCE  TERM  SEQUENCE  OBSERVED  INSTANCES  READERS  FALLBACK POLLS
prod  shop   elasticd  p1      1m 1s ago     7     2         5s ago    4          3        1
  prod: not connected to NATS at this time
  prod: the fleet is silent, so provider direct is polled directly
  prod: no NATS
"
        );
    }
}
