//! Clients that never pause.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::until_or;

/// How long a connection, or any part of an answer, may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Client threads, each request of which opens a connection of its own.
///
/// Clients that keep a connection open may be cut off by nginx itself when it reloads, with elasticd or without; they
/// would measure nginx.
pub struct Load {
    stopped: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers with status 200, by body.
    pub answers: BTreeMap<String, usize>,
    /// Everything else.
    pub failures: Vec<String>,
}

impl Tally {
    /// Requests answered well.
    pub fn total(&self) -> usize {
        self.answers.values().sum()
    }

    /// Adds what others counted.
    pub fn add(&mut self, other: Self) {
        for (body, count) in other.answers {
            *self.answers.entry(body).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    /// That there were requests, and each was answered well.
    pub fn assert_none_failed(&self) {
        assert_eq!(self.failures, Vec::<String>::new(), "of {} requests", self.total());
        assert!(self.total() > 0, "no request was made");
    }
}

impl Load {
    /// Starts `clients` threads that ask this address.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stopped = Arc::clone(&stopped);
            thread::spawn(move || {
                let mut tally = Tally::default();
                while !stopped.load(Ordering::Relaxed) {
                    match ask(address) {
                        Some((200, body)) => *tally.answers.entry(body).or_default() += 1,
                        other => tally.failures.push(format!("{other:?}")),
                    }
                }
                tally
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stopped, clients }
    }

    /// Ends it, and adds up.
    pub fn stop(self) -> Tally {
        self.stopped.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            sum.add(client.join().expect("no client panics"));
        }
        sum
    }
}

/// One request on a connection of its own: status and body. `None`: no whole answer.
pub fn ask(address: SocketAddr) -> Option<(u16, String)> {
    get(address, "/")
}

/// The same for another path.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.set_write_timeout(Some(LIMIT)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Waits until only these backends answer at this address, and each of them does; `known` is said if they never do.
pub fn await_answers(address: SocketAddr, ids: &[&str], known: impl Fn() -> String) {
    let wanted: BTreeSet<_> = ids.iter().map(|id| (*id).to_owned()).collect();
    until_or(
        || format!("only {ids:?} answer; {}", known()),
        || {
            let answers: Option<BTreeSet<_>> =
                (0..4 * ids.len().max(2)).map(|_| ask(address).filter(|a| a.0 == 200).map(|a| a.1)).collect();
            (answers? == wanted).then_some(())
        },
    );
}
