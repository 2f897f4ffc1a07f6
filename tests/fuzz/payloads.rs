//! Mutated sets of instances: in a file, printed by a program, answered by a server.
//!
//! Whatever comes is a whole set or an error; and whatever set that is can be selected from, served and rendered.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use elasticd::config::Config;
use elasticd::model::Instance;
use elasticd::provider::{ApiUsage, Observation, Provider};
use elasticd::registry::{Event, Registry};

use crate::{for_a_while, mutated};

const SEEDS: &[&str] = &[
    "[{\"id\": \"i-1\", \"address\": \"10.0.0.1:80\", \"zone\": \"a\", \"weight\": 3, \"state\": \"running\", \
     \"launched\": \"2024-05-01T12:00:00Z\", \"tags\": {\"Role\": \"web\", \"Port\": \"8080\", \"N\": 1}}]",
    "{\"instances\": [{\"id\": \"a\", \"private_ipv4\": \"10.0.0.2\", \"public_ipv4\": \"192.0.2.1\", \"ipv6\": \"2001:db8::1\", \
     \"port\": 80, \"vpc\": \"vpc-1\", \"subnet\": \"s\", \"group\": \"g\", \"tags\": {}}]}",
    "[{\"targets\": [\"10.0.0.1:80\", \"[2001:db8::1]:81\"], \"labels\": {\"zone\": \"b\", \"Role\": \"web\", \"__x\": \"y\"}}]",
    "- { id: a, address: \"10.0.0.1:80\", tags: { Role: web } }\n- id: b\n  address: 10.0.0.2\n  tags:\n    Role: web\n",
    "instances:\n- &x { id: a, address: 10.0.0.1 }\n- { <<: *x, id: b }\n",
    "- targets: ['10.0.0.1:80']\n  labels: { zone: a }\n",
    "[]",
];

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\\ud800",
    "null",
    "-0",
    "1e999",
    "99999999999999999999",
    "[[[[[[[[[[[[[[[[",
    "&a [*a]",
    "*a",
    "!!binary ",
    "!x ",
    "? ",
    "- ",
    "|\n",
    ">\n",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\t",
    "\n",
    "\u{feff}",
    "\u{85}",
    "0.0.0.0",
    "::",
    "10.0.0.1%eth0",
    "fe80::1%1",
    "\"9999-12-31T23:59:59Z\"",
    "\"-009999-01-01T00:00:00Z\"",
    "0x10",
    "0o7",
    "no",
    "~",
    "é",
    "\0",
    "..",
    "\"launched\":",
    "\"weight\": 65536",
];

/// What an elasticd has to take a set through.
pub struct Chain {
    pub dir: tempfile::TempDir,
    config: Config,
    runtime: tokio::runtime::Runtime,
    sets: u64,
    errors: u64,
}

impl Chain {
    /// With this provider `p`.
    pub fn new(provider: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().display();
        let text = format!(
            "state_dir = '{at}/state'\n{}\n[services.web]\nprovider = 'p'\nslow_start = '1m'\ndrain = '1m'\nmin_age = '1s'\n\
             port = {{ tag = 'Port', default = 80 }}\nguard = {{ on_empty = 'accept', max_drop = '100%' }}\n\
             [frontends.j]\ntype = 'json'\noutput = '{at}/j'\n",
            provider.replace("DIR", &at.to_string())
        );
        let file = dir.path().join("elasticd.toml");
        std::fs::write(&file, text).expect("written");
        let config = Config::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { dir, config, runtime, sets: 0, errors: 0 }
    }

    fn provider(&self) -> Box<dyn Provider> {
        self.config.providers.values().next().expect("one").config.build(&elasticd::provider::BuildContext {
            selectors: &[],
            unconfined: &elasticd::sys::unconfined::Unconfined::default(),
        })
    }

    /// Asks a provider once, and takes its set through all that follows.
    pub fn poll(&mut self, provider: &mut dyn Provider) {
        let bounded = async { tokio::time::timeout(Duration::from_secs(20), provider.discover()).await };
        let answer = self.runtime.block_on(bounded).expect("in bounded time");
        self.takes(answer.map(Some));
    }

