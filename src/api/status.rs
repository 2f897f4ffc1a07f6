//! `GET /v1/status`: how old everything is, what is held back, and what each frontend was proven to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::fleet::Fleet;
use super::respond::{Body, JSON, respond_as};
use super::{Sources, age_seconds};
use crate::model::{self, Name};
use crate::sys::confine;
use crate::{frontend, registry};

/// elasticd's standing, as the API answers it. Ages are in whole seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// elasticd's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether it is ready.
    pub ready: bool,
    /// The snapshot's revision; none before there is a snapshot.
    pub revision: Option<u64>,
    /// By name.
    pub providers: BTreeMap<Name, Provider>,
    /// By name.
    pub services: BTreeMap<Name, Service>,
    /// By name.
    pub frontends: BTreeMap<Name, Frontend>,
    /// Our own zone, once it is known.
    #[serde(default)]
    pub zone: Option<String>,
    /// Why the last known good could not be written, while it cannot.
    pub state_error: Option<String>,
    /// What elasticd may no longer do.
    #[serde(default)]
    pub confinement: confine::Report,
    /// What is published to a fleet, and read of one; none where there is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Fleet>,
}

/// One provider's standing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// The provider's type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Seconds since it last answered in full; none if it has not since elasticd started.
    pub age_seconds: Option<u64>,
    /// Instances in the last complete answer.
    pub instances: usize,
    /// How long the last poll took, in seconds.
    pub poll_seconds: f64,
    /// Polls since start, failed ones included.
    pub polls: u64,
    /// Failed polls since start.
    pub failures: u64,
    /// Calls refused because there were too many, since start.
    pub throttles: u64,
    /// Calls to the source since start, repeated ones included.
    pub calls: u64,
    /// Pages it answered with since start.
    pub pages: u64,
    /// The last poll's error; none once one succeeds.
    pub error: Option<String>,
}

/// One service's standing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The providers its instances come from, in their order.
    pub sources: Vec<Source>,
    /// How many backends it has; none while nothing is known.
    pub backends: Option<usize>,
    /// The revision at which they last changed.
    pub revision: u64,
    /// Seconds since the provider that was heard of longest ago last answered for it in full.
    pub age_seconds: Option<u64>,
    /// Some of the set stems from the state directory, and no poll has confirmed it yet.
    pub restored: bool,
    /// The first newly observed set that is held back.
    pub held: Option<Held>,
    /// So many backends fail the sidecar's own checks that the failures are not believed.
    #[serde(default)]
    pub panicking: bool,
    /// Instances that did not become backends.
    pub exclusions: Exclusions,
}

/// What one provider contributes to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The provider.
    pub provider: Name,
    /// How many backends it has of it; none while it has not answered.
    pub backends: Option<usize>,
    /// Seconds since it last reported those.
    pub age_seconds: Option<u64>,
    /// Its newly observed set that is held back.
    pub held: Option<Held>,
}

/// Why an observed set is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// In one word: `empty` or `drop`.
    pub reason: String,
    /// In a sentence, with the remedy.
    pub message: String,
}

/// Instances that did not become backends of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusions {
    /// All of them.
    pub count: usize,
    /// Those among them that somebody must mend.
    pub faults: usize,
    /// Up to a hundred of them, faults first, then by id.
    pub first: Vec<Exclusion>,
}

/// One instance that did not become a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// The instance's id.
    pub id: String,
    /// The rule that kept it out, in one word.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
}

/// One frontend's standing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frontend {
    /// The frontend's type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// What its worker is at: `waiting`, `applying`, `not_running`, `proven` or `failed`.
    pub phase: String,
    /// The revision it was last proven to run.
    pub proven_revision: Option<u64>,
    /// Seconds since that was proven.
    pub proven_age_seconds: Option<u64>,
    /// The newest revision that it should run.
    pub wanted_revision: Option<u64>,
    /// The PID last signalled or seen.
    pub pid: Option<i32>,
    /// Why the last attempt failed; none once one succeeds.
    pub error: Option<String>,
    /// Attempts that changed a file or asked for a reload, since start.
    pub applies: u64,
    /// Attempts that failed, since start.
    pub failures: u64,
    /// Reloads asked for, since start.
    pub reloads: u64,
    /// Changes told over its runtime API, without a reload, since start.
    #[serde(default)]
    pub told: u64,
    /// How long each step of the last attempt took.
    #[serde(default)]
    pub last_attempt_seconds: Steps,
}

/// How long the steps of one change took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// From the snapshot to the contents of all outputs.
    pub render: f64,
    /// Writing them beside their places, synced.
    pub stage: f64,
    /// The frontend's own check.
    pub check: f64,
    /// Exchanging them for the previous ones, synced, with the apply record.
    pub swap: f64,
    /// Telling the frontend, or asking it to reload.
    pub reload: f64,
    /// Until it was proven to run them.
    pub proof: f64,
}

