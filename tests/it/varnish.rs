//! A real Varnish: its VCLs and their end, its compiler, its directors, and its secret.

use std::fs;

use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::load::{Load, ask};
use crate::harness::until_or;
use crate::harness::varnish::{TCC, Varnish};

/// An elasticd that is not started yet, and knows of these backends.
fn elasticd(varnish: &Varnish, more: &str, backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(&format!("{FILE}{}{more}", varnish.frontend()), backends)
}

#[test]
fn a_main_vcl_that_does_not_include_the_output_is_reported() {
    let backends = three();
    let varnish = Varnish::new().start();
    varnish.configure("vcl 4.1;\nbackend default none;\n");
    let elasticd = elasticd(&varnish, "", &backends[..1]).ready();
    let status = elasticd.await_status("failing", |status| status["frontends"]["varnish"]["phase"] == "failed");
    let error = status["frontends"]["varnish"]["error"].as_str().expect("an error");
    let line = format!("write `include \"{}\";`", varnish.output().display());
    assert!(error.contains("does not include") && error.contains(&line), "{error}");
    assert_eq!(varnish.active(), "boot");
    assert_eq!(varnish.vcls().iter().filter(|(status, _)| status != "discarded").count(), 1, "{:?}", varnish.vcls());
    varnish.configure(&varnish.including());
    elasticd.await_proven("varnish", "web", &["a"]);
    varnish.await_answers(&["a"]);
}

#[test]
fn another_vcl_made_active_by_hand_gives_way_to_the_configuration_on_disk() {
    let backends = three();
    let varnish = Varnish::new().start();
    let elasticd = elasticd(&varnish, "", &backends[..1]).ready();
    varnish.await_answers(&["a"]);
    let ours = varnish.active();
    varnish.configure(&varnish.including().replace("return (pass)", "set req.http.X = \"new\"; return (pass)"));
    varnish.adm(&["vcl.use", "boot"]);
    assert_eq!(varnish.active(), "boot");
    let again = until_or(|| varnish.active(), || Some(varnish.active()).filter(|name| name.starts_with("elasticd_")));
    assert_ne!(again, ours, "the main VCL was read again, not taken from memory");
    assert!(varnish.adm(&["vcl.show", &again]).contains("\"new\""));
    elasticd.await_proven("varnish", "web", &["a"]);
    varnish.await_answers(&["a"]);
}

#[test]
fn a_child_that_died_comes_back_with_the_newest() {
    let backends = three();
    let varnish = Varnish::new().start();
    let elasticd = elasticd(&varnish, "", &backends[..1]).ready();
    varnish.adm(&["stop"]);
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let status =
        elasticd.await_status("not running", |status| status["frontends"]["varnish"]["phase"] == "not_running");
    let error = status["frontends"]["varnish"]["error"].as_str().expect("why");
    assert!(error.contains("its child process does not"), "{error}");
    varnish.adm(&["start"]);
    elasticd.await_proven("varnish", "web", &["a", "b"]);
    varnish.await_answers(&["a", "b"]);
}

#[test]
fn a_compiler_slower_than_varnishadms_limit_is_waited_for() {
    let backends = three();
    let varnish = Varnish::new().start();
    // 5 s is what Varnish's own tool waits.
    varnish.adm(&["param.set", "cc_command", &format!("\"sleep 6; {TCC}\"")]);
    let elasticd = elasticd(&varnish, "", &backends[..1]).ready();
    let status = elasticd.await_proven("varnish", "web", &["a"]);
    assert_eq!(status["frontends"]["varnish"]["failures"], 0, "{status:#}");
    varnish.await_answers(&["a"]);
}

#[test]
fn a_compiler_slower_than_api_timeout_is_reported_with_the_remedy() {
    let backends = three();
    let varnish = Varnish::new().start();
    varnish.adm(&["param.set", "cc_command", &format!("\"sleep 3; {TCC}\"")]);
    let elasticd = elasticd(&varnish, "api_timeout = '1s'\n", &backends[..1]).ready();
    let status = elasticd.await_status("failing", |status| status["frontends"]["varnish"]["phase"] == "failed");
    let error = status["frontends"]["varnish"]["error"].as_str().expect("an error");
    assert!(error.contains("no answer to vcl.load within 1s; raise `api_timeout`"), "{error}");
    assert!(!varnish.output().exists(), "rolled back: there was none before");
    varnish.adm(&["param.set", "cc_command", &format!("\"{TCC}\"")]);
    elasticd.await_proven("varnish", "web", &["a"]);
}

/// Backends of which each has a connection that idles, and which all go at once. Varnish closes those of a discarded VCL
/// one by one, 20 ms each, and a child that is busy with it for `cli_timeout` is killed.
#[test]
fn a_replaced_vcl_is_not_discarded_while_that_would_hang_varnish() {
    const MANY: usize = 200;
    let old: Vec<_> = (0..MANY).map(|i| Backend::start(&format!("old-{i:03}"))).collect();
    let new = three();
    let varnish = Varnish::new().with("cli_timeout", "2").start();
    let elasticd = elasticd(&varnish, "vars = { director = 'round_robin' }\n", &old).ready();
    varnish.await_answers(&old.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>());
    let worker = varnish.worker();
    let load = Load::start(varnish.address, 3);
    for some in [&new[..1], &new[..2], &new[..3], &new[..1]] {
        elasticd.write("backends.yaml", &entries(some));
        elasticd.await_proven("varnish", "web", &ids(some));
    }
    // Its thread for commands is free.
    assert!(varnish.adm(&["ping"]).contains("PONG"), "{}", varnish.log());
    let tally = load.stop();
    tally.assert_none_failed();
    assert_eq!(varnish.worker(), worker, "the child was never killed: {}", varnish.log());
    assert_eq!(elasticd.status()["frontends"]["varnish"]["failures"], 0, "{}", elasticd.log());
}