    /// Takes a set through all that follows, if there is one.
    pub fn takes<E: std::fmt::Display>(&mut self, answer: Result<Option<Vec<Instance>>, E>) {
        match answer {
            Ok(None) => {}
            Ok(Some(instances)) => {
                self.sets += 1;
                self.follow(instances);
            }
            Err(error) => {
                self.errors += 1;
                let said = error.to_string();
                assert!(!said.is_empty() && said.len() < 20_000 && !said.contains('\n'), "{said}");
            }
        }
    }

    fn follow(&self, instances: Vec<Instance>) {
        let mut registry = Registry::trial(self.config.settings(), &self.dir.path().join("state"));
        let (at, took, cost) = (SystemTime::now(), Duration::ZERO, ApiUsage::default());
        let provider = "p".parse().expect("a name");
        registry.handle(Event::Observed(Observation { provider, at, took, cost, result: Ok(instances) }));
        for later in [0, 1, 61, 1 << 20] {
            registry.settle(at + Duration::from_secs(later));
        }
        let Some(snapshot) = registry.snapshots().borrow().clone() else { return };
        for frontend in &self.config.frontends {
            let templates = frontend.templates().expect("compiled before");
            for text in frontend.render(&templates, &snapshot, &frontend.facts()).expect("rendered").contents {
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            }
        }
    }

    /// Says how it went.
    pub fn conclude(&self, name: &str) {
        assert!(self.sets > 0 && self.errors > 0, "{} sets, {} errors", self.sets, self.errors);
        println!("{name}: {} sets, {} errors", self.sets, self.errors);
    }
}

fn tried(name: &str, mut chain: Chain, mut put: impl FnMut(&mut fastrand::Rng, &Path, Vec<u8>)) {
    let mut provider = chain.provider();
    let dir = chain.dir.path().to_owned();
    for_a_while(name, |random| {
        let bytes = mutated(random, SEEDS, TOKENS);
        put(random, &dir, bytes);
        chain.poll(&mut *provider);
    });
    chain.conclude(name);
}

#[test]
fn whatever_is_in_a_file() {
    tried("files", Chain::new("[providers.p]\ntype = 'file'\npath = 'DIR/set'\n"), |_, dir, bytes| {
        std::fs::write(dir.join("set"), bytes).expect("written");
    });
}

#[test]
fn whatever_a_program_prints() {
    let provider = "[providers.p]\ntype = 'exec'\ncommand = ['/bin/cat', 'DIR/set']\nmax_bytes = 400\n";
    tried("programs", Chain::new(provider), |_, dir, bytes| std::fs::write(dir.join("set"), bytes).expect("written"));
}

#[test]
fn whatever_a_server_answers() {
    const HEADS: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"x\"\r\nConnection: close\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    ];
    const MORE: &[&str] = &[
        "\r\n",
        "\n",
        ":",
        " ",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "Content-Length: -1\r\n",
        "\0",
        "Retry-After: 99999999999999999999\r\n",
        "Content-Encoding: gzip\r\n",
        "Location: file:///etc/passwd\r\n",
    ];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answer = Arc::new(Mutex::new(Vec::new()));
    let next_answer = Arc::clone(&answer);
    // Ends with this process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let bytes = next_answer.lock().expect("unpoisoned").clone();
            let _ = stream.write_all(&bytes);
        }
    });
    let provider = format!("[providers.p]\ntype = 'http'\nurl = 'http://127.0.0.1:{port}/x'\ntimeout = '5s'\n");
    tried("servers", Chain::new(&provider), |random, _, body| {
        let head = match random.u8(0..3) {
            0 => mutated(random, HEADS, MORE),
            _ => HEADS[random.usize(0..2)].as_bytes().to_vec(),
        };
        let head = String::from_utf8_lossy(&head).replace("LENGTH", &body.len().to_string());
        *answer.lock().expect("unpoisoned") = [head.into_bytes(), body].concat();
    });
}
