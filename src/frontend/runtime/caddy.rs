//! Caddy's admin API, for a JSON configuration (<https://caddyserver.com/docs/api>).
//!
//! The first output is a JSON object: it names each `reverse_proxy` handler by the `@id` it has in Caddy's
//! configuration, and gives the list of its upstreams. Only these lists are read and replaced: loading a whole
//! configuration may move Caddy's admin API away from its socket, see [`super::caddyfile`].
//!
//! Measured with Caddy 2.6.2: `PATCH` replaces a value and refuses one that does not exist yet, `POST` sets a value that
//! is absent or null and appends to a list; a handler whose list is empty, null or absent answers 503; a refused list
//! leaves the running configuration and the admin API as they are.

use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value};

use super::api::{Access, Comparison, Error, Evidence, LiveUpdate, RuntimeApi, Wanted};
use super::difference::excerpt;
use crate::sys::http::encode;

pub(super) struct Caddy;

impl RuntimeApi for Caddy {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>> {
        Box::pin(compare(access, wanted))
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn apply<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<LiveUpdate, Error>> {
        Box::pin(apply(access, wanted))
    }
}

async fn compare(access: &Access, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    for (id, upstreams) in parse(access, wanted)? {
        let running = running_upstreams(access, &id).await?;
        if !is_same(&running, &upstreams) {
            let (runs, wants) = (count(&running), count(&upstreams));
            return Ok(Comparison::Differs(format!(
                "handler {id:?} has {runs} upstreams, not the {wants} it should have"
            )));
        }
    }
    Ok(Comparison::Runs(Evidence::default()))
}

async fn apply(access: &Access, wanted: &Wanted<'_>) -> Result<LiveUpdate, Error> {
    let mut changes = Vec::new();
    // All handlers are read first, so that one that is missing is found before anything is changed.
    for (id, upstreams) in parse(access, wanted)? {
        let running = running_upstreams(access, &id).await?;
        if !is_same(&running, &upstreams) {
            let method = if running.is_null() { Method::POST } else { Method::PATCH };
            changes.push((method, path(&id), upstreams));
        }
    }
    for (method, path, upstreams) in changes {
        let json = ("application/json", upstreams.to_string());
        send(access, method, &path, Some(json)).await?;
    }
    Ok(LiveUpdate::Applied)
}

/// Sends a request, and returns the body of an answer with status 200. Any other status is a refusal.
pub(super) async fn send(
    access: &Access,
    method: Method,
    path: &str,
    body: Option<(&'static str, String)>,
) -> Result<Bytes, Error> {
    match access.send(method.clone(), path, body).await? {
        (StatusCode::OK, body) => Ok(body),
        (StatusCode::FORBIDDEN, body) => Err(access.unusable(error_in(&body))),
        (_, body) => Err(Error::Refused(format!("{method} {path}: {}", error_in(&body)))),
    }
}

/// Whether two JSON values mean the same to Caddy, which reads every number as a float, and null as an empty list.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| is_same(value, other)))
        }
        (Value::Null, Value::Array(list)) | (Value::Array(list), Value::Null) => list.is_empty(),
        (one, other) => one == other,
    }
}

/// The upstreams of each handler by its `@id`, from the first output.
fn parse(access: &Access, wanted: &Wanted<'_>) -> Result<Map<String, Value>, Error> {
    let Some((path, content)) = wanted.outputs.first() else { return Ok(Map::new()) };
    let invalid = |fault: String| {
        let form = "{\"ID\": [{\"dial\": \"ADDRESS:PORT\"}, …], …}";
        access.unusable(format!("{}: {fault}; its template must write the form {form}", path.display()))
    };
    let handlers: Map<String, Value> = serde_json::from_str(content).map_err(|error| invalid(error.to_string()))?;
    for (id, upstreams) in &handlers {
        // Caddy splits the path of a request at its slashes, and Go's server removes dots from it.
        if id.contains('/') || ["", ".", ".."].contains(&id.as_str()) {
            return Err(invalid(format!("{id:?} cannot be used as an `@id`")));
        }
        if !upstreams.is_array() {
            return Err(invalid(format!("the value of {id:?} is not a list")));
        }
    }
    Ok(handlers)
}

/// The upstreams that a handler has now; null if it has none.
async fn running_upstreams(access: &Access, id: &str) -> Result<Value, Error> {
    let path = path(id);
    match access.send(Method::GET, &path, None).await? {
        (StatusCode::OK, body) => access.parse_answer(&path, &body),
        (StatusCode::NOT_FOUND, body) => Err(access.unusable(format!(
            "{}; give `\"@id\": {id:?}` to the reverse_proxy handler in Caddy's JSON configuration and load that (a \
             Caddy started without `--resume` has lost what was loaded later), or leave the service out of `services`",
            error_in(&body)
        ))),
        (status, body) => Err(access.unusable(format!("GET {path}: {status}: {}", error_in(&body)))),
    }
}

fn path(id: &str) -> String {
    format!("/id/{}/upstreams", encode(id))
}

/// The error that Caddy's answer reports, or else the beginning of the answer.
fn error_in(body: &[u8]) -> String {
    let answer = serde_json::from_slice::<Value>(body).ok();
    answer.as_ref().and_then(|answer| answer["error"].as_str()).map_or_else(|| excerpt(body), str::to_owned)
}

fn count(upstreams: &Value) -> usize {
    upstreams.as_array().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_empty_lists_are_compared_as_caddy_reads_them() {
        let full = json!([{"dial": "a:1", "max_requests": 1}]);
        assert!(is_same(&full, &json!([{"max_requests": 1.0, "dial": "a:1"}])));
        assert!(!is_same(&full, &json!([{"dial": "a:1"}])));
        assert!(!is_same(&full, &json!([{"dial": "a:1", "max_requests": 2}])));
        assert!(!is_same(&full, &json!([])));
        assert!(is_same(&Value::Null, &json!([])) && is_same(&json!([]), &Value::Null));
        assert!(!is_same(&Value::Null, &full));
    }

    #[test]
    fn any_id_can_be_part_of_a_path() {
        assert_eq!(path("elasticd_web-1.a"), "/id/elasticd_web-1.a/upstreams");
        assert_eq!(path("a b?é"), "/id/a%20b%3F%C3%A9/upstreams");
    }
}
