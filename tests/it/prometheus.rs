//! A real Prometheus, whose `file_sd` targets elasticd writes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::backend::{Backend, FILE, entries, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::inode;
use crate::harness::pools::rendered_output;
use crate::harness::prometheus::Prometheus;
use crate::harness::until;

fn elasticd(prometheus: &Prometheus, backends: &[Backend]) -> Elasticd {
    let file = FILE.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'");
    Elasticd::knowing(&format!("{file}{}", prometheus.frontend()), backends)
}

/// The ids by which the operator's rules call the active targets, in order.
fn ids(prometheus: &Prometheus) -> Vec<String> {
    let id = |target: &Value| target["labels"]["instance"].as_str().expect("a label").to_owned();
    let mut ids: Vec<_> = prometheus.targets().iter().map(id).collect();
    ids.sort();
    ids
}

#[test]
fn the_template_renders_what_it_always_has() {
    let text = rendered_output("prometheus", "output = '/nonexistent/targets.json'\n");
    assert_eq!(text, include_str!("golden/prometheus_targets.json"));
}

#[test]
fn targets_come_and_go_and_are_scraped() {
    let backends = three();
    let prometheus = Prometheus::new().start();
    let elasticd = elasticd(&prometheus, &backends[..2]).ready();
    elasticd.await_proven("prometheus", "web", &["a", "b"]);
    // What is called proven is what Prometheus has.
    assert_eq!(ids(&prometheus), ["a", "b"]);
    assert!(prometheus.targets().iter().all(|target| target["labels"]["service"] == "web"));
    for backend in &backends[..2] {
        until("it is scraped", || (backend.requests() > 0).then_some(()));
    }
    // A weight of 0 is no traffic, but it is still watched.
    let drained = backends[2].entry().replace("tags:", "weight: 0, tags:");
    elasticd.write("backends.yaml", &(backends[1].entry() + &drained));
    elasticd.await_proven("prometheus", "web", &["b", "c"]);
    assert_eq!(ids(&prometheus), ["b", "c"]);
    until("it is scraped", || (backends[2].requests() > 0).then_some(()));
    // What the operator's rules drop was found all the same.
    let dropped = backends[2].entry().replace("Role:", "Scrape: 'no', Role:");
    elasticd.write("backends.yaml", &(entries(&backends[..2]) + &dropped));
    elasticd.await_proven("prometheus", "web", &["a", "b", "c"]);
    assert_eq!(ids(&prometheus), ["a", "b"]);
    elasticd.write("backends.yaml", "[]\n");
    elasticd.await_proven("prometheus", "web", &[]);
    assert_eq!(prometheus.targets(), Vec::<Value>::new());
    assert_eq!(elasticd.hidden(&prometheus.path("sd")), Vec::<PathBuf>::new());
}

#[test]
fn a_prometheus_that_comes_later_or_comes_back_is_adopted() {
    let backends = ["a", "b"].map(Backend::start);
    let mut prometheus = Prometheus::new();
    let elasticd = elasticd(&prometheus, &backends).ready();
    assert_eq!(elasticd.status()["frontends"]["prometheus"]["phase"], "not_running");
    prometheus.spawn();
    elasticd.await_proven("prometheus", "web", &["a", "b"]);
    assert_eq!(ids(&prometheus), ["a", "b"]);
    let (file, applies) = (inode(&prometheus.file()), elasticd.status()["frontends"]["prometheus"]["applies"].clone());
    prometheus.stop();
    elasticd.await_status("gone", |status| status["frontends"]["prometheus"]["phase"] == "not_running");
    prometheus.spawn();
    let status = elasticd.await_proven("prometheus", "web", &["a", "b"]);
    assert_eq!(inode(&prometheus.file()), file);
    // It may have been asked before it had read the file, and then been waited for.
    assert!(status["frontends"]["prometheus"]["applies"].as_u64() <= applies.as_u64().map(|n| n + 1), "{status:#}");
}