#[test]
fn replaced_vcls_are_discarded_unless_others_use_them() {
    let backends = three();
    let varnish = Varnish::new().with("backend_idle_timeout", "1").start();
    let elasticd = elasticd(&varnish, "", &backends[..1]).ready();
    let labelled = varnish.active();
    varnish.adm(&["vcl.label", "kept", &labelled]);
    let main = varnish.path("main.vcl").display().to_string();
    varnish.adm(&["vcl.load", "by_hand", &main]);
    for round in 0..12 {
        let some = &backends[..1 + (round + 1) % 3];
        elasticd.write("backends.yaml", &entries(some));
        elasticd.await_proven("varnish", "web", &ids(some));
    }
    let worker = varnish.worker();
    let left = || varnish.vcls().into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    let wanted = ["boot".to_owned(), labelled, "kept".to_owned(), "by_hand".to_owned(), varnish.active()];
    until_or(|| format!("only {wanted:?} of {:?}", left()), || (left() == wanted).then_some(()));
    assert_eq!(varnish.worker(), worker);
    varnish.await_answers(&["a"]);
}

/// A director takes probed backends under load, and answers 503 without any. `choose` are its backend's arguments.
fn director(director: &str, choose: &str) {
    let backends = three();
    let varnish = Varnish::new().start();
    varnish.configure(&varnish.including().replace("web.backend()", &format!("web.backend({choose})")));
    // The first answer to a probe comes after that long: until then a change must not count as an outage.
    let vars = "probe = '.url = \"/\"; .interval = 60s;', backend = '.connect_timeout = 1s; .max_connections = 100;'";
    let more = format!("vars = {{ director = '{director}', {vars} }}\n");
    let config = format!("{FILE}{}{more}", varnish.frontend());
    let elasticd = Elasticd::knowing(
        &config.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'"),
        &backends[..1],
    )
    .ready();
    varnish.await_answers(&["a"]);
    let load = Load::start(varnish.address, 2);
    for some in [&backends[..3], &backends[..2], &backends[..1]] {
        elasticd.write("backends.yaml", &entries(some));
        elasticd.await_proven("varnish", "web", &ids(some));
    }
    load.stop().assert_none_failed();
    elasticd.write("backends.yaml", "[]\n");
    elasticd.await_proven("varnish", "web", &[]);
    assert_eq!(ask(varnish.address).map(|answer| answer.0), Some(503));
}

#[test]
fn the_director_random() {
    director("random", "");
}

#[test]
fn the_director_round_robin() {
    director("round_robin", "");
}

#[test]
fn the_director_fallback() {
    director("fallback", "");
}

#[test]
fn the_director_hash() {
    director("hash", "req.xid");
}

#[test]
fn the_director_shard() {
    director("shard", "by=KEY, key=1");
}

#[test]
fn a_stricter_check_runs_before_anything_is_in_place() {
    let backends = three();
    let varnish = Varnish::new().start();
    let check = "check = ['varnishd', '-C', '-f', '{config}']\nisolate_check = true\n";
    let elasticd = elasticd(&varnish, check, &backends[..1]).ready();
    elasticd.await_proven("varnish", "web", &["a"]);
    let before = varnish.backends();
    varnish.configure(&varnish.including().replace("set req", "sett req"));
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let status = elasticd.await_status("failing", |status| status["frontends"]["varnish"]["phase"] == "failed");
    let error = status["frontends"]["varnish"]["error"].as_str().expect("an error");
    assert!(error.contains("was broken already") && error.contains("'sett'"), "Varnish's own words: {error}");
    assert_eq!(varnish.backends(), before);
    varnish.configure(&varnish.including());
    elasticd.await_proven("varnish", "web", &["a", "b"]);
}

#[test]
fn a_wrong_secret_is_reported_with_the_remedy() {
    let backends = three();
    let varnish = Varnish::new().start();
    let elasticd = elasticd(&varnish, "", &backends[..1]);
    let good = fs::read_to_string(varnish.path("secret")).expect("written");
    fs::write(varnish.path("secret"), "another\n").expect("written");
    // Varnish reads its file at each attempt, so ours must be another one.
    fs::write(varnish.path("wrong"), "wrong\n").expect("written");
    let config = elasticd.read("elasticd.toml");
    fs::write(elasticd.path("elasticd.toml"), config.replace("/secret'", "/wrong'")).expect("written");
    let elasticd = elasticd.ready();
    let status = elasticd.await_status("failing", |status| status["frontends"]["varnish"]["phase"] == "failed");
    let error = status["frontends"]["varnish"]["error"].as_str().expect("an error");
    assert!(error.contains("does not accept the secret in") && error.contains("varnishd -S"), "{error}");
    assert_eq!(varnish.active(), "boot");
    fs::write(varnish.path("wrong"), &good).expect("written");
    fs::write(varnish.path("secret"), &good).expect("written");
    elasticd.await_proven("varnish", "web", &["a"]);
}
