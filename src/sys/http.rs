//! One HTTP/1.1 request to another program on this machine, bounded in time and size.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::endpoint::Endpoint;
use crate::units::HumanDuration;

/// The longest answer taken, in bytes.
pub const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no connection.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        source: std::io::Error,
    },
    /// There was no complete response.
    #[error("no complete response to {method} {path} from {endpoint}: {cause}")]
    Answer {
        /// Where.
        endpoint: Endpoint,
        /// How.
        method: Method,
        /// For what.
        path: String,
        /// What is wrong.
        cause: String,
    },
}

impl Error {
    /// Whether no program listens there.
    pub fn is_absent(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::Connect { source, .. } if matches!(source.kind(), NotFound | ConnectionRefused))
    }
}

/// Sends one request on a connection of its own, with a body of some type if there is one, and returns status and body.
///
/// # Errors
///
/// No program listens there, or no complete response of at most [`MAX_ANSWER`] bytes came within `limit`.
pub async fn send(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Option<(&'static str, String)>,
    limit: Duration,
) -> Result<(StatusCode, Bytes), Error> {
    let failed = |cause| Error::Answer { endpoint: endpoint.clone(), method: method.clone(), path: path.into(), cause };
    let mut request = Request::builder().method(method.clone()).uri(path).header(HOST, endpoint.authority());
    if let Some((kind, _)) = body {
        request = request.header(CONTENT_TYPE, kind);
    }
    let body = body.map(|(_, body)| body).unwrap_or_default();
    let request = request.body(Full::from(body)).map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let stream =
            endpoint.connect(limit).await.map_err(|source| Error::Connect { endpoint: endpoint.clone(), source })?;
        exchange(stream, request, MAX_ANSWER).await.map_err(failed)
    };
    tokio::time::timeout(limit, exchange)
        .await
        .unwrap_or_else(|_| Err(failed(format!("none within {}", HumanDuration(limit)))))
}

/// A text as one part of a path or a query, percent-encoded: what RFC 3986 calls unreserved stays.
pub fn encode(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// One request on an open connection. The error is a text, as it only ever becomes part of a message.
///
/// # Errors
///
/// No complete response of at most `max` bytes came.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    max: usize,
) -> Result<(StatusCode, Bytes), String> {
    let read = async |response: Response<Incoming>| {
        let status = response.status();
        let body = Limited::new(response.into_body(), max).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    exchange_with(stream, request, read).await.map_err(|error| error.to_string())?
}

/// The same, where `read` takes the answer.
///
/// # Errors
///
/// There was none.
pub async fn exchange_with<T, F: Future<Output = T>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    read: impl FnOnce(Response<Incoming>) -> F,
) -> hyper::Result<T> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async { Ok(read(sender.send_request(request).await?).await) };
    // The connection is driven beside the exchange rather than in a task, so that nothing outlives this call.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // Its end may come before the exchange has seen all that arrived; its error reaches the exchange too.
        _ = connection => exchange.await,
    }
}
