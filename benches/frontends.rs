//! From a change to traffic, with the real frontends: `cargo bench --bench frontends [-- NAME…]`.
//!
//! Three tables. How long a change of all N backends takes until the frontend sends a request to a new one, and what
//! of that is elasticd's own: rendering, staging and swapping. How many reloads 1,000 changed addresses cost. How many
//! requests fail while they change, and how many when as many reloads are made by hand.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::apache::Apache;
use harness::caddy::{Caddy, Form};
use harness::elasticd::Elasticd;
use harness::envoy::Envoy;
use harness::haproxy::Haproxy;
use harness::load::ask;
use harness::nginx::Nginx;
use harness::varnish::Varnish;
use harness::{until, until_or};

/// A frontend that proxies everything to the service `web`.
struct Subject {
    name: &'static str,
    /// As `[frontends.NAME]`.
    table: String,
    address: SocketAddr,
    /// Has it reload what it has, as a person would.
    by_hand: Box<dyn Fn()>,
    /// Ends it when dropped.
    _process: Box<dyn std::any::Any>,
}

/// Starts one.
type Start = fn() -> Subject;

fn subjects() -> Vec<(&'static str, Start)> {
    vec![
        ("nginx", nginx),
        ("haproxy", haproxy),
        ("varnish", varnish),
        ("apache", apache),
        ("caddy", caddy),
        ("caddyfile", caddyfile),
        ("envoy", envoy),
    ]
}

fn haproxy() -> Subject {
    let haproxy = Arc::new(Haproxy::new().start());
    let (table, address) = (haproxy.frontend(), haproxy.address);
    let same = Arc::clone(&haproxy);
    let by_hand = Box::new(move || same.reload());
    Subject { name: "haproxy", table, address, by_hand, _process: Box::new(haproxy) }
}

fn varnish() -> Subject {
    let varnish = Arc::new(Varnish::new().start());
    let (table, address) = (varnish.frontend(), varnish.address);
    let (same, count) = (Arc::clone(&varnish), AtomicUsize::new(0));
    let by_hand = Box::new(move || {
        let name = format!("by_hand_{}", count.fetch_add(1, Ordering::Relaxed));
        same.adm(&["vcl.load", &name, &same.path("main.vcl").display().to_string()]);
        same.adm(&["vcl.use", &name]);
    });
    Subject { name: "varnish", table, address, by_hand, _process: Box::new(varnish) }
}

fn apache() -> Subject {
    let apache = Arc::new(Apache::new().start());
    let (table, address) = (apache.frontend(), apache.address);
    let same = Arc::clone(&apache);
    let by_hand = Box::new(move || same.graceful());
    Subject { name: "apache", table, address, by_hand, _process: Box::new(apache) }
}

fn caddy() -> Subject {
    let caddy = Arc::new(Caddy::new(Form::Json).start());
    let (table, address) = (caddy.frontend(), caddy.address);
    let same = Arc::clone(&caddy);
    let by_hand = Box::new(move || {
        let upstreams = same.admin("GET", "/id/elasticd_web/upstreams", "").expect("an answer").1;
        // In another order: Caddy does nothing about what it has already.
        let mut upstreams: Vec<serde_json::Value> = serde_json::from_str(&upstreams).expect("a list");
        upstreams.rotate_left(1);
        let upstreams = serde_json::Value::from(upstreams).to_string();
        same.admin("PATCH", "/id/elasticd_web/upstreams", &upstreams).expect("an answer");
    });
    Subject { name: "caddy", table, address, by_hand, _process: Box::new(caddy) }
}

fn caddyfile() -> Subject {
    let caddy = Caddy::new(Form::Caddyfile);
    // It cannot start without the file that it imports.
    std::fs::write(caddy.path("out/elasticd.caddyfile"), "(web) {\n}\n").expect("written");
    let caddy = Arc::new(caddy.start());
    let (table, address) = (caddy.frontend(), caddy.address);
    let same = Arc::clone(&caddy);
    let by_hand = Box::new(move || {
        let config = same.admin("GET", "/config/", "").expect("an answer").1;
        // Caddy does nothing about a configuration that it has already.
        let other = config.replacen("\"apps\"", "\"logging\":{},\"apps\"", usize::from(!config.contains("logging")));
        let other = if other == config { config.replacen("\"logging\":{},", "", 1) } else { other };
        same.admin("POST", "/load", &other).expect("an answer");
    });
    Subject { name: "caddy", table, address, by_hand, _process: Box::new(caddy) }
}

