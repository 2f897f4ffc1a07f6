//! A real Envoy, whose EDS files elasticd writes.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::harness::backend::{Backend, FILE, entries, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::envoy::Envoy;
use crate::harness::nginx::inode;
use crate::harness::pools::rendered;
use crate::harness::until;

/// An elasticd that is not started yet, and knows of these backends.
fn elasticd(envoy: &Envoy, more: &str, backends: &[Backend]) -> Elasticd {
    let file = FILE.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'");
    Elasticd::knowing(&format!("{file}{}{more}", envoy.frontend()), backends)
}

fn error(status: &Value) -> String {
    status["frontends"]["envoy"]["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_template_matches_its_golden_file() {
    let text = rendered("envoy", "output = '/nonexistent/{service}.json'\nvars.lb_tags = ['Owner', 'Role']\n");
    assert_eq!(text, include_str!("golden/envoy_eds.txt"));
}

/// Envoy refuses a file that holds the endpoints of several clusters.
#[test]
fn each_service_has_a_file_of_its_own() {
    let backends = three();
    let mut envoy = Envoy::new();
    // A cluster may have another name than its service.
    envoy.configure(&[("web", "web", ""), ("other", "api", "")]);
    let api = "[services.api]\nprovider = 'local'\nselect = { Role = 'web' }\nguard = { max_drop = '100%' }\n";
    let config = format!("{FILE}{api}{}", envoy.frontend());
    let mut elasticd = Elasticd::knowing(&config, &backends[..1]).ready();
    envoy.spawn();
    elasticd.await_proven("envoy", "web", &["a"]);
    elasticd.await_proven("envoy", "api", &["a"]);
    assert_eq!((envoy.hosts("web").len(), envoy.hosts("other").len()), (1, 1), "{}", envoy.log());

    // With both in one file, as an operator might try: Envoy refuses it, and keeps what it had.
    assert!(elasticd.stop().success());
    let together = format!("outputs = [{{ path = '{}', template = 'envoy/eds.json' }}]\n", envoy.file("web").display());
    let before = fs::read_to_string(envoy.file("web")).expect("readable");
    let lines: Vec<_> = config.lines().filter(|line| !line.starts_with("output =")).collect();
    elasticd.configure(&format!("{}\n{together}", lines.join("\n")));
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.restart();
    let status = elasticd.await_status("refused", |status| status["frontends"]["envoy"]["phase"] == "failed");
    assert!(error(&status).contains("cluster.web.update_rejected is "), "{status:#}");
    assert!(envoy.log().contains("Unexpected EDS resource length: 2"), "{}", envoy.log());
    assert_eq!(fs::read_to_string(envoy.file("web")).expect("readable"), before, "the previous file is back");
    envoy.await_answers(&["a"]);
}

#[test]
fn a_missing_cluster_is_reported() {
    let backends = three();
    let mut envoy = Envoy::new();
    envoy.configure(&[]);
    let text = fs::read_to_string(envoy.path("envoy.yaml")).expect("readable");
    let (text, _) = text.split_once("  listeners:").expect("a listener");
    fs::write(envoy.path("envoy.yaml"), format!("{text}  clusters: []\n")).expect("written");
    envoy.spawn();
    let elasticd = elasticd(&envoy, "", &backends).start();
    let status = elasticd.await_status("failed", |status| status["frontends"]["envoy"]["phase"] == "failed");
    let expected = "Envoy has no cluster \"web\", nor one with that `eds_cluster_config.service_name`";
    assert!(error(&status).contains(expected), "{}", error(&status));
    assert!(!envoy.file("web").exists(), "what was not there before is not left behind");
    // Envoy is given the cluster, which wants its file to be there.
    envoy.stop();
    envoy.configure(&[("web", "web", "")]);
    until("the file for the start", || envoy.file("web").exists().then_some(()));
    envoy.spawn();
    elasticd.await_proven("envoy", "web", &["a", "b", "c"]);
    envoy.await_answers(&["a", "b", "c"]);
}

#[test]
fn killed_between_swap_and_proof_it_ends_proven_without_another_change() {
    let backends = three();
    let envoy = Envoy::new().start();
    let mut elasticd = elasticd(&envoy, "", &backends[..1]).ready();
    envoy.await_answers(&["a"]);
    // A stopped Envoy takes the file later.
    kill(envoy.child_pid(), Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends));
    let record = || elasticd.read("state/frontends/envoy.json");
    until("the record says that it is in place", || record().contains("\"reloading\"").then_some(()));
    elasticd.kill();
    let file = inode(&envoy.file("web"));
    kill(envoy.child_pid(), Signal::SIGCONT).expect("it runs");
    until("Envoy has taken it", || (envoy.hosts("web").len() == 3).then_some(()));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("envoy", "web", &["a", "b", "c"]);
    assert_eq!((inode(&envoy.file("web")), &status["frontends"]["envoy"]["applies"]), (file, &0.into()), "{status:#}");
    assert_eq!(elasticd.hidden(&envoy.path("eds")), Vec::<PathBuf>::new());
    envoy.await_answers(&["a", "b", "c"]);
}

/// By default Envoy keeps an endpoint that was removed for as long as it passes Envoy's own health checks.
#[test]
fn a_removed_endpoint_that_envoy_keeps_while_it_is_healthy_delays_no_proof() {
    const HEALTH: &str = "    health_checks: [{ timeout: 1s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 1, \
                          tcp_health_check: {} }]\n";
    let backends = three();
    let mut envoy = Envoy::new();
    envoy.configure(&[("web", "web", HEALTH)]);
    envoy = envoy.start();
    let elasticd = elasticd(&envoy, "", &backends[..2]).ready();
    elasticd.await_proven("envoy", "web", &["a", "b"]);
    envoy.await_answers(&["a", "b"]);
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    elasticd.await_proven("envoy", "web", &["a"]);
    let kept = envoy.hosts("web");
    assert_eq!(kept.len(), 2, "Envoy's own doing: {kept:#?}");
    // The remedy is Envoy's too.
    envoy.stop();
    envoy.configure(&[("web", "web", &format!("{HEALTH}    ignore_health_on_host_removal: true\n"))]);
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    envoy.spawn();
    elasticd.await_proven("envoy", "web", &["a", "b"]);
    envoy.await_answers(&["a", "b"]);
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    elasticd.await_proven("envoy", "web", &["a"]);
    envoy.await_answers(&["a"]);
}
