//! Responses, serialised once per change and lazily, headers and body: a request counts references only.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use hyper::body::Bytes;
use hyper::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};

use super::choice::Choice;
use super::endpoints;
use super::headers::{JSON, NO_CACHE, REVISION, TEXT};
use super::types::Service;
use crate::model::{Name, ServiceSet, Snapshot};

/// One representation of a resource.
#[derive(Debug)]
pub(super) struct Document {
    /// The body.
    pub(super) bytes: Bytes,
    /// A strong entity tag: the revision and a hash of the content. A revision alone would name two contents once
    /// the state directory is lost and revisions start anew.
    pub(super) etag: HeaderValue,
    /// The response's headers, and the age in seconds that they last held: most requests are answered with the same.
    head: Mutex<(HeaderMap, Option<u64>)>,
}

impl Document {
    fn new(revision: u64, media_type: &'static str, bytes: Vec<u8>) -> Self {
        // The hash may differ between versions of elasticd: then an answer is sent once more than needed.
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let tag = format!("\"{revision:x}-{:016x}\"", hasher.finish());
        // Only quotes, hexadecimal digits and a hyphen: always a header value. The fallback matches nothing.
        let etag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
        let headers = HeaderMap::from_iter([
            (CACHE_CONTROL, NO_CACHE),
            (CONTENT_TYPE, HeaderValue::from_static(media_type)),
            (ETAG, etag.clone()),
            (REVISION, HeaderValue::from(revision)),
        ]);
        Self { bytes: bytes.into(), etag, head: Mutex::new((headers, None)) }
    }

    /// The response's headers, with the age in seconds, if it is known.
    pub(super) fn headers(&self, age: Option<u64>) -> HeaderMap {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let (headers, written) = &mut *head;
        if *written != age {
            *written = age;
            match age {
                Some(seconds) => drop(headers.insert(AGE, HeaderValue::from(seconds))),
                None => drop(headers.remove(AGE)),
            }
        }
        headers.clone()
    }
}

/// One service's representations.
#[derive(Debug)]
pub(super) struct ServiceDocuments {
    name: Name,
    set: Arc<ServiceSet>,
    json: OnceLock<Document>,
    text: OnceLock<Document>,
    choice: OnceLock<Choice>,
    assignment: OnceLock<Document>,
}

impl ServiceDocuments {
    fn new(name: Name, set: Arc<ServiceSet>) -> Self {
        let (json, text, choice, assignment) = Default::default();
        Self { name, set, json, text, choice, assignment }
    }

    /// What backends are picked from.
    pub(super) fn choice(&self) -> &Choice {
        self.choice.get_or_init(|| Choice::new(&self.set))
    }

    /// Its endpoints for Envoy: a `ClusterLoadAssignment` in JSON.
    pub(super) fn assignment(&self) -> &Document {
        self.assignment.get_or_init(|| {
            let assignment = endpoints::assignment(self.name.as_str(), &self.set.backends);
            Document::new(self.set.revision, JSON, assignment.into_bytes())
        })
    }

    /// The revision at which the service last changed.
    pub(super) fn revision(&self) -> u64 {
        self.set.revision
    }

    /// `{"name", "revision", "backends"}`.
    pub(super) fn json(&self) -> Result<&Document, serde_json::Error> {
        get_or_try_init(&self.json, || {
            let Self { name, set, .. } = self;
            let service =
                Service { name: Cow::Borrowed(name), revision: set.revision, backends: (&set.backends[..]).into() };
            Ok(Document::new(set.revision, JSON, serde_json::to_vec(&service)?))
        })
    }

    /// One `ip:port` a line, IPv6 in brackets.
    pub(super) fn text(&self) -> &Document {
        self.text.get_or_init(|| {
            let mut text = String::new();
            for backend in &self.set.backends {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}", SocketAddr::new(backend.address, backend.port));
            }
            Document::new(self.set.revision, TEXT, text.into_bytes())
        })
    }
}

/// All representations of one snapshot.
#[derive(Debug)]
pub(super) struct SnapshotDocuments {
    snapshot: Arc<Snapshot>,
    services: BTreeMap<Name, Arc<ServiceDocuments>>,
    json: OnceLock<Document>,
    text: OnceLock<Document>,
}

