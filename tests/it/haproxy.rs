//! A real HAProxy: changes over its runtime API, changes that need a reload, and failures of either.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::haproxy::Haproxy;
use crate::harness::{PATIENCE, SetOnDrop, until, until_or};

/// An elasticd that is not started yet, and knows of these backends.
fn elasticd<'a>(haproxy: &Haproxy, more: &str, backends: impl IntoIterator<Item = &'a Backend>) -> Elasticd {
    Elasticd::knowing(&format!("{}{}{more}", accepting(), haproxy.frontend()), backends)
}

/// A service that may be empty.
fn accepting() -> String {
    FILE.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'")
}

/// An entry of the backends' file with an address of another's.
fn entry(id: &str, at: &Backend, more: &str) -> String {
    format!("- {{ id: {id}, address: \"{}\", tags: {{ Role: web }}{more} }}\n", at.address)
}

fn count(status: &Value, key: &str) -> u64 {
    status["frontends"]["haproxy"][key].as_u64().expect("a number")
}

fn error(status: &Value) -> &str {
    status["frontends"]["haproxy"]["error"].as_str().expect("an error")
}

fn is(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["frontends"]["haproxy"]["phase"] == phase
}

#[test]
fn a_hundred_address_changes_need_no_reload_and_survive_a_restart_of_haproxy() {
    let backends = three();
    let mut haproxy = Haproxy::new();
    let elasticd = Elasticd::new(&format!("{FILE}{}", haproxy.frontend()));
    elasticd.write("backends.yaml", &entry("x", &backends[0], ""));
    let elasticd = elasticd.ready();
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["x"]);
    let worker = haproxy.worker();
    for round in 1..=100 {
        let backend = &backends[round % 3];
        let weight = 1 + round % 5;
        elasticd.write("backends.yaml", &entry("x", backend, &format!(", weight: {weight}")));
        let expected = vec![format!("x {} {weight}", backend.address)];
        until_or(|| format!("{expected:?}: {}", elasticd.log()), || (haproxy.servers("web") == expected).then_some(()));
    }
    let status = elasticd.await_proven("haproxy", "web", &["x"]);
    assert_eq!((haproxy.worker(), count(&status, "reloads")), (worker, 0), "{status:#}");
    assert!(haproxy.processes().contains(" 0 [failed: 0]"), "{}", haproxy.processes());
    let (servers, file) = (haproxy.servers("web"), haproxy.backends());
    haproxy.stop();
    haproxy.spawn();
    assert_eq!(haproxy.servers("web"), servers, "{file}");
    haproxy.await_answers(&[&backends[100 % 3].name]);
    let status = elasticd.await_status("proven", is("proven"));
    assert_eq!(count(&status, "reloads"), 0, "{status:#}");
}

#[test]
fn servers_come_with_their_options_and_go_when_their_connections_do() {
    let backends = three();
    let haproxy = Haproxy::new().start();
    let more = "vars = { server = 'check inter 100ms', pool_max_conn = 5 }\n";
    let elasticd = elasticd(&haproxy, more, &backends[..1]).ready();
    elasticd.await_proven("haproxy", "web", &["a"]);
    let reloads = count(&elasticd.status(), "reloads");
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    haproxy.await_answers(&["a", "b"]);
    let checked = |line: &str| line.starts_with("web,b,") && line.contains("L4OK");
    until("b's health is checked", || haproxy.tell("show stat").lines().any(checked).then_some(()));
    // An idle connection to b is kept, for which HAProxy would not delete it.
    let mut client = Client::connect(haproxy.address);
    until("b answers", || (client.get() == "b").then_some(()));
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    let status = elasticd.await_proven("haproxy", "web", &["a"]);
    assert_eq!(count(&status, "reloads"), reloads, "{status:#}");
    // Back under the name that may still be there, elsewhere.
    elasticd.write("backends.yaml", &(entries(&backends[..1]) + &entry("b", &backends[2], "")));
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    haproxy.await_answers(&["a", "c"]);
    drop(client);
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    elasticd.await_proven("haproxy", "web", &["a"]);
    haproxy.await_answers(&["a"]);
    // Tried again by each audit until nothing is left.
    until_or(
        || format!("b is deleted: {}", haproxy.tell("show servers state web")),
        || (!haproxy.tell("show servers state web").contains(" b ")).then_some(()),
    );
    assert_eq!(count(&elasticd.status(), "reloads"), reloads);
}

