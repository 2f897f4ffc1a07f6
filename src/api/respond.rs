//! HTTP responses.

use std::convert::Infallible;
use std::pin::Pin;

use futures_util::stream::Stream;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::headers::{JSON, NO_CACHE};

/// A stream of events as a body.
pub(super) type Events = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// A response's body: complete, or a stream of events.
pub(super) type Body = Either<Full<Bytes>, Events>;

/// A response that a cache must not serve without asking again.
pub(super) fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with_headers(status, HeaderMap::from_iter([(CACHE_CONTROL, NO_CACHE)]), body)
}

/// A response with these headers.
pub(super) fn with_headers(status: StatusCode, headers: HeaderMap, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(complete(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A complete body.
pub(super) fn complete(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// [`respond`], with a media type.
pub(super) fn respond_as(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = respond(status, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// [`respond`], with a value as JSON.
pub(super) fn respond_json(status: StatusCode, value: &impl Serialize) -> Result<Response<Body>, serde_json::Error> {
    Ok(respond_as(status, JSON, serde_json::to_vec(value)?))
}
