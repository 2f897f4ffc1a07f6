//! A real HAProxy at which others are at work too: with options of their own, at its runtime API, and with reloads.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::haproxy::Haproxy;
use crate::harness::load::get;
use crate::harness::{until, until_or};

/// A service that may be empty.
fn accepting() -> String {
    FILE.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'")
}

fn elasticd<'a>(haproxy: &Haproxy, more: &str, backends: impl IntoIterator<Item = &'a Backend>) -> Elasticd {
    Elasticd::knowing(&format!("{}{}{more}", accepting(), haproxy.frontend()), backends)
}

fn count(elasticd: &Elasticd, key: &str) -> u64 {
    elasticd.status()["frontends"]["haproxy"][key].as_u64().expect("a number")
}

fn is(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["frontends"]["haproxy"]["phase"] == phase
}

/// Adds lines to a section of HAProxy's main configuration. `DIR` stands for its directory.
fn add(haproxy: &Haproxy, section: &str, lines: &str) {
    let at = haproxy.path("").display().to_string();
    let main = fs::read_to_string(haproxy.path("haproxy.cfg")).expect("there");
    let main = main.replacen(section, &format!("{section}{}", lines.replace("DIR/", &at)), 1);
    fs::write(haproxy.path("haproxy.cfg"), main).expect("written");
}

/// What HAProxy shows of a server: its fields in the order of `show servers state`.
fn server(haproxy: &Haproxy, name: &str) -> Vec<String> {
    let state = haproxy.tell("show servers state web");
    let line = state.lines().find(|line| line.split(' ').nth(3) == Some(name));
    line.unwrap_or_else(|| panic!("{name}: {state}")).split(' ').map(str::to_owned).collect()
}

/// Fields of `show servers state`.
const ID: usize = 2;
const ADMIN: usize = 6;
const WEIGHT: usize = 7;
const CHECK: usize = 13;
const TLS: usize = 20;

fn overrides(status: &Value) -> Value {
    status["frontends"]["haproxy"]["overrides"].clone()
}

#[test]
fn what_an_operator_sets_over_the_runtime_api_stays_and_is_named() {
    let backends: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(Backend::start).collect();
    let haproxy = Haproxy::new().start();
    let mut elasticd = elasticd(&haproxy, "vars = { server = 'check inter 100ms' }\n", &backends[..4]).ready();
    elasticd.await_proven("haproxy", "web", &["a", "b", "c", "d"]);
    let reloads = count(&elasticd, "reloads");
    haproxy.tell(
        "set server web/a state maint;set server web/b state drain;set server web/c weight 7;disable health web/d",
    );
    let theirs = json!({
        "web/a": "maintenance", "web/b": "drain", "web/c": "weight 7", "web/d": "no health checks"
    });
    let holds = || {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| server(&haproxy, name));
        assert_eq!((a[ADMIN].as_str(), b[ADMIN].as_str(), c[WEIGHT].as_str()), ("1", "8", "7"));
        assert_eq!(d[CHECK].parse::<u8>().expect("bits") & 4, 0, "{d:?}");
    };
    elasticd.await_status("named", |status| overrides(status) == theirs);
    holds();
    // A live update of other servers, one of their own weights included, and a restart of elasticd.
    elasticd.write("backends.yaml", &(entries(&backends[..4]) + &entries([&backends[4]])));
    let status = elasticd.await_proven("haproxy", "web", &["a", "b", "c", "d", "e"]);
    assert_eq!(overrides(&status), theirs);
    holds();
    assert!(elasticd.stop().success());
    elasticd.restart();
    elasticd.await_ready();
    elasticd.await_status("named again", |status| overrides(status) == theirs);
    holds();
    elasticd.kill();
    elasticd.write("backends.yaml", &entries(&backends[..4]));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("haproxy", "web", &["a", "b", "c", "d"]);
    assert_eq!(overrides(&status), theirs);
    holds();
    let logged = elasticd.logged("others have changed servers over the runtime API");
    assert_eq!(logged, 3, "once after each start: {}", elasticd.log());
    // Given back, they are elasticd's again.
    haproxy.tell(
        "set server web/a state ready;set server web/b state ready;set server web/c weight 1;enable health web/d",
    );
    elasticd.await_status("given back", |status| overrides(status).is_null());
    haproxy.await_answers(&["a", "b", "c", "d"]);
    // What elasticd itself takes out of service is not taken for theirs when it comes back.
    elasticd.write("backends.yaml", &entries(&backends[1..4]));
    elasticd.await_proven("haproxy", "web", &["b", "c", "d"]);
    elasticd.write("backends.yaml", &entries(&backends[..4]));
    elasticd.await_proven("haproxy", "web", &["a", "b", "c", "d"]);
    haproxy.await_answers(&["a", "b", "c", "d"]);
    assert_eq!((count(&elasticd, "reloads"), overrides(&elasticd.status())), (0, Value::Null));
    assert!(reloads <= 1);
}

