//! Our own health checks of backends, for frontends that have none.
//!
//! One task probes every backend of every service that has a health check. Probes are spread over the interval, and a
//! bounded number is under way at a time; [`evaluate`] decides from their results which backends are out.

pub mod evaluate;
mod pool;
pub mod probe;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::{HealthCheck, Name};
use crate::sys::backoff::Jitter;
use evaluate::{Evaluator, NOT_CHECKED_YET};
pub use pool::{HealthReport, Pool, Target};
use probe::Outcome;

/// The number of probes under way at a time, over all services, and so of the sockets that are open for them.
pub const MAX_PROBES: usize = 128;

/// The jitter of an interval, ±10 %, so that probes that coincided once do not coincide for ever.
const JITTER: Jitter = Jitter::PlusMinus { percent: 10 };

/// How often the log repeats that this machine cannot probe.
const LOCAL_FAULT_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Probes the backends of `pools` until stopped, and reports the results.
///
/// A service is reported once for each change of its pool, at once, and then whenever its health changes. Returns when
/// stopped, when the sender of `pools` is gone, or when the receiver of `reports` is.
pub async fn run(pools: watch::Receiver<Arc<Vec<Pool>>>, reports: mpsc::Sender<HealthReport>, stop: CancellationToken) {
    let probe = |address, check: Arc<HealthCheck>| async move { probe::probe(address, &check).await };
    stop.run_until_cancelled(check(pools, reports, probe)).await;
}

