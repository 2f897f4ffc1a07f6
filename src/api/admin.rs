//! Changes asked for on the admin listener: polls, the configuration, held sets, registrations.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Body as HttpBody;
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

use super::context::Context;
use super::error::{Problem, echo};
use super::respond::{Body, respond_json};
use super::services;
use super::types::{Done, Registration};
use crate::model::{Backend, BackendState, MAX_WEIGHT, Name, selection};
use crate::registry::registration::TTL;
use crate::registry::{Change, Event};

/// The longest body accepted, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Refresh,
    Prune,
    Reload,
    Accept { service: String },
    Register { service: String, id: String },
    Deregister { service: String, id: String },
}

impl Action {
    /// Makes the change, and answers with the result.
    pub(super) async fn answer<B>(self, context: &Context, body: B) -> Response<Body>
    where
        B: HttpBody,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.perform(context, body).await.unwrap_or_else(|problem| problem.response())
    }

    async fn perform<B>(self, context: &Context, body: B) -> Result<Response<Body>, Problem>
    where
        B: HttpBody,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let controls = &context.sources.controls;
        match self {
            Self::Refresh => {
                controls.refresh.send_modify(|asked| *asked += 1);
                done(StatusCode::ACCEPTED, "all providers are being polled", None)
            }
            Self::Prune => {
                controls.prune.send_modify(|asked| *asked += 1);
                done(StatusCode::ACCEPTED, "files that are no outputs any more are being removed", None)
            }
            Self::Reload => {
                let (answer, answered) = oneshot::channel();
                controls.reload.send(answer).await.map_err(|_| Problem::Stopping)?;
                match answered.await.map_err(|_| Problem::Stopping)? {
                    Ok(()) => done(StatusCode::OK, "configuration reloaded", None),
                    Err(why) => Err(Problem::Refused { why }),
                }
            }
            Self::Accept { service } => {
                let revision = change(context, Change::Accept { service: known(context, &service)? }).await?;
                done(StatusCode::OK, "the held set is served now", Some(revision))
            }
            Self::Register { service, id } => {
                let service = known(context, &service)?;
                let body = Limited::new(body, MAX_BODY).collect().await;
                let body = body.map_err(|_| Problem::Body {
                    why: format!("it is longer than {MAX_BODY} bytes, or was cut off"),
                })?;
                let (backend, ttl) = backend(&id, &body.to_bytes())?;
                let revision = change(context, Change::Register { service, backend, ttl }).await?;
                done(StatusCode::OK, "registered", Some(revision))
            }
            Self::Deregister { service, id } => {
                let revision = change(context, Change::Deregister { service: known(context, &service)?, id }).await?;
                done(StatusCode::OK, "deregistered", Some(revision))
            }
        }
    }
}

/// The service's name, if there is such a service.
fn known(context: &Context, service: &str) -> Result<Name, Problem> {
    services::unknown(context, service).map_or(Ok(()), Err)?;
    service.parse().map_err(|_| Problem::Body { why: format!("{:?} is not a name", echo(service)) })
}

async fn change(context: &Context, change: Change) -> Result<u64, Problem> {
    let (answer, answered) = oneshot::channel();
    context.sources.controls.registry.send(Event::Change(change, answer)).await.map_err(|_| Problem::Stopping)?;
    answered.await.map_err(|_| Problem::Stopping)?.map_err(|refusal| Problem::Refused { why: refusal.to_string() })
}

fn done(status: StatusCode, done: &str, revision: Option<u64>) -> Result<Response<Body>, Problem> {
    Ok(respond_json(status, &Done { done: done.to_owned(), revision })?)
}

fn backend(id: &str, body: &[u8]) -> Result<(Backend, Duration), Problem> {
    let refuse = |why: String| Err(Problem::Body { why });
    if !selection::valid_id(id) {
        return refuse(format!("{:?} is not a backend id: use letters, digits and ._:-[]@", echo(id)));
    }
    let Registration { address, port, weight, zone, tags, ttl } = match serde_json::from_slice(body) {
        Ok(registration) => registration,
        Err(error) => {
            let example = r#"{"address": "10.0.0.1", "port": 8080, "ttl": "30s"}"#;
            return refuse(format!("{error}; write it as {example}, optionally with weight, zone and tags"));
        }
    };
    if port == 0 {
        return refuse("port must be from 1 to 65535".to_owned());
    }
    if weight > MAX_WEIGHT {
        return refuse(format!("weight must be from 0 to {MAX_WEIGHT}"));
    }
    if !TTL.contains(&*ttl) {
        return refuse("ttl must be from 1s to 24h".to_owned());
    }
    Ok((Backend { id: id.to_owned(), address, port, zone, weight, state: BackendState::Up, tags }, ttl.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(id: &str, body: &str) -> Result<(Backend, Duration), String> {
        backend(id, body.as_bytes()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_registration_is_a_backend_and_a_time() {
        let (backend, ttl) = read("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "1m30s"}"#).expect("good");
        assert_eq!((backend.port, backend.weight, ttl), (80, 1, Duration::from_secs(90)));
        for (id, body, why) in [
            ("i;1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "30s"}"#, "is not a backend id"),
            ("i-1", "", "write it as"),
            ("i-1", r#"{"address": "web.local", "port": 80, "ttl": "30s"}"#, "invalid IP address"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 65536, "ttl": "30s"}"#, "65536"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 0, "ttl": "30s"}"#, "port must be"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "30s", "weight": 257}"#, "weight must be"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "10ms"}"#, "ttl must be"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "30"}"#, "\"30\" has no unit: write \"30s\""),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80}"#, "missing field `ttl`"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "30s", "adress": ""}"#, "unknown field `adress`"),
        ] {
            let error = read(id, body).expect_err(body);
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}
