//! The query socket's speed: `cargo bench --bench socket`.
//!
//! Each row asks over so many connections that are kept, one request after the other on each, and compares elasticd
//! with a hyper server that answers the same bytes from a constant, and with an echo of those bytes without any HTTP.
//! Servers have one thread each and clients another. All that is compared is measured in short turns, one after the
//! other, so that whatever else the machine does hits all alike; a ratio is the median of the ratios in each turn. The
//! processor time that a server's own thread needs for a request stands beside, as the clients' share of the work and
//! of the machine hides what a server costs.

mod count;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod waiting;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use elasticd::api::{Api, Config, Sources};

use elasticd::model::{Backend, BackendState, Name, Service, ServiceSet, Snapshot};
use elasticd::registry::{Report, ServiceReport};
use elasticd::status;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const BACKENDS: u8 = 100;
const TURNS: usize = 31;
const TURN: Duration = Duration::from_millis(100);

fn snapshot(revision: u64) -> Arc<Snapshot> {
    let backend = |n: u8| Backend {
        id: format!("i-0123456789abcde{n:02x}"),
        address: [10, 0, 0, n].into(),
        port: 8080,
        zone: Some(format!("eu-west-1{}", char::from(b'a' + n % 3))),
        weight: 1,
        state: BackendState::Up,
        tags: Default::default(),
    };
    let set = ServiceSet { revision, backends: (0..BACKENDS).map(backend).collect() };
    let web: Name = "web".parse().expect("a name");
    Arc::new(Snapshot { revision, services: [(web, Arc::new(set))].into() })
}

/// A runtime of one thread, on a thread of its own, that runs until the process ends.
fn on_a_thread<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) -> Server {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        sender.send(nix::unistd::gettid()).expect("the receiver waits");
        runtime().block_on(async { work().await });
    });
    Server { thread: receiver.recv_timeout(harness::PATIENCE).expect("a thread") }
}

/// A server's thread.
struct Server {
    thread: nix::unistd::Pid,
}

impl Server {
    /// The processor time it has had, in microseconds (`Documentation/scheduler/sched-stats.rst` in Linux).
    fn busy(&self) -> f64 {
        let schedstat = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.thread));
        schedstat.expect("readable").split(' ').next().expect("a field").parse::<f64>().expect("a number") / 1e3
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// elasticd's API at this path, which serves what is sent.
async fn serve(socket: PathBuf, snapshots: watch::Receiver<Option<Arc<Snapshot>>>) {
    let web: Name = "web".parse().expect("a name");
    let provider: Name = "p".parse().expect("a name");
    let source = status::Source {
        provider: provider.clone(),
        backends: Some(usize::from(BACKENDS)),
        age_seconds: Some(SystemTime::now().into()),
        held: None,
    };
    let status =
        status::Service { backends: Some(usize::from(BACKENDS)), revision: 1, ..status::Service::of(vec![source]) };
    let service = ServiceReport {
        status: Arc::new(status),
        service: Arc::new(Service::new(web.clone(), provider)),
        excluded_members: Arc::default(),
    };
    let report = Report { services: [(web, Arc::new(service))].into(), ..Report::default() };
    let sources = Sources {
        confinement: std::sync::Arc::default(),
        snapshot: snapshots,
        registry: watch::channel(Arc::new(report)).1,
        frontends: watch::channel(Arc::default()).1,
        ready: watch::channel(true).1,
        fleet: watch::channel(Arc::default()).1,
        orphaned_outputs: watch::channel(Arc::default()).1,
        started: SystemTime::now(),
        controls: elasticd::api::Controls::disconnected(),
    };
    let config = Config { socket, admin_socket: None, mode: 0o600, gid: None, max_connections: 2048, metrics: None };
    Api::bind(&config, sources).expect("an API").serve(CancellationToken::new()).await;
}