/// The answer.
pub(super) fn answer(sources: &Sources) -> Result<Response<Body>, Problem> {
    let body =
        serde_json::to_vec(&Status::of(sources)).map_err(|error| Problem::Internal { why: error.to_string() })?;
    Ok(respond_as(StatusCode::OK, JSON, body))
}

impl Status {
    /// What the sources say now.
    pub fn of(sources: &Sources) -> Self {
        // Cloned, so that no writer waits while this is put together.
        let report = Arc::clone(&sources.registry.borrow());
        let frontends = Arc::clone(&sources.frontends.borrow());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: age_seconds(sources.started),
            ready: *sources.ready.borrow(),
            revision: sources.snapshot.borrow().as_ref().map(|snapshot| snapshot.revision),
            providers: report.providers.iter().map(|(name, report)| (name.clone(), report.into())).collect(),
            services: report.services.iter().map(|(name, report)| (name.clone(), (&**report).into())).collect(),
            frontends: frontends.iter().map(|(name, report)| (name.clone(), (&**report.borrow()).into())).collect(),
            zone: report.zone.clone(),
            state_error: report.state_error.clone(),
            confinement: (*sources.confinement).clone(),
            fleet: Fleet::of(&sources.fleet.borrow()),
        }
    }
}

impl From<&registry::ProviderReport> for Provider {
    fn from(report: &registry::ProviderReport) -> Self {
        Self {
            type_name: report.type_name.to_owned(),
            age_seconds: report.last_success.map(age_seconds),
            instances: report.instances.len(),
            poll_seconds: report.last_duration,
            polls: report.polls,
            failures: report.failures,
            throttles: report.throttles,
            calls: report.calls,
            pages: report.pages,
            error: report.error.clone(),
        }
    }
}

impl From<&registry::ServiceReport> for Service {
    fn from(report: &registry::ServiceReport) -> Self {
        Self {
            sources: report.sources.iter().map(Source::from).collect(),
            backends: report.backends,
            revision: report.revision,
            age_seconds: report.observed().map(age_seconds),
            restored: report.restored,
            held: report.held().map(Held::from),
            panicking: report.panicking,
            exclusions: (&report.excluded).into(),
        }
    }
}

impl From<&registry::SourceReport> for Source {
    fn from(report: &registry::SourceReport) -> Self {
        Self {
            provider: report.provider.clone(),
            backends: report.backends,
            age_seconds: report.observed.map(age_seconds),
            held: report.held.as_ref().map(Held::from),
        }
    }
}

impl From<&registry::HeldSet> for Held {
    fn from(held: &registry::HeldSet) -> Self {
        Self { reason: held.reason().to_owned(), message: held.to_string() }
    }
}

impl From<&registry::ExclusionSummary> for Exclusions {
    fn from(excluded: &registry::ExclusionSummary) -> Self {
        let registry::ExclusionSummary { count, faults, first } = excluded;
        Self { count: *count, faults: *faults, first: first.iter().map(Exclusion::from).collect() }
    }
}

impl From<&model::Exclusion> for Exclusion {
    fn from(exclusion: &model::Exclusion) -> Self {
        let reason = &exclusion.reason;
        Self { id: exclusion.id.clone(), reason: tag_of(reason), message: reason.to_string() }
    }
}

impl From<&frontend::Report> for Frontend {
    fn from(report: &frontend::Report) -> Self {
        Self {
            type_name: report.type_name.clone(),
            phase: text_of(serde_json::to_value(report.phase).ok().as_ref()),
            proven_revision: report.proven_revision,
            proven_age_seconds: report.proven_at.map(age_seconds),
            wanted_revision: report.wanted_revision,
            pid: report.pid,
            error: report.error.clone(),
            applies: report.applies,
            failures: report.failures,
            reloads: report.reloads,
            told: report.told,
            last_attempt_seconds: report.timings.into(),
        }
    }
}

impl From<frontend::Timings> for Steps {
    fn from(timings: frontend::Timings) -> Self {
        let frontend::Timings { render, stage, check, swap, reload, proof } = timings;
        let [render, stage, check, swap, reload, proof] =
            [render, stage, check, swap, reload, proof].map(|step| step.as_secs_f64());
        Self { render, stage, check, swap, reload, proof }
    }
}

/// The tag that an enum serialises with, so that the words are written down once, where the enum is.
fn tag_of(reason: &impl Serialize) -> String {
    text_of(serde_json::to_value(reason).ok().as_ref().and_then(|value| value.get("reason")))
}

fn text_of(value: Option<&serde_json::Value>) -> String {
    value.and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
#[path = "status_tests.rs"]
pub(super) mod tests;