#[test]
fn a_file_that_no_job_reads_is_said_and_rolled_back() {
    let backends = ["a"].map(Backend::start);
    let mut prometheus = Prometheus::new();
    prometheus.configure("other/*.json");
    prometheus.spawn();
    let elasticd = elasticd(&prometheus, &backends);
    elasticd.configure(&format!("{FILE}{}proof_timeout = '12s'\n", prometheus.frontend()));
    fs::write(prometheus.file(), "[]").expect("written");
    let elasticd = elasticd.start();
    let status =
        elasticd.await_status("failing", |status| status["frontends"]["prometheus"]["failures"].as_u64() >= Some(1));
    let error = status["frontends"]["prometheus"]["error"].as_str().expect("an error");
    assert!(error.contains("do `file_sd_configs` of some job name that file?"), "{error}");
    assert_eq!(fs::read_to_string(prometheus.file()).expect("there"), "[]", "the previous file is back");
    // It is mended, and nobody has to tell elasticd.
    prometheus.stop();
    prometheus.configure("sd/*.json");
    prometheus.spawn();
    elasticd.await_proven("prometheus", "web", &["a"]);
    assert_eq!(elasticd.logged("the old configuration stays"), 1, "said once: {}", elasticd.log());
}

#[test]
fn killed_between_swap_and_proof_it_ends_proven_without_another_change() {
    let backends = ["a", "b"].map(Backend::start);
    let prometheus = Prometheus::new().start();
    let mut elasticd = elasticd(&prometheus, &backends[..1]).ready();
    elasticd.await_proven("prometheus", "web", &["a"]);
    kill(prometheus.pid(), Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends));
    let record = || elasticd.read("state/frontends/prometheus.json");
    until("the record says that it is in place", || record().contains("\"reloading\"").then_some(()));
    elasticd.kill();
    let file = inode(&prometheus.file());
    kill(prometheus.pid(), Signal::SIGCONT).expect("it runs");
    until("Prometheus has taken it", || (ids(&prometheus) == ["a", "b"]).then_some(()));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("prometheus", "web", &["a", "b"]);
    assert_eq!((inode(&prometheus.file()), &status["frontends"]["prometheus"]["applies"]), (file, &0.into()));
    assert_eq!(elasticd.hidden(&prometheus.path("sd")), Vec::<PathBuf>::new());
}

/// Values that break configurations, and generated ones, as tags: Prometheus reads each back as it was, under names
/// that cannot collide.
#[test]
fn prometheus_reads_every_hostile_value_back() {
    const COUNT: usize = 200;
    let strategy = proptest::prop_oneof!["[ \\t\\r\\n;{}\"'#\\\\$%()ntr0aé]{0,12}", proptest::prelude::any::<String>()];
    let mut runner = TestRunner::deterministic();
    let mut value = || {
        let value = strategy.new_tree(&mut runner).expect("a value").current();
        // The characters with which elasticd marks values are not theirs to hold.
        value.replace(['\u{FDD0}', '\u{FDD1}', '\u{FDD2}'], "")
    };
    let mut values: Vec<String> = (0..COUNT).map(|_| value()).collect();
    values.extend(["\"", "\\", "a\nb", "\"}, {", "\u{0}\u{7f}\u{feff}", "{{ x }}", ""].map(str::to_owned));
    let instance = |(i, value): (usize, &String)| {
        // `a_b` itself, and three keys that would all be that.
        let tags =
            json!({ "Role": "web", "a-b": "second", "a_b": value, "a.b": "third", "ä": "x", format!("k{value}"): "y" });
        json!({ "id": format!("i-{i:03}"), "address": format!("127.0.0.1:{}", 1000 + i), "tags": tags })
    };
    let instances: Vec<_> = values.iter().enumerate().map(instance).collect();
    let prometheus = Prometheus::new().start();
    let elasticd = elasticd(&prometheus, &[]);
    elasticd.write("backends.json", &json!(instances).to_string());
    elasticd.configure(&format!("{FILE}{}", prometheus.frontend()).replace("backends.yaml", "backends.json"));
    let elasticd = elasticd.ready();
    elasticd.await_status("proven", |status| status["frontends"]["prometheus"]["phase"] == "proven");
    let targets = prometheus.targets();
    assert_eq!(targets.len(), values.len());
    for target in targets {
        let labels = &target["discoveredLabels"];
        let id = labels["__meta_elasticd_id"].as_str().expect("an id");
        let value = &values[id[2..].parse::<usize>().expect("a number")];
        assert_eq!(labels["__meta_elasticd_tag_a_b"].as_str().unwrap_or_default(), value, "{id}");
        assert_eq!(labels["__meta_elasticd_tag__"], "x", "{id}");
    }
    let output = Command::new("promtool").arg("check").arg("config").arg(prometheus.path("prometheus.yml")).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; `tests/run` installs prometheus"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