impl SnapshotDocuments {
    fn new(snapshot: Arc<Snapshot>, previous: &Self) -> Self {
        let services = snapshot.services.iter().map(|(name, set)| {
            let kept = previous.services.get(name).filter(|kept| Arc::ptr_eq(&kept.set, set));
            let made = || Arc::new(ServiceDocuments::new(name.clone(), Arc::clone(set)));
            (name.clone(), kept.map_or_else(made, Arc::clone))
        });
        Self { services: services.collect(), snapshot, json: OnceLock::new(), text: OnceLock::new() }
    }

    /// The snapshot's revision.
    pub(super) fn revision(&self) -> u64 {
        self.snapshot.revision
    }

    /// The revision at which each service last changed.
    pub(super) fn revisions(&self) -> BTreeMap<Name, u64> {
        self.services.iter().map(|(name, service)| (name.clone(), service.revision())).collect()
    }

    /// All services, ordered by name.
    pub(super) fn services(&self) -> &BTreeMap<Name, Arc<ServiceDocuments>> {
        &self.services
    }

    /// By name; takes any text, as a client may ask for any.
    pub(super) fn service(&self, name: &str) -> Option<&Arc<ServiceDocuments>> {
        self.services.get(name)
    }

    /// `service ip:port weight`, one backend a line, IPv6 in brackets.
    pub(super) fn text(&self) -> &Document {
        self.text.get_or_init(|| {
            let mut text = String::new();
            for (name, service) in &self.services {
                for backend in &service.set.backends {
                    // Writing to a String cannot fail.
                    let _ =
                        writeln!(text, "{name} {} {}", SocketAddr::new(backend.address, backend.port), backend.weight);
                }
            }
            Document::new(self.snapshot.revision, TEXT, text.into_bytes())
        })
    }

    /// Tells this snapshot from every other, by its revision and a hash of its content.
    pub(super) fn id(&self) -> Result<String, serde_json::Error> {
        Ok(self.json()?.etag.to_str().unwrap_or_default().trim_matches('"').to_owned())
    }

    /// `{"revision", "services"}`, made of the services' own documents, so that only what changed is serialised.
    pub(super) fn json(&self) -> Result<&Document, serde_json::Error> {
        get_or_try_init(&self.json, || {
            let mut bytes = format!("{{\"revision\":{},\"services\":[", self.snapshot.revision).into_bytes();
            for (index, service) in self.services.values().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                bytes.extend_from_slice(&service.json()?.bytes);
            }
            bytes.extend_from_slice(b"]}");
            Ok(Document::new(self.snapshot.revision, JSON, bytes))
        })
    }
}

fn get_or_try_init<E>(cell: &OnceLock<Document>, make: impl FnOnce() -> Result<Document, E>) -> Result<&Document, E> {
    match cell.get() {
        Some(made) => Ok(made),
        None => make().map(|made| cell.get_or_init(|| made)),
    }
}

/// The newest snapshot's documents, and what is kept of those before.
#[derive(Debug)]
pub(super) struct Documents {
    newest: RwLock<Arc<SnapshotDocuments>>,
    earlier: Mutex<VecDeque<Earlier>>,
}

/// A snapshot's id, and the revision of each of its services.
type Earlier = (String, BTreeMap<Name, u64>);

/// Snapshots that a watcher may have seen last before it was cut off; of others it gets the whole again.
const MAX_EARLIER: usize = 64;

impl Documents {
    pub(super) fn new() -> Self {
        let nothing = SnapshotDocuments {
            snapshot: Arc::default(),
            services: BTreeMap::new(),
            json: OnceLock::new(),
            text: OnceLock::new(),
        };
        Self { newest: RwLock::new(Arc::new(nothing)), earlier: Mutex::default() }
    }

