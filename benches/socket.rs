//! The query socket's speed: `cargo bench --bench socket`.
//!
//! Each row asks over so many connections that are kept, one request after the other on each, and compares elasticd
//! with a hyper server that answers the same bytes from a constant, and with an echo of those bytes without any HTTP.
//! Servers have one thread and clients another. All that is compared is measured in turns, in one run.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use elasticd::api::{Api, Config, Sources};
use elasticd::model::{Backend, BackendState, Name, ServiceSet, Snapshot};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use harness::elasticd::Elasticd;

const BACKENDS: u8 = 100;
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(800);

fn snapshot(revision: u64) -> Arc<Snapshot> {
    let backend = |n: u8| Backend {
        id: format!("i-0123456789abcde{n:02x}"),
        address: [10, 0, 0, n].into(),
        port: 8080,
        zone: Some(format!("eu-west-1{}", char::from(b'a' + n % 3))),
        weight: 1,
        state: BackendState::Up,
        tags: BTreeMap::new(),
    };
    let set = ServiceSet { revision, backends: (0..BACKENDS).map(backend).collect() };
    let web: Name = "web".parse().expect("a name");
    Arc::new(Snapshot { revision, services: [(web, Arc::new(set))].into() })
}

/// A runtime of one thread, on a thread of its own, that runs until the process ends.
fn on_a_thread<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    thread::spawn(|| runtime().block_on(async { work().await }));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// elasticd's API at this path, which serves what is sent.
fn elasticd(socket: PathBuf) -> watch::Sender<Option<Arc<Snapshot>>> {
    let (sender, snapshots) = watch::channel(Some(snapshot(1)));
    on_a_thread(move || async move {
        let sources = Sources {
            snapshot: snapshots,
            registry: watch::channel(Arc::default()).1,
            frontends: watch::channel(Arc::default()).1,
            ready: watch::channel(true).1,
            started: SystemTime::now(),
            orders: mpsc::channel(1).0,
        };
        let config =
            Config { socket, admin_socket: None, mode: 0o600, gid: None, max_connections: 2048, metrics: None };
        Api::bind(&config, sources).expect("an API").serve(CancellationToken::new()).await;
    });
    sender
}

/// A hyper server that answers everything with the same.
fn constant(socket: PathBuf, headers: HeaderMap, body: Bytes) {
    on_a_thread(move || async move {
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
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

/// Answers each read with these bytes.
fn echo(socket: PathBuf, answer: Vec<u8>) {
    on_a_thread(move || async move {
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
    });
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

/// Requests per second, and the 99th percentile of what each took, in microseconds.
fn measure(socket: &Path, request: &[u8], connections: usize) -> (f64, f64) {
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
    let rate = took.len() as f64 / elapsed.as_secs_f64();
    (rate, took[took.len() * 99 / 100].as_secs_f64() * 1e6)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn compare(directory: &Path, ours: &Path, name: &str, path: &str) {
    let (head, body) = one(ours, path);
    let mut headers = HeaderMap::new();
    for line in head.lines().skip(1).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(": ").expect("a header");
        if !["content-length", "date", "connection"].contains(&key) {
            headers.insert(hyper::header::HeaderName::try_from(key).expect("a name"), value.parse().expect("a value"));
        }
    }
    let (fixed, raw) = (directory.join(format!("{name}-constant")), directory.join(format!("{name}-echo")));
    constant(fixed.clone(), headers, body.clone().into());
    // As it comes on a connection that is kept.
    let answer = [head.replace("connection: close\r\n", "").into_bytes(), body].concat();
    echo(raw.clone(), answer);
    one(&fixed, path);
    harness::until("the echo listens", || std::os::unix::net::UnixStream::connect(&raw).ok());
    for connections in [1, 8, 64] {
        let mut samples = vec![(Vec::new(), Vec::new()); 3];
        for _ in 0..TURNS {
            for (samples, socket) in samples.iter_mut().zip([ours, &fixed, &raw]) {
                let (rate, p99) = measure(socket, &request(path), connections);
                samples.0.push(rate);
                samples.1.push(p99);
            }
        }
        let medians: Vec<_> = samples.into_iter().map(|(rates, p99s)| (median(rates), median(p99s))).collect();
        let [ours, fixed, raw] = medians[..] else { unreachable!("three") };
        println!(
            "| {name} | {connections} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} |",
            ours.0,
            fixed.0,
            raw.0,
            ours.0 / fixed.0,
            ours.0 / raw.0,
            ours.1,
            fixed.1
        );
    }
}

const WAITING: usize = 1000;

/// Milliseconds from a change until each of many long-polls has its answer.
fn wake(socket: &Path, sender: &watch::Sender<Option<Arc<Snapshot>>>) -> Vec<f64> {
    runtime().block_on(async {
        let mut streams = Vec::new();
        for _ in 0..WAITING {
            let mut stream = UnixStream::connect(socket).await.expect("a connection");
            stream.write_all(&request("/v1/services/web?wait=60s&revision=1")).await.expect("written");
            streams.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let changed = Instant::now();
        sender.send_replace(Some(snapshot(2)));
        let waiting: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                tokio::spawn(async move {
                    stream.read_u8().await.expect("an answer");
                    changed.elapsed().as_secs_f64() * 1e3
                })
            })
            .collect();
        let mut took = Vec::new();
        for one in waiting {
            took.push(one.await.expect("no client panics"));
        }
        took
    })
}

/// Resident memory of a process, in kB.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn memory() {
    let elasticd = Elasticd::new(
        "[providers.p]\ntype = 'fixed'\ninstances = [{ id = 'a', address = '10.0.0.1:80' }]\n[services.web]\nprovider = 'p'\n",
    )
    .ready();
    let socket = elasticd.path("sock");
    // What is allocated once, is.
    let warm = |requests: usize| {
        for _ in 0..requests {
            one(&socket, "/v1/services/web");
        }
    };
    warm(2_000);
    let pid = elasticd.pid().as_raw();
    let before = resident(pid);
    let mut streams: Vec<_> = (0..WAITING)
        .map(|_| {
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("a connection");
            stream.write_all(&request("/v1/services/web?wait=60s&revision=1")).expect("written");
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let waiting = resident(pid);
    streams.clear();
    warm(20_000);
    let after = resident(pid);
    println!("\n{WAITING} idle long-polls: {} kB more than the {before} kB before", waiting.saturating_sub(before));
    println!("after 2,000 requests {before} kB, after those and 20,000 more {after} kB");
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("ours");
    let sender = elasticd(socket.clone());
    println!("Requests per second, medians of {TURNS} turns; p99 in microseconds; {BACKENDS} backends.\n");
    println!("| | connections | elasticd | constant | echo | ratio to constant | to echo | p99 | p99 of constant |");
    println!("|---|---|---|---|---|---|---|---|---|");
    compare(directory.path(), &socket, "json", "/v1/services/web");
    compare(directory.path(), &socket, "text", "/v1/services/web?format=text");
    compare(directory.path(), &socket, "pick", "/v1/services/web/pick");
    compare(directory.path(), &socket, "pick by key", "/v1/services/web/pick?key=alice");
    let mut took = wake(&socket, &sender);
    took.sort_by(f64::total_cmp);
    println!(
        "\n{WAITING} long-polls wake after {:.1} ms (median), {:.1} ms (the last)",
        took[WAITING / 2],
        took[WAITING - 1]
    );
    memory();
}
