//! Files that earlier versions wrote to `state_dir` are read: what was served before an upgrade is served after it, and
//! no frontend is reloaded for it.
//!
//! `golden/formats` holds the files of each format as the version wrote them that introduced it, and what it served
//! then. To add a format: keep the files there are, and add those of the new one beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use elasticd::registry::state::State;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;
use crate::harness::until_or;

const SNAPSHOT: &str = include_str!("golden/formats/snapshot-3.json");
const SERVED: &str = include_str!("golden/formats/served.json");
const OUT: &str = include_str!("golden/formats/out.json");
const NGINX: &str = include_str!("golden/formats/nginx.conf");
const JSON_RECORD: &str = include_str!("golden/formats/frontends/json-1.json");
const NGINX_RECORD: &str = include_str!("golden/formats/frontends/nginx-1.json");

/// When the golden files were written, in seconds since the epoch.
const WRITTEN: u64 = 1_795_841_261;

/// The services of the golden files; nothing is at hand to discover them anew.
const CONFIG: &str = "\
[providers.near]
type = 'file'
path = 'DIR/missing.yaml'
[providers.far]
type = 'file'
path = 'DIR/missing.yaml'
[services.web]
provider = ['near', 'far']
select = { Role = 'web' }
port = { tag = 'Port', default = 8080 }
slow_start = '24h'
drain = '24h'
health = { type = 'tcp', interval = '1h', fall = 1, panic = '0%' }
guard = { on_empty = 'hold', max_drop = '100%' }
[services.db]
provider = 'near'
select = { Role = 'db' }
port = 5432
[services.by-tag]
provider = 'near'
each = { tag = 'Group' }
port = 80
[frontends.json]
type = 'json'
output = 'DIR/out.json'
reload = { command = ['sh', '-c', 'echo reloaded >> DIR/reloads'] }
";

fn sealed(json: &str) -> String {
    let sum: String = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{json}\n{sum}")
}

/// The golden state as if it had been written now: drains and slow starts depend on the time.
fn current_snapshot() -> String {
    let (json, sum) = SNAPSHOT.split_once('\n').expect("a checksum");
    assert_eq!(sealed(json), format!("{json}\n{sum}"), "the golden file is whole");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let mut moved = String::new();
    let mut rest = json;
    // Points in time alone have ten digits, and are within a day of each other.
    while let Some(at) = rest.find("17959").into_iter().chain(rest.find("17958")).min() {
        let (before, number) = rest.split_at(at);
        let (number, after) = number.split_at(10);
        let time: u64 = number.parse().expect("a number");
        moved += &format!("{before}{}", now + time - WRITTEN);
        rest = after;
    }
    sealed(&(moved + rest))
}

/// The digest of a frontend's only output, as the apply record holds it.
fn digest(path: &Path, content: &str) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let name = path.to_str().expect("UTF-8");
    let mut hasher = Sha256::new();
    hasher.update(name.len().to_le_bytes());
    hasher.update(name);
    hasher.update(hex(&Sha256::digest(content)));
    hasher.update([0]);
    hex(&hasher.finalize())
}

/// A golden record of an output at another path.
fn moved_record(record: &str, from: &str, to: &Path, content: &str) -> String {
    let old = digest(Path::new(from), content);
    assert!(record.contains(&old), "the golden record is of the golden output: {old}");
    record.replace(&old, &digest(to, content))
}

/// An elasticd that starts from the golden files, with more in its configuration.
fn upgraded(more: &str, records: &[(&str, String)]) -> Elasticd {
    let elasticd = Elasticd::new(&format!("{CONFIG}{more}"));
    fs::create_dir_all(elasticd.path("state/frontends")).expect("a directory");
    fs::write(elasticd.path("state/snapshot.json"), current_snapshot()).expect("written");
    fs::write(elasticd.path("out.json"), OUT).expect("written");
    let json = moved_record(JSON_RECORD, "/tmp/golden/out.json", &elasticd.path("out.json"), OUT);
    fs::write(elasticd.path("state/frontends/json.json"), json).expect("written");
    for (name, record) in records {
        fs::write(elasticd.path(&format!("state/frontends/{name}.json")), record).expect("written");
    }
    elasticd
}

#[test]
fn a_state_of_each_format_is_read_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snapshot.json");
    fs::write(&path, SNAPSHOT).expect("written");
    let state = State::new(dir.path());
    let read = state.read().expect("readable").expect("there");
    state.save(&read.snapshot, &read.registered, &read.pools.iter().collect()).expect("written");
    let parsed = |text: &str| serde_json::from_str::<Value>(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(parsed(&fs::read_to_string(&path).expect("readable")), parsed(SNAPSHOT), "nothing is lost");
}

