//! `GET /v1/explain/{instance}`: of which services an instance is a backend, and which rule excludes it from the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::error::{Problem, echo};
use super::respond::{Body, respond_json};
use super::sources::Sources;
use super::types::{Explanation, FrontendExplanation, ServiceExplanation};
use crate::model::{self, Backend, BackendState, Name, Reason};
use crate::registry::{Report, ServiceReport};

/// The answer.
pub(super) fn answer(sources: &Sources, id: &str) -> Result<Response<Body>, Problem> {
    let report = Arc::clone(&sources.registry.borrow());
    let snapshot = sources.snapshot.borrow().clone();
    let explain = |(name, service): (&Name, &Arc<ServiceReport>)| {
        let set = snapshot.as_ref().and_then(|snapshot| snapshot.services.get(name));
        let backend = set.and_then(|set| {
            let index = set.backends.binary_search_by(|backend| backend.id.as_str().cmp(id)).ok()?;
            set.backends.get(index)
        });
        explain(name, service, backend, exclusion(&report, service, id))
    };
    let services: Vec<_> = report.services.iter().filter_map(explain).collect();
    if services.is_empty() {
        return Err(Problem::UnknownInstance { id: echo(id) });
    }
    let frontends = left_out_of(sources, id);
    Ok(respond_json(StatusCode::OK, &Explanation { instance: id.to_owned(), services, frontends })?)
}

/// The frontends that cannot render the backend.
fn left_out_of(sources: &Sources, id: &str) -> Vec<FrontendExplanation> {
    let frontends = Arc::clone(&sources.frontends.borrow());
    let reports = frontends.iter().map(|(name, report)| (name, Arc::clone(&report.borrow().excluded.all)));
    let left_out = reports.flat_map(|(frontend, all)| {
        let of_it = all.iter().filter(|out| out.id == id).map(|out| FrontendExplanation {
            frontend: frontend.clone(),
            service: out.service.clone(),
            message: out.message.clone(),
        });
        of_it.collect::<Vec<_>>()
    });
    left_out.collect()
}

/// What there is to say of one service; `None` if it knows nothing of the instance.
fn explain(
    name: &Name,
    report: &ServiceReport,
    backend: Option<&Backend>,
    exclusion: Option<Reason>,
) -> Option<ServiceExplanation> {
    let why = exclusion.as_ref().map(Reason::to_string);
    let held = report.status.held.as_ref().map(|held| &held.message);
    let is_draining = backend.is_some_and(|backend| backend.state == BackendState::Draining);
    let message = match (backend.is_some(), why, held) {
        (true, Some(why), _) if is_draining => format!("draining, gets no new traffic: {why}"),
        (true, Some(why), None) => format!("still a backend, but excluded by the provider's newest answer: {why}"),
        (true, Some(why), Some(held)) => {
            format!("still a backend, because a newer set is held; excluded from that set: {why}; held: {held}")
        }
        (true, None, Some(held)) => format!("a backend; a newer set is held: {held}"),
        (true, None, None) if is_draining => "draining, gets no new traffic".to_owned(),
        (true, None, None) => "a backend".to_owned(),
        (false, Some(why), _) => why,
        (false, None, _) => return None,
    };
    let mut details = details(exclusion.as_ref());
    let reason = details.remove("reason").and_then(|reason| reason.as_str().map(str::to_owned));
    let (service, included) = (name.clone(), backend.is_some());
    Some(ServiceExplanation { service, included, message, reason, backend: backend.cloned(), details })
}

/// A rule's fields, its name under `reason` among them.
fn details(reason: Option<&Reason>) -> BTreeMap<String, serde_json::Value> {
    match reason.map(serde_json::to_value) {
        Some(Ok(serde_json::Value::Object(fields))) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

/// The rule by which a service excludes an instance: one of its own; or else, if the instance is a member by none of the
/// providers' last answers, that of the first provider which has the instance.
fn exclusion(report: &Report, service: &ServiceReport, id: &str) -> Option<Reason> {
    if let Ok(index) = service.excluded_members.binary_search_by(|exclusion| exclusion.id.as_str().cmp(id)) {
        return Some(service.excluded_members[index].reason.clone());
    }
    let listed_by = |provider| {
        let instances = &report.providers.get(provider)?.instances;
        // The one listed last counts, as in a selection.
        instances.iter().rev().find(|instance| instance.id == id)
    };
    let listed = service.service.providers.iter().filter_map(listed_by);
    let judged: Vec<_> = listed.map(|instance| model::select_one(&service.service, instance)).collect();
    if judged.iter().any(Result::is_ok) { None } else { judged.into_iter().find_map(Result::err) }
}
