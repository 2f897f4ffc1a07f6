//! `elasticd status`: how everything stands, for people, and for container health checks.

use std::path::Path;

use super::client::{self, table};
use crate::api::status::{Frontend, Provider, Service, Status};

/// Shows how old everything is, what is held back, and what each frontend was proven to run.
///
/// Ends with an error while elasticd is not ready, so that it can serve as a container's health check.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print what the socket answers, as JSON
    #[arg(long)]
    pub json: bool,
}

/// What the exit code should tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Health {
    /// elasticd is ready: exit with 0.
    Ready,
    /// It answers, and is not ready: exit with 1.
    NotReady,
}

const PATH: &str = "/v1/status";

/// Asks the elasticd that listens on `socket`, and prints the answer.
///
/// # Errors
///
/// If it cannot be asked, or the output cannot be written.
pub async fn run(args: &Args, socket: &Path) -> Result<Health, client::Error> {
    let body = client::get(socket, PATH).await?;
    let status: Status = client::parse(socket, PATH, &body)?;
    if args.json {
        client::write_out(&[&body[..], b"\n"].concat())?;
    } else {
        client::write_out(human(&status).as_bytes())?;
    }
    Ok(if status.ready { Health::Ready } else { Health::NotReady })
}

fn human(status: &Status) -> String {
    let ready = if status.ready { "ready" } else { "NOT ready" };
    let revision = status.revision.map_or_else(|| "no snapshot yet".to_owned(), |r| format!("revision {r}"));
    let mut text = format!("elasticd {}: {ready}, {revision}, up {}\n", status.version, span(status.uptime_seconds));
    text.push_str(&client::plain(&format!("confined: {}\n", status.confinement)));
    if let Some(error) = &status.state_error {
        text.push_str(&client::plain(&format!("the last known good cannot be written: {error}\n")));
    }
    let providers = status.providers.iter().map(|(name, p)| provider(name.as_str(), p));
    section(&mut text, &["PROVIDER", "TYPE", "ANSWERED", "INSTANCES", "POLLS", "FAILED", "THROTTLED"], providers);
    let services = status.services.iter().map(|(name, s)| service(name.as_str(), s));
    section(&mut text, &["SERVICE", "BACKENDS", "REVISION", "OBSERVED", "EXCLUDED"], services);
    let frontends = status.frontends.iter().map(|(name, f)| frontend(name.as_str(), f));
    section(
        &mut text,
        &["FRONTEND", "TYPE", "PHASE", "PROVEN", "WANTED", "RELOADS", "TOLD", "FAILED", "PID"],
        frontends,
    );
    text
}

/// What there is to say of one thing: its row, and remarks that go below the table.
type Entry = (Vec<String>, Vec<String>);

fn section(text: &mut String, header: &[&str], entries: impl Iterator<Item = Entry>) {
    let (rows, remarks): (Vec<_>, Vec<_>) = entries.unzip();
    if rows.is_empty() {
        return;
    }
    let header = header.iter().map(|title| (*title).to_owned()).collect();
    text.push('\n');
    text.push_str(&table(&std::iter::once(header).chain(rows).collect::<Vec<_>>()));
    for remark in remarks.iter().flatten() {
        text.push_str(&client::plain(&format!("  {remark}\n")));
    }
}

fn provider(name: &str, provider: &Provider) -> Entry {
    let row = vec![
        name.to_owned(),
        provider.type_name.clone(),
        ago(provider.age_seconds),
        provider.instances.to_string(),
        provider.polls.to_string(),
        provider.failures.to_string(),
        provider.throttles.to_string(),
    ];
    (row, provider.error.iter().map(|error| format!("{name}: {error}")).collect())
}