    /// The revisions of the services in the snapshot that had this id. `None`: it is not known any more.
    pub(super) fn known_as(&self, id: &str) -> Option<BTreeMap<Name, u64>> {
        let newest = Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner));
        if newest.id().is_ok_and(|newest| newest == id) {
            return Some(newest.revisions());
        }
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.iter().find(|(earlier, _)| earlier == id).map(|(_, revisions)| revisions.clone())
    }

    /// The snapshot's documents, shared with those of the snapshot before as far as services are the same.
    pub(super) fn of(&self, snapshot: &Arc<Snapshot>) -> Arc<SnapshotDocuments> {
        let current = Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner));
        if Arc::ptr_eq(&current.snapshot, snapshot) {
            return current;
        }
        let mut current = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current.snapshot, snapshot) {
            // One that no client was sent has no id, and no client can come back to it.
            if current.json.get().is_some()
                && let Ok(id) = current.id()
            {
                let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
                earlier.truncate(MAX_EARLIER - 1);
                earlier.push_front((id, current.revisions()));
            }
            *current = Arc::new(SnapshotDocuments::new(Arc::clone(snapshot), &current));
        }
        Arc::clone(&current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{set, snapshot};

    #[test]
    fn writes_json_and_text() {
        let documents = Documents::new();
        let web = set(2, &[("i-1", "10.0.0.1", 80), ("i-2", "2001:db8::1", 8080)]);
        let all = documents.of(&snapshot(3, &[("db", &set(3, &[])), ("web", &web)]));
        assert_eq!(all.service("web").expect("web").text().bytes, "10.0.0.1:80\n[2001:db8::1]:8080\n");
        assert_eq!(all.service("db").expect("db").text().bytes, "");
        assert_eq!(all.text().bytes, "web 10.0.0.1:80 1\nweb [2001:db8::1]:8080 1\n");
        let json: serde_json::Value = serde_json::from_slice(&all.json().expect("JSON").bytes).expect("JSON");
        assert_eq!(json["revision"], 3);
        assert_eq!(json["services"][0], serde_json::json!({"name": "db", "revision": 3, "backends": []}));
        assert_eq!(
            json["services"][1]["backends"][1],
            serde_json::json!({"id": "i-2", "address": "2001:db8::1", "port": 8080, "zone": null, "weight": 1,
                "state": "up", "tags": {}})
        );
    }

    #[test]
    fn serialises_once_and_keeps_what_did_not_change() {
        let documents = Documents::new();
        let (web, db) = (set(1, &[("i-1", "10.0.0.1", 80)]), set(1, &[]));
        let first = snapshot(1, &[("db", &db), ("web", &web)]);
        let before = documents.of(&first);
        assert!(Arc::ptr_eq(&before, &documents.of(&first)));
        let bytes = before.service("web").expect("web").json().expect("JSON").bytes.as_ptr();
        let after = documents.of(&snapshot(2, &[("db", &set(2, &[("i-2", "10.0.0.2", 80)])), ("web", &web)]));
        assert_eq!(after.service("web").expect("web").json().expect("JSON").bytes.as_ptr(), bytes);
        let assignment = |all: &SnapshotDocuments| all.service("web").expect("web").assignment().bytes.as_ptr();
        assert_eq!(assignment(&after), assignment(&before));
        assert!(!Arc::ptr_eq(after.service("db").expect("db"), before.service("db").expect("db")));
    }

    #[test]
    fn the_head_says_what_the_document_is_and_how_old() {
        let document = Document::new(7, TEXT, b"10.0.0.1:80\n".to_vec());
        let with_age = |age| {
            let headers = document.headers(age);
            let said = ["cache-control", "content-type", "x-elasticd-revision", "age"];
            said.map(|name| headers.get(name).map(|value| value.to_str().expect("text").to_owned()))
        };
        for (age, said) in [(None, None), (Some(0), Some("0")), (Some(12), Some("12")), (Some(3), Some("3"))] {
            let known = ["no-cache", TEXT, "7"].map(|value| Some(value.to_owned()));
            let [cached, media_type, revision] = known;
            assert_eq!(with_age(age), [cached, media_type, revision, said.map(str::to_owned)]);
        }
        assert_eq!(document.headers(None)["etag"], document.etag);
    }

    #[test]
    fn equal_revisions_of_different_content_have_different_tags() {
        let tag = |address| {
            let all = Documents::new().of(&snapshot(1, &[("web", &set(1, &[("i-1", address, 80)]))]));
            let web = all.service("web").expect("web");
            [web.json().expect("JSON").etag.clone(), web.text().etag.clone(), all.json().expect("JSON").etag.clone()]
        };
        let all: std::collections::HashSet<_> = tag("10.0.0.1").into_iter().chain(tag("10.0.0.2")).collect();
        assert_eq!(all.len(), 6);
        assert_eq!(tag("10.0.0.1"), tag("10.0.0.1"));
    }
}
