//! One question to one backend, bounded in time and in size.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::model::{HealthCheck, Probe};

/// The most bytes read at once, and so the longest status line with its headers.
const HEAD: usize = 16 * 1024;

/// How much of a body is read before the connection is closed. Closing before the end makes the kernel reset the
/// connection, which backends log as an error.
const BODY: usize = 64 * 1024;

/// What a probe brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The backend is well.
    Pass,
    /// It is not, for this reason.
    Fail(String),
    /// Nothing, as this machine could not even ask.
    Unasked(String),
}

/// Asks once. Takes at most the check's `timeout`.
pub async fn probe(address: SocketAddr, check: &HealthCheck) -> Outcome {
    let address = SocketAddr::new(address.ip(), check.port.unwrap_or(address.port()));
    let deadline = Instant::now() + check.timeout;
    let asked = async {
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if is_our_own(&error) => return Outcome::Unasked(error.to_string()),
            Err(error) => return Outcome::Fail(said(&error)),
        };
        match &check.probe {
            Probe::Tcp => Outcome::Pass,
            Probe::Http { path, host, status } => {
                let host = host.as_ref().map_or_else(|| address.to_string(), Clone::clone);
                // The verdict is known by then, and a body that never ends must not hold it back.
                let rest = |now: Instant| deadline.min(now + check.timeout / 4);
                get(stream, path, &host, status, rest).await.map_or_else(Outcome::Fail, |()| Outcome::Pass)
            }
        }
    };
    let late = |_| Outcome::Fail(format!("no answer within {:?}", check.timeout));
    tokio::time::timeout_at(deadline, asked).await.unwrap_or_else(late)
}

/// Whether an error in connecting says something about this machine alone: it is out of sockets, ports or memory.
fn is_our_own(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    use Errno::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(errno, Some(EADDRNOTAVAIL | EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// The same words on every machine, and without a number wherever there are words.
fn said(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |n| Errno::from_raw(n).desc().to_lowercase())
}

async fn get(
    stream: TcpStream,
    path: &str,
    host: &str,
    good: &[RangeInclusive<u16>],
    rest: impl Fn(Instant) -> Instant,
) -> Result<(), String> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, "elasticd")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let handshake = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| unanswered(&error))?;
        let status = response.status().as_u16();
        let _ = tokio::time::timeout_at(rest(Instant::now()), skim(response)).await;
        if good.iter().any(|range| range.contains(&status)) {
            Ok(())
        } else {
            Err(format!("status {status}, not {}", Ranges(good)))
        }
    };
    let mut exchange = std::pin::pin!(exchange);
    // As in `sys::http`: the connection is driven here, so that nothing outlives this call.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// What is wrong with what came instead of an answer.
fn unanswered(error: &hyper::Error) -> String {
    use std::error::Error as _;
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.map_or_else(|| format!("no HTTP answer: {error}"), said)
}

/// Reads the body to its end, if it is near.
async fn skim(response: Response<Incoming>) {
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY {
            return;
        }
    }
}

/// Statuses as the configuration writes them.
struct Ranges<'a>(&'a [RangeInclusive<u16>]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(f, "{comma}{start}")?,
                (start, end) => write!(f, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
