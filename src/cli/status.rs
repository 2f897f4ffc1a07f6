//! `elasticd status`: the status, for people and for container health checks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::client::{self, table};
use crate::model::Name;
use crate::status::{Age, Frontend, Measured, OrphanedOutput, Phase, Provider, Service, Status, counters};

/// Shows the status: how old everything is, which sets are held, and what each frontend was proven to run.
///
/// Ends with an error while elasticd is not ready, so that it can serve as a container's health check.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print what the socket answers, as JSON
    #[arg(long)]
    pub json: bool,
}

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Health {
    /// elasticd is ready: exit with 0.
    Ready,
    /// It answers, and is not ready: exit with 1.
    NotReady,
}

const PATH: &str = "/v1/status";

/// The status of the elasticd that listens on `socket`.
///
/// # Errors
///
/// If it cannot be asked.
pub async fn get(socket: &Path) -> Result<Status, client::Error> {
    client::parse(socket, PATH, &client::get(socket, PATH).await?)
}

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
    let revision = status.revision.map_or_else(|| "no snapshot yet".to_owned(), |r| format!("revision {r}"));
    let (summary, uptime) = (summary(status), span(status.uptime_seconds));
    let mut text = format!("elasticd {}: {summary}, {revision}, up {uptime}\n", status.version);
    text.push_str(&client::plain(&format!("confined: {}\n", status.confinement)));
    if let Some(error) = &status.state_error {
        text.push_str(&client::plain(&format!("the last known set cannot be saved: {error}\n")));
    }
    section(&mut text, &["PROVIDER", "TYPE", "ANSWERED", "INSTANCES"], &status.providers, provider);
    section(&mut text, &["SERVICE", "BACKENDS", "REVISION", "OBSERVED", "EXCLUDED"], &status.services, service);
    let header = ["FRONTEND", "TYPE", "PHASE", "APPLIED", "WANTED", "PID"];
    section(&mut text, &header, &status.frontends, frontend);
    for orphan in &status.orphaned_outputs {
        text.push_str(&client::plain(&format!("  {}\n", former(orphan))));
    }
    text
}