/// A hyper server that answers everything with the same.
async fn constant(socket: PathBuf, headers: HeaderMap, body: Bytes) {
    let listener = UnixListener::bind(&socket).expect("a socket");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (headers, body) = (headers.clone(), body.clone());
        tokio::spawn(async move {
            let service = service_fn(|_| {
                let mut response = Response::new(Full::new(body.clone()));
                *response.headers_mut() = headers.clone();
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Answers each read with these bytes.
async fn echo(socket: PathBuf, answer: Vec<u8>) {
    let listener = UnixListener::bind(&socket).expect("a socket");
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let answer = answer.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

/// Head and body of one answer.
fn one(socket: &Path, path: &str) -> (String, Vec<u8>) {
    let mut stream = harness::until("the server listens", || std::os::unix::net::UnixStream::connect(socket).ok());
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let body = answer.split_off(end);
    (String::from_utf8(answer).expect("text"), body)
}

/// How long the answer is that begins like this; picked backends differ in their length. `None`: its head is still to
/// come.
fn whole(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    Some(end + length.parse::<usize>().expect("a number"))
}

/// One turn.
#[derive(Clone, Copy)]
struct Sample {
    /// Requests per second.
    rate: f64,
    /// The 99th percentile of what each took, in microseconds.
    p99: f64,
    /// The server's processor time for a request, in microseconds.
    busy: f64,
}

fn measure(server: &Server, socket: &Path, request: &[u8], connections: usize) -> Sample {
    let busy = server.busy();
    let asking = async {
        let started = Instant::now();
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let (socket, request) = (socket.to_owned(), request.to_owned());
                tokio::spawn(async move {
                    let mut stream = UnixStream::connect(socket).await.expect("a connection");
                    let (mut took, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
                    while started.elapsed() < TURN {
                        let asked = Instant::now();
                        stream.write_all(&request).await.expect("written");
                        let mut read = 0;
                        while whole(&buffer[..read]).is_none_or(|length| read < length) {
                            read += stream.read(&mut buffer[read..]).await.expect("an answer");
                        }
                        took.push(asked.elapsed());
                    }
                    took
                })
            })
            .collect();
        let mut took = Vec::new();
        for client in clients {
            took.extend(client.await.expect("no client panics"));
        }
        (took, started.elapsed())
    };
    let (mut took, elapsed) = runtime().block_on(asking);
    took.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let requests = took.len() as f64;
    Sample {
        rate: requests / elapsed.as_secs_f64(),
        p99: took[took.len() * 99 / 100].as_secs_f64() * 1e6,
        busy: (server.busy() - busy) / requests,
    }
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// What the constant server says, as elasticd says it: headers and body.
fn constants(ours: &Path, path: &str) -> (String, HeaderMap, Vec<u8>) {
    let (head, body) = one(ours, path);
    let mut headers = HeaderMap::new();
    for line in head.lines().skip(1).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(": ").expect("a header");
        if !["content-length", "date", "connection"].contains(&key) {
            headers.insert(hyper::header::HeaderName::try_from(key).expect("a name"), value.parse().expect("a value"));
        }
    }
    // As it comes on a connection that is kept.
    (head.replace("connection: close\r\n", ""), headers, body)
}

fn compare(directory: &Path, server: &Server, ours: &Path, name: &str, path: &str) {
    let (head, headers, body) = constants(ours, path);
    let (fixed, raw) = (directory.join(format!("{name}-constant")), directory.join(format!("{name}-echo")));
    let answer = [head.as_bytes(), &body].concat();
    let at = fixed.clone();
    let constant = on_a_thread(move || constant(at, headers, body.into()));
    let at = raw.clone();
    let echo = on_a_thread(move || echo(at, answer));
    one(&fixed, path);
    harness::until("the echo listens", || std::os::unix::net::UnixStream::connect(&raw).ok());
    let servers = [(server, ours), (&constant, &fixed), (&echo, &raw)];
    for connections in [1, 8, 64] {
        let turns: Vec<_> = (0..TURNS)
            .map(|turn| {
                let mut samples = [None; 3];
                // Each begins as often as the others.
                for index in (0..3).map(|index| (index + turn) % 3) {
                    let (server, socket) = servers[index];
                    samples[index] = Some(measure(server, socket, &request(path), connections));
                }
                samples.map(|sample| sample.expect("all were measured"))
            })
            .collect();
        let of = |index: usize, of: fn(&Sample) -> f64| median(turns.iter().map(|turn| of(&turn[index])));
        let ratio = |of: fn(&Sample) -> f64, to: usize| median(turns.iter().map(|turn| of(&turn[0]) / of(&turn[to])));
        println!(
            "| {name} | {connections} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.2} |",
            of(0, |sample| sample.rate),
            of(1, |sample| sample.rate),
            of(2, |sample| sample.rate),
            ratio(|sample| sample.rate, 1),
            ratio(|sample| sample.rate, 2),
            of(0, |sample| sample.p99),
            of(1, |sample| sample.p99),
            of(0, |sample| sample.busy),
            of(1, |sample| sample.busy),
            of(2, |sample| sample.busy),
            ratio(|sample| 1.0 / sample.busy, 1),
        );
    }
}

/// Name and path of what is asked for.
const ASKED: [(&str, &str); 4] = [
    ("json", "/v1/services/web"),
    ("text", "/v1/services/web?format=text"),
    ("pick", "/v1/services/web/pick"),
    ("pick by key", "/v1/services/web/pick?key=alice"),
];

fn main() {
    if count::serves() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("ours");
    let (at, snapshots) = (socket.clone(), watch::channel(Some(snapshot(1))));
    let server = on_a_thread(move || serve(at, snapshots.1));
    println!(
        "Medians of {TURNS} turns: requests per second, 99th percentiles in microseconds, and the server's processor \
         time for a request in microseconds; {BACKENDS} backends.\n"
    );
    println!(
        "| | connections | elasticd | constant | echo | ratio to constant | to echo | p99 | of constant | time | of \
         constant | of echo | ratio of constant's to it |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (name, path) in ASKED {
        compare(directory.path(), &server, &socket, name, path);
    }
    count::count(directory.path(), &socket);
    waiting::wake(directory.path());
    waiting::memory();
}