#[test]
fn a_server_that_is_added_has_what_others_files_give_to_all_servers() {
    let backends = three();
    for section in ["defaults\n", "defaults secure\n"] {
        let haproxy = Haproxy::with("  default-server check inter 100ms ssl verify none\n", "");
        let main = fs::read_to_string(haproxy.path("haproxy.cfg")).expect("there");
        // A section of that name, before the one that holds for the others.
        let (before, after) = main.split_once("defaults\n").expect("a section");
        let (secure, rest) = after.split_once("frontend front").expect("a section");
        let plain = if section == "defaults\n" {
            ""
        } else {
            "defaults\n  mode http\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n"
        };
        fs::write(haproxy.path("haproxy.cfg"), format!("{before}{section}{secure}{plain}frontend front{rest}"))
            .expect("written");
        let from = section.trim().strip_prefix("defaults").expect("a section").trim();
        let from = if from.is_empty() { String::new() } else { format!(" from {from}") };
        let template = format!(
            "{{% for s in services %}}\nbackend {{{{ s.name }}}}{from}\n{{% for b in s.backends %}}  server {{{{ b.id }}}} \
             {{{{ b | hostport }}}} weight {{{{ b.weight }}}}\n{{% endfor %}}{{% endfor %}}"
        );
        let elasticd = elasticd(&haproxy, "template = 'own.cfg'\n", &backends[..1]);
        elasticd.write("own.cfg", &template);
        let elasticd = elasticd.ready();
        let mut haproxy = haproxy;
        haproxy.spawn();
        elasticd.await_proven("haproxy", "web", &["a"]);
        // An edit that HAProxy has not read is no reason to reload, nor is it what its servers have.
        add(&haproxy, "  default-server check", " fall 7");
        elasticd.write("backends.yaml", &entries(&backends));
        elasticd.await_proven("haproxy", "web", &["a", "b", "c"]);
        assert_eq!(count(&elasticd, "reloads"), 0, "{section}: {}", elasticd.log());
        let [a, c] = ["a", "c"].map(|name| server(&haproxy, name));
        assert_eq!((a[TLS].as_str(), c[TLS].as_str()), ("1", "1"), "{section}");
        assert_eq!(c[CHECK].parse::<u8>().expect("bits") & 6, 6, "{section}: checked");
        // After another reload they are the same.
        haproxy.reload();
        until("another worker", || Some(server(&haproxy, "c")).filter(|c| c[TLS] == "1"));
    }
}

#[test]
fn options_that_only_haproxy_knows_lead_to_a_reload() {
    let backends = three();
    let haproxy = Haproxy::with("  default-server check inter 100ms\n", "");
    let elasticd = elasticd(&haproxy, "", &backends[..1]).ready();
    let mut haproxy = haproxy;
    // HAProxy has it from a variable of its own.
    add(&haproxy, "global\n", "  presetenv MORE check\n");
    let main = fs::read_to_string(haproxy.path("haproxy.cfg")).expect("there");
    fs::write(haproxy.path("haproxy.cfg"), main.replace("default-server check", "default-server \"$MORE\""))
        .expect("written");
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a"]);
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    assert_eq!(count(&elasticd, "reloads"), 1, "{}", elasticd.log());
    assert_eq!(server(&haproxy, "b")[CHECK].parse::<u8>().expect("bits") & 6, 6);
}