#[test]
fn after_an_upgrade_the_same_is_served_and_nothing_is_written_or_reloaded() {
    let elasticd = upgraded("", &[]);
    let before = fs::metadata(elasticd.path("out.json")).expect("written").modified().expect("a time");
    let elasticd = elasticd.ready();
    elasticd.await_status("proven", |status| status["frontends"]["json"]["phase"] == "reloaded");
    let served: Value = serde_json::from_str(&elasticd.get("/v1/services").2).expect("JSON");
    assert_eq!(served, serde_json::from_str::<Value>(SERVED).expect("JSON"));
    assert_eq!(elasticd.read("out.json"), OUT);
    assert_eq!(fs::metadata(elasticd.path("out.json")).expect("there").modified().expect("a time"), before);
    assert!(!elasticd.path("reloads").exists(), "{}", elasticd.log());
    assert_eq!(elasticd.logged("damaged") + elasticd.logged("format"), 0, "{}", elasticd.log());
}

#[test]
fn after_an_upgrade_a_running_nginx_is_not_reloaded() {
    let nginx = Nginx::new();
    let output = nginx.conf_d().join("elasticd.conf");
    fs::write(&output, NGINX).expect("written");
    let nginx = nginx.start();
    let stat = fs::read_to_string(format!("/proc/{}/stat", nginx.master())).expect("it runs");
    let start_ticks = stat.rsplit_once(") ").expect("a name").1.split(' ').nth(19).expect("a time").to_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot").trim().replace('-', "");
    let mut record: Value =
        serde_json::from_str(&moved_record(NGINX_RECORD, "/tmp/golden/ng/conf.d/elasticd.conf", &output, NGINX))
            .expect("JSON");
    record["boot"] = boot.into();
    record["proven"]["process"]["pid"] = nginx.master().into();
    record["proven"]["process"]["start_ticks"] = start_ticks.parse::<u64>().expect("a number").into();
    // As the golden file was written: in the service's order, and for these two alone.
    let frontend = nginx.frontend() + "services = ['web', 'db']\n";
    let workers = nginx.workers();
    let elasticd = upgraded(&frontend, &[("nginx", record.to_string())]).ready();
    let status = elasticd.await_status("proven", |status| status["frontends"]["nginx"]["phase"] == "proven");
    assert_eq!(status["frontends"]["nginx"]["reloads"], 0, "{status:#}");
    assert_eq!((nginx.workers(), nginx.upstreams()), (workers, NGINX.to_owned()), "{}", elasticd.log());
}

#[test]
fn a_newer_state_is_kept_aside_with_what_to_do() {
    let elasticd = Elasticd::new(CONFIG);
    fs::create_dir_all(elasticd.path("state")).expect("a directory");
    let (json, _) = SNAPSHOT.split_once('\n').expect("a checksum");
    let newer = sealed(&json.replacen("\"version\":3", "\"version\":999", 1));
    fs::write(elasticd.path("state/snapshot.json"), &newer).expect("written");
    let elasticd = elasticd.start();
    elasticd.await_log("has format 999, and this elasticd reads formats up to");
    assert!(elasticd.log().contains("install the newer elasticd and rename the file back"), "{}", elasticd.log());
    let aside: PathBuf = elasticd.path("state/snapshot.json.unreadable");
    until_or(|| elasticd.log(), || (fs::read_to_string(&aside).ok()? == newer).then_some(()));
}

/// The position that was last read from a fleet: an older set is refused after an upgrade as it was before.
#[cfg(feature = "nats")]
#[test]
fn the_position_in_a_fleets_sets_is_read() {
    use crate::harness::fleet::{await_error, await_lead, publisher, reading};
    let position: Value = serde_json::from_str(include_str!("golden/formats/fleet-1.json")).expect("JSON");
    // The term is a time in milliseconds: that of the golden file, moved to a year that is still to come.
    let later = position["term"].as_u64().expect("a number") + 100 * 365 * 86_400_000;
    let position =
        include_str!("golden/formats/fleet-1.json").replace(&position["term"].to_string(), &later.to_string());
    let nats = crate::harness::nats::Nats::start();
    let publisher = publisher(&nats.url(), &["a"]);
    await_lead(&publisher);
    let reader = Elasticd::new(&reading(&nats.url(), ""));
    fs::create_dir_all(reader.path("state")).expect("a directory");
    fs::write(reader.path("state/fleet-prod.json"), position).expect("written");
    let reader = reader.start();
    await_error(&reader, "readers", &[&later.to_string(), "older"]);
}
