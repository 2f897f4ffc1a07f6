use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::*;
use crate::api::documents::tests::backend;
use crate::model::{Reason, ServiceSet, Snapshot};

/// The writing ends of hand-made sources.
#[derive(Debug)]
pub(in crate::api) struct Feeds {
    pub(in crate::api) snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    pub(in crate::api) registry: watch::Sender<Arc<registry::Report>>,
    pub(in crate::api) ready: watch::Sender<bool>,
    pub(in crate::api) nginx: watch::Sender<Arc<frontend::Report>>,
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn report(now: SystemTime) -> registry::Report {
    let ago = |seconds| Some(now - Duration::from_secs(seconds));
    let prod = registry::ProviderReport {
        type_name: "ec2",
        last_success: ago(40),
        instances: (0..12).map(|n| model::Instance::new(format!("i-{n}"))).collect(),
        last_duration: 0.25,
        polls: 9,
        failures: 2,
        throttles: 1,
        calls: 31,
        pages: 28,
        error: Some("AccessDenied: allow ec2:DescribeInstances".into()),
    };
    let web = registry::ServiceReport {
        service: Arc::new(model::Service {
            select: model::Selector::of_tags([("Role", ["web"])]),
            ..model::Service::new(name("web"), name("prod"))
        }),
        sources: vec![registry::SourceReport {
            provider: name("prod"),
            backends: Some(1),
            observed: ago(40),
            held: Some(registry::HeldSet {
                service: name("web"),
                provider: name("prod"),
                hold: registry::guard::Hold::Empty { current: 1 },
                missing: vec!["i-0".into()],
                max_drop: model::Percent(50),
                interval: None,
            }),
        }],
        backends: Some(1),
        revision: 7,
        restored: false,
        excluded: vec![
            model::Exclusion {
                id: "i-1".into(),
                reason: Reason::TagMissing { key: "Role".into(), wanted: model::Condition::Present },
            },
            model::Exclusion { id: "i-2".into(), reason: Reason::NoPort },
        ]
        .into(),
        excluded_members: Arc::default(),
        panicking: false,
    };
    let db = registry::ServiceReport {
        service: Arc::new(model::Service::new(name("db"), name("prod"))),
        sources: vec![registry::SourceReport { backends: None, observed: None, held: None, ..web.sources[0].clone() }],
        backends: None,
        revision: 0,
        excluded: registry::ExclusionSummary::default(),
        ..web.clone()
    };
    registry::Report {
        providers: [(name("prod"), prod)].into(),
        services: [(name("db"), Arc::new(db)), (name("web"), Arc::new(web))].into(),
        zone: None,
        state_error: Some("disk full".into()),
    }
}

/// One provider, one service with a set and one without, and a frontend that has not been attempted.
pub(in crate::api) fn feeds() -> (Feeds, Sources) {
    let now = SystemTime::now();
    let web = ServiceSet { revision: 7, backends: vec![backend("i-9", "10.0.0.9", 80)] };
    let services = [(name("web"), Arc::new(web))].into();
    let (snapshot, snapshots) = watch::channel(Some(Arc::new(Snapshot { revision: 8, services })));
    let (registry, reports) = watch::channel(Arc::new(report(now)));
    let nginx = frontend::Report { type_name: "nginx".into(), wanted_revision: Some(8), ..Default::default() };
    let (nginx, nginx_reports) = watch::channel(Arc::new(nginx));
    let (_, frontends) = watch::channel(Arc::new([(name("nginx"), nginx_reports)].into()));
    let (ready, readiness) = watch::channel(false);
    let sources = Sources {
        confinement: Arc::default(),
        snapshot: snapshots,
        registry: reports,
        frontends,
        ready: readiness,
        fleet: watch::channel(Arc::default()).1,
        started: now - Duration::from_secs(100),
        orders: tokio::sync::mpsc::channel(1).0,
    };
    (Feeds { snapshot, registry, ready, nginx }, sources)
}

#[test]
fn says_ages_holds_and_exclusions() {
    let (_feeds, sources) = feeds();
    let status = Status::of(&sources);
    assert!((100..110).contains(&status.uptime_seconds));
    assert_eq!(status.revision, Some(8));
    assert!((40..50).contains(&status.providers["prod"].age_seconds.expect("an age")));
    let web = &status.services["web"];
    assert_eq!(web.held.as_ref().expect("held").reason, "empty");
    assert_eq!((web.exclusions.count, web.exclusions.faults), (2, 1));
    let reasons: Vec<_> = web.exclusions.first.iter().map(|e| (e.id.as_str(), e.reason.as_str())).collect();
    assert_eq!(reasons, [("i-2", "no_port"), ("i-1", "tag_missing")]);
    assert_eq!(status.services["db"].backends, None);
    assert_eq!(status.frontends["nginx"].phase, "waiting");
    assert_eq!(status.state_error.as_deref(), Some("disk full"));
}

#[test]
fn reads_back_what_it_writes() {
    let (feeds, sources) = feeds();
    feeds.snapshot.send_replace(None);
    feeds.nginx.send_modify(|report| Arc::make_mut(report).phase = frontend::Phase::NotRunning);
    let status = Status::of(&sources);
    assert_eq!(status.frontends["nginx"].phase, "not_running");
    let json = serde_json::to_string(&status).expect("JSON");
    assert_eq!(serde_json::from_str::<Status>(&json).expect("a status"), status);
}
