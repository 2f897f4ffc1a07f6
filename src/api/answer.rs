//! From a resource to its answer: at once, or after something happened.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::admin::Action;
use super::context::Context;
use super::headers::JSON;
use super::query::{Format, Wait};
use super::respond::{Body, complete, respond_as};
use super::route::{ListenerKind, Resource, find};
use super::sources::Sources;
use super::{events, explain, health, openapi, pick, services, status};

/// Answers requests.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) context: Arc<Context>,
}

/// The answer to a request.
pub(super) enum Answer {
    /// It is here.
    Now(Response<Body>),
    /// It goes on for as long as the client listens.
    Events(Response<Body>),
    /// It has to wait.
    Late(Late),
}

/// What an answer waits for.
pub(super) enum Late {
    /// Until the revision is another one, or a time is over.
    Change(Change),
    /// Until a change was made.
    Done(Action),
    /// Until the body is read, and there is a newer version or a time is over.
    Discovery,
    /// Until elasticd's own use of memory and processor time has been read.
    Metrics,
}

/// An answer that waits for another revision.
#[derive(Debug)]
pub(super) struct Change {
    service: Option<String>,
    format: Format,
    wait: Wait,
    /// What the client has already, copied: a part of the request would keep all of the buffer that it was read into.
    known: HeaderMap,
}

impl Change {
    /// How long it may wait.
    pub(super) fn bound(&self) -> Duration {
        self.wait.bound
    }

    /// Waits. Ends early at `shutdown`, so that the client can turn to elasticd's successor.
    pub(super) async fn answer(&self, context: &Context, shutdown: &CancellationToken) -> Response<Body> {
        let Self { service, format, wait, known } = self;
        let mut snapshots = context.sources.snapshot.clone();
        // Many clients may wait, so nothing is kept meanwhile that can be had afterwards.
        let changed = tokio::select! {
            biased;
            changed = async {
                loop {
                    snapshots.mark_unchanged();
                    // A revision that went back, as after a loss of the state, is another one too.
                    if services::revision(context, service.as_deref())
                        .is_some_and(|revision| Some(revision) != wait.revision)
                    {
                        return true;
                    }
                    if snapshots.changed().await.is_err() {
                        return false;
                    }
                }
            } => changed,
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(wait.bound) => false,
        };
        let answered = match service {
            None => services::all(context, *format, known),
            Some(name) => services::one(context, name, *format, known),
        };
        let answer = answered.unwrap_or_else(|problem| problem.response());
        if changed { answer } else { services::unchanged(answer) }
    }
}

impl Answers {
    pub(super) fn new(sources: Sources) -> Self {
        Self { context: Arc::new(Context::new(sources)) }
    }

    /// The answer to a request. Its body is never read here: hyper closes the connection if it is long.
    pub(super) fn answer<B>(
        &self,
        kind: ListenerKind,
        request: &Request<B>,
        heartbeat: Duration,
        shutdown: &CancellationToken,
    ) -> Answer {
        let resource = match find(kind, request.method(), request.uri()) {
            Ok(resource) => resource,
            Err(problem) => return Answer::Now(problem.response()),
        };
        let (context, headers) = (&self.context, request.headers());
        let answered = match resource {
            Resource::Services { format, wait: None } => services::all(context, format, headers),
            Resource::Service { name, format, wait: None } => services::one(context, &name, format, headers),
            Resource::Services { format, wait: Some(wait) } => return self.later(None, format, wait, headers),
            Resource::Service { name, format, wait: Some(wait) } => {
                return self.later(Some(name.into_owned()), format, wait, headers);
            }
            Resource::Pick { service, by } => pick::one(context, &service, &by),
            Resource::Watch => {
                let response = events::answer(context, headers, heartbeat, shutdown);
                if request.method() != Method::HEAD {
                    return Answer::Events(response);
                }
                // The headers alone have no end to wait for.
                Ok(response.map(|_| complete("")))
            }
            Resource::Change(action) => return Answer::Late(Late::Done(action)),
            Resource::Discovery => return Answer::Late(Late::Discovery),
            Resource::Explain { instance } => explain::answer(&context.sources, &instance),
            Resource::Status => status::answer(&context.sources),
            Resource::Description => openapi::document().map(|text| respond_as(StatusCode::OK, JSON, text)),
            Resource::Health => Ok(health::alive()),
            Resource::Ready => Ok(health::ready(&context.sources)),
            Resource::Metrics => return Answer::Late(Late::Metrics),
        };
        Answer::Now(answered.unwrap_or_else(|problem| problem.response()))
    }

    /// Waits, unless there is no such service and is not going to be one.
    fn later(&self, service: Option<String>, format: Format, wait: Wait, headers: &HeaderMap) -> Answer {
        let unknown = service.as_deref().and_then(|name| services::unknown(&self.context, name));
        match unknown {
            Some(problem) => Answer::Now(problem.response()),
            None => Answer::Late(Late::Change(Change { service, format, wait, known: services::known(headers) })),
        }
    }
}
