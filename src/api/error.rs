//! The answer to a request that cannot be answered otherwise: `application/problem+json` (RFC 9457).

use std::fmt::Write;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::headers::PROBLEM_JSON;
use super::respond::{Body, respond};
use super::types;
use crate::sys::text;

/// Names of services listed in an answer about an unknown one.
pub(super) const MAX_KNOWN: usize = 20;

/// Characters of the client's text that an answer repeats.
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
    #[error("method {method} is not allowed for {path:?}: use {allowed}")]
    Method {
        /// The path asked for, shortened.
        path: String,
        /// The method asked for, shortened.
        method: String,
        /// The methods it has.
        allowed: String,
    },
    /// The path is the admin listener's, and this is another one.
    #[error("{path:?} is served by the admin listener only: use api.admin_socket")]
    AdminOnly {
        /// The path asked for, shortened.
        path: String,
    },
    /// The admin listener does not serve this user.
    #[error("user {uid} may not use the admin listener; only root and the user that elasticd runs as may")]
    Denied {
        /// The user's id.
        uid: u32,
    },
    /// The body does not hold what it should.
    #[error("invalid body: {why}")]
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
    /// elasticd stops, and takes no changes.
    #[error("elasticd is stopping")]
    Stopping,
    /// The resource takes no such query key.
    #[error("unknown query key {key:?}: {}", takes(allowed))]
    UnknownKey {
        /// The key, shortened.
        key: String,
        /// The keys it takes.
        allowed: Vec<&'static str>,
    },
    /// A query key that is given twice.
    #[error("the query key {key:?} is given more than once")]
    RepeatedKey {
        /// The key.
        key: &'static str,
    },
    /// A query key has a value it does not take.
    #[error("invalid value {value:?} of query key {key:?}: use {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, shortened.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// No service has this name.
    #[error("no service {name:?}; configured: {}", list(known, *more))]
    UnknownService {
        /// The name asked for, shortened.
        name: String,
        /// Some that exist.
        known: Vec<String>,
        /// How many exist beside them.
        more: usize,
    },
    /// No provider knows the instance.
    #[error(
        "no instance {id:?} in the providers' last answers; a provider that filters at its source asks \
         only for instances that a selector may match"
    )]
    UnknownInstance {
        /// The id asked for, shortened.
        id: String,
    },
    /// The service has no backend to pick.
    #[error("service {name} has no backend with a weight above 0")]
    NoBackend {
        /// The service.
        name: String,
    },
    /// The answer is not known yet.
    #[error("{why}")]
    NotYet {
        /// What is waited for.
        why: String,
    },
    /// A defect of elasticd.
    #[error("the answer could not be written: {why}; this is a defect of elasticd")]
    Internal {
        /// What went wrong.
        why: String,
    },
}

/// The methods of every resource that is only read.
const READ: HeaderValue = HeaderValue::from_static("GET, HEAD");

fn takes(allowed: &[&str]) -> String {
    if allowed.is_empty() { "this path takes none".to_owned() } else { format!("use {}", allowed.join(" or ")) }
}

fn list(known: &[String], more: usize) -> String {
    if known.is_empty() {
        return "none".to_owned();
    }
    let mut text = known.join(", ");
    if more > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, " and {more} more");
    }
    text
}

/// The client's text, cut to a length that is safe to repeat.
pub(super) fn echo(text: &str) -> String {
    text::shorten(text, MAX_ECHO)
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal { why: error.to_string() }
    }
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
            Self::AdminOnly { .. } => (StatusCode::FORBIDDEN, "urn:elasticd:admin-only", "Admin listener only"),
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
        let (kind, title, detail) = (kind.into(), title.into(), detail.into());
        let document = types::Problem { kind, title, status: status.as_u16(), detail };
        // Four plain fields always serialise; an empty body with the right status is the lesser evil anyway.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = respond(status, body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match self {
            Self::Method { allowed, .. } => {
                // Names of methods and commas are always a header value.
                drop(headers.insert(ALLOW, HeaderValue::try_from(allowed).unwrap_or(READ)));
            }
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
            "detail": "no service \"wbe\"; configured: db, web and 3 more",
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn names_the_remedy_in_headers() {
        let method = Problem::Method { path: "/healthz".into(), method: "PUT".into(), allowed: "GET, HEAD".into() };
        assert_eq!(method.response().headers()["allow"], "GET, HEAD");
        let not_yet = Problem::NotYet { why: "…".into() };
        assert_eq!(not_yet.response().headers()["retry-after"], "1");
    }
}
