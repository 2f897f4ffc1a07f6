//! Health checks by the sidecar, by the real program: who fails leaves what is rendered, unless everybody does.

use crate::harness::backend::{Backend, FILE, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::{until, until_or};

const FRONTEND: &str = "[frontends.json]\ntype = 'json'\noutput = 'DIR/out.json'\n";
const PACE: &str = "interval = '500ms'\nrise = 1\nfall = 2\n";
const HTTP: &str = "type = 'http'\npath = '/healthz'\n";

fn config(check: &str) -> String {
    format!("{FILE}[services.web.health]\n{check}{PACE}{FRONTEND}")
}

/// Ready, and these backends proven.
fn checked(check: &str, backends: &[Backend]) -> Elasticd {
    let elasticd = Elasticd::new(&config(check));
    elasticd.write("backends.yaml", &entries(backends));
    let elasticd = elasticd.ready();
    let names: Vec<_> = backends.iter().map(|backend| backend.name.as_str()).collect();
    elasticd.await_applied("json", "web", &names);
    elasticd
}

/// The ids that the frontend was given.
fn rendered(elasticd: &Elasticd) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_str(&elasticd.read("out.json")).expect("JSON");
    let backends = document["services"][0]["backends"].as_array().expect("backends");
    backends.iter().map(|backend| backend["id"].as_str().expect("an id").to_owned()).collect()
}

fn await_log(elasticd: &Elasticd, words: &str) {
    until_or(|| format!("{words}:\n{}", elasticd.log()), || elasticd.log().contains(words).then_some(()));
}

#[test]
fn a_failing_backend_leaves_and_comes_back() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let mut elasticd = checked(HTTP, &backends);
    backends[1].set_health(503);
    elasticd.await_applied("json", "web", &["a", "c"]);
    assert_eq!(rendered(&elasticd), ["a", "c"]);
    let explained = elasticd.get("/v1/explain/b").2;
    assert!(explained.contains("health check failed: status 503, expected 200-399"), "{explained}");
    // A restart does not bring it back.
    let revision = elasticd.status()["revision"].clone();
    assert!(elasticd.stop().success());
    elasticd.restart();
    elasticd.await_ready();
    let asked = backends[1].health_checks();
    until("it is asked more than once", || (backends[1].health_checks() > asked + 1).then_some(()));
    assert_eq!((rendered(&elasticd), &elasticd.status()["revision"]), (vec!["a".into(), "c".into()], &revision));
    backends[1].set_health(200);
    elasticd.await_applied("json", "web", &["a", "b", "c"]);
    assert_eq!(rendered(&elasticd), ["a", "b", "c"]);
}

#[test]
fn everything_failing_at_once_changes_nothing() {
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    let elasticd = checked(HTTP, &backends);
    until("all were asked", || backends.iter().all(|backend| backend.health_checks() > 0).then_some(()));
    let revision = || elasticd.await_status("a status", |_| true)["revision"].clone();
    let before = revision();
    backends.iter().for_each(|backend| backend.set_health(500));
    await_log(&elasticd, "a fault of this machine is assumed");
    // Everybody fails a few times more.
    let asked: Vec<_> = backends.iter().map(Backend::health_checks).collect();
    until("more checks", || backends.iter().zip(&asked).all(|(b, n)| b.health_checks() > n + 2).then_some(()));
    assert_eq!(rendered(&elasticd), ["a", "b", "c", "d"]);
    backends.iter().for_each(|backend| backend.set_health(200));
    await_log(&elasticd, "enough backends pass their health check again");
    assert_eq!(rendered(&elasticd), ["a", "b", "c", "d"]);
    assert_eq!(revision(), before, "{}", elasticd.log());
}

#[test]
fn a_newcomer_joins_after_its_first_success() {
    let backends = ["a", "b"].map(Backend::start);
    let elasticd = checked(HTTP, &backends);
    let newcomer = Backend::start("c");
    newcomer.set_health(503);
    elasticd.write("backends.yaml", &entries(backends.iter().chain([&newcomer])));
    await_log(&elasticd, "backend is unhealthy service=web backend=\"c\" why=health check failed: status 503");
    until("it was asked more than once", || (newcomer.health_checks() > 1).then_some(()));
    assert_eq!(rendered(&elasticd), ["a", "b"]);
    newcomer.set_health(204);
    elasticd.await_applied("json", "web", &["a", "b", "c"]);
}

#[test]
fn a_backend_that_refuses_connections_is_removed() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let elasticd = checked("type = 'tcp'\n", &backends);
    let [_a, _b, gone] = backends;
    drop(gone);
    elasticd.await_applied("json", "web", &["a", "b"]);
    let explained = elasticd.get("/v1/explain/c").2;
    assert!(explained.contains("health check failed: connection refused"), "{explained}");
}

#[test]
fn a_faulty_check_is_reported_with_its_keys() {
    let faulty = Elasticd::new(&config("type = 'http'\npath = 'healthz'\nport = 0\nstatus = '2xx'\n"));
    let (code, _, complaints) = faulty.run(&["check"]);
    assert_eq!(code, 78, "{complaints}");
    for key in ["path", "port", "status"] {
        assert!(complaints.contains(&format!("services.web.health.{key}: ")), "{complaints}");
    }
}
