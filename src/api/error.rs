//! What is answered when a request cannot be: `application/problem+json` (RFC 9457).

use std::fmt::Write;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::respond::{Body, respond};
use crate::sys::text;

/// Names of services listed in an answer about an unknown one.
pub(super) const MAX_KNOWN: usize = 20;

/// Characters of the client's own words that an answer repeats.
const MAX_ECHO: usize = 100;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// No resource has this path.
    #[error("there is nothing at {path:?}")]
    UnknownPath {
        /// The path asked for, shortened.
        path: String,
    },
    /// The resource has no such method.
    #[error("{path:?} cannot be asked with {method}: use {allowed}")]
    Method {
        /// The path asked for, shortened.
        path: String,
        /// The method asked for, shortened.
        method: String,
        /// The methods it has.
        allowed: &'static str,
    },
    /// The resource changes something, and this is not the admin listener.
    #[error("{path:?} is for the admin listener alone: ask at api.admin_socket")]
    AdminOnly {
        /// The path asked for, shortened.
        path: String,
    },
    /// The admin listener does not serve this user.
    #[error("user {uid} may not use the admin listener: root may, and the user that elasticd runs as")]
    Denied {
        /// The user's id.
        uid: u32,
    },
    /// The body does not hold what it should.
    #[error("the body is refused: {why}")]
    Body {
        /// What is wrong with it.
        why: String,
    },
    /// The change cannot be made.
    #[error("{why}")]
    Refused {
        /// Why not.
        why: String,
    },
    /// It is too late for a change.
    #[error("elasticd is stopping")]
    Stopping,
    /// The resource takes no such query key.
    #[error("unknown query key {key:?}: {}", takes(allowed))]
    UnknownKey {
        /// The key, shortened.
        key: String,
        /// The keys it takes.
        allowed: &'static [&'static str],
    },
    /// A query key that is given twice.
    #[error("the query key {key:?} is given more than once")]
    RepeatedKey {
        /// The key.
        key: &'static str,
    },
    /// A query key has a value it does not take.
    #[error("the query key {key:?} does not take {value:?}: use {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, shortened.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// No service has this name.
    #[error("there is no service {name:?}{}", exist(known, *more))]
    UnknownService {
        /// The name asked for, shortened.
        name: String,
        /// Some that exist.
        known: Vec<String>,
        /// How many exist beside them.
        more: usize,
    },
    /// No service has anything to say of the instance.
    #[error(
        "no provider has reported an instance {id:?} that a selector looks for; a provider that filters at its source asks for no others"
    )]
    UnknownInstance {
        /// The id asked for, shortened.
        id: String,
    },
    /// The service has no backend to pick.
    #[error("service {name} has no backend that takes traffic")]
    NoBackend {
        /// The service.
        name: String,
    },
    /// The answer is not known yet, and will be.
    #[error("{why}")]
    NotYet {
        /// What is waited for.
        why: String,
    },
    /// A fault of ours.
    #[error("the answer could not be written: {why}; this is a fault of elasticd")]
    Internal {
        /// What went wrong.
        why: String,
    },
}

/// The methods of every resource that is only read.
pub(super) const READ: &str = "GET, HEAD";

fn takes(allowed: &[&str]) -> String {
    if allowed.is_empty() { "there are none here".to_owned() } else { format!("use {}", allowed.join(" or ")) }
}

fn exist(known: &[String], more: usize) -> String {
    if known.is_empty() {
        return ": none is configured".to_owned();
    }
    let mut text = format!(": there are {}", known.join(", "));
    if more > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, " and {more} more");
    }
    text
}

/// The client's own words, cut to a length that is safe to repeat.
pub(super) fn echo(text: &str) -> String {
    text::shorten(text, MAX_ECHO)
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// The status, and the two names by which programs and people tell problems apart.
    const fn class(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::UnknownPath { .. } => (StatusCode::NOT_FOUND, "urn:elasticd:unknown-path", "Unknown path"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "urn:elasticd:method", "Method not allowed"),
            Self::UnknownKey { .. } => (StatusCode::BAD_REQUEST, "urn:elasticd:unknown-key", "Unknown query key"),
            Self::RepeatedKey { .. } => (StatusCode::BAD_REQUEST, "urn:elasticd:repeated-key", "Repeated query key"),
            Self::BadValue { .. } => (StatusCode::BAD_REQUEST, "urn:elasticd:bad-value", "Bad query value"),
            Self::AdminOnly { .. } => (StatusCode::FORBIDDEN, "urn:elasticd:admin-only", "For the admin listener"),
            Self::Denied { .. } => (StatusCode::FORBIDDEN, "urn:elasticd:denied", "Not allowed"),
            Self::Body { .. } => (StatusCode::BAD_REQUEST, "urn:elasticd:bad-body", "Bad body"),
            Self::Refused { .. } => (StatusCode::CONFLICT, "urn:elasticd:refused", "Refused"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "urn:elasticd:stopping", "Stopping"),
            Self::UnknownInstance { .. } => {
                (StatusCode::NOT_FOUND, "urn:elasticd:unknown-instance", "Unknown instance")
            }
            Self::NoBackend { .. } => (StatusCode::SERVICE_UNAVAILABLE, "urn:elasticd:no-backend", "No backend"),
            Self::UnknownService { .. } => (StatusCode::NOT_FOUND, "urn:elasticd:unknown-service", "Unknown service"),
            Self::NotYet { .. } => (StatusCode::SERVICE_UNAVAILABLE, "urn:elasticd:not-yet", "Not known yet"),
            Self::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "urn:elasticd:internal", "Internal error"),
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<Body> {
        let (status, kind, title) = self.class();
        let detail = self.to_string();
        let document = Document { kind, title, status: status.as_u16(), detail: &detail };
        // Four plain fields always serialise; an empty body with the right status is the lesser evil anyway.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = respond(status, body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Method { allowed, .. } => drop(headers.insert(ALLOW, HeaderValue::from_static(allowed))),
            Self::NotYet { .. } | Self::NoBackend { .. } | Self::Stopping => {
                drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1")))
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn says_status_type_title_and_detail() {
        let problem = Problem::UnknownService { name: "wbe".into(), known: vec!["db".into(), "web".into()], more: 3 };
        let response = problem.response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let expected = serde_json::json!({
            "type": "urn:elasticd:unknown-service",
            "title": "Unknown service",
            "status": 404,
            "detail": "there is no service \"wbe\": there are db, web and 3 more",
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn names_the_remedy_in_headers() {
        let method = Problem::Method { path: "/healthz".into(), method: "PUT".into(), allowed: READ };
        assert_eq!(method.response().headers()["allow"], "GET, HEAD");
        let not_yet = Problem::NotYet { why: "…".into() };
        assert_eq!(not_yet.response().headers()["retry-after"], "1");
    }
}
