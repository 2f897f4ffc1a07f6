//! From a resource to its answer: at once, or when something happens.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::admin::Action;
use super::documents::Documents;
use super::metrics::Metrics;
use super::query::Wait;
use super::respond::{Body, JSON, respond_as, whole};
use super::route::{Format, ListenerKind, Resource, find};
use super::{Sources, events, explain, health, pick, services, status};

/// The description of the API in OpenAPI's terms.
const DESCRIPTION: &str = include_str!("openapi.json");

/// Everything answers are made from.
#[derive(Debug)]
pub(super) struct Answers {
    /// What elasticd knows.
    pub(super) sources: Sources,
    /// What of it has been serialised.
    pub(super) documents: Documents,
    metrics: Metrics,
}

/// How a request is answered: at once, or when something happens.
pub(super) enum Answer {
    /// At once.
    Now(Response<Body>),
    /// For as long as the client listens.
    Events(Response<Body>),
    /// Later.
    Late(Late),
}

/// An answer that may wait.
pub(super) enum Late {
    /// Until a revision is another one, or a time is over.
    Change(Change),
    /// Until something was done.
    Done(Action),
    /// Until the body is read, and perhaps something happens.
    Discovery,
}

/// An answer that waits for a change.
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

    /// Waits. Ends early at `shutdown`, so that the client can turn to whoever comes next.
    pub(super) async fn answer(&self, answers: &Answers, shutdown: &CancellationToken) -> Response<Body> {
        let Self { service, format, wait, known } = self;
        let mut snapshots = answers.sources.snapshot.clone();
        // All that waits is held by each of many clients: nothing is that need not be.
        let changed = tokio::select! {
            biased;
            changed = async {
                loop {
                    snapshots.mark_unchanged();
                    // One that went back, as after a loss of the state, is another one too.
                    if services::revision(answers, service.as_deref())
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
            None => services::all(answers, *format, known),
            Some(name) => services::one(answers, name, *format, known),
        };
        let answer = answered.unwrap_or_else(|problem| problem.response());
        if changed { answer } else { services::unchanged(answer) }
    }
}

impl Answers {
    pub(super) fn new(sources: Sources) -> Self {
        Self { metrics: Metrics::new(sources.clone()), documents: Documents::new(), sources }
    }

    /// The answer to a request. Its body is never read: hyper closes the connection if it is long.
    pub(super) fn answer<B>(
        self: &Arc<Self>,
        kind: ListenerKind,
        request: &Request<B>,
        heartbeat: Duration,
        shutdown: &CancellationToken,
    ) -> Answer {
        let resource = match find(kind, request.method(), request.uri()) {
            Ok(resource) => resource,
            Err(problem) => return Answer::Now(problem.response()),
        };
        let asked = request.headers();
        let answered = match resource {
            Resource::Services { format, wait: None } => services::all(self, format, asked),
            Resource::Service { name, format, wait: None } => services::one(self, &name, format, asked),
            Resource::Services { format, wait: Some(wait) } => return self.later(None, format, wait, asked),
            Resource::Service { name, format, wait: Some(wait) } => {
                return self.later(Some(name.into_owned()), format, wait, asked);
            }
            Resource::Pick { service, by } => pick::one(self, &service, &by),
            Resource::Watch => match events::answer(self, asked, heartbeat, shutdown) {
                // The head alone has no end to wait for.
                Ok(response) if request.method() == Method::HEAD => Ok(response.map(|_| whole(""))),
                Ok(response) => return Answer::Events(response),
                Err(problem) => Err(problem),
            },
            Resource::Change(action) => return Answer::Late(Late::Done(action)),
            Resource::Discovery => return Answer::Late(Late::Discovery),
            Resource::Explain { instance } => explain::answer(&self.sources, &instance),
            Resource::Status => status::answer(&self.sources),
            Resource::Description => Ok(respond_as(StatusCode::OK, JSON, DESCRIPTION)),
            Resource::Health => Ok(health::alive()),
            Resource::Ready => Ok(health::ready(&self.sources)),
            Resource::Metrics => self.metrics.answer(),
        };
        Answer::Now(answered.unwrap_or_else(|problem| problem.response()))
    }

    /// What nobody will ever know is not waited for.
    fn later(&self, service: Option<String>, format: Format, wait: Wait, asked: &HeaderMap) -> Answer {
        let unknown = service.as_deref().and_then(|name| services::unknown(self, name));
        match unknown {
            Some(problem) => Answer::Now(problem.response()),
            None => Answer::Late(Late::Change(Change { service, format, wait, known: services::known(asked) })),
        }
    }
}