#[test]
fn servers_with_options_of_their_own_are_added_at_once() {
    let backends = three();
    let template = "{% for s in services %}\nbackend {{ s.name }}\n{% for b in s.backends %}  server {{ b.id }} \
                    {{ b | hostport }} weight {{ b.weight }} maxconn {{ b.tags | get: \"Max\", \"50\" }}\n\
                    {% endfor %}{% endfor %}";
    let mut haproxy = Haproxy::new();
    let elasticd = elasticd(&haproxy, "template = 'own.cfg'\n", &backends[..2]);
    elasticd.write("own.cfg", template);
    let elasticd = elasticd.ready();
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    let with = |max: &str| {
        entries(&backends[..2]) + &entries([&backends[2]]).replace("Role: web", &format!("Role: web, Max: {max}"))
    };
    let started = Instant::now();
    elasticd.write("backends.yaml", &with("'5'"));
    elasticd.await_proven("haproxy", "web", &["a", "b", "c"]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    haproxy.await_answers(&["a", "b", "c"]);
    assert_eq!((count(&elasticd, "reloads"), count(&elasticd, "failures")), (0, 0), "{}", elasticd.log());
    // Another option of a server that runs is a reload, and no failure.
    elasticd.write("backends.yaml", &with("'6'"));
    until_or(|| elasticd.log(), || (count(&elasticd, "reloads") == 1).then_some(()));
    elasticd.await_status("proven", is("proven"));
    assert_eq!(count(&elasticd, "failures"), 0, "{}", elasticd.log());
}

#[test]
fn options_of_every_kind_are_live_or_a_reload_but_never_a_failure() {
    let backends = three();
    for (lines, options, reloads) in [
        ("", "check inter 100ms slowstart 1s", 0),
        ("", "check agent-check agent-port 1 agent-inter 1h", 0),
        ("", "init-addr last,none resolve-prefer ipv4 no-check", 0),
        ("", "id {{ b.port }}", 0),
        ("dynamic-cookie-key secret\n  cookie S insert dynamic", "check", 0),
        ("cookie S insert", "cookie {{ b.id }}", 1),
        ("", "tcp-ut 5s", 1),
        ("balance static-rr", "check", 1),
        ("server first 127.0.0.1:1 check disabled", "track web/first", 0),
    ] {
        let template = format!(
            "{{% for s in services %}}\nbackend {{{{ s.name }}}}\n  {lines}\n{{% for b in s.backends %}}  server \
             {{{{ b.id }}}} {{{{ b | hostport }}}} weight {{{{ b.weight }}}} {options}\n{{% endfor %}}{{% endfor %}}"
        );
        let mut haproxy = Haproxy::new();
        let elasticd = elasticd(&haproxy, "template = 'own.cfg'\n", &backends[..2]);
        elasticd.write("own.cfg", &template);
        let elasticd = elasticd.ready();
        haproxy.spawn();
        elasticd.await_proven("haproxy", "web", &["a", "b"]);
        elasticd.write("backends.yaml", &entries(&backends));
        elasticd.await_proven("haproxy", "web", &["a", "b", "c"]);
        let counts = (count(&elasticd, "reloads"), count(&elasticd, "failures"));
        assert_eq!(counts, (reloads, 0), "{options}: {}", elasticd.log());
        let [a, c] = ["a", "c"].map(|name| server(&haproxy, name));
        let configured = |state: &[String]| {
            (
                state[CHECK].parse::<u8>().expect("bits") & 6,
                state[14].parse::<u8>().expect("bits") & 6,
                state[TLS].clone(),
            )
        };
        assert_eq!(configured(&c), configured(&a), "{options}");
        if options.starts_with("id") {
            assert_eq!(c[ID], backends[2].address.port().to_string());
        }
        if lines.contains("dynamic") {
            // A server that was added has a cookie of its own too.
            until_or(
                || elasticd.log(),
                || answer(&haproxy).filter(|a| a.ends_with('c') && a.contains("Set-Cookie: S=")),
            );
        }
    }
}

/// A whole answer, with its header.
fn answer(haproxy: &Haproxy) -> Option<String> {
    let mut stream = TcpStream::connect(haproxy.address).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.replace("set-cookie", "Set-Cookie"))
}

#[test]
fn servers_of_a_server_template_are_left_alone() {
    let backends = three();
    let template = "{% for s in services %}\nbackend {{ s.name }}\n  server-template dns 1-2 127.0.0.1:1 weight 1\n\
                    {% for b in s.backends %}  server {{ b.id }} {{ b | hostport }} weight {{ b.weight }}\n\
                    {% endfor %}{% endfor %}";
    let mut haproxy = Haproxy::new();
    let elasticd = elasticd(&haproxy, "template = 'own.cfg'\n", &backends[..2]);
    elasticd.write("own.cfg", template);
    let elasticd = elasticd.ready();
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    elasticd.write("backends.yaml", &entries(&backends[1..]));
    elasticd.await_proven("haproxy", "web", &["b", "c"]);
    let expected = [&backends[1], &backends[2]].map(|b| format!("{} {} 1", b.name, b.address));
    let mut expected = expected.to_vec();
    expected.extend(["dns1 127.0.0.1:1 1".to_owned(), "dns2 127.0.0.1:1 1".to_owned()]);
    assert_eq!(haproxy.servers("web"), expected);
    assert_eq!((count(&elasticd, "reloads"), count(&elasticd, "failures")), (0, 0), "{}", elasticd.log());
}

