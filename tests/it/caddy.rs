//! A real Caddy, told by JSON over its admin API or by a Caddyfile: what is taken, what is refused, what is survived.

use std::net::TcpListener;
use std::path::PathBuf;

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

/// Changes the backends again and again while three clients ask.
fn changes_under_load(form: Form, changes: usize) {
    let backends = three();
    let (caddy, elasticd) = started(form, "", &backends[..1]);
    let pid = caddy.pid();
    let tally = elasticd.changes_under_load(caddy.port, changes, &backends, |some| {
        elasticd.await_proven("caddy", "web", &ids(some));
    });
    tally.assert_none_failed();
    assert_eq!(elasticd.hidden(&caddy.path("out")), Vec::<PathBuf>::new());
    let status = elasticd.status();
    assert_eq!(status["frontends"]["caddy"]["reloads"], 0, "{status:#}");
    assert!(status["frontends"]["caddy"]["applies"].as_u64() >= u64::try_from(changes).ok(), "{status:#}");
    assert_eq!(caddy.pid(), pid, "the same process still runs");
    assert_eq!(caddy.running()["apps"]["http"]["servers"].as_object().map(serde_json::Map::len), Some(1));
}

#[test]
fn a_hundred_changes_under_load_fail_no_request_and_reload_nothing() {
    in_own_network(|| changes_under_load(Form::Json, 100));
}

#[test]
fn twenty_changes_of_a_caddyfile_under_load_fail_no_request() {
    in_own_network(|| changes_under_load(Form::Caddyfile, 20));
}

fn an_empty_pool_answers_503_and_a_drained_backend_gets_nothing(form: Form) {
    let backends = three();
    let (caddy, elasticd) = started(form, "[services.web.weight]\ntag = 'Weight'\ndefault = 1\n", &backends[..2]);
    let drained = backends[1].entry().replace("Role: web", "Role: web, Weight: \"0\"");
    elasticd.write("backends.yaml", &format!("{}{drained}", entries(&backends[..1])));
    elasticd.await_status("drained", |status| status["frontends"]["caddy"]["proven_revision"] == 2);
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    caddy.await_answers(&["a"]);
    assert!(!caddy.output().contains(&backends[1].address.to_string()), "{}", caddy.output());
    elasticd.write("backends.yaml", &drained);
    elasticd.await_proven("caddy", "web", &["b"]);
    until("503", || caddy.ask().filter(|(status, _)| *status == 503));
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_proven("caddy", "web", &["a", "b", "c"]);
    caddy.await_answers(&["a", "b", "c"]);
}

#[test]
fn json_with_an_empty_pool_answers_503_and_a_drained_backend_gets_nothing() {
    an_empty_pool_answers_503_and_a_drained_backend_gets_nothing(Form::Json);
}

#[test]
fn a_caddyfile_with_an_empty_pool_answers_503_and_a_drained_backend_gets_nothing() {
    an_empty_pool_answers_503_and_a_drained_backend_gets_nothing(Form::Caddyfile);
}

#[test]
fn a_caddy_that_forgot_its_upstreams_is_told_again_and_one_that_resumes_is_left_alone() {
    let backends = three();
    let mut caddy = Caddy::new(Form::Json);
    let elasticd = elasticd(&caddy, "", &backends[..2]).ready();
    let status = elasticd.status();
    assert_eq!(status["frontends"]["caddy"]["phase"], "not_running", "{status:#}");
    caddy.spawn(&[]);
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    caddy.await_answers(&["a", "b"]);
    // Its file knows of no upstreams.
    caddy.stop();
    caddy.spawn(&[]);
    caddy.await_answers(&["a", "b"]);
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    let applies = || elasticd.status()["frontends"]["caddy"]["applies"].as_u64().expect("a number");
    let before = applies();
    caddy.stop();
    elasticd.await_status("noticed", |status| status["frontends"]["caddy"]["phase"] == "not_running");
    caddy.spawn(&["--resume"]);
    assert_eq!(caddy.upstreams("elasticd_web"), addresses(&backends[..2]), "before anybody told it");
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    assert_eq!(applies(), before, "nothing was to be told");
    assert_eq!(elasticd.status()["frontends"]["caddy"]["reloads"], 0);
}

#[test]
fn a_caddyfiles_caddy_that_comes_later_or_comes_back_is_adopted() {
    let backends = three();
    let (mut caddy, elasticd) = started(Form::Caddyfile, "", &backends[..1]);
    let applies = || elasticd.status()["frontends"]["caddy"]["applies"].as_u64().expect("a number");
    let before = applies();
    caddy.stop();
    elasticd.await_status("noticed", |status| status["frontends"]["caddy"]["phase"] == "not_running");
    caddy.spawn(&[]);
    elasticd.await_proven("caddy", "web", &["a"]);
    assert_eq!(applies(), before, "it has read what was in place");
    // What changes meanwhile is in place when it starts.
    caddy.stop();
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    until("in place", || caddy.output().contains(&backends[1].address.to_string()).then_some(()));
    caddy.spawn(&[]);
    caddy.await_answers(&["a", "b"]);
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    assert!(!caddy.log().contains("load complete"), "nobody had to tell it: {}", caddy.log());
}

