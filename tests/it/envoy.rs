//! A real Envoy, whose EDS files elasticd writes.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::envoy::Envoy;
use crate::harness::load::ask;
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
fn the_template_renders_what_it_always_has() {
    let text = rendered("envoy", "output = '/nonexistent/{service}.json'\nvars.lb_tags = ['Owner', 'Role']\n");
    assert_eq!(text, include_str!("golden/envoy_eds.txt"));
}

#[test]
fn twenty_changes_under_load_fail_no_request() {
    let backends = three();
    let envoy = Envoy::new().start();
    let elasticd = elasticd(&envoy, "", &backends[..1]).ready();
    envoy.await_answers(&["a"]);
    let tally = elasticd.changes_under_load(envoy.port, 20, &backends, |some| {
        elasticd.await_proven("envoy", "web", &ids(some));
        // What is called proven is what Envoy has.
        assert_eq!(envoy.hosts("web").len(), some.len());
    });
    tally.assert_none_failed();
    assert_eq!(elasticd.hidden(&envoy.path("eds")), Vec::<PathBuf>::new());
    assert_eq!(envoy.stat("cluster.web.update_rejected"), 0);
    let status = elasticd.status();
    assert_eq!(
        (&status["frontends"]["envoy"]["reloads"], &status["frontends"]["envoy"]["failures"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn backends_come_and_go_to_the_last() {
    let backends = three();
    let envoy = Envoy::on_unix_socket().start();
    let elasticd = elasticd(&envoy, "", &[]).ready();
    elasticd.await_proven("envoy", "web", &[]);
    envoy.await_status(503);
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_proven("envoy", "web", &["a", "b", "c"]);
    envoy.await_answers(&["a", "b", "c"]);
    elasticd.write("backends.yaml", &entries(&[]));
    elasticd.await_proven("envoy", "web", &[]);
    envoy.await_status(503);
}

/// Where all are listed as draining, Envoy panics, and sends them traffic.
#[test]
fn a_weight_of_0_is_no_traffic_even_where_all_have_it() {
    let backends = three();
    let envoy = Envoy::new().start();
    let elasticd = elasticd(&envoy, "", &[]);
    let weighted = |weights: [u16; 3]| -> String {
        let entry =
            |(backend, weight): (&Backend, u16)| backend.entry().replace("tags:", &format!("weight: {weight}, tags:"));
        backends.iter().zip(weights).map(entry).collect()
    };
    elasticd.write("backends.yaml", &weighted([0, 0, 1]));
    let elasticd = elasticd.ready();
    elasticd.await_proven("envoy", "web", &["a", "b", "c"]);
    envoy.await_answers(&["c"]);
    for _ in 0..60 {
        assert_eq!(ask(envoy.port), Some((200, "c".to_owned())));
    }
    // Another weight alone is a change like any other.
    elasticd.write("backends.yaml", &weighted([0, 3, 256]));
    elasticd.await_status("revision 2", |status| status["frontends"]["envoy"]["proven_revision"] == 2);
    let mut weights: Vec<_> = envoy.hosts("web").iter().map(|host| host["weight"].as_u64()).collect();
    weights.sort_unstable();
    assert_eq!(weights, [Some(3), Some(256)]);
    elasticd.write("backends.yaml", &weighted([0, 0, 0]));
    elasticd.await_status("revision 3", |status| status["frontends"]["envoy"]["proven_revision"] == 3);
    envoy.await_status(503);
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
fn what_envoy_refuses_is_rolled_back_and_said_in_its_words() {
    let backends = three();
    let envoy = Envoy::new().start();
    let elasticd = elasticd(&envoy, "template = 'eds.json'\n", &backends[..1]);
    // Envoy takes no weight of 0.
    let eds = include_str!("../../templates/envoy/eds.json");
    let broken = eds.replace("{{ b.weight }},", "{% if b.id | eq: \"b\" %}0{% else %}1{% endif %},");
    assert_ne!(broken, eds);
    elasticd.write("eds.json", &broken);
    let elasticd = elasticd.ready();
    envoy.await_answers(&["a"]);
    let before = fs::read_to_string(envoy.file("web")).expect("written");
    elasticd.write("backends.yaml", &entries(&backends));
    let status =
        elasticd.await_status("failing", |status| status["frontends"]["envoy"]["failures"].as_u64() >= Some(2));
    for part in ["cluster \"web\": it lacks ", "cluster.web.update_rejected is "] {
        assert!(error(&status).contains(part), "{}", error(&status));
    }
    assert_eq!(elasticd.logged("the old configuration stays"), 1, "said once: {}", elasticd.log());
    envoy.await_answers(&["a"]);
    // It is mended, and nobody has to tell elasticd.
    elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
    elasticd.await_proven("envoy", "web", &["a", "c"]);
    assert_ne!(fs::read_to_string(envoy.file("web")).expect("written"), before);
    assert_eq!(elasticd.logged("recovered"), 1, "{}", elasticd.log());
    envoy.await_answers(&["a", "c"]);
}

#[test]
fn a_cluster_that_envoy_does_not_have_is_named() {
    let backends = three();
    let mut envoy = Envoy::new();
    envoy.configure(&[]);
    let text = fs::read_to_string(envoy.path("envoy.yaml")).expect("readable");
    let (text, _) = text.split_once("  listeners:").expect("a listener");
    fs::write(envoy.path("envoy.yaml"), format!("{text}  clusters: []\n")).expect("written");
    envoy.spawn();
    let elasticd = elasticd(&envoy, "", &backends).start();
    let status = elasticd.await_status("failed", |status| status["frontends"]["envoy"]["phase"] == "failed");
    let expected = "Envoy has no cluster \"web\", nor one whose `eds_cluster_config.service_name` that is";
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
fn an_envoy_that_comes_later_or_comes_back_is_adopted() {
    let backends = three();
    let mut envoy = Envoy::new();
    let elasticd = elasticd(&envoy, "", &backends[..1]).ready();
    assert_eq!(elasticd.status()["frontends"]["envoy"]["phase"], "not_running");
    envoy.spawn();
    elasticd.await_proven("envoy", "web", &["a"]);
    envoy.await_answers(&["a"]);
    let (file, applies) = (inode(&envoy.file("web")), elasticd.status()["frontends"]["envoy"]["applies"].clone());
    envoy.stop();
    elasticd.await_status("gone", |status| status["frontends"]["envoy"]["phase"] == "not_running");
    envoy.spawn();
    let status = elasticd.await_proven("envoy", "web", &["a"]);
    assert_eq!((inode(&envoy.file("web")), &status["frontends"]["envoy"]["applies"]), (file, &applies));
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_proven("envoy", "web", &["a", "b"]);
    envoy.await_answers(&["a", "b"]);
}

#[test]
fn killed_between_swap_and_proof_it_ends_proven_without_another_change() {
    let backends = three();
    let envoy = Envoy::new().start();
    let mut elasticd = elasticd(&envoy, "", &backends[..1]).ready();
    envoy.await_answers(&["a"]);
    // A stopped Envoy takes the file later.
    kill(envoy.pid(), Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends));
    let record = || elasticd.read("state/frontends/envoy.json");
    until("the record says that it is in place", || record().contains("\"reloading\"").then_some(()));
    elasticd.kill();
    let file = inode(&envoy.file("web"));
    kill(envoy.pid(), Signal::SIGCONT).expect("it runs");
    until("Envoy has taken it", || (envoy.hosts("web").len() == 3).then_some(()));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("envoy", "web", &["a", "b", "c"]);
    assert_eq!((inode(&envoy.file("web")), &status["frontends"]["envoy"]["applies"]), (file, &0.into()), "{status:#}");
    assert_eq!(elasticd.hidden(&envoy.path("eds")), Vec::<PathBuf>::new());
    envoy.await_answers(&["a", "b", "c"]);
}

#[test]
fn killed_at_any_moment_it_ends_proven_on_the_newest() {
    let backends = three();
    let envoy = Envoy::new().start();
    let mut elasticd = elasticd(&envoy, "", &backends[..1]).ready();
    elasticd.killed_amid_changes("envoy", &backends, (12, 400), &envoy.path("eds"), |some| {
        assert_eq!(envoy.hosts("web").len(), some.len())
    });
}

/// By default Envoy keeps an endpoint that was removed for as long as it passes Envoy's own health checks.
#[test]
fn an_endpoint_that_envoy_keeps_for_its_health_holds_nothing_up() {
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

/// Values that break configurations, and generated ones, as tags and zones: Envoy reads each back as it was.
#[test]
fn envoy_reads_every_hostile_value_back() {
    const COUNT: usize = 200;
    let strategy = proptest::prop_oneof![
        "[ \\t\\r\\n;{}\"'#\\\\$%()ntr0aé\u{85}\u{2028}]{0,12}",
        proptest::prelude::any::<String>()
    ];
    let mut runner = TestRunner::deterministic();
    // The characters with which elasticd marks values are not theirs to hold.
    let mut value = || {
        let value = strategy.new_tree(&mut runner).expect("a value").current();
        value.replace(['\u{FDD0}', '\u{FDD1}', '\u{FDD2}'], "")
    };
    let mut values: Vec<String> = (0..COUNT).map(|_| value()).collect();
    values.extend(["\"", "\\", "a\nb", "\"}, {", "\u{0}\u{7f}\u{feff}", "{{ x }}", ""].map(str::to_owned));
    let instance = |(i, value): (usize, &String)| {
        let tags = json!({ "Role": "web", "V": value });
        json!({ "id": format!("i-{i:03}"), "address": format!("127.0.0.1:{}", 1000 + i), "zone": value, "tags": tags })
    };
    let instances: Vec<_> = values.iter().enumerate().map(instance).collect();
    let envoy = Envoy::new().start();
    let elasticd = elasticd(&envoy, "vars.lb_tags = ['V']\n", &[]);
    elasticd.write("backends.json", &json!(instances).to_string());
    elasticd.configure(
        &format!("{FILE}{}vars.lb_tags = ['V']\n", envoy.frontend()).replace("backends.yaml", "backends.json"),
    );
    let elasticd = elasticd.ready();
    elasticd.await_status("proven", |status| status["frontends"]["envoy"]["phase"] == "proven");
    let dump: Value = serde_json::from_str(&envoy.get("/config_dump?include_eds").expect("an answer")).expect("JSON");
    let mut read = 0;
    let mut stack = vec![&dump];
    while let Some(node) = stack.pop() {
        if let Some(endpoints) = node["lb_endpoints"].as_array() {
            for endpoint in endpoints {
                let metadata = &endpoint["metadata"]["filter_metadata"];
                let id = metadata["elasticd"]["id"].as_str().expect("an id");
                let value = &values[id[2..].parse::<usize>().expect("a number")];
                assert_eq!(metadata["envoy.lb"]["V"], json!(value), "{id}");
                assert_eq!(node["locality"]["zone"].as_str().unwrap_or_default(), value, "{id}");
                read += 1;
            }
        }
        match node {
            Value::Array(items) => stack.extend(items),
            Value::Object(items) => stack.extend(items.values()),
            _ => {}
        }
    }
    assert_eq!(read, values.len(), "{}", envoy.log());
}