fn envoy() -> Subject {
    let envoy = Envoy::new().start();
    // It reads its files by itself: there is nothing to reload.
    let (table, address, by_hand) = (envoy.frontend(), envoy.address, Box::new(|| {}));
    Subject { name: "envoy", table, address, by_hand, _process: Box::new(envoy) }
}

fn nginx() -> Subject {
    let nginx = Nginx::new().start();
    let master = nginx.master().to_string();
    let by_hand = Box::new(move || run("kill", &["-HUP", &master]));
    Subject { name: "nginx", table: nginx.frontend(), address: nginx.address, by_hand, _process: Box::new(nginx) }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Backends at every loopback address at once: each set of N differs from the other in its port alone.
struct Fleet {
    port: u16,
}

impl Fleet {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, name));
            }
        });
        Self { port }
    }

    fn entries(&self, count: usize) -> String {
        let entry = |n: usize| {
            let (high, low) = (n / 250, n % 250 + 1);
            format!("- {{ id: i-{n:05}, address: \"127.9.{high}.{low}:{}\", tags: {{ Role: web }} }}\n", self.port)
        };
        (0..count).map(entry).collect()
    }
}

fn serve(mut stream: TcpStream, name: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    let mut buffer = [0; 4096];
    let mut seen = Vec::new();
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..n]);
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            seen.drain(..end + 4);
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

const PROVIDER: &str = "[providers.local]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '1s'\n\
                        [services.web]\nprovider = 'local'\nselect = { Role = 'web' }\nguard = { max_drop = '100%' }\n";

/// The subject under elasticd, proven to run with `entries`.
fn proven_with(subject: &Subject, entries: &str) -> Elasticd {
    let elasticd = Elasticd::new(&format!("{PROVIDER}{}", subject.table));
    elasticd.write("backends.yaml", entries);
    let elasticd = elasticd.ready();
    proven(&elasticd, subject.name, 1);
    elasticd
}

