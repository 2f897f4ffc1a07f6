//! What one sidecar receives and sends, counted on a line between it and the server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procfs::process::Process;

use crate::harness::PATIENCE;
use crate::publisher::Publishers;
use crate::sidecars::{Processes, Sidecars as _};

const CHANGES: u32 = 8;

/// Signs of life in what is measured of quiet.
const BEATS: u64 = 4;

/// After a change: until nothing of it is under way any more.
const PAUSE: Duration = Duration::from_millis(1200);

/// A line to a server for one connection that counts the bytes of both directions, those of TCP and IP not included.
struct ApiCallCounter {
    port: u16,
    carried: Arc<AtomicU64>,
}

impl ApiCallCounter {
    fn to(address: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let meter = Self { port: listener.local_addr().expect("an address").port(), carried: Arc::default() };
        let carried = Arc::clone(&meter.carried);
        thread::spawn(move || {
            let (near, _) = listener.accept().expect("a connection");
            let far = TcpStream::connect(address).expect("a server");
            let [back, forth] = [&near, &far].map(|stream| stream.try_clone().expect("a copy"));
            let count = Arc::clone(&carried);
            thread::spawn(move || carry(far, back, &count));
            carry(near, forth, &carried);
        });
        meter
    }

    fn read(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

/// Until either end closes.
fn carry(mut from: TcpStream, mut to: TcpStream, carried: &AtomicU64) {
    let mut buffer = [0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        carried.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// What one sidecar costs, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    pub instances: u32,
    pub start: u64,
    pub change: u64,
    /// In an hour.
    pub quiet: u64,
    /// Of the sidecar's memory.
    pub memory: u64,
    /// Signs of life in an hour.
    pub heartbeats: u64,
}

/// Measures a fleet of one sidecar, polled at the default interval.
pub fn bytes(instances: u32) -> Bytes {
    let mut publishers = Publishers::start(instances, "15s");
    let meter = ApiCallCounter::to(publishers.nats.address());
    let mut sidecar = Processes::default();
    sidecar.grow(&format!("nats://127.0.0.1:{}", meter.port), 1);
    thread::sleep(PAUSE);
    let start = meter.read();

    // From a sign of life to another, so that none is counted in part.
    let begun = next_beat(&publishers, 1);
    let (since, before) = (Instant::now(), meter.read());
    let ended = next_beat(&publishers, BEATS);
    let hours = since.elapsed().as_secs_f64() / 3600.0;
    let hourly = |count: u64| (count as f64 / hours) as u64;
    let (quiet, heartbeats) = (hourly(meter.read() - before), hourly(ended - begun));

    let before = meter.read();
    for _ in 0..CHANGES {
        let change = publishers.plan();
        let made = publishers.make(&change);
        sidecar.reached(&change, made);
        thread::sleep(PAUSE);
    }
    let change = (meter.read() - before) / u64::from(CHANGES);
    let status = Process::new(sidecar.pid(0)).and_then(|process| process.status()).expect("it runs");
    Bytes { instances, start, change, quiet, memory: status.vmrss.expect("a size") * 1024, heartbeats }
}

/// Waits for so many signs of life, and until the last has arrived.
fn next_beat(publishers: &Publishers, more: u64) -> u64 {
    let (wanted, deadline) = (publishers.heartbeats() + more, Instant::now() + PATIENCE * 4);
    let count = loop {
        match publishers.heartbeats() {
            count if count >= wanted => break count,
            _ => assert!(Instant::now() < deadline, "no signs of life"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    thread::sleep(Duration::from_millis(100));
    count
}