#[test]
fn a_state_that_haproxy_restores_at_a_reload_is_corrected_before_the_proof() {
    let backends = three();
    let haproxy = Haproxy::with("  load-server-state-from-file global\n", "");
    add(&haproxy, "global\n", "  server-state-file DIR/state\n");
    fs::write(haproxy.path("state"), "").expect("written");
    let elasticd = elasticd(&haproxy, "", &backends[..2]).ready();
    let mut haproxy = haproxy;
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    // What is saved now has another address for `a` than it will have, and `b` in maintenance.
    haproxy.tell("set server web/b state maint");
    fs::write(haproxy.path("state"), haproxy.tell("show servers state")).expect("written");
    haproxy.tell("set server web/b state ready");
    let moved = |more: &str| {
        let a = entries([&backends[0]]).replace(&backends[0].address.to_string(), &backends[2].address.to_string());
        format!("{a}{}{more}", entries([&backends[1]]))
    };
    elasticd.write("backends.yaml", &moved(""));
    elasticd.await_status("live", |status| is("proven")(status) && haproxy.servers("web").len() == 2);
    haproxy.await_answers(&["b", "c"]);
    // elasticd's own reload.
    elasticd.configure(&format!("{}{}vars = {{ lines = ['retries 2'] }}\n", accepting(), haproxy.frontend()));
    elasticd.signal(Signal::SIGHUP);
    let started = Instant::now();
    until_or(|| elasticd.log(), || (count(&elasticd, "reloads") == 1).then_some(()));
    elasticd.await_status("proven", is("proven"));
    assert!(started.elapsed() < Duration::from_secs(6), "not after a time-out: {:?}", started.elapsed());
    let right = [format!("a {} 1", backends[2].address), format!("b {} 1", backends[1].address)];
    assert_eq!(haproxy.servers("web"), right);
    // And somebody else's.
    let worker = haproxy.worker();
    haproxy.reload();
    until("another worker", || haproxy.try_tell("show info").filter(|_| haproxy.worker() != worker));
    until_or(
        || format!("{:?}: {}", haproxy.servers("web"), elasticd.log()),
        || (haproxy.servers("web") == right).then_some(()),
    );
    elasticd.await_status("proven", is("proven"));
    assert_eq!((count(&elasticd, "reloads"), count(&elasticd, "failures")), (1, 0), "{}", elasticd.log());
}

