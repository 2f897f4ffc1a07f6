//! A real Caddy: its handlers, Caddyfiles that cannot be loaded, and changes by others.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::caddy::{Caddy, Form, in_own_network};
use crate::harness::elasticd::Elasticd;
use crate::harness::until;

/// Where Caddy's admin API listens if nothing says otherwise.
const DEFAULT_ADMIN: u16 = 2019;

/// An elasticd that is not started yet, and knows of these backends.
fn elasticd(caddy: &Caddy, more: &str, backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(&format!("{FILE}{}{more}", caddy.frontend()), backends)
}

fn addresses(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|backend| backend.address.to_string()).collect()
}

/// Both, started, and proven to know these backends.
fn started(form: Form, more: &str, backends: &[Backend]) -> (Caddy, Elasticd) {
    let mut caddy = Caddy::new(form);
    // A Caddyfile can only import what is there.
    let elasticd = elasticd(&caddy, more, backends).ready();
    caddy.spawn(&[]);
    elasticd.await_proven("caddy", "web", &ids(backends));
    caddy.await_answers(&ids(backends));
    (caddy, elasticd)
}

fn error_of(status: &Value) -> String {
    status["frontends"]["caddy"]["error"].as_str().unwrap_or_default().to_owned()
}

fn await_failed(elasticd: &Elasticd) -> String {
    error_of(&elasticd.await_status("failing twice", |status| {
        status["frontends"]["caddy"]["phase"] == "failed"
            && status["frontends"]["caddy"]["failures"].as_u64() >= Some(2)
    }))
}

#[test]
fn a_caddy_that_resumes_its_configuration_is_left_alone() {
    let backends = three();
    let (mut caddy, elasticd) = started(Form::Json, "", &backends[..2]);
    let applies = || elasticd.status()["frontends"]["caddy"]["applies"].as_u64().expect("a number");
    let before = applies();
    caddy.stop();
    elasticd.await_status("noticed", |status| status["frontends"]["caddy"]["phase"] == "not_running");
    caddy.spawn(&["--resume"]);
    assert_eq!(caddy.upstreams("elasticd_web"), addresses(&backends[..2]), "before elasticd did anything");
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    assert_eq!(applies(), before, "there was nothing to apply");
    assert_eq!(elasticd.status()["frontends"]["caddy"]["reloads"], 0);
}