#[test]
fn ipv6_addresses_are_set_and_compared() {
    let backends = three();
    let mut haproxy = Haproxy::new().start();
    let elasticd = elasticd(&haproxy, "", &backends[..1]).ready();
    let status = elasticd.await_proven("haproxy", "web", &["a"]);
    let reloads = count(&status, "reloads");
    elasticd.write(
        "backends.yaml",
        &(entry("a", &backends[0], "")
            + "- { id: six, address: \"[2001:db8::1]:81\", tags: { Role: web }, weight: 0 }\n"),
    );
    elasticd
        .configure(&format!("{}{}", accepting(), haproxy.frontend()).replace("select =", "address = 'ipv6'\nselect ="));
    elasticd.signal(nix::sys::signal::Signal::SIGHUP);
    elasticd.await_proven("haproxy", "web", &["six"]);
    let expected = ["six 2001:db8::1:81 0"];
    assert_eq!(haproxy.servers("web"), expected);
    assert!(haproxy.backends().contains("server six [2001:db8::1]:81 weight 0"), "{}", haproxy.backends());
    assert_eq!(count(&elasticd.status(), "reloads"), reloads);
    haproxy.stop();
    haproxy.spawn();
    assert_eq!(haproxy.servers("web"), expected);
}

/// A client that keeps its connection open.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        Self(BufReader::new(stream))
    }

    /// The body of one answer.
    fn get(&mut self) -> String {
        self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("written");
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("an answer") > 0, "the connection was closed");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the body");
        String::from_utf8(body).expect("text")
    }
}

