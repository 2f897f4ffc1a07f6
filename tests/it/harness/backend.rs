//! A backend that answers each request with its own name.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::own_address;

/// The service `web` of a `file` provider that reads [`entries`], and accepts any change at once.
pub const FILE: &str = "[providers.local]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '300ms'\n\
                    [services.web]\nprovider = 'local'\nselect = { Role = 'web' }\nguard = { max_drop = '100%' }\n";

/// An HTTP server at an address of its own.
pub struct Backend {
    /// What it answers.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    requests: AtomicUsize,
    /// The status of `/healthz`; 0 stands for 200.
    health: AtomicU16,
    health_checks: AtomicUsize,
    connections: Mutex<Vec<TcpStream>>,
}

impl Backend {
    /// Starts one.
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind((own_address(), 0)).expect("a loopback address");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let (name, serving) = (name.to_owned(), Arc::clone(&shared));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        let accepting = listener.try_clone().expect("a handle");
        let acceptor = thread::spawn(move || {
            while !serving.stopped.load(Ordering::Relaxed) {
                let Ok((stream, _)) = accepting.accept() else {
                    // Without a descriptor left, or stopped.
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                serving.connections.lock().expect("unpoisoned").extend(stream.try_clone());
                let (serving, answer) = (Arc::clone(&serving), answer.clone());
                thread::spawn(move || serve(stream, &serving, &answer));
            }
        });
        Self { name, address, shared, listener, acceptor: Some(acceptor) }
    }

    /// Its IP address.
    pub fn ip(&self) -> Ipv4Addr {
        match self.address {
            SocketAddr::V4(address) => *address.ip(),
            SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        }
    }

    /// The requests it has answered.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many health checks it has answered.
    pub fn health_checks(&self) -> usize {
        self.shared.health_checks.load(Ordering::Relaxed)
    }

    /// The status with which it answers `/healthz` from now on.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::Relaxed);
    }

    /// As an entry of a `file` provider, in the service `web`.
    pub fn entry(&self) -> String {
        format!("- {{ id: {}, address: \"{}\", tags: {{ Role: web }} }}\n", self.name, self.address)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // This ends the acceptor's wait, whatever is free: a connection to wake it could fail.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in self.shared.connections.lock().expect("unpoisoned").drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, answer: &str) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reading).lines();
    let (mut last, mut is_check) = (false, false);
    while let Some(Ok(line)) = lines.next() {
        last |= line.eq_ignore_ascii_case("connection: close");
        is_check |= line.starts_with("GET /healthz ");
        if line.is_empty() {
            let health = shared.health.load(Ordering::Relaxed);
            let written = if std::mem::take(&mut is_check) {
                shared.health_checks.fetch_add(1, Ordering::Relaxed);
                let status = if health == 0 { 200 } else { health };
                stream.write_all(format!("HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n").as_bytes())
            } else {
                shared.requests.fetch_add(1, Ordering::Relaxed);
                stream.write_all(answer.as_bytes())
            };
            if written.is_err() || last {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// Three, named a, b and c.
pub fn three() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::start)
}

/// Their names.
pub fn ids(backends: &[Backend]) -> Vec<&str> {
    backends.iter().map(|backend| backend.name.as_str()).collect()
}

/// The file of a `file` provider that holds these backends.
pub fn entries<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> String {
    let text: String = backends.into_iter().map(Backend::entry).collect();
    if text.is_empty() { "[]\n".to_owned() } else { text }
}
