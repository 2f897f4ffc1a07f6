//! A server's answer, read up to its bound.

use std::fmt;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::sys::text::{chain, one_line};

/// How much of a refusal is read for the message, in bytes, and how long it is waited for.
const REFUSAL: (usize, Duration) = (2048, Duration::from_secs(1));

/// How much of the server's own text is kept, in characters.
const MAX_SAID: usize = 300;

/// How far an answer has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    head: Option<(StatusCode, Option<String>)>,
    received: usize,
    announced: Option<u64>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((status, kind)) = &self.head else { return f.write_str("nothing came") };
        write!(f, "{status}, ")?;
        if let Some(kind) = kind {
            write!(f, "{kind}, ")?;
        }
        match self.announced {
            Some(announced) if announced != self.received as u64 => {
                write!(f, "{} of {announced} bytes", self.received)
            }
            _ => write!(f, "{} bytes", self.received),
        }
    }
}

/// A whole answer, or as much of it as matters.
#[derive(Debug)]
pub enum Answer {
    /// `200`, whole.
    Content {
        /// `ETag`.
        etag: Option<HeaderValue>,
        /// `Last-Modified`.
        modified: Option<HeaderValue>,
        /// The body.
        body: Vec<u8>,
    },
    /// `304`.
    NotModified,
    /// Any other status.
    Status {
        /// The status.
        status: StatusCode,
        /// The seconds after which it wants to be asked again, if it says; 0, if it says a date.
        retry_after: Option<u32>,
        /// Where it redirects to, or the beginning of the body.
        said: String,
    },
    /// More than the client takes.
    TooLarge,
    /// A `Content-Encoding`, which was not asked for.
    Encoded(String),
    /// It ended too early, for this reason.
    Broken(String),
}

/// Reads an answer of at most `max` bytes.
pub(super) async fn read(response: Response<Incoming>, max: usize, got: &mut Progress) -> Answer {
    let (head, mut body) = response.into_parts();
    let text =
        |name: HeaderName| head.headers.get(name).map(|v| one_line(&String::from_utf8_lossy(v.as_bytes()), MAX_SAID));
    got.head = Some((head.status, text(header::CONTENT_TYPE)));
    got.announced = body.size_hint().exact();
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Answer::NotModified,
        status => {
            let mut said = Vec::new();
            let _ = tokio::time::timeout(REFUSAL.1, collect(&mut body, REFUSAL.0, &mut said, got)).await;
            let said = text(header::LOCATION).unwrap_or_else(|| beginning(&said));
            return Answer::Status { status, retry_after: retry_after(&head.headers), said };
        }
    }
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Answer::Encoded(encoding);
    }
    if got.announced.is_some_and(|announced| announced > max as u64) {
        return Answer::TooLarge;
    }
    let mut whole = Vec::new();
    match collect(&mut body, max, &mut whole, got).await {
        Err(reason) => Answer::Broken(reason),
        Ok(()) if whole.len() > max => Answer::TooLarge,
        Ok(()) => Answer::Content {
            etag: head.headers.get(header::ETAG).cloned(),
            modified: head.headers.get(header::LAST_MODIFIED).cloned(),
            body: whole,
        },
    }
}

/// Reads to the end, or until there is more than `max`.
async fn collect(body: &mut Incoming, max: usize, whole: &mut Vec<u8>, got: &mut Progress) -> Result<(), String> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| chain(&error))?;
        if let Some(data) = frame.data_ref() {
            whole.extend_from_slice(data);
            got.received += data.len();
        }
        if whole.len() > max {
            break;
        }
    }
    Ok(())
}

/// The beginning of a body, for a message.
pub fn beginning(body: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(&body[..body.len().min(REFUSAL.0)]), MAX_SAID)
}

/// The seconds it says; 0, if it says a date.
fn retry_after(headers: &HeaderMap) -> Option<u32> {
    let value = headers.get(header::RETRY_AFTER)?;
    Some(value.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default())
}
