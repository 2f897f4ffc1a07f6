//! A real Prometheus, whose `file_sd` targets elasticd writes.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};

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

#[test]
fn the_template_matches_its_golden_file() {
    let text = rendered_output("prometheus", "output = '/nonexistent/targets.json'\n");
    assert_eq!(text, include_str!("golden/prometheus_targets.json"));
}

#[test]
fn targets_are_scraped_and_those_that_relabelling_drops_delay_no_proof() {
    let backends = three();
    let prometheus = Prometheus::new().start();
    let elasticd = elasticd(&prometheus, &backends[..2]).ready();
    elasticd.await_proven("prometheus", "web", &["a", "b"]);
    assert!(prometheus.targets().iter().all(|target| target["labels"]["service"] == "web"));
    for backend in &backends[..2] {
        until("it is scraped", || (backend.requests() > 0).then_some(()));
    }
    // A weight of 0 is no traffic, but it is still watched.
    let drained = backends[2].entry().replace("tags:", "weight: 0, tags:");
    let dropped = backends[0].entry().replace("Role:", "Scrape: 'no', Role:");
    elasticd.write("backends.yaml", &(dropped + &backends[1].entry() + &drained));
    elasticd.await_proven("prometheus", "web", &["a", "b", "c"]);
    assert_eq!(prometheus.ids(), ["b", "c"]);
    until("it is scraped", || (backends[2].requests() > 0).then_some(()));
}

#[test]
fn a_file_that_no_job_reads_is_reported_and_rolled_back() {
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
    assert!(error.contains("does a job name that file in `file_sd_configs`?"), "{error}");
    assert_eq!(fs::read_to_string(prometheus.file()).expect("there"), "[]", "the previous file is back");
    // It is repaired, and elasticd finds out by itself.
    prometheus.stop();
    prometheus.configure("sd/*.json");
    prometheus.spawn();
    elasticd.await_proven("prometheus", "web", &["a"]);
    assert_eq!(elasticd.logged(Elasticd::UPDATE_FAILED), 1, "said once: {}", elasticd.log());
}

#[test]
fn killed_between_swap_and_proof_it_ends_proven_without_another_change() {
    let backends = ["a", "b"].map(Backend::start);
    let prometheus = Prometheus::new().start();
    let mut elasticd = elasticd(&prometheus, &backends[..1]).ready();
    elasticd.await_proven("prometheus", "web", &["a"]);
    kill(prometheus.child_pid(), Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends));
    let record = || elasticd.read("state/frontends/prometheus.json");
    until("the record says that it is in place", || record().contains("\"reloading\"").then_some(()));
    elasticd.kill();
    let file = inode(&prometheus.file());
    kill(prometheus.child_pid(), Signal::SIGCONT).expect("it runs");
    until("Prometheus has taken it", || (prometheus.ids() == ["a", "b"]).then_some(()));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("prometheus", "web", &["a", "b"]);
    assert_eq!((inode(&prometheus.file()), &status["frontends"]["prometheus"]["applies"]), (file, &0.into()));
    assert_eq!(elasticd.hidden(&prometheus.path("sd")), Vec::<PathBuf>::new());
}
