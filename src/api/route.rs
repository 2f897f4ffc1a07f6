//! From a request's method, path and query to a resource, and to its answer.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::documents::Documents;
use super::error::{Problem, echo};
use super::metrics::Metrics;
use super::{Sources, health, services, status};

/// What an answer's body is.
pub(super) type Body = Full<Bytes>;

/// Which resources a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    /// All that read.
    Query,
    /// Health and metrics only.
    Metrics,
}

/// The representation asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON.
    Json,
    /// One `ip:port` a line.
    Text,
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resource {
    Services,
    Service { name: String, format: Format },
    Status,
    Health,
    Ready,
    Metrics,
}

/// Everything answers are made from.
#[derive(Debug)]
pub(super) struct Answers {
    /// What elasticd knows.
    pub(super) sources: Sources,
    /// What of it has been serialised.
    pub(super) documents: Documents,
    metrics: Metrics,
}

impl Answers {
    pub(super) fn new(sources: Sources) -> Self {
        Self { metrics: Metrics::new(sources.clone()), documents: Documents::new(), sources }
    }

    /// The answer to a request. Its body is never read: hyper closes the connection if it is long.
    pub(super) fn answer<B>(&self, surface: Surface, request: &Request<B>) -> Response<Body> {
        let answered = find(surface, request.method(), request.uri()).and_then(|resource| match resource {
            Resource::Services => services::all(self, request.headers()),
            Resource::Service { name, format } => services::one(self, &name, format, request.headers()),
            Resource::Status => status::answer(&self.sources),
            Resource::Health => Ok(health::alive()),
            Resource::Ready => Ok(health::ready(&self.sources)),
            Resource::Metrics => self.metrics.answer(),
        });
        answered.unwrap_or_else(|problem| problem.response())
    }
}

/// An answer that must not be served from a cache without asking again.
pub(super) fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
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

fn find(surface: Surface, method: &Method, uri: &Uri) -> Result<Resource, Problem> {
    let path = uri.path();
    let resource = named(surface, path).ok_or_else(|| Problem::UnknownPath { path: echo(path) })?;
    if method != Method::GET && method != Method::HEAD {
        return Err(Problem::Method { path: echo(path), method: echo(method.as_str()) });
    }
    let query = uri.query().unwrap_or_default();
    match resource {
        Resource::Services => format(query, &["json"]).map(|_| Resource::Services),
        Resource::Service { name, .. } => {
            format(query, &["json", "text"]).map(|format| Resource::Service { name, format })
        }
        plain @ (Resource::Status | Resource::Health | Resource::Ready | Resource::Metrics) => {
            nothing(query).map(|()| plain)
        }
    }
}

fn named(surface: Surface, path: &str) -> Option<Resource> {
    let everywhere = match path {
        "/healthz" => Some(Resource::Health),
        "/readyz" => Some(Resource::Ready),
        "/metrics" => Some(Resource::Metrics),
        _ => None,
    };
    everywhere.or_else(|| match surface {
        Surface::Metrics => None,
        Surface::Query => match path.strip_prefix("/v1/")? {
            "services" => Some(Resource::Services),
            "status" => Some(Resource::Status),
            other => {
                let name = other.strip_prefix("services/").filter(|name| !name.is_empty() && !name.contains('/'))?;
                // What does not decode is still a name that nobody has, and is answered with those that exist.
                let name = decode(name).unwrap_or_else(|| name.to_owned());
                Some(Resource::Service { name, format: Format::Json })
            }
        },
    })
}

/// The query's pairs, decoded; what does not decode stays as it is, and is then refused as unknown.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| decode(text).unwrap_or_else(|| text.to_owned());
        (decoded(key), decoded(value))
    })
}

fn nothing(query: &str) -> Result<(), Problem> {
    match pairs(query).next() {
        None => Ok(()),
        Some((key, _)) => Err(Problem::UnknownKey { key: echo(&key), allowed: &[] }),
    }
}

