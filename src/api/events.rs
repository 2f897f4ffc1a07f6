//! `GET /v1/watch`: server-sent events (WHATWG HTML, section 9.2): a snapshot, then one event a change.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::answer::Answers;
use super::documents::SnapshotDocuments;
use super::error::Problem;
use super::respond::Body;
use crate::model::{Name, Snapshot};

/// What a client that comes back says it has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The pause after which a client should come back, in milliseconds.
const RETRY: u64 = 1_000;

/// A stream of events as a body.
pub(super) type Events = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// The revision of each service that a watcher knows.
type Seen = BTreeMap<Name, u64>;

struct Watcher {
    answers: Arc<Answers>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    shutdown: CancellationToken,
    heartbeat: Duration,
    /// `None`: it has seen nothing yet.
    seen: Option<Seen>,
    /// What goes before the next event.
    preamble: String,
}

/// The stream. A comment goes out each `heartbeat` in which nothing changes, so that either side notices the other's
/// end.
pub(super) fn answer(
    answers: &Arc<Answers>,
    asked: &HeaderMap,
    heartbeat: Duration,
    shutdown: &CancellationToken,
) -> Result<Response<Body>, Problem> {
    let seen = asked.get(LAST_EVENT_ID).and_then(|id| answers.documents.known_as(id.to_str().ok()?));
    let watcher = Watcher {
        answers: Arc::clone(answers),
        snapshots: answers.sources.snapshot.clone(),
        shutdown: shutdown.clone(),
        heartbeat,
        seen,
        preamble: format!("retry: {RETRY}\n\n"),
    };
    let events: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(Frame::data(event.into())), watcher))
    }));
    let mut response = Response::new(Body::Right(StreamBody::new(events)));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies such as nginx would otherwise gather what should arrive at once.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

impl Watcher {
    /// The next event, or a comment. `None`: the end.
    async fn next(&mut self) -> Option<String> {
        let mut text = std::mem::take(&mut self.preamble);
        loop {
            let snapshot = self.snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                text += &self.event(&self.answers.documents.of(&snapshot));
            }
            if !text.is_empty() {
                return Some(text);
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                changed = self.snapshots.changed() => changed.ok()?,
                () = tokio::time::sleep(self.heartbeat) => return Some(":\n\n".to_owned()),
            }
        }
    }

    /// What has changed since the last event; nothing, if nothing has.
    fn event(&mut self, documents: &SnapshotDocuments) -> String {
        let now = documents.revisions();
        let before = self.seen.replace(now.clone());
        let Ok(id) = documents.id() else { return String::new() };
        match before {
            None => match documents.json() {
                Ok(document) => {
                    format!("event: snapshot\nid: {id}\ndata: {}\n\n", String::from_utf8_lossy(&document.bytes))
                }
                Err(_) => String::new(),
            },
            Some(before) if before == now => String::new(),
            Some(before) => {
                let changed = documents
                    .services()
                    .iter()
                    .filter(|(name, service)| before.get(*name) != Some(&service.revision()));
                let changed: Vec<_> = changed.filter_map(|(_, service)| service.json().ok()).collect();
                let changed: Vec<_> = changed.iter().map(|document| String::from_utf8_lossy(&document.bytes)).collect();
                let gone: Vec<_> =
                    before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("\"{name}\"")).collect();
                let (revision, changed, gone) = (documents.revision(), changed.join(","), gone.join(","));
                format!(
                    "event: change\nid: {id}\ndata: {{\"revision\":{revision},\"services\":[{changed}],\"gone\":[{gone}]}}\n\n"
                )
            }
        }
    }
}
