//! Answers as HTTP has them.

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::events::Events;

/// What an answer's body is: whole, or a stream of events.
pub(super) type Body = Either<Full<Bytes>, Events>;

/// An answer that must not be served from a cache without asking again.
pub(super) fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with_headers(status, HeaderMap::from_iter([(CACHE_CONTROL, NO_CACHE)]), body)
}

/// What [`respond`] says of caches.
pub(super) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// An answer with these headers.
pub(super) fn with_headers(status: StatusCode, headers: HeaderMap, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A body that is all there.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// [`respond`], in a given media type.
pub(super) fn respond_as(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = respond(status, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The media type of plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";