fn service(name: &str, service: &Service) -> Entry {
    let faults = match service.exclusions.faults {
        0 => service.exclusions.count.to_string(),
        faults => format!("{} ({faults} to mend)", service.exclusions.count),
    };
    let row = vec![
        name.to_owned(),
        service.backends.map_or_else(|| "?".to_owned(), |count| count.to_string()),
        service.revision.to_string(),
        ago(service.age_seconds),
        faults,
    ];
    let mut remarks = Vec::new();
    let several = service.sources.len() > 1;
    for source in &service.sources {
        let from = if several { format!(" from {}", source.provider) } else { String::new() };
        remarks.extend(source.held.iter().map(|held| format!("{name}: held back{from}: {}", held.message)));
    }
    if service.panicking {
        remarks.push(format!("{name}: too many backends fail their checks at once for it to be believed"));
    }
    if service.restored {
        remarks.push(format!("{name}: restored from the state directory, not confirmed by a poll yet"));
    }
    let shown = service.exclusions.first.iter().take(service.exclusions.faults.min(MAX_FAULTS));
    remarks.extend(shown.map(|excluded| format!("{name}: {} is out: {}", excluded.id, excluded.message)));
    (row, remarks)
}

/// Instances to mend that are listed for each service; `--json` has more.
const MAX_FAULTS: usize = 10;

fn frontend(name: &str, frontend: &Frontend) -> Entry {
    let revision = |revision: Option<u64>| revision.map_or_else(|| "-".to_owned(), |r| r.to_string());
    let proven = match frontend.proven_age_seconds {
        Some(age) => format!("{} ({} ago)", revision(frontend.proven_revision), span(age)),
        None => revision(frontend.proven_revision),
    };
    let row = vec![
        name.to_owned(),
        frontend.type_name.clone(),
        frontend.phase.replace('_', " "),
        proven,
        revision(frontend.wanted_revision),
        frontend.reloads.to_string(),
        frontend.told.to_string(),
        frontend.failures.to_string(),
        frontend.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
    ];
    (row, frontend.error.iter().map(|error| format!("{name}: {error}")).collect())
}

/// How long ago something was.
pub(super) fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", span(seconds)))
}

/// A span in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let spans = [0, 59, 61, 3_661, 90_061].map(span);
        assert_eq!(spans, ["0s", "59s", "1m1s", "1h1m", "1d1h"]);
    }

    #[test]
    fn shows_what_an_operator_looks_for() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "version": "1.2.3", "uptime_seconds": 61, "ready": false, "revision": 8, "state_error": "disk full",
            "confinement": {"landlock": 7, "no_new_privileges": true, "undumpable": true,
                "capabilities": ["CHOWN", "KILL"], "gaps": ["x"]},
            "providers": {"prod": {"type": "ec2", "age_seconds": 40, "instances": 12, "poll_seconds": 0.5, "polls": 9,
                "failures": 2, "throttles": 1, "calls": 31, "pages": 28, "error": "AccessDenied"}},
            "services": {"web": {"backends": 3, "revision": 7, "age_seconds": 40, "restored": true,
                "sources": [{"provider": "prod", "backends": 3, "age_seconds": 40,
                    "held": {"reason": "empty", "message": "no backend at all"}}],
                "held": {"reason": "empty", "message": "no backend at all"},
                "exclusions": {"count": 2, "faults": 1, "first": [
                    {"id": "i-2", "reason": "no_port", "message": "it has no port"},
                    {"id": "i-1", "reason": "tag_missing", "message": "it has no tag"}]}}},
            "frontends": {"nginx": {"type": "nginx", "phase": "not_running", "proven_revision": 7,
                "proven_age_seconds": 300, "wanted_revision": 8, "pid": null, "error": "no process", "applies": 1,
                "failures": 4, "reloads": 1, "told": 2}},
        }))
        .expect("a status");
        assert_eq!(
            human(&status),
            "elasticd 1.2.3: NOT ready, revision 8, up 1m1s
confined: writes by Landlock 7, no new privileges, no core dumps, capabilities CHOWN KILL, NOT x
the last known good cannot be written: disk full

PROVIDER  TYPE  ANSWERED  INSTANCES  POLLS  FAILED  THROTTLED
prod      ec2   40s ago   12         9      2       1
  prod: AccessDenied

SERVICE  BACKENDS  REVISION  OBSERVED  EXCLUDED
web      3         7         40s ago   2 (1 to mend)
  web: held back: no backend at all
  web: restored from the state directory, not confirmed by a poll yet
  web: i-2 is out: it has no port

FRONTEND  TYPE   PHASE        PROVEN        WANTED  RELOADS  TOLD  FAILED  PID
nginx     nginx  not running  7 (5m0s ago)  8       1        2     4       -
  nginx: no process
"
        );
    }
}