#[test]
fn no_kept_connection_leads_to_an_old_address() {
    let backends = three();
    let haproxy = Haproxy::new().start();
    let elasticd = elasticd(&haproxy, "", &[]);
    elasticd.write("backends.yaml", &entry("x", &backends[0], ""));
    let elasticd = elasticd.ready();
    elasticd.await_proven("haproxy", "web", &["x"]);
    // Connections that are busy in the moment of the change are what HAProxy would keep. Twice the index of the backend
    // that must answer; one more while that changes.
    let (epoch, address) = (AtomicUsize::new(0), haproxy.address);
    let (asked, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wrong = std::thread::scope(|scope| {
        let client = || {
            let mut client = Client::connect(address);
            let mut wrong = Vec::new();
            loop {
                let before = epoch.load(Ordering::SeqCst);
                if over.load(Ordering::SeqCst) {
                    return wrong;
                }
                let answer = client.get();
                asked.fetch_add(1, Ordering::SeqCst);
                if before % 2 == 0 && epoch.load(Ordering::SeqCst) == before && answer != backends[before / 2 % 2].name
                {
                    wrong.push((before, answer));
                }
            }
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        let stop = SetOnDrop(&over);
        for change in 1..=10 {
            epoch.fetch_add(1, Ordering::SeqCst);
            let backend = &backends[change % 2];
            elasticd.write("backends.yaml", &entry("x", backend, ""));
            let expected = vec![format!("x {} 1", backend.address)];
            until_or(|| elasticd.log(), || (haproxy.servers("web") == expected).then_some(()));
            epoch.fetch_add(1, Ordering::SeqCst);
            let enough = asked.load(Ordering::SeqCst) + 200;
            until("more requests", || (asked.load(Ordering::SeqCst) > enough).then_some(()));
        }
        drop(stop);
        clients.into_iter().flat_map(|client| client.join().expect("no client fails")).collect::<Vec<_>>()
    });
    assert_eq!(wrong, Vec::new(), "a kept connection led to the old address");
}

#[test]
fn a_change_of_other_lines_is_one_reload() {
    let backends = three();
    let mut haproxy = Haproxy::new();
    let elasticd = elasticd(&haproxy, "", &backends).ready();
    haproxy.spawn();
    let status = elasticd.await_proven("haproxy", "web", &["a", "b", "c"]);
    assert_eq!(count(&status, "reloads"), 0, "{status:#}");
    let worker = haproxy.worker();
    elasticd.configure(&format!("{}{}vars = {{ balance = 'leastconn' }}\n", accepting(), haproxy.frontend()));
    elasticd.signal(nix::sys::signal::Signal::SIGHUP);
    let status = elasticd.await_status("reloaded", |status| count(status, "reloads") == 1 && is("proven")(status));
    assert_ne!(haproxy.worker(), worker, "{status:#}");
    // While it starts anew, the master answers nothing.
    until("the master's own word", || haproxy.processes().contains(" 1 [failed: 0]").then_some(()));
    // Further changes go over the runtime API again.
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let status = elasticd.await_proven("haproxy", "web", &["a", "b"]);
    assert_eq!(count(&status, "reloads"), 1, "{status:#}");
    haproxy.await_answers(&["a", "b"]);
}

#[test]
fn a_signal_reloads_it_as_well() {
    let backends = three();
    let haproxy = Haproxy::new().start();
    let frontend = haproxy.frontend();
    let at = haproxy.path("master.sock");
    let frontend = frontend.replace(&format!("{{ master = '{}' }}", at.display()), "{ signal = 'USR2' }");
    let elasticd = Elasticd::knowing(&format!("{FILE}{frontend}"), &backends[..2]).ready();
    let status = elasticd.await_proven("haproxy", "web", &["a", "b"]);
    assert_eq!(count(&status, "reloads"), 1, "{status:#}");
    // While it starts anew, the master answers nothing.
    until("the master's own word", || haproxy.processes().contains(" 1 [failed: 0]").then_some(()));
    haproxy.await_answers(&["a", "b"]);
    elasticd.write("backends.yaml", &entries(&backends));
    let status = elasticd.await_proven("haproxy", "web", &["a", "b", "c"]);
    assert_eq!(count(&status, "reloads"), 1, "{status:#}");
    haproxy.await_answers(&["a", "b", "c"]);
}

#[test]
fn slots_are_used_where_servers_cannot_be_added() {
    let backends = three();
    let mut haproxy = Haproxy::new();
    let more = "vars = { balance = 'static-rr', slots = 3, server = 'check inter 100ms' }\n";
    let elasticd = elasticd(&haproxy, more, &backends[..1]).ready();
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a"]);
    haproxy.await_answers(&["a"]);
    for some in [&backends[..3], &backends[1..3], &backends[..1], &backends[..2]] {
        elasticd.write("backends.yaml", &entries(some));
        let ids = ids(some);
        elasticd.await_proven("haproxy", "web", &ids);
        haproxy.await_answers(&ids);
    }
    let weighted = entry("a", &backends[0], ", weight: 0") + &entry("b", &backends[1], "");
    elasticd.write("backends.yaml", &weighted);
    until_or(|| elasticd.log(), || haproxy.servers("web").first()?.ends_with(" 0").then_some(()));
    haproxy.await_answers(&["b"]);
    assert_eq!(count(&elasticd.status(), "reloads"), 0, "{}", elasticd.log());
    // More than there are slots.
    let four = Backend::start("d");
    elasticd.write("backends.yaml", &entries(backends.iter().chain([&four])));
    let status = elasticd.await_proven("haproxy", "web", &["a", "b", "c", "d"]);
    assert_eq!(count(&status, "reloads"), 1, "{status:#}");
    haproxy.await_answers(&["a", "b", "c", "d"]);
    let file = haproxy.servers("web");
    haproxy.stop();
    haproxy.spawn();
    assert_eq!(haproxy.servers("web"), file);
}

#[test]
fn a_haproxy_that_was_started_with_an_older_file_is_reloaded() {
    let backends = three();
    let mut haproxy = Haproxy::new();
    let elasticd = elasticd(&haproxy, "", &backends[..1]).ready();
    let old = haproxy.backends();
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a"]);
    elasticd.write("backends.yaml", &entries(&backends[1..]));
    elasticd.await_proven("haproxy", "web", &["b", "c"]);
    assert_eq!(count(&elasticd.status(), "reloads"), 0);
    // It is started with an older file, and the right file is put back.
    let new = haproxy.backends();
    haproxy.stop();
    fs::write(haproxy.output(), old).expect("written");
    haproxy.spawn();
    fs::write(haproxy.output(), new).expect("written");
    haproxy.await_answers(&["b", "c"]);
    // Nothing but a reload can show that it has read the other lines.
    until_or(|| elasticd.log(), || (count(&elasticd.status(), "reloads") == 1).then_some(()));
    elasticd.await_status("proven", is("proven"));
    // The same with a file of which only such a line differs, so that the runtime API shows no difference.
    let new = haproxy.backends();
    haproxy.stop();
    fs::write(haproxy.output(), new.replace("roundrobin", "leastconn")).expect("written");
    haproxy.spawn();
    fs::write(haproxy.output(), new).expect("written");
    until_or(|| elasticd.log(), || (count(&elasticd.status(), "reloads") == 2).then_some(()));
    elasticd.await_status("proven", is("proven"));
}

#[test]
fn addresses_that_others_change_over_the_runtime_api_are_reverted() {
    let backends = three();
    let haproxy = Haproxy::new().start();
    let elasticd = elasticd(&haproxy, "", &backends).ready();
    let status = elasticd.await_proven("haproxy", "web", &["a", "b", "c"]);
    let reloads = count(&status, "reloads");
    haproxy.tell("set server web/a addr 127.0.0.1 port 1;set server web/c addr 127.0.0.1 port 1");
    let right: Vec<_> = backends.iter().map(|b| format!("{} {} 1", b.name, b.address)).collect();
    until_or(
        || format!("{right:?}: {:?} {}", haproxy.servers("web"), elasticd.log()),
        || (haproxy.servers("web") == right).then_some(()),
    );
    haproxy.await_answers(&["a", "b", "c"]);
    assert_eq!(count(&elasticd.status(), "reloads"), reloads);
}

#[test]
fn a_failed_reload_is_reported_and_rolled_back() {
    let backends = three();
    let mut haproxy = Haproxy::new();
    let elasticd = elasticd(&haproxy, "check = []\n", &backends[..1]).ready();
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a"]);
    let (worker, file) = (haproxy.worker(), haproxy.backends());
    let config = |more: &str| format!("{}{}check = []\n{more}", accepting(), haproxy.frontend());
    // Without a check, HAProxy itself refuses it.
    elasticd.configure(&config("vars = { lines = ['nonsense here'] }\n"));
    elasticd.signal(nix::sys::signal::Signal::SIGHUP);
    let status = elasticd.await_status("failed", is("failed"));
    let text = error(&status);
    assert!(text.contains("[failed: ") && text.contains("journalctl -u haproxy"), "{text}");
    assert!(haproxy.log().contains("unknown keyword 'nonsense'"), "{}", haproxy.log());
    assert_eq!(haproxy.worker(), worker, "the old one goes on");
    // Each further attempt puts the new file there and takes it away again.
    until("the previous file is back", || (haproxy.backends() == file).then_some(()));
    haproxy.await_answers(&["a"]);
    elasticd.configure(&config("vars = { lines = ['retries 2'] }\n"));
    elasticd.signal(nix::sys::signal::Signal::SIGHUP);
    elasticd.await_status("proven", |status| is("proven")(status) && haproxy.backends().contains("retries 2"));
    haproxy.await_answers(&["a"]);
}

#[test]
fn a_socket_without_the_admin_level_is_reported_with_the_remedy() {
    let backends = three();
    let haproxy = Haproxy::new();
    let main = fs::read_to_string(haproxy.path("haproxy.cfg")).expect("there");
    fs::write(haproxy.path("haproxy.cfg"), main.replace("level admin", "level user")).expect("written");
    let haproxy = haproxy.start();
    let elasticd = elasticd(&haproxy, "", &backends[..1]).ready();
    elasticd.await_proven("haproxy", "web", &["a"]);
    let file = haproxy.backends();
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let status = elasticd.await_status("failed", is("failed"));
    assert!(error(&status).contains("level admin"), "{status:#}");
    until("the previous file is back", || (haproxy.backends() == file).then_some(()));
}

#[test]
fn a_reload_while_elasticd_is_stopped_is_recognised() {
    let backends = three();
    let haproxy = Haproxy::new().start();
    let mut elasticd = elasticd(&haproxy, "", &backends[..2]).ready();
    elasticd.await_proven("haproxy", "web", &["a", "b"]);
    assert!(elasticd.stop().success());
    // By hand, meanwhile: the same files, another worker.
    let worker = haproxy.worker();
    haproxy.reload();
    until("another worker", || haproxy.try_tell("show info").filter(|_| haproxy.worker() != worker));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("haproxy", "web", &["a", "b"]);
    assert_eq!(count(&status, "reloads"), 0, "it has read what was in place: {status:#}");
}

#[test]
fn a_map_is_changed_in_the_running_process() {
    let backends = three();
    let rule = "  http-request return status 200 content-type text/plain lf-string \
                %[path,regsub(^/,),map(DIR/out/backends.map,none)] if { path_beg /web/ }\n";
    let mut haproxy = Haproxy::with("", rule);
    let at = haproxy.path("out").display().to_string();
    let frontend = haproxy.frontend().replace(&format!("output = '{at}/elasticd.cfg'\n"), "");
    let outputs = format!(
        "[[frontends.haproxy.outputs]]\npath = '{at}/elasticd.cfg'\ntemplate = 'haproxy/backends.cfg'\n\
         [[frontends.haproxy.outputs]]\npath = '{at}/backends.map'\ntemplate = 'haproxy/backends.map'\n"
    );
    // HAProxy refuses to start without a map that its configuration names.
    fs::write(haproxy.path("out/backends.map"), "").expect("written");
    let elasticd = Elasticd::knowing(&format!("{}{frontend}{outputs}", accepting()), &backends[..1]).ready();
    haproxy.spawn();
    elasticd.await_proven("haproxy", "web", &["a"]);
    let worker = haproxy.worker();
    let map = || {
        let shown = haproxy.tell(&format!("show map {at}/backends.map"));
        shown.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect::<Vec<_>>()
    };
    let right = |some: &[Backend]| some.iter().map(|b| format!("web/{} {}", b.name, b.address)).collect::<Vec<_>>();
    assert_eq!(map(), right(&backends[..1]));
    for some in [&backends[..], &backends[1..2], &[], &backends[..2]] {
        elasticd.write("backends.yaml", &entries(some));
        elasticd.await_proven("haproxy", "web", &ids(some));
        assert_eq!(map(), right(some));
    }
    assert_eq!((haproxy.worker(), count(&elasticd.status(), "reloads")), (worker, 0));
}