async fn check<F>(
    mut pools: watch::Receiver<Arc<Vec<Pool>>>,
    reports: mpsc::Sender<HealthReport>,
    probe: impl Fn(SocketAddr, Arc<HealthCheck>) -> F,
) where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut checker = Checker::default();
    pools.mark_changed();
    loop {
        let next = checker.next_due();
        tokio::select! {
            changed = pools.changed() => {
                if changed.is_err() {
                    return;
                }
                let pools = Arc::clone(&pools.borrow_and_update());
                checker.set(&pools);
            }
            Some(result) = checker.under_way.join_next() => checker.probe_ended(result),
            () = sleep_until(next) => checker.start_due(&probe),
        }
        // Probes that ended at the same time make one report.
        while let Some(result) = checker.under_way.try_join_next() {
            checker.probe_ended(result);
        }
        for report in checker.changed_reports() {
            if reports.send(report).await.is_err() {
                return;
            }
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

type ProbeId = u64;

/// The schedule of all probes, and what is known of every service.
#[derive(Default)]
struct Checker {
    services: BTreeMap<Name, CheckedService>,
    /// The recurring probes. An id is never used again, so that the result of a probe that was removed is recognised.
    probes: HashMap<ProbeId, ScheduledProbe>,
    last_id: ProbeId,
    due: BTreeSet<(Instant, ProbeId)>,
    under_way: JoinSet<(ProbeId, Instant, Outcome)>,
    local_fault_logged: Option<Instant>,
}

struct CheckedService {
    pool: Pool,
    check: Arc<HealthCheck>,
    evaluator: Evaluator,
    /// The probe of each backend, by the backend's id.
    probes: BTreeMap<String, ProbeId>,
    last_report: Option<HealthReport>,
    /// Whether the health may have changed since the last report.
    may_have_changed: bool,
    /// Whether a report is due even if the health has not changed.
    must_report: bool,
}

/// One backend's recurring probe.
struct ScheduledProbe {
    service: Name,
    backend: String,
    address: SocketAddr,
    check: Arc<HealthCheck>,
}

impl Checker {
    /// When the next probe is due, if another one may be started.
    fn next_due(&self) -> Option<Instant> {
        let may_start = self.under_way.len() < MAX_PROBES;
        self.due.first().filter(|_| may_start).map(|(at, _)| *at)
    }

    fn set(&mut self, pools: &[Pool]) {
        let named: BTreeSet<_> = pools.iter().map(|pool| &pool.service).collect();
        let probes = &mut self.probes;
        self.services.retain(|name, service| {
            let kept = named.contains(name);
            if !kept {
                service.probes.values().for_each(|id| drop(probes.remove(id)));
            }
            kept
        });
        for pool in pools {
            if self.services.get(&pool.service).is_none_or(|service| service.pool != *pool) {
                self.set_pool(pool);
            }
        }
        self.due.retain(|(_, id)| self.probes.contains_key(id));
    }

    fn set_pool(&mut self, pool: &Pool) {
        let Pool { service: name, check, targets, failed } = pool;
        let is_first = !self.services.contains_key(name);
        let service = self.services.entry(name.clone()).or_insert_with(|| CheckedService::new(pool));
        (service.may_have_changed, service.must_report) = (true, true);
        let mut former = std::mem::take(&mut service.probes);
        if service.pool.check != *check {
            let probe_of = |check: &HealthCheck| (check.probe.clone(), check.port);
            service.evaluator.reconfigure(check, probe_of(&service.pool.check) != probe_of(check));
            service.check = Arc::new(check.clone());
            // Every backend is scheduled anew, with the new probe and interval.
            std::mem::take(&mut former).values().for_each(|id| drop(self.probes.remove(id)));
        }
        let probed_at_once: BTreeSet<_> = service.evaluator.set(targets).into_iter().collect();
        if is_first {
            service.evaluator.restore_failed(failed);
        }
        let now = Instant::now();
        let mut spread = Vec::new();
        for target in targets {
            if let Some(id) = former.remove(&target.id) {
                if self.probes.get(&id).is_some_and(|probe| probe.address == target.address) {
                    service.probes.insert(target.id.clone(), id);
                    continue;
                }
                self.probes.remove(&id);
            }
            self.last_id += 1;
            let probe = ScheduledProbe {
                service: name.clone(),
                backend: target.id.clone(),
                address: target.address,
                check: Arc::clone(&service.check),
            };
            self.probes.insert(self.last_id, probe);
            // Of two targets with the same id the last one counts, as for the evaluator.
            if let Some(id) = service.probes.insert(target.id.clone(), self.last_id) {
                self.probes.remove(&id);
            }
            if probed_at_once.contains(&target.id) {
                self.due.insert((now, self.last_id));
            } else {
                spread.push(self.last_id);
            }
        }
        former.values().for_each(|id| drop(self.probes.remove(id)));
        // In random order, since backends that follow each other often share a machine.
        fastrand::shuffle(&mut spread);
        let share = check.interval.div_f64(spread.len().max(1) as f64);
        for (i, id) in spread.into_iter().enumerate() {
            self.due.insert((now + share.mul_f64(i as f64 + fastrand::f64()), id));
        }
        service.pool = pool.clone();
    }

    /// Starts the probes that are due.
    fn start_due<F>(&mut self, probe: impl Fn(SocketAddr, Arc<HealthCheck>) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let now = Instant::now();
        while self.under_way.len() < MAX_PROBES
            && let Some((at, id)) = self.due.pop_first()
        {
            if at > now {
                self.due.insert((at, id));
                return;
            }
            let Some(ScheduledProbe { service, backend, address, check }) = self.probes.get(&id) else { continue };
            if let Some(service) = self.services.get_mut(service) {
                service.evaluator.probe_started(backend);
            }
            let outcome = probe(*address, Arc::clone(check));
            self.under_way.spawn(async move { (id, now, outcome.await) });
        }
    }

    fn probe_ended(&mut self, result: Result<(ProbeId, Instant, Outcome), JoinError>) {
        // A panic in a probe becomes a panic of this task, which the supervisor notices.
        let (id, started, outcome) = match result {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Some(ScheduledProbe { service: name, backend, check, .. }) = self.probes.get(&id) else { return };
        let pause = JITTER.apply(check.interval);
        self.due.insert((started + pause, id));
        let Some(service) = self.services.get_mut(name) else { return };
        let result = match outcome {
            Outcome::Pass => Ok(()),
            Outcome::Fail(cause) => Err(cause),
            Outcome::LocalFault(cause) => {
                if self.local_fault_logged.is_none_or(|at| at.elapsed() >= LOCAL_FAULT_LOG_INTERVAL) {
                    self.local_fault_logged = Some(Instant::now());
                    tracing::warn!(service = %name, %cause, "health checks cannot run on this machine");
                }
                return;
            }
        };
        service.may_have_changed |= service.evaluator.probe_ended(backend, result);
    }

    /// The reports that differ from the last ones, or are due anyway.
    fn changed_reports(&mut self) -> Vec<HealthReport> {
        self.services.iter_mut().filter_map(|(name, service)| service.changed_report(name)).collect()
    }
}

impl CheckedService {
    fn new(pool: &Pool) -> Self {
        Self {
            pool: Pool { targets: Vec::new(), ..pool.clone() },
            check: Arc::new(pool.check.clone()),
            evaluator: Evaluator::new(&pool.check),
            probes: BTreeMap::new(),
            last_report: None,
            may_have_changed: true,
            must_report: true,
        }
    }

    fn changed_report(&mut self, service: &Name) -> Option<HealthReport> {
        if !std::mem::take(&mut self.may_have_changed) {
            return None;
        }
        let report = HealthReport {
            service: service.clone(),
            targets: self.evaluator.targets(),
            out: self.evaluator.out(),
            panicking: self.evaluator.is_panicking(),
        };
        if self.last_report.as_ref() == Some(&report) && !self.must_report {
            return None;
        }
        self.must_report = false;
        if let Some(before) = self.last_report.replace(report.clone()) {
            self.log(&before, &report);
        }
        Some(report)
    }

    fn log(&self, before: &HealthReport, now: &HealthReport) {
        let service = &now.service;
        let was_failing = |id: &String| before.out.get(id).is_some_and(|why| why != NOT_CHECKED_YET);
        for (id, why) in now.out.iter().filter(|(id, why)| *why != NOT_CHECKED_YET && !was_failing(id)) {
            tracing::info!(%service, backend = id, %why, "backend is unhealthy");
        }
        for id in before.out.keys().filter(|id| !now.out.contains_key(*id) && self.evaluator.passes(id)) {
            tracing::info!(%service, backend = id, "backend is healthy");
        }
        match (before.panicking, now.panicking) {
            (false, true) => tracing::warn!(
                %service, healthy = self.evaluator.healthy(), backends = now.targets.len(), panic = %self.check.panic,
                "too few backends pass their health check; a fault of this machine is assumed, and none is taken out"
            ),
            (true, false) => tracing::info!(%service, "enough backends pass their health check again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
