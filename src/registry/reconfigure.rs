//! Which services there are: those of the configuration, and those that tags create.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pool::{PersistedService, Pool};
use super::{Registry, Report, Settings, report};
use crate::model::{Created, Instance, Name};

impl Registry {
    /// Adds new services, reconfigures those that stay, and drops those that are gone.
    pub(super) fn reconfigure(&mut self, settings: Settings) {
        let mut report = Report::clone(&self.report.borrow());
        report.providers.retain(|name, _| settings.providers.contains_key(name));
        for (name, provider) in &settings.providers {
            report.providers.entry(name.clone()).or_default().status.type_name = provider.type_name.to_owned();
        }
        self.report.send_replace(Arc::new(report));
        let mut running = std::mem::take(&mut self.pools);
        let mut saved = std::mem::take(&mut self.saved.pools);
        let persisted = running.values().map(Pool::persisted).chain(saved.values());
        let created = persisted.filter_map(|service| service.origin.as_ref()).filter_map(|origin| {
            let pattern = settings.patterns.iter().find(|pattern| pattern.base.name == origin.pattern)?;
            Some((pattern.service(origin).ok()?, Some(origin.clone())))
        });
        let configured = settings.services.iter().map(|service| (service.clone(), None));
        // Configured services come last: one of them replaces a service of the same name that tags created.
        let all = created.collect::<Vec<_>>().into_iter().chain(configured);
        let services: BTreeMap<Name, _> = all.map(|entry| (entry.0.name.clone(), entry)).collect();
        for (name, (service, origin)) in services {
            let pool = match running.remove(&name) {
                Some(mut pool) => {
                    pool.reconfigure(service, origin);
                    pool
                }
                None => {
                    let is_served = self.saved.snapshot.services.contains_key(&name);
                    let persisted = PersistedService { origin, ..saved.remove(&name).unwrap_or_default() };
                    Pool::new(service, persisted, is_served)
                }
            };
            self.pools.insert(name, pool);
        }
        self.saved.registered.retain(|name, _| self.pools.contains_key(name));
        self.settings = settings;
        self.settle_now();
        // A restored snapshot is served from the start, before any poll.
        if !self.saved.snapshot.services.is_empty() && self.snapshots.borrow().is_none() {
            self.snapshots.send_replace(Some(Arc::new(self.saved.snapshot.clone())));
        }
    }

    /// Adds the services that the tags of a provider's instances create.
    pub(super) fn create_services(&mut self, provider: &Name, instances: &[Instance]) {
        for pattern in self.settings.patterns.iter().filter(|pattern| pattern.base.providers.contains(provider)) {
            let Created { mut services, mut faults } = pattern.expand(instances);
            for service in &self.settings.services {
                if services.remove(&service.name).is_some() {
                    faults.push(format!("the configuration has a service {} already, which is kept", service.name));
                }
            }
            let pattern = &pattern.base.name;
            if self.pattern_faults.get(pattern) != Some(&faults) {
                for fault in faults.iter().take(report::MAX_LOGGED) {
                    tracing::warn!(%pattern, reason = %fault, "tags create no service");
                }
                if faults.len() > report::MAX_LOGGED {
                    let more = faults.len() - report::MAX_LOGGED;
                    tracing::warn!(%pattern, more, "tags of further instances create no service");
                }
                self.pattern_faults.insert(pattern.clone(), faults);
            }
            for (name, (service, origin)) in services {
                self.pools.entry(name).or_insert_with(|| Pool::created(service, origin));
            }
        }
    }
}