#[test]
fn a_missing_handler_id_is_reported_and_found_once_it_is_added() {
    let backends = three();
    let caddy = Caddy::new(Form::Json);
    caddy.configure(&caddy.json(&["mine"]).to_string());
    let caddy = caddy.start();
    let elasticd = elasticd(&caddy, "", &backends[..1]).ready();
    let error = await_failed(&elasticd);
    for part in ["unknown object ID 'elasticd_web'", "\"@id\": \"elasticd_web\"", "reverse_proxy", "admin.sock"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(elasticd.logged(Elasticd::UPDATE_FAILED), 1, "said once: {}", elasticd.log());
    let mended = caddy.json(&["elasticd_web"]).to_string();
    assert_eq!(caddy.admin("POST", "/load", &mended).expect("it answers").0, 200);
    elasticd.await_proven("caddy", "web", &["a"]);
    caddy.await_answers(&["a"]);
}

#[test]
fn several_services_and_handlers_that_have_upstreams_of_their_own() {
    let backends = three();
    let caddy = Caddy::new(Form::Json);
    let mut config = caddy.json(&["x-web", "x-api"]);
    // The last route stands first.
    config["apps"]["http"]["servers"]["front"]["routes"][0]["handle"][0]["upstreams"] =
        json!([{"dial": "127.0.0.1:1"}]);
    config["apps"]["http"]["servers"]["front"]["routes"][1]["handle"][0]["upstreams"] = Value::Null;
    caddy.configure(&config.to_string());
    let caddy = caddy.start();
    let more = "vars.id_prefix = 'x-'\n[services.api]\nprovider = 'local'\nselect = { Role = 'web', Api = 'yes' }\n\
                guard = { on_empty = 'accept', max_drop = '100%' }\n";
    let elasticd = elasticd(&caddy, more, &backends[..1]).ready();
    elasticd.await_proven("caddy", "web", &["a"]);
    assert_eq!(caddy.upstreams("x-web"), addresses(&backends[..1]));
    assert_eq!(caddy.upstreams("x-api"), Vec::<String>::new(), "what the configuration had is replaced");
    let api = backends[2].entry().replace("Role: web", "Role: web, Api: \"yes\"");
    elasticd.write("backends.yaml", &format!("{}{api}", entries(&backends[..2])));
    elasticd.await_proven("caddy", "web", &["a", "b", "c"]);
    elasticd.await_proven("caddy", "api", &["c"]);
    assert_eq!(caddy.upstreams("x-web"), addresses(&backends));
    assert_eq!(caddy.upstreams("x-api"), addresses(&backends[2..]));
}

#[test]
fn a_caddyfile_that_passes_the_check_and_cannot_be_loaded_is_rolled_back() {
    in_own_network(|| {
        let backends = three();
        let (caddy, elasticd) = started(Form::Caddyfile, "", &backends[..1]);
        let before = (caddy.output(), caddy.running());
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        caddy.configure(&format!("{}http://:{port} {{\n\tbind 127.0.0.1\n\trespond hello\n}}\n", caddy.caddyfile("")));
        elasticd.write("backends.yaml", &entries(&backends[..2]));
        let error = await_failed(&elasticd);
        assert!(error.contains("refuses") && error.contains("address already in use"), "Caddy's own words: {error}");
        assert_eq!((caddy.output(), caddy.running()), before);
        caddy.await_answers(&["a"]);
        assert!(!caddy.listens_on(DEFAULT_ADMIN), "{}", caddy.log());
        drop(taken);
        elasticd.await_proven("caddy", "web", &["a", "b"]);
        caddy.await_answers(&["a", "b"]);
    });
}

#[test]
fn a_caddyfile_that_would_move_the_admin_api_is_never_loaded() {
    in_own_network(|| {
        let backends = three();
        let (caddy, elasticd) = started(Form::Caddyfile, "", &backends[..1]);
        let before = (caddy.output(), caddy.running());
        let good = caddy.caddyfile("");
        let without: String = good.lines().filter(|line| !line.contains("admin ")).map(|l| format!("{l}\n")).collect();
        caddy.configure(&without);
        elasticd.write("backends.yaml", &entries(&backends[..2]));
        let error = await_failed(&elasticd);
        for part in ["would move the admin API", "localhost:2019", "admin.sock", "Caddyfile"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert_eq!((caddy.output(), caddy.running()), before, "the admin socket answers");
        assert!(!caddy.listens_on(DEFAULT_ADMIN), "{}", caddy.log());
        caddy.configure(&good);
        elasticd.await_proven("caddy", "web", &["a", "b"]);
    });
}

#[test]
fn a_caddyfile_is_read_in_caddys_own_environment() {
    let backends = three();
    let (caddy, elasticd) = started(Form::Caddyfile, "", &backends[..1]);
    // elasticd does not have it, and so nor has anything that it runs.
    caddy.configure(&caddy.caddyfile("\t\tlb_policy {$UPSTREAM_POLICY:random}\n"));
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    let running = caddy.running().to_string();
    assert!(running.contains("round_robin") && !running.contains("random"), "{running}");
}

#[test]
fn an_edit_of_the_caddyfile_is_loaded_with_the_next_change() {
    let backends = three();
    let (caddy, mut elasticd) = started(Form::Caddyfile, "", &backends[..1]);
    let before = caddy.running();
    caddy.configure(&caddy.caddyfile("\t\tlb_policy first\n"));
    // A restart compares everything anew.
    assert!(elasticd.stop().success());
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("caddy", "web", &["a"]);
    assert_eq!(status["frontends"]["caddy"]["applies"], 0, "{status:#}");
    assert_eq!(caddy.running(), before);
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    assert!(caddy.running().to_string().contains("\"first\""));
    // A configuration that others load is found as soon as it is compared.
    let other = caddy.running().to_string().replace(&backends[1].address.to_string(), "127.0.0.1:1");
    assert_eq!(caddy.admin("POST", "/load", &other).expect("it answers").0, 200);
    elasticd.kill();
    elasticd.restart();
    elasticd.await_ready();
    until("applied again", || (!caddy.running().to_string().contains("127.0.0.1:1\"")).then_some(()));
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    caddy.await_answers(&["a"]);
}
