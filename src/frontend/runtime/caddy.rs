//! Caddy's admin API, for a JSON configuration (<https://caddyserver.com/docs/api>).
//!
//! The first output is a JSON object: it names each `reverse_proxy` handler by the `@id` it has in Caddy's
//! configuration, and gives the list of its upstreams. Only these lists are ever asked for or replaced: to load a whole
//! configuration is how Caddy's admin API has been moved away from its socket, see [`super::caddyfile`].
//!
//! Measured with Caddy 2.6.2: `PATCH` replaces what is there and refuses what is not, `POST` sets what is absent or
//! null and appends to a list; a handler whose list is empty, null or absent answers 503; a refused list leaves the
//! running configuration and the admin API as they are.

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value};

use super::{Comparison, Error, Evidence, LiveUpdate, Runtime, Wanted, excerpt};
use crate::sys::http::encode;

pub(super) async fn compare(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<Comparison, Error> {
    for (id, upstreams) in parse(runtime, wanted)? {
        let running = upstreams_of(runtime, &id).await?;
        if !is_same(&running, &upstreams) {
            let (runs, wants) = (count(&running), count(&upstreams));
            return Ok(Comparison::Differs(format!(
                "handler {id:?} has {runs} upstreams, not the {wants} it should have"
            )));
        }
    }
    Ok(Comparison::Runs(Evidence::default()))
}

pub(super) async fn apply(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<LiveUpdate, Error> {
    let mut differing = Vec::new();
    // Whatever is missing is found before anything is changed.
    for (id, upstreams) in parse(runtime, wanted)? {
        let running = upstreams_of(runtime, &id).await?;
        if !is_same(&running, &upstreams) {
            let method = if running.is_null() { Method::POST } else { Method::PATCH };
            differing.push((method, path(&id), upstreams));
        }
    }
    for (method, path, upstreams) in differing {
        let json = ("application/json", upstreams.to_string());
        send(runtime, method, &path, Some(json)).await?;
    }
    Ok(LiveUpdate::Applied)
}

/// Sends a request, and returns the body of an answer with status 200. Any other is a refusal, in Caddy's own words.
pub(super) async fn send(
    runtime: &Runtime,
    method: Method,
    path: &str,
    body: Option<(&'static str, String)>,
) -> Result<Bytes, Error> {
    match runtime.send(method.clone(), path, body).await? {
        (StatusCode::OK, body) => Ok(body),
        (StatusCode::FORBIDDEN, body) => Err(runtime.unusable(words(&body))),
        (_, body) => Err(Error::Refused(format!("{method} {path}: {}", words(&body)))),
    }
}

/// Whether two JSON values mean the same to Caddy, which reads every number as a float and lists that are null as empty.
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

/// The first output: the upstreams of each handler by its `@id`.
fn parse(runtime: &Runtime, wanted: &Wanted<'_>) -> Result<Map<String, Value>, Error> {
    let Some((path, content)) = wanted.outputs.first() else { return Ok(Map::new()) };
    let wrong = |what: String| {
        let form = "{\"ID\": [{\"dial\": \"ADDRESS:PORT\"}, …], …}";
        runtime.unusable(format!("{}: {what}; Caddy can be told what has the form {form}", path.display()))
    };
    let handlers: Map<String, Value> = serde_json::from_str(content).map_err(|error| wrong(error.to_string()))?;
    for (id, upstreams) in &handlers {
        // Caddy splits the path of a request at its slashes, and Go's server removes dots from it.
        if id.contains('/') || ["", ".", ".."].contains(&id.as_str()) {
            return Err(wrong(format!("{id:?} cannot be asked for as an `@id`")));
        }
        if !upstreams.is_array() {
            return Err(wrong(format!("what {id:?} has is no list")));
        }
    }
    Ok(handlers)
}

/// The upstreams a handler has now; null if it has none.
async fn upstreams_of(runtime: &Runtime, id: &str) -> Result<Value, Error> {
    let path = path(id);
    match runtime.send(Method::GET, &path, None).await? {
        (StatusCode::OK, body) => runtime.understood(&path, &body),
        (StatusCode::NOT_FOUND, body) => Err(runtime.unusable(format!(
            "{}; give `\"@id\": {id:?}` to the reverse_proxy handler in Caddy's JSON configuration and load that (a \
             Caddy started without `--resume` has forgotten what was loaded later), or leave the service out of \
             `services`",
            words(&body)
        ))),
        (status, body) => Err(runtime.unusable(format!("GET {path}: {status}: {}", words(&body)))),
    }
}

/// The path of a handler's upstreams. An `@id` may hold any character.
fn path(id: &str) -> String {
    format!("/id/{}/upstreams", encode(id))
}

/// What an answer complains of.
fn words(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(body).ok();
    said.as_ref().and_then(|said| said["error"].as_str()).map_or_else(|| excerpt(body), str::to_owned)
}

fn count(upstreams: &Value) -> usize {
    upstreams.as_array().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_means_the_same_to_caddy_is_the_same() {
        let full = json!([{"dial": "a:1", "max_requests": 1}]);
        assert!(is_same(&full, &json!([{"max_requests": 1.0, "dial": "a:1"}])));
        assert!(!is_same(&full, &json!([{"dial": "a:1"}])));
        assert!(!is_same(&full, &json!([{"dial": "a:1", "max_requests": 2}])));
        assert!(!is_same(&full, &json!([])));
        assert!(is_same(&Value::Null, &json!([])) && is_same(&json!([]), &Value::Null));
        assert!(!is_same(&Value::Null, &full));
    }

    #[test]
    fn any_id_fits_into_a_path() {
        assert_eq!(path("elasticd_web-1.a"), "/id/elasticd_web-1.a/upstreams");
        assert_eq!(path("a b?é"), "/id/a%20b%3F%C3%A9/upstreams");
    }
}
