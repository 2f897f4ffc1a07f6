//! From a request's method, path and query to a resource.

use std::borrow::Cow;

use hyper::{Method, Uri};

use super::admin::Action;
use super::error::{Problem, READ, echo};
use super::pick::By;
use super::query::{Query, Wait, decoded};

/// Which resources a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerKind {
    /// All that read.
    Query,
    /// All that read, and all that change.
    Admin,
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

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Services { format: Format, wait: Option<Wait> },
    Service { name: Cow<'a, str>, format: Format, wait: Option<Wait> },
    Pick { service: Cow<'a, str>, by: By<'a> },
    Watch,
    Explain { instance: Cow<'a, str> },
    Status,
    Description,
    Health,
    Ready,
    Metrics,
    Change(Action),
    Discovery,
}

/// More segments than any path has that something is at.
const TOO_DEEP: usize = 5;

/// The resource that a request asks a listener of `kind` for.
///
/// # Errors
///
/// There is none, or not by this method, or not with this query.
pub(super) fn find<'a>(kind: ListenerKind, method: &Method, uri: &'a Uri) -> Result<Resource<'a>, Problem> {
    let path = uri.path();
    let query = uri.query().unwrap_or_default();
    let unknown = || Problem::UnknownPath { path: echo(path) };
    let resource = match (path, kind) {
        ("/healthz", _) => nothing(query, Resource::Health),
        ("/readyz", _) => nothing(query, Resource::Ready),
        ("/metrics", _) => nothing(query, Resource::Metrics),
        (_, ListenerKind::Metrics) => return Err(unknown()),
        ("/v3/discovery:endpoints", _) if method == Method::POST => return nothing(query, Resource::Discovery),
        ("/v3/discovery:endpoints", _) => {
            return Err(Problem::Method { path: echo(path), method: echo(method.as_str()), allowed: "POST" });
        }
        (_, ListenerKind::Query | ListenerKind::Admin) => {
            let mut parts = [""; TOO_DEEP];
            let mut count = 0;
            for (part, found) in parts.iter_mut().zip(path.strip_prefix("/v1/").ok_or_else(unknown)?.split('/')) {
                *part = found;
                count += 1;
            }
            let parts = &parts[..count];
            match parts {
                ["services"] => services(query),
                ["services", name] if !name.is_empty() => service(query, name),
                ["services", name, "pick"] if !name.is_empty() => pick(query, name),
                ["watch"] => nothing(query, Resource::Watch),
                ["explain", instance] if !instance.is_empty() => {
                    nothing(query, Resource::Explain { instance: decoded(instance) })
                }
                ["refresh" | "reload"] | ["services", _, "accept"] | ["services", _, "backends", _] => {
                    let action = action(kind, method, path, parts)?;
                    return nothing(query, Resource::Change(action));
                }
                ["status"] => nothing(query, Resource::Status),
                ["openapi.json"] => nothing(query, Resource::Description),
                _ => return Err(unknown()),
            }
        }
    };
    if method != Method::GET && method != Method::HEAD {
        return Err(Problem::Method { path: echo(path), method: echo(method.as_str()), allowed: READ });
    }
    resource
}

/// What is to be changed.
fn action(kind: ListenerKind, method: &Method, path: &str, parts: &[&str]) -> Result<Action, Problem> {
    let (action, allowed) = match (parts, method) {
        (["refresh"], &Method::POST) => (Some(Action::Refresh), "POST"),
        (["reload"], &Method::POST) => (Some(Action::Reload), "POST"),
        (["services", service, "accept"], &Method::POST) => {
            (Some(Action::Accept { service: decoded(service).into_owned() }), "POST")
        }
        (["services", service, "backends", id], &Method::PUT) => {
            (Some(Action::Register { service: decoded(service).into_owned(), id: decoded(id).into_owned() }), "")
        }
        (["services", service, "backends", id], &Method::DELETE) => {
            (Some(Action::Deregister { service: decoded(service).into_owned(), id: decoded(id).into_owned() }), "")
        }
        (["services", _, "backends", _], _) => (None, "PUT, DELETE"),
        _ => (None, "POST"),
    };
    let action = action.ok_or_else(|| Problem::Method { path: echo(path), method: echo(method.as_str()), allowed })?;
    if kind == ListenerKind::Admin { Ok(action) } else { Err(Problem::AdminOnly { path: echo(path) }) }
}

fn nothing<'a>(query: &str, resource: Resource<'a>) -> Result<Resource<'a>, Problem> {
    Query::new(query, &[]).map(|_| resource)
}

fn services(query: &str) -> Result<Resource<'static>, Problem> {
    let (format, wait) = format_and_wait(query)?;
    Ok(Resource::Services { format, wait })
}

fn service<'a>(query: &str, name: &'a str) -> Result<Resource<'a>, Problem> {
    let (format, wait) = format_and_wait(query)?;
    Ok(Resource::Service { name: decoded(name), format, wait })
}

fn format_and_wait(query: &str) -> Result<(Format, Option<Wait>), Problem> {
    // As most ask.
    if query.is_empty() {
        return Ok((Format::Json, None));
    }
    let query = Query::new(query, &["format", "wait", "revision"])?;
    let format = query.parsed("format", "json or text", |text| match text {
        "json" => Some(Format::Json),
        "text" => Some(Format::Text),
        _ => None,
    })?;
    Ok((format.unwrap_or(Format::Json), query.wait()?))
}

fn pick<'a>(query: &'a str, service: &'a str) -> Result<Resource<'a>, Problem> {
    let query = Query::new(query, &["key", "zone"])?;
    // An empty one is what a frontend sends that has none to give.
    let given = |key| query.get(key).filter(|value| !value.is_empty()).cloned();
    Ok(Resource::Pick { service: decoded(service), by: By { key: given("key"), zone: given("zone") } })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            "the query key \"format\" does not take \"xml\": use json or text"
        );
        assert_eq!(refusal("/v1/services/web/pick?weight=1"), "unknown query key \"weight\": use key or zone");
        assert_eq!(
            refusal("/v1/services/web?format=json&format=json"),
            "the query key \"format\" is given more than once"
        );
        assert_eq!(refusal("/v1/status?verbose"), "unknown query key \"verbose\": there are none here");
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
