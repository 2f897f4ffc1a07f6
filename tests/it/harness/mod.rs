//! What end-to-end tests are made of: the real program, real frontends, backends that say who they are, and clients.

pub mod apache;
pub mod backend;
pub mod caddy;
pub mod changes;
pub mod elasticd;
pub mod envoy;
#[cfg(feature = "nats")]
pub mod fleet;
pub mod haproxy;
pub mod http;
pub mod load;
#[cfg(feature = "nats")]
pub mod nats;
pub mod nginx;
pub mod pools;
pub mod prometheus;
pub mod varnish;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything that should happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something.
///
/// # Panics
///
/// If it never does.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_or(|| what.to_owned(), look)
}

/// The same, with words that are made only when they are needed, of what is known by then.
///
/// # Panics
///
/// If it never does.
pub fn until_or<T>(what: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A loopback address that no other test of this run uses, so that each backend has its own, as in a cloud.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // Other runs at the same time are told apart by their process id.
    let [_, _, high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let run = u8::try_from(std::process::id() % 100).expect("below 100") + 100;
    Ipv4Addr::new(127, run, high, low)
}

/// A TCP port on 127.0.0.1 that is free now, and was given to nobody else of this run.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if GIVEN.lock().expect("unpoisoned").insert(port) {
            return port;
        }
    }
}
