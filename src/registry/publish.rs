//! From the services' current sets to the next revision: saved, published and reported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::pool::Served;
use super::{Registry, Report, registration};
use crate::model::{Backend, Name, ServiceSet};
use crate::sys::atomic_file;

impl Registry {
    /// Publishes the next revision if any service's set at `now` differs from the published one. Returns when a set may
    /// change without a further event.
    pub fn settle(&mut self, now: SystemTime) -> Option<SystemTime> {
        let mut due = registration::expire(&mut self.saved.registered, now);
        let mut changed = BTreeMap::new();
        let zone = self.zone().map(str::to_owned);
        for (name, pool) in &mut self.pools {
            let registered = self.saved.registered.get(name);
            let Some(Served { backends, next_change }) = pool.serve(now, zone.as_deref(), registered) else {
                continue;
            };
            due = [due, next_change].into_iter().flatten().min();
            let current = self.saved.snapshot.services.get(name);
            if current.is_none_or(|set| set.backends != backends) {
                changed.insert(name.clone(), backends);
            }
        }
        // A service that tags created is removed once no instance has the tags any more.
        let removed: Vec<_> =
            self.saved.snapshot.services.keys().filter(|name| !self.pools.contains_key(*name)).cloned().collect();
        let mut report = Report::clone(&self.report.borrow());
        if !changed.is_empty() || !removed.is_empty() {
            // Unchanged services share their sets with the snapshots published before.
            let snapshot = &mut self.saved.snapshot;
            snapshot.revision += 1;
            for name in removed {
                tracing::info!(service = %name, revision = snapshot.revision, "service removed");
                snapshot.services.remove(&name);
            }
            for (name, backends) in changed {
                let current = snapshot.services.get(&name);
                log_change(&name, current.map_or(&[], |set| &set.backends), &backends, snapshot.revision);
                let set = ServiceSet { revision: snapshot.revision, backends };
                snapshot.services.insert(name, Arc::new(set));
            }
            self.publish(&mut report);
        }
        self.update_report(report);
        self.update_health_pools(now);
        due
    }

    /// Saves before it publishes: a revision that a client may have seen is never used again for other backends.
    fn publish(&mut self, report: &mut Report) {
        match self.save() {
            Ok(()) => {
                if report.state_error.take().is_some() {
                    tracing::info!("state is saved again");
                }
            }
            Err(error) => {
                let error = error.to_string();
                if report.state_error.is_none() {
                    tracing::error!(%error, "state not saved; a restart would serve an older set until the first poll");
                }
                report.state_error = Some(error);
            }
        }
        self.snapshots.send_replace(Some(Arc::new(self.saved.snapshot.clone())));
    }

    pub(super) fn save(&self) -> Result<(), atomic_file::Error> {
        let Some(state) = &self.state else { return Ok(()) };
        let pools = self.pools.iter().map(|(name, pool)| (name, pool.persisted())).collect();
        state.save(&self.saved.snapshot, &self.saved.registered, &pools)
    }

    fn update_report(&self, mut report: Report) {
        report.zone = self.zone().map(str::to_owned);
        report.services = self
            .pools
            .iter()
            .map(|(name, pool)| {
                let served = self.saved.snapshot.services.get(name);
                let served = served.map(|set| (set.revision, set.backends.len()));
                (name.clone(), Arc::new(pool.report(served)))
            })
            .collect();
        self.report.send_replace(Arc::new(report));
    }

    fn update_health_pools(&self, now: SystemTime) {
        let registered = |name| self.saved.registered.get(name);
        let pools: Vec<_> =
            self.pools.iter().filter_map(|(name, pool)| pool.health_pool(now, registered(name))).collect();
        self.health_pools.send_if_modified(|current| {
            let changed = **current != pools;
            if changed {
                *current = Arc::new(pools);
            }
            changed
        });
    }
}

fn log_change(service: &Name, old: &[Backend], new: &[Backend], revision: u64) {
    let before: BTreeMap<&str, &Backend> = old.iter().map(|backend| (backend.id.as_str(), backend)).collect();
    let kept = new.iter().filter_map(|backend| Some((backend, *before.get(backend.id.as_str())?)));
    let (kept, changed) =
        kept.fold((0, 0), |(kept, changed), (new, old)| (kept + 1, changed + usize::from(new != old)));
    // A state file that was edited by hand may have an id twice.
    let (added, removed) = (new.len() - kept, old.len().saturating_sub(kept));
    tracing::info!(%service, added, removed, changed, backends = new.len(), revision, "backends changed");
}
