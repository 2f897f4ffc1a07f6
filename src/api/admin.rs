//! What the admin listener changes: polls, the configuration, held sets, registrations.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Body as HttpBody;
use hyper::{Response, StatusCode};
use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::answer::Answers;
use super::error::{Problem, echo};
use super::respond::{Body, JSON, respond_as};
use super::services;
use crate::model::{Backend, BackendState, MAX_WEIGHT, Name, Tags, selection};
use crate::registry::registration::TTL;
use crate::registry::{Change, ChangeError};

/// The longest body taken, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// What is asked of the rest of elasticd.
#[derive(Debug)]
pub enum Order {
    /// Poll every provider now.
    Refresh,
    /// Read the configuration anew. The answer is what is wrong with it, if anything is.
    Reload(oneshot::Sender<Result<(), String>>),
    /// For the registry.
    Change(Change, oneshot::Sender<Result<u64, ChangeError>>),
}

/// Where orders go.
pub type Orders = mpsc::Sender<Order>;

/// What a request to the admin listener asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Refresh,
    Reload,
    Accept { service: String },
    Register { service: String, id: String },
    Deregister { service: String, id: String },
}

/// A backend as it is registered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    address: IpAddr,
    #[serde(deserialize_with = "whole")]
    port: u16,
    #[serde(default = "one", deserialize_with = "whole")]
    weight: u16,
    zone: Option<String>,
    #[serde(default)]
    tags: Tags,
    #[serde(with = "compact::required")]
    ttl: Duration,
}

/// A whole number, which JSON may as well write as `80.0`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = f64::deserialize(deserializer)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
    let whole = (number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number)).then_some(number as u16);
    whole.ok_or_else(|| D::Error::custom(format!("{number} is not a whole number from 0 to {}", u16::MAX)))
}

const fn one() -> u16 {
    1
}

/// What is answered to a change.
#[derive(Debug, Serialize)]
struct Done<'a> {
    done: &'a str,
    /// The service's revision since.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

impl Action {
    /// Has it done, and says what came of it.
    pub(super) async fn answer<B>(self, answers: &Answers, body: B) -> Response<Body>
    where
        B: HttpBody,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.perform(answers, body).await.unwrap_or_else(|problem| problem.response())
    }

    async fn perform<B>(self, answers: &Answers, body: B) -> Result<Response<Body>, Problem>
    where
        B: HttpBody,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let orders = &answers.sources.orders;
        match self {
            Self::Refresh => {
                orders.send(Order::Refresh).await.map_err(|_| Problem::Stopping)?;
                done(StatusCode::ACCEPTED, "every provider is asked", None)
            }
            Self::Reload => {
                let (answer, answered) = oneshot::channel();
                orders.send(Order::Reload(answer)).await.map_err(|_| Problem::Stopping)?;
                match answered.await.map_err(|_| Problem::Stopping)? {
                    Ok(()) => done(StatusCode::OK, "the configuration was reloaded", None),
                    Err(why) => Err(Problem::Refused { why }),
                }
            }
            Self::Accept { service } => {
                let revision = change(answers, Change::Accept { service: known(answers, &service)? }).await?;
                done(StatusCode::OK, "what was held back is served", Some(revision))
            }
            Self::Register { service, id } => {
                let service = known(answers, &service)?;
                let body = Limited::new(body, MAX_BODY).collect().await;
                let body = body.map_err(|_| Problem::Body {
                    why: format!("it is longer than {MAX_BODY} bytes, or was cut off"),
                })?;
                let (backend, ttl) = backend(&id, &body.to_bytes())?;
                let revision = change(answers, Change::Register { service, backend, ttl }).await?;
                done(StatusCode::OK, "registered", Some(revision))
            }
            Self::Deregister { service, id } => {
                let revision = change(answers, Change::Deregister { service: known(answers, &service)?, id }).await?;
                done(StatusCode::OK, "deregistered", Some(revision))
            }
        }
    }
}

/// The service's name; one that nobody has is answered with those that exist.
fn known(answers: &Answers, service: &str) -> Result<Name, Problem> {
    services::unknown(answers, service).map_or(Ok(()), Err)?;
    service.parse().map_err(|_| Problem::Body { why: format!("{:?} is no name of a service", echo(service)) })
}

async fn change(answers: &Answers, change: Change) -> Result<u64, Problem> {
    let (answer, answered) = oneshot::channel();
    answers.sources.orders.send(Order::Change(change, answer)).await.map_err(|_| Problem::Stopping)?;
    answered.await.map_err(|_| Problem::Stopping)?.map_err(|refusal| Problem::Refused { why: refusal.to_string() })
}

fn done(status: StatusCode, what: &str, revision: Option<u64>) -> Result<Response<Body>, Problem> {
    let body = serde_json::to_vec(&Done { done: what, revision });
    Ok(respond_as(status, JSON, body.map_err(|error| Problem::Internal { why: error.to_string() })?))
}

fn backend(id: &str, body: &[u8]) -> Result<(Backend, Duration), Problem> {
    let refuse = |why: String| Err(Problem::Body { why });
    if !selection::valid_id(id) {
        return refuse(format!("{:?} is no id of a backend: use letters, digits and ._:-[]@", echo(id)));
    }
    let Registration { address, port, weight, zone, tags, ttl } = match serde_json::from_slice(body) {
        Ok(registration) => registration,
        Err(error) => {
            let example = r#"{"address": "10.0.0.1", "port": 8080, "ttl": "30s"}"#;
            return refuse(format!("{error}; write it as {example}, with weight, zone and tags if need be"));
        }
    };
    if port == 0 {
        return refuse("port must be from 1 to 65535".to_owned());
    }
    if weight > MAX_WEIGHT {
        return refuse(format!("weight must be from 0 to {MAX_WEIGHT}"));
    }
    if !TTL.contains(&ttl) {
        return refuse("ttl must be from 1s to 24h".to_owned());
    }
    Ok((Backend { id: id.to_owned(), address, port, zone, weight, state: BackendState::Up, tags }, ttl))
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
            ("i;1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "30s"}"#, "is no id of a backend"),
            ("i-1", "", "write it as"),
            ("i-1", r#"{"address": "web.local", "port": 80, "ttl": "30s"}"#, "invalid IP address"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 65536, "ttl": "30s"}"#, "65536"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 0, "ttl": "30s"}"#, "port must be"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "30s", "weight": 257}"#, "weight must be"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "10ms"}"#, "ttl must be"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80}"#, "missing field `ttl`"),
            ("i-1", r#"{"address": "10.0.0.1", "port": 80, "ttl": "30s", "adress": ""}"#, "unknown field `adress`"),
        ] {
            let error = read(id, body).expect_err(body);
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}
