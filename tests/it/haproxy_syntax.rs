//! The HAProxy template and the escaping of values, judged by HAProxy itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use elasticd::frontend::escape::Escape;
use elasticd::frontend::template::{Context, Template};
use elasticd::model::{Backend, BackendState, Name, ServiceSet, Snapshot};
use proptest::prelude::*;

use crate::harness::BoundedCommand as _;
use crate::harness::haproxy::Haproxy;

const BACKENDS: &str = include_str!("../../templates/haproxy/backends.cfg");
const MAP: &str = include_str!("../../templates/haproxy/backends.map");
const GOLDEN: &str = include_str!("golden/haproxy_backends.cfg");
const GOLDEN_SLOTS: &str = include_str!("golden/haproxy_slots.cfg");

/// Tag values that end words, quotes and lines if they are let.
const HOSTILE: &[&str] = &[
    "",
    "plain",
    "two words",
    "\"",
    "'",
    "'\" x",
    "a\nb",
    "\n  server evil 10.9.9.9:1\n",
    "# no comment",
    "a#b",
    "\\",
    "trailing\\",
    "\\x41\\n",
    "$HOME",
    "${HOME}",
    "  leading",
    "trailing ",
    "größe ☃",
    "\u{1}\u{7}\r\t\u{b}\u{c}\u{7f}",
];

fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

fn backend(id: &str, address: &str, weight: u16) -> Backend {
    let address: IpAddr = address.parse().expect("an address");
    let state = BackendState::Up;
    Backend { id: id.to_owned(), address, port: 8080, zone: None, weight, state, tags: Default::default() }
}

