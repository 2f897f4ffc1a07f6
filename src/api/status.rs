//! `GET /v1/status`: how old everything is, which sets are held, and what each frontend was proven to run.

use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::error::Problem;
use super::respond::{Body, respond_json};
use super::sources::Sources;
use crate::status::{Fleet, Status};

/// The answer.
pub(super) fn answer(sources: &Sources) -> Result<Response<Body>, Problem> {
    Ok(respond_json(StatusCode::OK, &status(sources))?)
}

/// The status at this time.
fn status(sources: &Sources) -> Status {
    // Cloned, so that no writer waits while this is put together.
    let report = Arc::clone(&sources.registry.borrow());
    let frontends = Arc::clone(&sources.frontends.borrow());
    let fleet = Arc::clone(&sources.fleet.borrow());
    let fleet = Fleet {
        publisher: fleet.publisher.as_ref().map(|report| Arc::clone(&report.borrow())),
        readers: fleet.readers.iter().map(|(name, report)| (name.clone(), Arc::clone(&report.borrow()))).collect(),
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: sources.started.into(),
        ready: *sources.ready.borrow(),
        revision: sources.snapshot.borrow().as_ref().map(|snapshot| snapshot.revision),
        providers: report.providers.iter().map(|(name, report)| (name.clone(), report.status.clone())).collect(),
        services: report.services.iter().map(|(name, report)| (name.clone(), Arc::clone(&report.status))).collect(),
        frontends: frontends.iter().map(|(name, report)| (name.clone(), Arc::clone(&report.borrow()))).collect(),
        orphaned_outputs: sources.orphaned_outputs.borrow().to_vec(),
        zone: report.zone.clone(),
        state_error: report.state_error.clone(),
        confinement: (*sources.confinement).clone(),
        fleet: (fleet.publisher.is_some() || !fleet.readers.is_empty()).then_some(fleet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::feeds;
    use crate::status::Phase;

    #[test]
    fn says_ages_holds_and_exclusions() {
        let (_feeds, sources) = feeds();
        let status = super::status(&sources);
        assert!((100..110).contains(&status.uptime_seconds.seconds()));
        assert_eq!(status.revision, Some(8));
        assert!((40..50).contains(&status.providers["prod"].age_seconds.expect("an age").seconds()));
        let web = &status.services["web"];
        assert_eq!(web.held.as_ref().expect("held").reason, "empty");
        assert_eq!((web.exclusions.count, web.exclusions.faults), (2, 1));
        let reasons: Vec<_> = web.exclusions.first.iter().map(|e| (e.id.as_str(), e.fault)).collect();
        assert_eq!(reasons, [("i-2", true), ("i-1", false)]);
        assert_eq!(status.services["db"].backends, None);
        assert_eq!(status.frontends["nginx"].phase, Phase::Waiting);
        assert_eq!(status.state_error.as_deref(), Some("disk full"));
    }

    #[test]
    fn reads_back_what_it_writes() {
        let (feeds, sources) = feeds();
        feeds.snapshot.send_replace(None);
        feeds.nginx.send_modify(|report| Arc::make_mut(report).phase = Phase::NotRunning);
        let status = super::status(&sources);
        assert_eq!(status.frontends["nginx"].phase, Phase::NotRunning);
        let json = serde_json::to_value(&status).expect("JSON");
        assert_eq!(json["frontends"]["nginx"]["phase"], "not_running");
        assert_eq!(json["services"]["web"]["exclusions"]["first"][0]["reason"], "no_port");
        assert_eq!(json["services"]["web"]["held"]["reason"], "empty");
        assert_eq!(json["providers"]["prod"]["calls"], 31);
        let read: Status = serde_json::from_value(json.clone()).expect("a status");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), json);
    }
}
