//! `GET /v1/services` and `GET /v1/services/{name}`: backends at a revision.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};

use super::answer::Answers;
use super::documents::{Document, ServiceDocuments, SnapshotDocuments};
use super::error::{MAX_KNOWN, Problem, echo};
use super::respond::{Body, whole, with_headers};
use super::route::Format;
use super::{Sources, age_seconds};
use crate::model::Name;
use crate::registry::{Report, ServiceReport};

/// The revision at which what is answered last changed.
pub(super) const REVISION: HeaderName = HeaderName::from_static("x-elasticd-revision");

/// All services. Its age is that of the service observed longest ago.
pub(super) fn all(answers: &Answers, format: Format, asked: &HeaderMap) -> Result<Response<Body>, Problem> {
    let documents = newest(answers).ok_or_else(|| Problem::NotYet { why: "no snapshot exists yet".to_owned() })?;
    let document = match format {
        Format::Json => documents.json().map_err(internal)?,
        Format::Text => documents.text(),
    };
    let observed = {
        let report = answers.sources.registry.borrow();
        let served = |name: &Name| documents.service(name.as_str()).is_some();
        report.services.iter().filter(|(name, _)| served(name)).filter_map(|(_, service)| service.observed()).min()
    };
    Ok(represent(document, observed, asked))
}

/// One service.
pub(super) fn one(answers: &Answers, name: &str, format: Format, asked: &HeaderMap) -> Result<Response<Body>, Problem> {
    let documents = newest(answers);
    let service = found(documents.as_deref(), &answers.sources, name)?;
    let document = match format {
        Format::Json => service.json().map_err(internal)?,
        Format::Text => service.text(),
    };
    let observed = answers.sources.registry.borrow().services.get(name).and_then(|report| report.observed());
    Ok(represent(document, observed, asked))
}

/// The same answer for one who has this revision already: 304.
pub(super) fn unchanged(mut answer: Response<Body>) -> Response<Body> {
    if answer.status() == StatusCode::OK {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        *answer.body_mut() = whole("");
        answer.headers_mut().remove(CONTENT_TYPE);
    }
    answer
}

/// The revision of a service, or of all of them. `None`: there is none yet.
pub(super) fn revision(answers: &Answers, name: Option<&str>) -> Option<u64> {
    let documents = newest(answers)?;
    name.map_or_else(|| Some(documents.revision()), |name| documents.service(name).map(|service| service.revision()))
}

/// A service's documents, or why there are none.
pub(super) fn found<'a>(
    documents: Option<&'a SnapshotDocuments>,
    sources: &Sources,
    name: &str,
) -> Result<&'a ServiceDocuments, Problem> {
    let service = documents.and_then(|documents| documents.service(name));
    service.map(|service| &**service).ok_or_else(|| absent(sources, name))
}

/// What is wrong with the name of a service that nobody has, now or soon.
pub(super) fn unknown(answers: &Answers, name: &str) -> Option<Problem> {
    found(newest(answers).as_deref(), &answers.sources, name)
        .err()
        .filter(|problem| matches!(problem, Problem::UnknownService { .. }))
}

/// The documents of the newest snapshot. `None`: there is none yet.
pub(super) fn newest(answers: &Answers) -> Option<Arc<SnapshotDocuments>> {
    // Cloned first: a borrow would keep the registry from writing while documents are looked up.
    let snapshot = answers.sources.snapshot.borrow().clone()?;
    Some(answers.documents.of(&snapshot))
}

fn internal(error: serde_json::Error) -> Problem {
    Problem::Internal { why: error.to_string() }
}

/// What is cloned is counted references: the body and the headers are those of the document.
fn represent(document: &Document, observed: Option<SystemTime>, asked: &HeaderMap) -> Response<Body> {
    let headers = document.headers(observed.map(age_seconds));
    let answer = with_headers(StatusCode::OK, headers, document.bytes.clone());
    if matches_any(asked, &document.etag) { unchanged(answer) } else { answer }
}

/// A copy of what a request says the client has.
pub(super) fn known(asked: &HeaderMap) -> HeaderMap {
    let copies = asked.get_all(IF_NONE_MATCH).iter().filter_map(|tag| HeaderValue::from_bytes(tag.as_bytes()).ok());
    copies.map(|copy| (IF_NONE_MATCH, copy)).collect()
}

/// Weak comparison with a list of entity tags, or with `*` (RFC 9110, 13.1.2).
fn matches_any(asked: &HeaderMap, etag: &HeaderValue) -> bool {
    let lists = asked.get_all(IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
    lists
        .flat_map(|list| list.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
}

/// Why the snapshot lacks a service.
fn absent(sources: &Sources, name: &str) -> Problem {
    let report = Arc::clone(&sources.registry.borrow());
    if let Some(service) = report.services.get(name) {
        return Problem::NotYet { why: format!("service {name}: {}", awaited(service, &report)) };
    }
    let snapshot = sources.snapshot.borrow().clone();
    if report.services.is_empty() && snapshot.is_none() {
        return Problem::NotYet { why: "no snapshot exists yet".to_owned() };
    }
    let served = snapshot.iter().flat_map(|snapshot| snapshot.services.keys());
    let known: BTreeSet<&Name> = report.services.keys().chain(served).collect();
    Problem::UnknownService {
        name: echo(name),
        more: known.len().saturating_sub(MAX_KNOWN),
        known: known.into_iter().take(MAX_KNOWN).map(Name::to_string).collect(),
    }
}

/// What a service without a set waits for.
pub(super) fn awaited(service: &ServiceReport, report: &Report) -> String {
    if let Some(hold) = service.held() {
        return format!("held back: {hold}");
    }
    let awaited = service.sources.iter().filter(|source| source.observed.is_none()).map(|source| {
        let provider = &source.provider;
        match report.providers.get(provider).and_then(|provider| provider.error.as_deref()) {
            Some(error) => format!("waiting for provider {provider}, whose last poll failed: {error}"),
            None => format!("waiting for the first complete answer of provider {provider}"),
        }
    });
    awaited.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::api::documents::Documents;
    use crate::api::documents::tests::{set, snapshot};

    #[tokio::test]
    async fn the_body_of_an_answer_is_the_document_not_a_copy() {
        let all = Documents::new().of(&snapshot(1, &[("web", &set(1, &[("i-1", "10.0.0.1", 80)]))]));
        let document = all.service("web").expect("web").json().expect("JSON");
        let body = represent(document, None, &HeaderMap::new()).into_body().frame().await.expect("a frame");
        let data = body.expect("a body").into_data().expect("data");
        assert_eq!((data.as_ptr(), data.len()), (document.bytes.as_ptr(), document.bytes.len()));
    }

    fn asked(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (IF_NONE_MATCH, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn compares_tags_weakly_in_lists_over_several_headers() {
        let etag = HeaderValue::from_static("\"7-ab\"");
        for hit in [&["\"7-ab\""][..], &["W/\"7-ab\""], &["*"], &["\"x\" , \"7-ab\""], &["\"x\"", "W/\"7-ab\",\"y\""]] {
            assert!(matches_any(&asked(hit), &etag), "{hit:?}");
        }
        for miss in [&[][..], &["\"7-a\""], &["7-ab"], &["w/\"7-ab\""], &[""], &["\"*\""]] {
            assert!(!matches_any(&asked(miss), &etag), "{miss:?}");
        }
    }
}