/// Two handlers, of which `elasticd_z` gets a list that no Caddy takes where there is a backend `b`.
const REFUSED: &str = "{%- for s in services %}{\"elasticd_web\": [\n{%- for b in s.backends %}{\"dial\": {{ b | hostport }} }\n\
                       {%- if not loop.last %},{% endif %}{% endfor %}],\n\
                       \"elasticd_z\": [{%- for b in s.backends %}{\"dial\":\n\
                       {%- if b.id | eq: \"b\" %} 7 {%- else %} {{ b | hostport }} {%- endif %} }\n\
                       {%- if not loop.last %},{% endif %}{% endfor %}] }{% endfor %}\n";

#[test]
fn a_refused_list_leaves_the_admin_socket_and_what_ran_before() {
    in_own_network(|| {
        let backends = three();
        let caddy = Caddy::new(Form::Json);
        caddy.configure(&caddy.json(&["elasticd_web", "elasticd_z"]).to_string());
        let caddy = caddy.start();
        let elasticd = elasticd(&caddy, "template = 'refused.json'\n", &backends[..1]);
        elasticd.write("refused.json", REFUSED);
        let elasticd = elasticd.ready();
        caddy.await_answers(&["a"]);
        let before = (caddy.output(), caddy.running());
        elasticd.write("backends.yaml", &entries(&backends[..2]));
        let error = await_failed(&elasticd);
        assert!(error.contains("refuses") && error.contains("cannot unmarshal number"), "Caddy's own words: {error}");
        assert!(error.contains("elasticd_z"), "{error}");
        assert_eq!(elasticd.logged("the old configuration stays"), 1, "said once: {}", elasticd.log());
        until("all is as before", || ((caddy.output(), caddy.running()) == before).then_some(()));
        caddy.await_answers(&["a"]);
        assert_eq!(caddy.admin("GET", "/config/admin", "").expect("the admin socket answers").0, 200);
        assert!(!caddy.listens_on(DEFAULT_ADMIN), "{}", caddy.log());
        assert!(caddy.listens_on(caddy.port), "that is how a listener would be seen");
        elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
        elasticd.await_proven("caddy", "web", &["a", "c"]);
        caddy.await_answers(&["a", "c"]);
        assert_eq!(elasticd.logged("recovered"), 1, "{}", elasticd.log());
    });
}

#[test]
fn a_handler_without_its_id_is_named_and_found_once_it_has_it() {
    let backends = three();
    let caddy = Caddy::new(Form::Json);
    caddy.configure(&caddy.json(&["mine"]).to_string());
    let caddy = caddy.start();
    let elasticd = elasticd(&caddy, "", &backends[..1]).ready();
    let error = await_failed(&elasticd);
    for part in ["unknown object ID 'elasticd_web'", "\"@id\": \"elasticd_web\"", "reverse_proxy", "admin.sock"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(elasticd.logged("the old configuration stays"), 1, "said once: {}", elasticd.log());
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

fn killed_at_any_moment_it_ends_proven_on_the_newest(form: Form) {
    let backends = three();
    let (caddy, mut elasticd) = started(form, "", &backends[..1]);
    elasticd
        .killed_amid_changes("caddy", &backends, (12, 400), &caddy.path("out"), |some| caddy.await_answers(&ids(some)));
    // What is proven already is not told again.
    let asked = |what: &str| caddy.log().matches(&format!("\"method\":\"{what}\"")).count();
    let before = (asked("PATCH"), caddy.log().matches("load complete").count());
    elasticd.kill();
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("caddy", "web", &["a", "b", "c"]);
    assert_eq!(status["frontends"]["caddy"]["applies"], 0, "{status:#}");
    assert_eq!((asked("PATCH"), caddy.log().matches("load complete").count()), before);
}

#[test]
fn killed_at_any_moment_it_ends_proven_on_the_newest_upstreams() {
    killed_at_any_moment_it_ends_proven_on_the_newest(Form::Json);
}

#[test]
fn killed_at_any_moment_it_ends_proven_on_the_newest_caddyfile() {
    killed_at_any_moment_it_ends_proven_on_the_newest(Form::Caddyfile);
}

#[test]
fn a_caddyfile_that_the_check_refuses_never_stays() {
    let backends = three();
    let (caddy, elasticd) = started(Form::Caddyfile, "", &backends[..1]);
    let before = (caddy.output(), caddy.running());
    caddy.configure(&caddy.caddyfile("\t\tno_such_word\n"));
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let error = await_failed(&elasticd);
    assert!(error.contains("the check refuses") && error.contains("no_such_word"), "Caddy's own words: {error}");
    assert_eq!(elasticd.logged("the old configuration stays"), 1, "said once: {}", elasticd.log());
    assert_eq!((caddy.output(), caddy.running()), before);
    caddy.configure(&caddy.caddyfile(""));
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    caddy.await_answers(&["a", "b"]);
    assert_eq!(elasticd.logged("recovered"), 1, "{}", elasticd.log());
}

#[test]
fn a_caddyfile_that_caddy_can_read_and_cannot_run_is_rolled_back() {
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
fn what_somebody_edits_in_the_caddyfile_waits_for_him_or_for_the_next_change() {
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
    // Whoever else loads something is found out, as soon as it is compared.
    let other = caddy.running().to_string().replace(&backends[1].address.to_string(), "127.0.0.1:1");
    assert_eq!(caddy.admin("POST", "/load", &other).expect("it answers").0, 200);
    elasticd.kill();
    elasticd.restart();
    elasticd.await_ready();
    until("told again", || (!caddy.running().to_string().contains("127.0.0.1:1\"")).then_some(()));
    elasticd.await_proven("caddy", "web", &["a", "b"]);
    caddy.await_answers(&["a"]);
}