/// Whether elasticd is ready, and how much fails or is held.
fn summary(status: &Status) -> String {
    let count = |count: usize, noun: &str, state: &str| match count {
        0 => None,
        1 => Some(format!("1 {noun} {state}")),
        count => Some(format!("{count} {noun}s {state}")),
    };
    let frontends = |phase| status.frontends.values().filter(|frontend| frontend.phase == phase).count();
    let failing = status.providers.values().filter(|provider| provider.error.is_some()).count();
    let held = status.services.values().filter(|service| service.held.is_some()).count();
    let parts = [
        Some(if status.ready { "ready" } else { "NOT ready" }.to_owned()),
        count(failing, "provider", "failing"),
        count(held, "service", "held"),
        count(frontends(Phase::Failed), "frontend", "failed"),
        count(frontends(Phase::NotRunning), "frontend", "not running"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A row of a table, and remarks that go below the table.
type Entry = (Vec<String>, Vec<String>);

/// A table with a row for each report: its own columns, then one for each of its counters.
fn section<R: Measured>(
    text: &mut String,
    header: &[&str],
    reports: &BTreeMap<Name, R>,
    entry: impl Fn(&str, &R) -> Entry,
) {
    if reports.is_empty() {
        return;
    }
    let mut rows = vec![header_with_counters(header, reports)];
    let mut remarks = Vec::new();
    for (name, report) in reports {
        let (mut row, more) = entry(name.as_str(), report);
        row.extend(counter_cells(report));
        rows.push(row);
        remarks.extend(more);
    }
    text.push('\n');
    text.push_str(&table(&rows));
    for remark in remarks {
        text.push_str(&client::plain(&format!("  {remark}\n")));
    }
}

/// A table's header, with a column for each counter of the reports.
pub(super) fn header_with_counters<R: Measured>(header: &[&str], reports: &BTreeMap<Name, R>) -> Vec<String> {
    let counters = reports.values().next().map(counters).unwrap_or_default();
    let titles = counters.iter().map(|(name, _)| name.replace('_', " ").to_uppercase());
    header.iter().map(|title| (*title).to_owned()).chain(titles).collect()
}

/// The cells below [`header_with_counters`].
pub(super) fn counter_cells(report: &impl Measured) -> Vec<String> {
    counters(report).iter().map(|(_, value)| value.to_string()).collect()
}

fn provider(name: &str, provider: &Provider) -> Entry {
    let row =
        vec![name.to_owned(), provider.type_name.clone(), ago(provider.age_seconds), provider.instances.to_string()];
    (row, provider.error.iter().map(|error| format!("{name}: {error}")).collect())
}

fn service(name: &str, service: &Arc<Service>) -> Entry {
    let excluded = match service.exclusions.faults {
        0 => service.exclusions.count.to_string(),
        faults => format!("{} ({faults} to fix)", service.exclusions.count),
    };
    let row = vec![
        name.to_owned(),
        service.backends.map_or_else(|| "?".to_owned(), |count| count.to_string()),
        service.revision.to_string(),
        ago(service.age_seconds),
        excluded,
    ];
    let mut remarks = Vec::new();
    let several = service.sources.len() > 1;
    for source in &service.sources {
        let from = if several { format!(" from {}", source.provider) } else { String::new() };
        remarks.extend(source.held.iter().map(|held| format!("{name}: held{from}: {}", held.message)));
    }
    if service.panic_mode {
        remarks.push(format!("{name}: too many backends fail their checks at once, so the failures are ignored"));
    }
    if service.restored {
        remarks.push(format!("{name}: restored from the state directory, not confirmed by a poll yet"));
    }
    let shown = service.exclusions.first.iter().filter(|exclusion| exclusion.fault).take(MAX_FAULTS);
    remarks.extend(shown.map(|exclusion| format!("{name}: {} is excluded: {}", exclusion.id, exclusion.reason)));
    (row, remarks)
}

/// Instances to fix that are listed for each service; `--json` has more.
const MAX_FAULTS: usize = 10;

fn frontend(name: &str, frontend: &Arc<Frontend>) -> Entry {
    let or_none = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    let revision = |revision: Option<u64>| or_none(revision.map(|revision| revision.to_string()));
    let applied = match frontend.applied_age_seconds {
        Some(age) => format!("{} ({} ago)", revision(frontend.applied_revision), span(age)),
        None => revision(frontend.applied_revision),
    };
    let phase = match frontend.phase {
        Phase::Waiting => "waiting",
        Phase::Applying => "applying",
        Phase::NotRunning => "not running",
        Phase::Proven => "proven",
        Phase::Reloaded => "reloaded",
        Phase::Written => "written",
        Phase::Failed => "failed",
    };
    let row = vec![
        name.to_owned(),
        frontend.type_name.clone(),
        phase.to_owned(),
        applied,
        revision(frontend.wanted_revision),
        or_none(frontend.pid.map(|pid| pid.to_string())),
    ];
    let mut remarks: Vec<_> = frontend.error.iter().map(|error| format!("{name}: {error}")).collect();
    remarks.extend(frontend.orphaned_outputs.iter().map(former));
    let shown = frontend.overrides.iter().take(MAX_OVERRIDES);
    remarks.extend(shown.map(|(server, what)| format!("{name}: {server}: {what}, set by others and left as it is")));
    if let Some(more) = frontend.overrides.len().checked_sub(MAX_OVERRIDES).filter(|more| *more > 0) {
        remarks.push(format!("{name}: and {more} more that others have set"));
    }
    let shown = frontend.excluded.first.iter().take(MAX_FAULTS);
    remarks.extend(shown.map(|out| format!("{name}: {} of {} is excluded: {}", out.id, out.service, out.message)));
    (row, remarks)
}

/// A file that is no output any more.
fn former(orphan: &OrphanedOutput) -> String {
    let OrphanedOutput { path, frontend, edited } = orphan;
    let what = if *edited { "and was edited since" } else { "`elasticd outputs --prune` removes it" };
    format!("{frontend}: {} is no output any more, {what}", path.display())
}

/// Servers changed by others that are listed for each frontend; `--json` has them all.
const MAX_OVERRIDES: usize = 10;

/// How long ago something was.
pub(super) fn ago(age: Option<Age>) -> String {
    age.map_or_else(|| "never".to_owned(), |age| format!("{} ago", span(age)))
}

/// An age in its two largest units.
pub(super) fn span(age: Age) -> String {
    two_units(age.seconds())
}

fn two_units(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let (first, second) = match () {
        () if days > 0 => (format!("{days}d"), (hours % 24, "h")),
        () if hours > 0 => (format!("{hours}h"), (minutes % 60, "m")),
        () if minutes > 0 => (format!("{minutes}m"), (seconds % 60, "s")),
        () => (format!("{seconds}s"), (0, "")),
    };
    match second {
        (0, _) => first,
        (number, unit) => format!("{first} {number}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let spans = [0, 59, 60, 61, 3_661, 90_061].map(two_units);
        assert_eq!(spans, ["0s", "59s", "1m", "1m 1s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn shows_what_an_operator_looks_for() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "version": "1.2.3", "uptime_seconds": 61, "ready": false, "revision": 8, "state_error": "disk full",
            "confinement": {"landlock": 7, "no_new_privileges": true, "no_core_dumps": true,
                "capabilities": ["CHOWN", "KILL"], "missing": ["x"]},
            "providers": {"prod": {"type": "ec2", "age_seconds": 40, "instances": 12, "poll_duration_seconds": 0.5, "polls": 9,
                "failures": 2, "throttles": 1, "calls": 31, "pages": 28, "error": "AccessDenied"}},
            "services": {"web": {"backends": 3, "revision": 7, "age_seconds": 40, "restored": true,
                "sources": [{"provider": "prod", "backends": 3, "age_seconds": 40,
                    "held": {"reason": "empty", "message": "no backend at all"}}],
                "held": {"reason": "empty", "message": "no backend at all"},
                "exclusions": {"count": 2, "faults": 1, "first": [
                    {"id": "i-2", "fault": true, "reason": "no_port", "message": "it has no port"},
                    {"id": "i-1", "fault": false, "reason": "tag_missing", "message": "it has no tag"}]}}},
            "frontends": {"nginx": {"type": "nginx", "phase": "failed", "proven_revision": 7,
                "proven_age_seconds": 300, "applied_revision": 7, "applied_age_seconds": 300, "wanted_revision": 8, "pid": null, "error": "nginx -t: exit code 1", "applies": 1,
                "failures": 4, "reloads": 1, "live_updates": 2}},
        }))
        .expect("a status");
        assert_eq!(
            human(&status),
            "elasticd 1.2.3: NOT ready, 1 provider failing, 1 service held, 1 frontend failed, revision 8, up 1m 1s
confined: writes by Landlock 7, no new privileges, no core dumps, capabilities CHOWN KILL, NOT x
the last known set cannot be saved: disk full

PROVIDER  TYPE  ANSWERED  INSTANCES  POLLS  FAILURES  CALLS  PAGES  THROTTLES
prod      ec2   40s ago   12         9      2         31     28     1
  prod: AccessDenied

SERVICE  BACKENDS  REVISION  OBSERVED  EXCLUDED
web      3         7         40s ago   2 (1 to fix)
  web: held: no backend at all
  web: restored from the state directory, not confirmed by a poll yet
  web: i-2 is excluded: it has no port

FRONTEND  TYPE   PHASE   APPLIED     WANTED  PID  APPLIES  FAILURES  RELOADS  LIVE UPDATES
nginx     nginx  failed  7 (5m ago)  8       -    1        4         1        2
  nginx: nginx -t: exit code 1
"
        );
    }
}
