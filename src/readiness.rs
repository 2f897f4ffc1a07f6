//! When elasticd may say that it is ready, and the line it shows meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::Name;
use crate::sys::systemd;
use crate::{registry, status};

/// Where each frontend's worker says how it stands.
pub type Frontends = Arc<BTreeMap<Name, watch::Receiver<Arc<status::Frontend>>>>;

/// Waits for the first complete pass and says so, once: every service has been discovered in full or restored, and
/// every frontend that could be given its backends has been. `services` are those of each frontend.
///
/// A service whose first set the guard holds back has been discovered; a frontend that waits for it waits for a person.
pub async fn first_pass(
    mut report: watch::Receiver<Arc<registry::Report>>,
    frontends: watch::Receiver<Frontends>,
    services: BTreeMap<Name, Vec<Name>>,
    ready: watch::Sender<bool>,
) {
    if report.wait_for(|report| report.services.values().all(|account| is_discovered(account))).await.is_err() {
        return;
    }
    let frontends = frontends.borrow().as_ref().clone();
    for (name, mut frontend) in frontends {
        let held = |report: &registry::Report| {
            let account = |service| report.services.get(service);
            services
                .get(&name)
                .is_some_and(|told| told.iter().filter_map(account).any(|account| account.status.backends.is_none()))
        };
        if held(&report.borrow()) {
            continue;
        }
        // A worker that was replaced by a reload of the configuration says nothing more; its successor is not waited for.
        let _ = frontend.wait_for(|report| report.attempted).await;
    }
    ready.send_replace(true);
    systemd::ready();
    tracing::info!("ready");
    std::future::pending().await
}

fn is_discovered(account: &registry::ServiceReport) -> bool {
    account.status.backends.is_some() || account.status.held.is_some()
}

/// Keeps the line that `systemctl status` shows.
pub async fn status_line(mut report: watch::Receiver<Arc<registry::Report>>) {
    let mut shown = String::new();
    loop {
        let line = line(&report.borrow_and_update());
        if line != shown {
            systemd::status(&line);
            shown = line;
        }
        if report.changed().await.is_err() {
            return;
        }
    }
}

fn line(report: &registry::Report) -> String {
    let service =
        |(name, account): (&Name, &Arc<registry::ServiceReport>)| match (account.status.backends, &account.status.held)
        {
            (None, None) => {
                let awaited = account.status.sources.iter().filter(|source| source.age_seconds.is_none());
                let awaited: Vec<_> = awaited.map(|source| source.provider.as_str()).collect();
                format!("{name}: waiting for {}", awaited.join(", "))
            }
            (None, Some(_)) => format!("{name}: held back"),
            (Some(backends), held) => {
                let held = if held.is_some() { " (a change is held back)" } else { "" };
                format!("{name}: {backends} backends, revision {}{held}", account.status.revision)
            }
        };
    let failing = report.providers.iter().filter(|(_, account)| account.status.error.is_some());
    let failing = failing.map(|(name, _)| format!("{name}: polls fail"));
    report.services.iter().map(service).chain(failing).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Service;
    use crate::status::Held;

    fn account(backends: Option<usize>, held: bool) -> registry::ServiceReport {
        registry::ServiceReport {
            service: Arc::new(Service::new("web".parse().expect("a name"), "prod".parse().expect("a name"))),
            status: Arc::new(status::Service {
                backends,
                revision: 7,
                ..status::Service::of(vec![status::Source {
                    provider: "prod".parse().expect("a name"),
                    backends,
                    age_seconds: None,
                    held: held.then(|| Held { reason: "empty".to_owned(), message: String::new() }),
                }])
            }),
            excluded_members: Arc::default(),
        }
    }

    fn report(accounts: Vec<(&str, registry::ServiceReport)>) -> registry::Report {
        let services =
            accounts.into_iter().map(|(name, account)| (name.parse().expect("a name"), Arc::new(account))).collect();
        registry::Report { services, ..registry::Report::default() }
    }

    #[test]
    fn the_line_says_what_is_waited_for() {
        let report = report(vec![
            ("a", account(None, false)),
            ("b", account(None, true)),
            ("c", account(Some(3), false)),
            ("d", account(Some(3), true)),
        ]);
        assert_eq!(
            line(&report),
            "a: waiting for prod; b: held back; c: 3 backends, revision 7; \
             d: 3 backends, revision 7 (a change is held back)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn ready_only_after_every_service_and_every_frontend() {
        let registry = watch::Sender::new(Arc::new(report(vec![("web", account(None, false))])));
        let frontend = watch::Sender::new(Arc::new(status::Frontend::default()));
        let nginx: Name = "nginx".parse().expect("a name");
        let frontends = watch::Sender::new(Arc::new([(nginx.clone(), frontend.subscribe())].into()));
        let ready = watch::Sender::new(false);
        let mut is_ready = ready.subscribe();
        let services = [(nginx, vec!["web".parse().expect("a name")])].into();
        let task = tokio::spawn(first_pass(registry.subscribe(), frontends.subscribe(), services, ready));
        let second = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(second, is_ready.changed()).await.is_err(), "nothing is discovered");
        registry.send_replace(Arc::new(report(vec![("web", account(Some(1), false))])));
        assert!(tokio::time::timeout(second, is_ready.changed()).await.is_err(), "nothing is applied");
        frontend.send_modify(|report| Arc::make_mut(report).attempted = true);
        tokio::time::timeout(second, is_ready.wait_for(|ready| *ready)).await.expect("in time").expect("said");
        task.abort();
    }
}
