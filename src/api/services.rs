//! `GET /v1/services` and `GET /v1/services/{name}`: backends at a revision.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};

use super::context::Context;
use super::documents::{Document, ServiceDocuments, SnapshotDocuments};
use super::error::{MAX_KNOWN, Problem, echo};
use super::query::Format;
use super::respond::{Body, complete, with_headers};
use super::sources::Sources;
use crate::model::Name;
use crate::registry::{Report, ServiceReport};
use crate::status::Age;

/// All services. Its age is that of the service observed longest ago.
pub(super) fn all(context: &Context, format: Format, request: &HeaderMap) -> Result<Response<Body>, Problem> {
    let documents = context.newest().ok_or_else(|| Problem::NotYet { why: "no snapshot exists yet".to_owned() })?;
    let document = match format {
        Format::Json => documents.json()?,
        Format::Text => documents.text(),
    };
    let observed = {
        let report = context.sources.registry.borrow();
        let served = |name: &Name| documents.service(name.as_str()).is_some();
        report
            .services
            .iter()
            .filter(|(name, _)| served(name))
            .filter_map(|(_, service)| service.status.age_seconds)
            .min()
    };
    Ok(represent(document, observed, request))
}

/// One service.
pub(super) fn one(
    context: &Context,
    name: &str,
    format: Format,
    request: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let documents = context.newest();
    let service = found(documents.as_deref(), &context.sources, name)?;
    let document = match format {
        Format::Json => service.json()?,
        Format::Text => service.text(),
    };
    let observed = context.sources.registry.borrow().services.get(name).and_then(|report| report.status.age_seconds);
    Ok(represent(document, observed, request))
}

/// The same answer for a client that has this revision already: 304.
pub(super) fn unchanged(mut answer: Response<Body>) -> Response<Body> {
    if answer.status() == StatusCode::OK {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        *answer.body_mut() = complete("");
        answer.headers_mut().remove(CONTENT_TYPE);
    }
    answer
}

/// The revision of a service, or of all of them. `None`: there is none yet.
pub(super) fn revision(context: &Context, name: Option<&str>) -> Option<u64> {
    let documents = context.newest()?;
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

/// The problem of a name that no service has or is going to have.
pub(super) fn unknown(context: &Context, name: &str) -> Option<Problem> {
    found(context.newest().as_deref(), &context.sources, name)
        .err()
        .filter(|problem| matches!(problem, Problem::UnknownService { .. }))
}

/// The response with a document. Cloning is cheap: the body and the headers are those of the document.
fn represent(document: &Document, observed: Option<Age>, request: &HeaderMap) -> Response<Body> {
    let headers = document.headers(observed.map(Age::seconds));
    let answer = with_headers(StatusCode::OK, headers, document.bytes.clone());
    if matches_any(request, &document.etag) { unchanged(answer) } else { answer }
}

/// A copy of the headers that say what the client has.
pub(super) fn known(request: &HeaderMap) -> HeaderMap {
    let copies = request.get_all(IF_NONE_MATCH).iter().filter_map(|tag| HeaderValue::from_bytes(tag.as_bytes()).ok());
    copies.map(|copy| (IF_NONE_MATCH, copy)).collect()
}

/// Weak comparison with a list of entity tags, or with `*` (RFC 9110, 13.1.2).
fn matches_any(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let lists = request.get_all(IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
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

/// What a service without backends waits for.
pub(super) fn awaited(service: &ServiceReport, report: &Report) -> String {
    if let Some(held) = &service.status.held {
        return format!("held: {}", held.message);
    }
    let awaited = service.status.sources.iter().filter(|source| source.age_seconds.is_none()).map(|source| {
        let provider = &source.provider;
        match report.providers.get(provider).and_then(|provider| provider.status.error.as_deref()) {
            Some(error) => format!("waiting for provider {provider}; its last poll failed: {error}"),
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
    use crate::api::testing::{set, snapshot};

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