#[test]
fn a_section_that_goes_while_others_files_name_it_holds_up_no_other() {
    let backends = three();
    let template = "{% for s in services %}{% if s.backends %}\nbackend {{ s.name }}\n{% for b in s.backends %}  server \
                    {{ b.id }} {{ b | hostport }} weight {{ b.weight }}\n{% endfor %}{% endif %}{% endfor %}";
    let haproxy = Haproxy::with("", "  use_backend api if { path_beg /api }\n");
    let api = FILE.split("[services.web]").nth(1).expect("a service").replace("'web'", "'api'");
    let api = format!("[services.api]{}", api.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'"));
    let elasticd =
        Elasticd::knowing(&format!("{}{api}{}template = 'own.cfg'\n", accepting(), haproxy.frontend()), &backends[..1]);
    elasticd.write("own.cfg", template);
    let api = || entries([&backends[2]]).replace("Role: web", "Role: api");
    elasticd.write("backends.yaml", &(entries(&backends[..1]) + &api()));
    let elasticd = elasticd.ready();
    let mut haproxy = haproxy;
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a"]);
    let (worker, file) = (haproxy.worker(), haproxy.backends());
    // `api` has no backends any more, so its section goes, and no candidate passes the check.
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let status = elasticd.await_status("refused", is("failed"));
    let error = status["frontends"]["haproxy"]["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("api"), "{error}");
    haproxy.await_answers(&["a", "b"]);
    assert_eq!(haproxy.servers("api"), Vec::<String>::new(), "the backend that is gone is asked no more");
    assert_eq!((haproxy.worker(), haproxy.backends()), (worker.clone(), file), "the file that passed its check stays");
    // Further changes, and what an operator decides meanwhile.
    haproxy.tell("set server web/a state maint");
    elasticd.write("backends.yaml", &(entries(&backends[..2]) + &entries([&backends[2]])));
    haproxy.await_answers(&["b", "c"]);
    haproxy.tell("set server web/a state ready");
    elasticd.write("backends.yaml", &(entries(&backends[..2]) + &api()));
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    haproxy.await_answers(&["a", "b"]);
    until_or(
        || elasticd.log(),
        || (get(haproxy.address, "/api").map(|answer| answer.1) == Some("c".to_owned())).then_some(()),
    );
    assert_eq!((haproxy.worker(), count(&elasticd, "reloads")), (worker, 0), "{}", elasticd.log());
}

#[test]
fn consistent_hashing_agrees_between_servers_that_were_read_and_those_that_were_added() {
    let backends: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(Backend::start).collect();
    let more = "vars = { balance = 'uri', lines = ['hash-type consistent'] }\n";
    let answers = |haproxy: &Haproxy| {
        let answer = |n: usize| (n, get(haproxy.address, &format!("/{n}")).expect("an answer").1);
        (0..100).map(answer).collect::<BTreeMap<_, _>>()
    };
    let all = ids(&backends);
    // One has read them all, the other gets them one after the other, the first ones last.
    let mut read = Haproxy::new();
    let elasticd_of_read = elasticd(&read, more, &backends).ready();
    read.spawn();
    elasticd_of_read.await_proven("haproxy", "web", &all);
    let mut added = Haproxy::new();
    let elasticd_of_added = elasticd(&added, more, &backends[3..]).ready();
    added.spawn();
    elasticd_of_added.await_proven("haproxy", "web", &all[3..]);
    for from in [2, 1, 0] {
        elasticd_of_added.write("backends.yaml", &entries(&backends[from..]));
        elasticd_of_added.await_proven("haproxy", "web", &all[from..]);
    }
    assert_eq!(count(&elasticd_of_added, "reloads"), 0, "{}", elasticd_of_added.log());
    let expected = answers(&read);
    assert_eq!(expected.values().collect::<std::collections::BTreeSet<_>>().len(), 5, "each has a share");
    assert_eq!(answers(&added), expected);
    added.reload();
    until("another worker", || added.processes().contains(" 1 [failed: 0]").then_some(()));
    assert_eq!(answers(&added), expected, "and after a reload");
}

#[test]
fn a_master_that_reads_its_files_at_anothers_wish_is_waited_for() {
    let backends = three();
    let haproxy = Haproxy::new();
    add(&haproxy, "global\n", "  lua-load DIR/slow.lua\n");
    let slow =
        |seconds: u8| fs::write(haproxy.path("slow.lua"), format!("os.execute('sleep {seconds}')\n")).expect("written");
    slow(0);
    let elasticd = elasticd(&haproxy, "check = []\n", &backends[..2]).ready();
    let mut haproxy = haproxy;
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    let slow =
        |seconds: u8| fs::write(haproxy.path("slow.lua"), format!("os.execute('sleep {seconds}')\n")).expect("written");
    slow(3);
    haproxy.reload();
    // Amid that, a change that needs a reload of elasticd's own.
    let answers = |text: &str| {
        let lines =
            format!("vars = {{ lines = ['http-request return status 200 content-type text/plain string {text}'] }}");
        elasticd.configure(&format!("{}{}check = []\n{lines}\n", accepting(), haproxy.frontend()));
        elasticd.signal(Signal::SIGHUP);
        until("it is written", || haproxy.backends().contains(text).then_some(()));
        until_or(|| elasticd.log(), || is("proven")(&elasticd.status()).then_some(()));
        assert_eq!(get(haproxy.address, "/").expect("an answer").1, text, "proven: {}", elasticd.log());
    };
    answers("first");
    // The same with others' reloads while elasticd's own is under way.
    slow(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("it is under way", || haproxy.backends().contains("second").then_some(()));
            for _ in 0..3 {
                haproxy.reload();
            }
        });
        answers("second");
    });
    assert_eq!(count(&elasticd, "failures"), 0, "{}", elasticd.log());
}