fn context(services: &[(&str, Vec<Backend>)], vars: &[(&str, serde_json::Value)]) -> Context {
    let set = |backends: &Vec<Backend>| ServiceSet { revision: 1, backends: backends.clone() }.into();
    let services: BTreeMap<_, _> = services.iter().map(|(service, backends)| (name(service), set(backends))).collect();
    let names: Vec<_> = services.keys().cloned().collect();
    let mut all = elasticd::config::preset("haproxy").expect("built in").vars;
    all.extend(vars.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Context::new(&Snapshot { revision: 1, services }, &names, &all)
}

fn pools() -> [(&'static str, Vec<Backend>); 3] {
    [
        (
            "api",
            vec![
                backend("i-1", "10.0.0.1", 1),
                backend("i-2", "2001:db8::1", 256),
                backend("[::1]:80@x", "10.0.0.3", 0),
            ],
        ),
        ("drained", vec![backend("i-1", "10.0.0.1", 0)]),
        ("empty", vec![]),
    ]
}

fn render(template: &str, context: &Context) -> String {
    let template = Template::compile("haproxy/test.cfg", template, Escape::Haproxy).expect("it compiles");
    template.render(context).expect("it renders")
}

/// HAProxy's own judgement of a file beside a main one.
fn judge(haproxy: &Haproxy, text: &str) -> Result<(), String> {
    fs::write(haproxy.output(), text).expect("written");
    let mut command = Command::new("haproxy");
    command.arg("-c").arg("-f").arg(haproxy.path("haproxy.cfg")).arg("-f").arg(haproxy.output());
    let output = command.bounded_output();
    let said = || format!("{}\n{text}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// A main configuration without a default backend, which each text may bring.
fn alone() -> Haproxy {
    let haproxy = Haproxy::new();
    let main = fs::read_to_string(haproxy.path("haproxy.cfg")).expect("there");
    fs::write(haproxy.path("haproxy.cfg"), main.replace("default_backend web", "")).expect("written");
    haproxy
}

#[test]
fn the_templates_match_their_golden_files() {
    assert_eq!(render(BACKENDS, &context(&pools(), &[])), GOLDEN);
    let more = [
        ("slots", 2.into()),
        ("balance", "source".into()),
        ("server", "check inter 2s".into()),
        ("lines", serde_json::json!(["option httpchk GET /", "retries 2"])),
    ];
    assert_eq!(render(BACKENDS, &context(&pools(), &more)), GOLDEN_SLOTS);
    let map = "# Written by elasticd: changes made here are lost.\napi/i-1 10.0.0.1:8080\napi/i-2 [2001:db8::1]:8080\n\
               api/[::1]:80@x 10.0.0.3:8080\ndrained/i-1 10.0.0.1:8080\n";
    assert_eq!(render(MAP, &context(&pools(), &[])), map);
}

#[test]
fn haproxy_accepts_them_with_every_algorithm() {
    let haproxy = alone();
    for balance in ["roundrobin", "static-rr", "leastconn", "first", "random", "source", "uri", "hdr(host)"] {
        for slots in [0, 4] {
            let vars = [("balance", balance.into()), ("slots", slots.into()), ("server", "check inter 2s".into())];
            let text = render(BACKENDS, &context(&pools(), &vars));
            judge(&haproxy, &text).unwrap_or_else(|said| panic!("{balance} {slots}: {said}"));
        }
    }
    judge(&haproxy, &render(BACKENDS, &context(&[], &[]))).expect("no services at all");
}

/// A value as a word, in a word, in either kind of quotes, and in a comment.
const PLACES: &[(&str, &str)] = &[
    ("word", "{{ b.tags.V }}"),
    ("middle", "x{{ b.tags.V }}y"),
    ("weak", "\"x{{ b.tags.V }}y\""),
    ("strong", "'x{{ b.tags.V }}y'"),
    ("dollar", "\"${{ b.tags.V }}\""),
    ("mixed", "'{{ b.tags.V }}'\"{{ b.tags.V }}\"{{ b.tags.V }}"),
];

/// A backend that answers each value at each place, to the path that names them.
fn echo() -> String {
    let mut template = "backend web\n{% for s in services %}{% for b in s.backends %}".to_owned();
    for (place, text) in PLACES {
        template += &format!(
            "  http-request return status 200 content-type text/plain string {text} if {{ path /{place}/{{{{ b.id }}}} \
             }} # {{{{ b.tags.V }}}}\n"
        );
    }
    template + "{% endfor %}{% endfor %}"
}

fn expected(place: &str, value: &str) -> String {
    match place {
        "word" => value.to_owned(),
        "dollar" => format!("${value}"),
        "mixed" => value.repeat(3),
        _ => format!("x{value}y"),
    }
}

fn tagged(values: &[String]) -> Context {
    let backend = |(i, value): (usize, &String)| {
        let mut backend = backend(&format!("i-{i:03}"), "10.0.0.1", 1);
        backend.tags.insert("V".to_owned(), value.clone());
        backend
    };
    context(&[("web", values.iter().enumerate().map(backend).collect())], &[])
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    body.to_owned()
}

#[track_caller]
fn assert_read_back(values: &[String]) {
    let text = render(&echo(), &tagged(values));
    let mut haproxy = Haproxy::new();
    judge(&haproxy, &text).unwrap_or_else(|said| panic!("{said}"));
    haproxy.spawn();
    for (i, value) in values.iter().enumerate() {
        for (place, _) in PLACES {
            let body = get(haproxy.address, &format!("/{place}/i-{i:03}"));
            assert_eq!(body, expected(place, &value.replace('\0', "%00")), "{place}: {value:?}\n{text}");
        }
    }
}

#[test]
fn haproxy_reads_every_hostile_value_back_at_every_place() {
    let values: Vec<_> = HOSTILE.iter().map(|value| (*value).to_owned()).collect();
    // An empty word is none at all for HAProxy, and so nothing that could be returned.
    assert_read_back(&values[1..]);
    let weak = "backend web\n{% for s in services %}{% for b in s.backends %}  http-request set-header X \"{{ b.tags.V }}\" \
                if TRUE\n{% endfor %}{% endfor %}";
    assert!(render(weak, &tagged(&values[..1])).contains("set-header X \"\" if"));
}

#[test]
fn a_percent_sign_is_the_templates_concern_where_haproxy_reads_a_log_format() {
    let template = "backend web\n{% for s in services %}{% for b in s.backends %}  http-request return status 200 \
                    content-type text/plain lf-string \"{{ b.tags.V | replace: \"%\", \"%%\" }}\"\n{% endfor %}{% endfor %}";
    let value = "%[env(HOME)] 100%".to_owned();
    let mut haproxy = Haproxy::new();
    judge(&haproxy, &render(template, &tagged(std::slice::from_ref(&value)))).expect("accepted");
    haproxy.spawn();
    assert_eq!(get(haproxy.address, "/"), value);
}

proptest! {
    // Each case is two processes.
    #![proptest_config(ProptestConfig { cases: 5, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn haproxy_reads_generated_values_back(
        values in proptest::collection::vec("[ \\t\\r\\n;{}\"'#\\\\$%()ntx0aé\\x00-\\x1f]{1,12}|\\PC{1,8}", 20),
    ) {
        assert_read_back(&values);
    }
}
