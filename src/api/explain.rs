//! `GET /v1/explain/{instance}`: in or out of which service, and by which rule.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde::Serialize;

use super::Sources;
use super::error::{Problem, echo};
use super::respond::{Body, JSON, respond_as};
use crate::model::{self, Backend, BackendState, Name, Reason};
use crate::registry::{Report, ServiceReport};

/// What there is to say of one instance.
#[derive(Debug, Serialize)]
struct Explanation<'a> {
    instance: &'a str,
    services: Vec<Verdict<'a>>,
}

/// What one service makes of it.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    service: &'a Name,
    /// Whether it is a backend of the snapshot.
    #[serde(rename = "in")]
    is_in: bool,
    /// In a sentence.
    message: String,
    /// The rule that kept it out, in the words of `/v1/status`.
    #[serde(flatten)]
    rule: Option<Reason>,
    /// As frontends are told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a Backend>,
}

/// What every service makes of the instance.
pub(super) fn answer(sources: &Sources, id: &str) -> Result<Response<Body>, Problem> {
    let report = Arc::clone(&sources.registry.borrow());
    let snapshot = sources.snapshot.borrow().clone();
    let mut services = Vec::new();
    for (service, standing) in &report.services {
        let set = snapshot.as_ref().and_then(|snapshot| snapshot.services.get(service));
        let backend = set.and_then(|set| {
            let index = set.backends.binary_search_by(|backend| backend.id.as_str().cmp(id)).ok()?;
            set.backends.get(index)
        });
        let rule = rule(&report, standing, id);
        let message = match (backend, &rule, standing.held()) {
            (Some(backend), Some(rule), _) if backend.state == BackendState::Draining => {
                format!("it is a backend that is leaving, and gets no new traffic: {rule}")
            }
            (Some(_), Some(rule), None) => format!("it is a backend until the newest answer is taken; there, {rule}"),
            // What was observed last and what is served differ.
            (Some(_), Some(rule), Some(held)) => {
                format!("it is still a backend, as a newer set is held back ({held}); there, {rule}")
            }
            (Some(_), None, Some(held)) => format!("it is a backend; a newer set is held back: {held}"),
            (Some(backend), None, None) if backend.state == BackendState::Draining => {
                "it is a backend that is leaving: it gets no new traffic".to_owned()
            }
            (Some(_), None, None) => "it is a backend".to_owned(),
            (None, Some(rule), _) => rule.to_string(),
            (None, None, _) => continue,
        };
        services.push(Verdict { service, is_in: backend.is_some(), message, rule, backend });
    }
    if services.is_empty() {
        return Err(Problem::UnknownInstance { id: echo(id) });
    }
    let body = serde_json::to_vec(&Explanation { instance: id, services })
        .map_err(|error| Problem::Internal { why: error.to_string() })?;
    Ok(respond_as(StatusCode::OK, JSON, body))
}

/// The rule by which a service leaves an instance out: one of its own, or, if it is a member by none of the providers'
/// last answers, that of the first which has it.
fn rule(report: &Report, standing: &ServiceReport, id: &str) -> Option<Reason> {
    if let Ok(index) = standing.excluded_members.binary_search_by(|exclusion| exclusion.id.as_str().cmp(id)) {
        return Some(standing.excluded_members[index].reason.clone());
    }
    let of = |provider| {
        let instances = &report.providers.get(provider)?.instances;
        // The one listed last counts, as in a selection.
        instances.iter().rev().find(|instance| instance.id == id)
    };
    let listed = standing.service.providers.iter().filter_map(of);
    let judged: Vec<_> = listed.map(|instance| model::select_one(&standing.service, instance)).collect();
    if judged.iter().any(Result::is_ok) { None } else { judged.into_iter().find_map(Result::err) }
}
