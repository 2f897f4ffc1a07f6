//! `GET /v1/watch`: server-sent events (WHATWG HTML, section 9.2): a snapshot, then one event a change.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::documents::SnapshotDocuments;
use super::headers::{ACCEL_BUFFERING, EVENT_STREAM, LAST_EVENT_ID};
use super::respond::Body;
use crate::model::{Name, Snapshot};

/// The pause after which a client should come back, in milliseconds.
const RETRY: u64 = 1_000;

/// The revision of each service that a watcher knows.
type Seen = BTreeMap<Name, u64>;

struct Watcher {
    context: Arc<Context>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    shutdown: CancellationToken,
    heartbeat: Duration,
    /// `None`: it has seen nothing yet.
    seen: Option<Seen>,
    /// Sent before the next event.
    preamble: String,
}

/// The stream. A comment is sent after each `heartbeat` without a change, so that either side notices when the other
/// is gone.
pub(super) fn answer(
    context: &Arc<Context>,
    request: &HeaderMap,
    heartbeat: Duration,
    shutdown: &CancellationToken,
) -> Response<Body> {
    let seen = request.get(LAST_EVENT_ID).and_then(|id| context.documents.known_as(id.to_str().ok()?));
    let watcher = Watcher {
        context: Arc::clone(context),
        snapshots: context.sources.snapshot.clone(),
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
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

impl Watcher {
    /// The next event, or a comment. `None`: the end.
    async fn next(&mut self) -> Option<String> {
        let mut text = std::mem::take(&mut self.preamble);
        loop {
            let snapshot = self.snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                text += &self.event(&self.context.documents.of(&snapshot));
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

    /// The changes since the last event as an event; empty if there are none.
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
