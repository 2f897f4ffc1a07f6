//! What several tests of the API answer from.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::sources::{Controls, Sources};
use crate::model::{self, Backend, BackendState, Name, Reason, ServiceSet, Snapshot, Tags};
use crate::registry;
use crate::status::{ApiUsage, Frontend, Held, Provider, Service, Source};

pub(super) fn backend(id: &str, address: &str, port: u16) -> Backend {
    Backend {
        id: id.to_owned(),
        address: address.parse().expect("an address"),
        port,
        zone: None,
        weight: 1,
        state: BackendState::Up,
        tags: Tags::default(),
    }
}

pub(super) fn set(revision: u64, backends: &[(&str, &str, u16)]) -> Arc<ServiceSet> {
    let backends = backends.iter().map(|(id, address, port)| backend(id, address, *port)).collect();
    Arc::new(ServiceSet { revision, backends })
}

pub(super) fn snapshot(revision: u64, services: &[(&str, &Arc<ServiceSet>)]) -> Arc<Snapshot> {
    let services = services.iter().map(|(name, set)| (name.parse().expect("a name"), Arc::clone(set)));
    Arc::new(Snapshot { revision, services: services.collect() })
}

/// The writing ends of hand-made sources.
#[derive(Debug)]
pub(super) struct Feeds {
    pub(super) snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    pub(super) registry: watch::Sender<Arc<registry::Report>>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) nginx: watch::Sender<Arc<Frontend>>,
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn report(now: SystemTime) -> registry::Report {
    let ago = |seconds| Some((now - Duration::from_secs(seconds)).into());
    let prod = registry::ProviderReport {
        status: Provider {
            type_name: "ec2".into(),
            age_seconds: ago(40),
            instances: 12,
            poll_duration_seconds: 0.25,
            polls: 9,
            failures: 2,
            usage: ApiUsage { calls: 31, pages: 28, throttles: 1 },
            error: Some("AccessDenied: allow ec2:DescribeInstances".into()),
        },
        instances: (0..12).map(|n| model::Instance::new(format!("i-{n}"))).collect(),
    };
    let source = Source {
        provider: name("prod"),
        backends: Some(1),
        age_seconds: ago(40),
        held: Some(Held { reason: "empty".to_owned(), message: "no backends".to_owned() }),
    };
    let web = registry::ServiceReport {
        status: Arc::new(Service {
            backends: Some(1),
            revision: 7,
            exclusions: vec![
                model::Exclusion {
                    id: "i-1".into(),
                    reason: Reason::TagMissing { key: "Role".into(), wanted: model::Condition::Present },
                },
                model::Exclusion { id: "i-2".into(), reason: Reason::NoPort },
            ]
            .into(),
            ..Service::of(vec![source.clone()])
        }),
        service: Arc::new(model::Service {
            select: model::Selector::of_tags([("Role", ["web"])]),
            ..model::Service::new(name("web"), name("prod"))
        }),
        excluded_members: Arc::default(),
    };
    let db = registry::ServiceReport {
        status: Arc::new(Service::of(vec![Source { backends: None, age_seconds: None, held: None, ..source }])),
        service: Arc::new(model::Service::new(name("db"), name("prod"))),
        excluded_members: Arc::default(),
    };
    registry::Report {
        providers: [(name("prod"), prod)].into(),
        services: [(name("db"), Arc::new(db)), (name("web"), Arc::new(web))].into(),
        zone: None,
        state_error: Some("disk full".into()),
    }
}

/// One provider, one service with a set and one without, and a frontend that has not been attempted.
pub(super) fn feeds() -> (Feeds, Sources) {
    let now = SystemTime::now();
    let web = ServiceSet { revision: 7, backends: vec![backend("i-9", "10.0.0.9", 80)] };
    let services = [(name("web"), Arc::new(web))].into();
    let (snapshot, snapshots) = watch::channel(Some(Arc::new(Snapshot { revision: 8, services })));
    let (registry, reports) = watch::channel(Arc::new(report(now)));
    let nginx = Frontend { type_name: "nginx".into(), wanted_revision: Some(8), ..Default::default() };
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
        orphaned_outputs: watch::channel(Arc::default()).1,
        started: now - Duration::from_secs(100),
        controls: Controls::disconnected(),
    };
    (Feeds { snapshot, registry, ready, nginx }, sources)
}
