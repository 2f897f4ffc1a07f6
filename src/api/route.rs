//! From a request's method, path and query to a resource, by the table of routes.

use hyper::{Method, Uri};

use super::error::{Problem, echo};
use super::query::Query;
pub(super) use super::resource::Resource;
use super::routes::{Access, ROUTES, Route};

/// The kind of a listener, which says what it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerKind {
    /// Everything that reads.
    Query,
    /// Everything.
    Admin,
    /// Health and metrics only.
    Metrics,
}

/// More segments than any path of the table has.
const MAX_SEGMENTS: usize = 6;

/// The variable segments of a path, in their order.
pub(super) type Captured<'a> = [&'a str; 2];

/// The resource that a request asks a listener of `kind` for.
///
/// # Errors
///
/// There is no such path, or not with this method, or not with this query.
pub(super) fn find<'a>(kind: ListenerKind, method: &Method, uri: &'a Uri) -> Result<Resource<'a>, Problem> {
    let path = uri.path();
    let mut segments = [""; MAX_SEGMENTS];
    let mut count = 0;
    for (segment, found) in segments.iter_mut().zip(path.split('/')) {
        *segment = found;
        count += 1;
    }
    let segments = &segments[..count];
    let is_served = |route: &&Route| kind != ListenerKind::Metrics || route.access == Access::Everywhere;
    // Empty unless the method is wrong, and so without an allocation as a rule.
    let mut allowed = Vec::new();
    for route in ROUTES.iter().filter(is_served) {
        let Some(captured) = captured(route.path, segments) else { continue };
        let is_head = *method == Method::HEAD && route.method == Method::GET;
        if *method == route.method || is_head {
            if route.access == Access::Admin && kind != ListenerKind::Admin {
                return Err(Problem::AdminOnly { path: echo(path) });
            }
            let query = Query::new(uri.query().unwrap_or_default(), route.query)?;
            return (route.resource)(captured, &query);
        }
        allowed.push(if route.method == Method::GET { "GET, HEAD" } else { route.method.as_str() });
    }
    if allowed.is_empty() {
        return Err(Problem::UnknownPath { path: echo(path) });
    }
    Err(Problem::Method { path: echo(path), method: echo(method.as_str()), allowed: allowed.join(", ") })
}

/// The variable segments of a path, if it is one that `pattern` describes. They are never empty.
fn captured<'a>(pattern: &str, segments: &[&'a str]) -> Option<Captured<'a>> {
    let mut captured = [""; 2];
    let mut variable = captured.iter_mut();
    let mut pattern = pattern.split('/');
    for segment in segments {
        let expected = pattern.next()?;
        if expected.starts_with('{') {
            *variable.next().filter(|_| !segment.is_empty())? = segment;
        } else if expected != *segment {
            return None;
        }
    }
    pattern.next().is_none().then_some(captured)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use super::super::choice::By;
    use super::super::query::{Format, Wait};
    use super::*;

    /// The URI is never freed, so that what borrows from it can be returned.
    fn get(path: &str) -> Result<Resource<'static>, Problem> {
        let uri = Box::leak(Box::new(path.parse().expect("a URI")));
        find(ListenerKind::Query, &Method::GET, uri)
    }

    fn service(name: &'static str, format: Format) -> Result<Resource<'static>, Problem> {
        Ok(Resource::Service { name: name.into(), format, wait: None })
    }

    const SERVICES: Resource<'static> = Resource::Services { format: Format::Json, wait: None };

    #[test]
    fn finds_each_resource() {
        assert_eq!(get("/v1/services"), Ok(SERVICES));
        assert_eq!(get("/v1/services?format=json"), Ok(SERVICES));
        assert_eq!(get("/v1/services/web"), service("web", Format::Json));
        assert_eq!(get("/v1/services/web?format=text&"), service("web", Format::Text));
        assert_eq!(get("/v1/services/w%65b?form%61t=te%78t"), service("web", Format::Text));
        let wait = Some(Wait { bound: Duration::from_secs(55), revision: Some(7) });
        assert_eq!(
            get("/v1/services?wait=55s&revision=7&format=text"),
            Ok(Resource::Services { format: Format::Text, wait })
        );
        assert_eq!(
            get("/v1/services/web?revision=7&wait=55s&format=text"),
            Ok(Resource::Service { name: "web".into(), format: Format::Text, wait })
        );
        let pick = |key: Option<&'static str>, zone: Option<&'static str>| {
            let by = By { key: key.map(Cow::from), zone: zone.map(Cow::from) };
            Ok(Resource::Pick { service: "web".into(), by })
        };
        assert_eq!(get("/v1/services/web/pick"), pick(None, None));
        assert_eq!(get("/v1/services/web/pick?key=a%20b&zone=x"), pick(Some("a b"), Some("x")));
        assert_eq!(get("/v1/services/web/pick?key=&zone="), pick(None, None));
        assert_eq!(get("/v1/explain/i-0a"), Ok(Resource::Explain { instance: "i-0a".into() }));
        assert_eq!(get("/v1/watch"), Ok(Resource::Watch));
        assert_eq!(get("/v1/openapi.json"), Ok(Resource::Description));
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
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v1/services/",
            "/v1/services/a/b",
            "/v1/services//pick",
            "/v1/services/a/pick/",
            "/v1/status/",
            "/v1/explain/",
            "/healthz/",
            "//healthz",
        ] {
            assert_eq!(get(path), Err(Problem::UnknownPath { path: path.into() }));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know_and_says_what_it_does() {
        let refusal = |path| get(path).expect_err("must be refused").to_string();
        assert_eq!(
            refusal("/v1/services/web?format=xml"),
            "invalid value \"xml\" of query key \"format\": use json or text"
        );
        assert_eq!(refusal("/v1/services/web/pick?weight=1"), "unknown query key \"weight\": use key or zone");
        assert_eq!(
            refusal("/v1/services/web?format=json&format=json"),
            "the query key \"format\" is given more than once"
        );
        assert_eq!(refusal("/v1/status?verbose"), "unknown query key \"verbose\": this path takes none");
    }

    #[test]
    fn takes_get_and_head_alone() {
        for method in [Method::POST, Method::OPTIONS, Method::DELETE, Method::TRACE] {
            let uri = "/v1/services".parse().expect("a URI");
            assert!(matches!(find(ListenerKind::Query, &method, &uri), Err(Problem::Method { .. })));
        }
        let uri = "/nothing".parse().expect("a URI");
        assert!(matches!(find(ListenerKind::Query, &Method::POST, &uri), Err(Problem::UnknownPath { .. })));
        assert_eq!(find(ListenerKind::Query, &Method::HEAD, &"/healthz".parse().expect("a URI")), Ok(Resource::Health));
    }

    #[test]
    fn the_metrics_listener_gives_no_backends() {
        let find =
            |path: &str| find(ListenerKind::Metrics, &Method::GET, Box::leak(Box::new(path.parse().expect("a URI"))));
        assert_eq!(find("/metrics"), Ok(Resource::Metrics));
        assert_eq!(find("/readyz"), Ok(Resource::Ready));
        for path in ["/v1/services", "/v1/services/web", "/v1/status"] {
            assert!(matches!(find(path), Err(Problem::UnknownPath { .. })));
        }
    }
}
