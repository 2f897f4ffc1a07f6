//! The nginx template and the escaping of values, judged by nginx itself.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use elasticd::frontend::escape::Escape;
use elasticd::frontend::template::{Context, Template};
use elasticd::model::{Backend, BackendState, Name, ServiceSet, Snapshot};

use crate::harness::BoundedCommand as _;

const UPSTREAMS: &str = include_str!("../../templates/nginx/upstreams.conf");
const GOLDEN: &str = include_str!("golden/nginx_upstreams.conf");

/// Tag values that end tokens, comments and blocks if they are let.
const HOSTILE: &[&str] = &[
    "",
    "1; } server { listen 1;",
    "\"",
    "'",
    "'\"; x",
    "a\nb",
    "\n}\nserver { }\n#",
    "# no comment",
    "\\",
    "trailing\\",
    "${x}",
    "$x",
    "{",
    "}",
    "%{",
    "  leading",
    "größe ☃",
    "\u{0}\u{7}\r\t\u{7f}",
];

fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

fn backend(id: &str, address: &str, weight: u16) -> Backend {
    let address: IpAddr = address.parse().expect("an address");
    Backend {
        id: id.to_owned(),
        address,
        port: 8080,
        zone: None,
        weight,
        state: BackendState::Up,
        tags: Default::default(),
    }
}

fn context(services: &[(&str, Vec<Backend>)], vars: &[(&str, serde_json::Value)]) -> Context {
    let set = |backends: &Vec<Backend>| ServiceSet { revision: 1, backends: backends.clone() }.into();
    let services: BTreeMap<_, _> = services.iter().map(|(service, backends)| (name(service), set(backends))).collect();
    let names: Vec<_> = services.keys().cloned().collect();
    let vars = vars.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Context::new(&Snapshot { revision: 1, services }, &names, &vars)
}

fn preset_vars() -> Vec<(&'static str, serde_json::Value)> {
    vec![
        ("zone_size", "256k".into()),
        ("method", "".into()),
        ("keepalive", 32.into()),
        ("max_fails", 1.into()),
        ("fail_timeout", "10s".into()),
        ("lines", serde_json::json!([])),
        ("server", serde_json::json!({})),
        ("other_zones", "".into()),
    ]
}

fn render(template: &str, context: &Context) -> String {
    let template = Template::compile("nginx/test.conf", template, Escape::Nginx).expect("it compiles");
    template.render(context).expect("it renders")
}

