//! Mutated requests at the query and the admin socket.
//!
//! Whatever comes, the socket answers with HTTP or hangs up, in bounded time, and the next client is served.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{for_a_while, mutated};

const SEEDS: &[&str] = &[
    "GET /v1/services HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v1/services?format=text&wait=1ms&revision=1 HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"1-ab\", W/\"x\"\r\n\r\n",
    "GET /v1/services/w%65b?format=json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /v1/services/web/pick?key=%00&zone=a%20b HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v1/watch HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1-0000000000000000\r\n\r\n",
    "GET /v1/explain/i-1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /v1/status HTTP/1.0\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /v3/discovery:endpoints HTTP/1.1\r\nHost: x\r\nContent-Length: 62\r\n\r\n\
     {\"node\":{\"metadata\":{\"elasticd_wait\":\"1ms\"}},\"resource_names\":[]}",
    "PUT /v1/services/web/backends/i-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 47\r\n\r\n\
     {\"address\": \"10.0.0.1\", \"port\": 80, \"ttl\": \"1s\"}",
    "PUT /v1/services/web/backends/i-1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "DELETE /v1/services/web/backends/i-1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /v1/refresh HTTP/1.1\r\nHost: x\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// Parts that mean something to one parser or another.
const TOKENS: &[&str] = &[
    "%00",
    "%2f",
    "%",
    "..",
    "//",
    "?",
    "&",
    "=",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\0",
    "\u{fd}",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\n",
    "HTTP/1.1",
    "wait=5m",
    "revision=-1",
    "format=",
];

struct Elasticd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Elasticd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn elasticd() -> Elasticd {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display();
    let config = format!(
        "state_dir = '{at}/state'\napi.socket = '{at}/sock'\n[providers.p]\ntype = 'fixed'\n\
         instances = [{{ id = 'i-1', address = '10.0.0.1:80' }}]\n[services.web]\nprovider = 'p'\n"
    );
    std::fs::write(dir.path().join("elasticd.toml"), config).expect("written");
    let child = Command::new(env!("CARGO_BIN_EXE_elasticd"))
        .arg("--config")
        .arg(dir.path().join("elasticd.toml"))
        .arg("run")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("elasticd starts");
    let started = Instant::now();
    while ["sock", "admin.sock"].iter().any(|name| UnixStream::connect(dir.path().join(name)).is_err()) {
        assert!(started.elapsed() < Duration::from_secs(30), "it never listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    Elasticd { dir, child }
}

/// What comes back within a moment, or until the other side hangs up.
fn exchange(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a bound");
    // It may have hung up by now.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn whatever_comes_is_answered_or_hung_up_on() {
    let mut elasticd = elasticd();
    let sockets = ["sock", "admin.sock"].map(|name| elasticd.dir.path().join(name));
    let (mut tried, mut answered) = (0_u64, 0_u64);
    for_a_while("requests", |random| {
        let bytes = mutated(random, SEEDS, TOKENS);
        let said = || format!("{:?}", String::from_utf8_lossy(&bytes));
        let answer = exchange(random.choice(&sockets).expect("some"), &bytes);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{}: {:?}",
            said(),
            String::from_utf8_lossy(&answer)
        );
        assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", said());
        answered += u64::from(!answer.is_empty());
        if tried.is_multiple_of(100) {
            let mut stream = UnixStream::connect(&sockets[0]).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("written");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            assert!(answer.ends_with("ok\n"), "{}: {answer}", said());
            assert!(elasticd.child.try_wait().expect("a status").is_none(), "{}", said());
        }
        tried += 1;
    });
    assert!(answered > 0);
    println!("requests: {answered} answered");
}