fn proven(elasticd: &Elasticd, name: &str, revision: u64) -> serde_json::Value {
    elasticd.await_status("proven", |status| {
        status["frontends"][name]["phase"] == "proven"
            && status["frontends"][name]["proven_revision"].as_u64() >= Some(revision)
    })
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

const ROUNDS: usize = 11;
const STEPS: [&str; 6] = ["render", "stage", "check", "swap", "reload", "proof"];

fn latency(start: Start, count: usize) -> String {
    let subject = start();
    let fleets = [Fleet::start("old"), Fleet::start("new")];
    let entries = [fleets[0].entries(count), fleets[1].entries(count)];
    let elasticd = proven_with(&subject, &entries[0]);
    let (mut traffic, mut steps) = (Vec::new(), vec![Vec::new(); STEPS.len()]);
    for round in 0..ROUNDS {
        let new = ["new", "old"][round % 2];
        let started = Instant::now();
        elasticd.write("backends.yaml", &entries[(round + 1) % 2]);
        until_or(
            || format!("{}: an answer of {new}\n{}", subject.name, elasticd.log()),
            || ask(subject.address).filter(|(status, body)| *status == 200 && body == new),
        );
        traffic.push(started.elapsed().as_secs_f64());
        let revision = u64::try_from(round).expect("small") + 2;
        let status = proven(&elasticd, subject.name, revision);
        let taken = &status["frontends"][subject.name]["last_attempt_seconds"];
        for (samples, step) in steps.iter_mut().zip(STEPS) {
            samples.push(taken[step].as_f64().expect("a number"));
        }
    }
    let ms = |seconds: f64| format!("{:.1}", seconds * 1e3);
    let steps: Vec<_> = steps.into_iter().map(median).collect();
    let own = steps[0] + steps[1] + steps[3];
    let cells: Vec<_> =
        [own, steps[0], steps[1], steps[3], steps[2], steps[4], steps[5], median(traffic)].map(ms).into();
    format!("| {} | {count} | {} |", subject.name, cells.join(" | "))
}

/// Clients that ask without a pause, some of them over a connection they keep; how many requests failed.
struct Clients {
    stopped: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<usize>>,
}

impl Clients {
    fn start(address: SocketAddr, keep: bool) -> Self {
        let (stopped, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (stopped, asked) = (Arc::clone(&stopped), Arc::clone(&asked));
            thread::spawn(move || {
                let mut failed = 0;
                let mut kept = None;
                while !stopped.load(Ordering::Relaxed) {
                    let good = if keep { ask_on(&mut kept, address) } else { ask(address).is_some_and(|a| a.0 == 200) };
                    failed += usize::from(!good);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        let threads = (0..2).map(client).collect();
        Self { stopped, asked, threads }
    }

    fn stop(self) -> (usize, usize) {
        self.stopped.store(true, Ordering::Relaxed);
        let failed = self.threads.into_iter().map(|thread| thread.join().expect("no client panics")).sum();
        (failed, self.asked.load(Ordering::Relaxed))
    }
}

/// One request on a connection that is kept as long as the frontend keeps it.
fn ask_on(kept: &mut Option<TcpStream>, address: SocketAddr) -> bool {
    let mut exchange = || -> std::io::Result<bool> {
        if kept.is_none() {
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.set_nodelay(true)?;
            *kept = Some(stream);
        }
        let stream = kept.as_mut().expect("just connected");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(false);
            }
            answer.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let head = head.to_ascii_lowercase();
            // Every body is three letters long, chunked or not.
            if body.contains("old") || body.contains("new") || !head.starts_with("http/1.1 200") {
                let whole = !head.contains("chunked") || body.ends_with("0\r\n\r\n");
                if !whole {
                    continue;
                }
                let good = head.starts_with("http/1.1 200");
                if head.contains("connection: close") {
                    *kept = None;
                }
                return Ok(good);
            }
        }
    };
    let good = exchange().unwrap_or(false);
    if !good {
        *kept = None;
    }
    good
}

const CHANGES: usize = 100;
const BACKENDS: usize = 10;

/// Reloads for 1,000 changed addresses, failures meanwhile, and those of as many reloads made by hand.
fn load(start: Start) -> String {
    let mut cells = Vec::new();
    for keep in [false, true] {
        let subject = start();
        let fleets = [Fleet::start("old"), Fleet::start("new")];
        let entries = [fleets[0].entries(BACKENDS), fleets[1].entries(BACKENDS)];
        let elasticd = proven_with(&subject, &entries[0]);
        until("traffic", || ask(subject.address).filter(|(status, _)| *status == 200));
        let before = proven(&elasticd, subject.name, 1);
        let clients = Clients::start(subject.address, keep);
        let started = Instant::now();
        for change in 0..CHANGES {
            elasticd.write("backends.yaml", &entries[(change + 1) % 2]);
            proven(&elasticd, subject.name, u64::try_from(change).expect("small") + 2);
        }
        let took = started.elapsed();
        let (failed, asked) = clients.stop();
        let after = proven(&elasticd, subject.name, 1);
        let count = |status: &serde_json::Value, what: &str| status["frontends"][subject.name][what].as_u64();
        let reloads = count(&after, "reloads").zip(count(&before, "reloads")).map(|(after, before)| after - before);
        let clients = Clients::start(subject.address, keep);
        for _ in 0..CHANGES {
            (subject.by_hand)();
            thread::sleep(took / u32::try_from(CHANGES).expect("small"));
        }
        let (failed_by_hand, asked_by_hand) = clients.stop();
        if !keep {
            cells.push(reloads.map_or_else(|| "?".to_owned(), |reloads| reloads.to_string()));
        }
        cells.push(format!("{failed} of {asked}"));
        cells.push(format!("{failed_by_hand} of {asked_by_hand}"));
    }
    cells.join(" | ")
}

fn main() {
    // Cargo adds arguments of its own.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let subjects: Vec<_> = subjects().into_iter().filter(|(name, _)| is_wanted(name)).collect();
    println!("All N backends replaced; medians of {ROUNDS}, in ms. \"To traffic\" includes learning of the change.\n");
    println!(
        "| frontend | N | elasticd's own | render | stage | swap | its check | API or reload | proof | to traffic |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (_, start) in &subjects {
        for count in [10, 100, 1000] {
            println!("{}", latency(*start, count));
        }
    }
    println!(
        "\n{CHANGES} changes of {BACKENDS} backends each, under load of 2 clients; by hand: as many reloads, at the same pace.\n"
    );
    println!("| frontend | reloads | failed, a connection each | by hand | failed, connections kept | by hand |");
    println!("|---|---|---|---|---|---|");
    for (name, start) in &subjects {
        println!("| {name} | {} |", load(*start));
    }
}