fn pools() -> [(&'static str, Vec<Backend>); 3] {
    [
        ("api", vec![backend("i-1", "10.0.0.1", 1), backend("i-2", "2001:db8::1", 256), backend("i-3", "10.0.0.3", 0)]),
        ("drained", vec![backend("i-1", "10.0.0.1", 0), backend("i-2", "10.0.0.2", 0)]),
        ("empty", vec![]),
    ]
}

/// A configuration in a directory of its own, with everything nginx writes kept inside.
struct Nginx {
    dir: tempfile::TempDir,
}

impl Nginx {
    /// The configuration may use a socket in that directory: see [`Nginx::socket`].
    fn new(http: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
            .concat();
        let http = http(&dir.path().join("http.sock"));
        let text = format!(
            "pid {path}/pid;\nerror_log {path}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{http}\n}}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), text).expect("a configuration");
        Self { dir }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let log = self.dir.path().join("error.log");
        Command::new("nginx")
            .arg("-e")
            .arg(&log)
            .arg("-c")
            .arg(self.dir.path().join("nginx.conf"))
            .args(arguments)
            .bounded_output()
    }

    /// Starts it. The sockets are bound once the command has returned.
    #[track_caller]
    fn start(&self) {
        let output = self.run(&[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("http.sock")
    }

    #[track_caller]
    fn assert_accepts(&self) {
        let output = self.run(&["-t"]);
        let text = std::fs::read_to_string(self.dir.path().join("nginx.conf")).unwrap_or_default();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Where nothing was started there is no pid file, and nothing to stop.
        if self.dir.path().join("pid").exists() {
            self.run(&["-s", "stop"]);
        }
    }
}

fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("nginx listens once its command has returned");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_template_matches_its_golden_file() {
    assert_eq!(render(UPSTREAMS, &context(&pools(), &preset_vars())), GOLDEN);
}

#[test]
fn options_are_rendered_and_accepted() {
    let mut vars = preset_vars();
    vars.retain(|(key, _)| !["method", "keepalive"].contains(key));
    vars.extend([("method", "hash $request_uri consistent".into()), ("keepalive", 0.into())]);
    let text = render(UPSTREAMS, &context(&pools(), &vars));
    assert!(text.contains("    hash $request_uri consistent;\n"), "{text}");
    assert!(!text.contains("keepalive"), "{text}");
    Nginx::new(|_| text).assert_accepts();
}

#[test]
fn nginx_accepts_it_with_every_method() {
    for method in ["", "least_conn", "ip_hash", "random two least_conn", "hash $uri", "hash $uri consistent"] {
        let mut vars = preset_vars();
        vars.retain(|(key, _)| *key != "method");
        vars.push(("method", method.into()));
        Nginx::new(|_| render(UPSTREAMS, &context(&pools(), &vars))).assert_accepts();
    }
}

#[test]
fn a_service_without_backends_answers_502() {
    for method in ["", "least_conn", "ip_hash", "random", "hash $uri consistent"] {
        let mut vars = preset_vars();
        vars.retain(|(key, _)| *key != "method");
        vars.push(("method", method.into()));
        let upstreams = render(UPSTREAMS, &context(&pools(), &vars));
        let nginx = Nginx::new(|socket| {
            let pass = |pool| format!("location /{pool} {{ proxy_pass http://{pool}; }}");
            format!("{upstreams} server {{ listen unix:{}; {} {} }}", socket.display(), pass("empty"), pass("drained"))
        });
        nginx.start();
        for path in ["/empty", "/drained"] {
            let answer = get(&nginx.socket(), path);
            assert!(answer.starts_with("HTTP/1.1 502 "), "{method:?} {path}: {answer}");
        }
    }
}

/// A value at a token's start, in a token's middle, in either kind of quotes and in a comment.
const PLACES: &str = r#"
{%- for s in services %}{% for b in s.backends %}
map $uri $start{{ loop.index }}  { default {{ b.tags.V }}; }
map $uri $middle{{ loop.index }} { default x{{ b.tags.V }}y; }
map $uri $double{{ loop.index }} { default "{{ b.tags.V }}"; }
map $uri $single{{ loop.index }} { default '{{ b.tags.V }}'; } # {{ b.tags.V }}
map $uri $end{{ loop.index }}    { default x{{ b.tags.V }}; }
{%- endfor %}{% endfor %}"#;

fn hostile_context() -> Context {
    let tagged = |(i, value): (usize, &&str)| {
        let mut backend = backend(&format!("i-{i:02}"), "10.0.0.1", 1);
        backend.tags.insert("V".to_owned(), (*value).to_owned());
        backend
    };
    context(&[("web", HOSTILE.iter().enumerate().map(tagged).collect())], &[])
}

/// What nginx's syntax cannot say is written as `%XX`.
pub fn readable(value: &str) -> String {
    value.replace('$', "%24").replace('\0', "%00").replace('\u{7}', "%07").replace('\u{7f}', "%7F")
}

#[test]
fn nginx_reads_every_hostile_value_back_at_every_place() {
    let maps = render(PLACES, &hostile_context());
    let mut locations = String::new();
    for i in 0..HOSTILE.len() {
        for place in ["start", "middle", "double", "single", "end"] {
            locations += &format!("location = /{place}{i} {{ return 200 \"${place}{i}\"; }}\n");
        }
    }
    let nginx = Nginx::new(|socket| format!("{maps}\nserver {{ listen unix:{};\n{locations}}}", socket.display()));
    nginx.assert_accepts();
    nginx.start();
    for (i, value) in HOSTILE.iter().enumerate() {
        let value = readable(value);
        for (place, expected) in [
            ("start", value.clone()),
            ("middle", format!("x{value}y")),
            ("double", value.clone()),
            ("single", value.clone()),
            ("end", format!("x{value}")),
        ] {
            let answer = get(&nginx.socket(), &format!("/{place}{i}"));
            let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert_eq!(body, expected, "{place} {i}");
        }
    }
}
