//! One probe of one backend, bounded in time and in size.

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
use crate::units::HumanDuration;

/// The longest status line with its headers, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// How much of a body is read before the connection is closed, in bytes. Closing before the end of the body makes the
/// kernel reset the connection, which backends log as an error.
const MAX_BODY: usize = 64 * 1024;

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The backend is healthy.
    Pass,
    /// The backend is not healthy, and why.
    Fail(String),
    /// This machine could not connect at all, which says nothing about the backend; why.
    LocalFault(String),
}

/// Probes the backend once. Takes at most the check's `timeout`.
pub async fn probe(address: SocketAddr, check: &HealthCheck) -> Outcome {
    let address = SocketAddr::new(address.ip(), check.port.unwrap_or(address.port()));
    let deadline = Instant::now() + check.timeout;
    let exchange = async {
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if is_local_fault(&error) => return Outcome::LocalFault(error.to_string()),
            Err(error) => return Outcome::Fail(describe(&error)),
        };
        match &check.probe {
            Probe::Tcp => Outcome::Pass,
            Probe::Http { path, host, status } => {
                let host = host.as_ref().map_or_else(|| address.to_string(), Clone::clone);
                // The result is known once the head has arrived; a body that never ends must not delay it.
                let body_deadline = |now: Instant| deadline.min(now + check.timeout / 4);
                get(stream, path, &host, status, body_deadline).await.map_or_else(Outcome::Fail, |()| Outcome::Pass)
            }
        }
    };
    let late = |_| Outcome::Fail(format!("no response within {}", HumanDuration(check.timeout)));
    tokio::time::timeout_at(deadline, exchange).await.unwrap_or_else(late)
}

/// Whether a connection failed because this machine is out of sockets, ports or memory.
fn is_local_fault(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    use Errno::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(errno, Some(EADDRNOTAVAIL | EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// The error in lower case and without its number: `connection refused`.
fn describe(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |n| Errno::from_raw(n).desc().to_lowercase())
}

async fn get(
    stream: TcpStream,
    path: &str,
    host: &str,
    expected: &[RangeInclusive<u16>],
    body_deadline: impl Fn(Instant) -> Instant,
) -> Result<(), String> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, "elasticd")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| no_response(&error))?;
        let status = response.status().as_u16();
        let _ = tokio::time::timeout_at(body_deadline(Instant::now()), discard_body(response)).await;
        if expected.iter().any(|range| range.contains(&status)) {
            Ok(())
        } else {
            Err(format!("status {status}, expected {}", Ranges(expected)))
        }
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection is driven here rather than in a task of its own, so that nothing outlives this call.
    tokio::select! {
        biased;
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}

/// Why no response was received.
fn no_response(error: &hyper::Error) -> String {
    use std::error::Error as _;
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.map_or_else(|| format!("no HTTP response: {error}"), describe)
}

/// Reads the body to its end, or up to [`MAX_BODY`].
async fn discard_body(response: Response<Incoming>) {
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MAX_BODY {
            return;
        }
    }
}

/// Status ranges as the configuration writes them.
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