fn format(query: &str, allowed: &'static [&'static str]) -> Result<Format, Problem> {
    let mut format = None;
    for (key, value) in pairs(query) {
        if key != "format" {
            return Err(Problem::UnknownKey { key: echo(&key), allowed: &["format"] });
        }
        if format.is_some() {
            return Err(Problem::RepeatedKey { key: "format" });
        }
        format = Some(match value.as_str() {
            "json" => Format::Json,
            "text" if allowed.contains(&"text") => Format::Text,
            _ => return Err(Problem::BadValue { key: "format", value: echo(&value), allowed }),
        });
    }
    Ok(format.unwrap_or(Format::Json))
}

/// Percent-decodes. `None`: a `%` without two hexadecimal digits, or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(bytes.next()?)? * 16 + hex(bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Result<Resource, Problem> {
        find(Surface::Query, &Method::GET, &path.parse().expect("a URI"))
    }

    fn service(name: &str, format: Format) -> Result<Resource, Problem> {
        Ok(Resource::Service { name: name.into(), format })
    }

    #[test]
    fn finds_each_resource() {
        assert_eq!(get("/v1/services"), Ok(Resource::Services));
        assert_eq!(get("/v1/services?format=json"), Ok(Resource::Services));
        assert_eq!(get("/v1/services/web"), service("web", Format::Json));
        assert_eq!(get("/v1/services/web?format=text&"), service("web", Format::Text));
        assert_eq!(get("/v1/services/w%65b?form%61t=te%78t"), service("web", Format::Text));
        assert_eq!(get("http://elasticd/v1/status?"), Ok(Resource::Status));
        assert_eq!(get("/healthz"), Ok(Resource::Health));
        assert_eq!(get("/readyz"), Ok(Resource::Ready));
        assert_eq!(get("/metrics"), Ok(Resource::Metrics));
    }

    #[test]
    fn odd_names_stay_names_and_odd_paths_are_unknown() {
        assert_eq!(get("/v1/services/a%2Fb"), service("a/b", Format::Json));
        assert_eq!(get("/v1/services/50%"), service("50%", Format::Json));
        assert_eq!(get("/v1/services/%ff"), service("%ff", Format::Json));
        for path in ["/", "/v1", "/v1/", "/v1/services/", "/v1/services/a/b", "/v1/status/", "/healthz/", "//healthz"] {
            assert_eq!(get(path), Err(Problem::UnknownPath { path: path.into() }));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know_and_says_what_it_does() {
        let refusal = |path| get(path).expect_err("must be refused").to_string();
        assert_eq!(
            refusal("/v1/services/web?format=xml"),
            "the query key \"format\" does not take \"xml\": use json or text"
        );
        assert_eq!(refusal("/v1/services/web?wait=1"), "unknown query key \"wait\": use format");
        assert_eq!(
            refusal("/v1/services/web?format=json&format=json"),
            "the query key \"format\" is given more than once"
        );
        assert_eq!(refusal("/v1/services?format=text"), "the query key \"format\" does not take \"text\": use json");
        assert_eq!(refusal("/v1/status?verbose"), "unknown query key \"verbose\": there are none here");
    }

    #[test]
    fn takes_get_and_head_alone() {
        for method in [Method::POST, Method::OPTIONS, Method::DELETE, Method::TRACE] {
            let uri = "/v1/services".parse().expect("a URI");
            assert!(matches!(find(Surface::Query, &method, &uri), Err(Problem::Method { .. })));
        }
        let uri = "/nothing".parse().expect("a URI");
        assert!(matches!(find(Surface::Query, &Method::POST, &uri), Err(Problem::UnknownPath { .. })));
        assert_eq!(find(Surface::Query, &Method::HEAD, &"/healthz".parse().expect("a URI")), Ok(Resource::Health));
    }

    #[test]
    fn the_metrics_listener_gives_no_backends() {
        let find = |path: &str| find(Surface::Metrics, &Method::GET, &path.parse().expect("a URI"));
        assert_eq!(find("/metrics"), Ok(Resource::Metrics));
        assert_eq!(find("/readyz"), Ok(Resource::Ready));
        for path in ["/v1/services", "/v1/services/web", "/v1/status"] {
            assert!(matches!(find(path), Err(Problem::UnknownPath { .. })));
        }
    }
}
