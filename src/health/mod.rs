//! The sidecar's own checks of backends, for frontends that have none.
//!
//! One task asks every backend of every service that has a health check, spread over the interval, a bounded number at
//! a time; [`judge`] makes verdicts of the answers.

pub mod evaluate;
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
use evaluate::{Judge, UNCHECKED};
use probe::Outcome;

/// How many backends are asked at the same time, over all services: as many sockets are open at most.
pub const LIMIT: usize = 128;

/// How far an interval strays to either side, so that probes that met once do not meet for ever.
const JITTER: Jitter = Jitter::PlusMinus { percent: 10 };

/// How often it is said that this machine cannot ask.
const COMPLAINT: Duration = Duration::from_mins(1);

/// A service's backends, and how they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The service.
    pub service: Name,
    /// How they are asked.
    pub check: HealthCheck,
    /// All that may be backends, whether they are in or out.
    pub targets: Vec<Target>,
    /// The ids of those that failed before elasticd was restarted. It counts when the service is first seen.
    pub failed: BTreeSet<String>,
}

/// One that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The backend's id, of which a service has one.
    pub id: String,
    /// Where the backend serves; the check may ask at another port.
    pub address: SocketAddr,
}

/// The verdicts on one service's backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// The service.
    pub service: Name,
    /// Whom the verdicts are about, by id. A backend that is not here, or with another address, has not been judged.
    pub targets: BTreeMap<String, SocketAddr>,
    /// Who is out, by id, and why, to be read after "it": `fails its health check: connection refused`. Never all.
    pub out: BTreeMap<String, String>,
    /// Whether so many fail that it is taken for the sidecar's own fault, and nobody is taken out.
    pub panicking: bool,
}

/// Asks the backends of `pools` until stopped, and tells what follows.
///
/// A service's verdicts are sent once for each change of its pool, at once, and then whenever they change. Returns when
/// stopped, or when nobody sends or listens any more.
pub async fn run(
    pools: watch::Receiver<Arc<Vec<Pool>>>,
    verdicts: mpsc::Sender<HealthReport>,
    stop: CancellationToken,
) {
    let ask = |address, check: Arc<HealthCheck>| async move { probe::probe(address, &check).await };
    stop.run_until_cancelled(check(pools, verdicts, ask)).await;
}

async fn check<F>(
    mut pools: watch::Receiver<Arc<Vec<Pool>>>,
    verdicts: mpsc::Sender<HealthReport>,
    ask: impl Fn(SocketAddr, Arc<HealthCheck>) -> F,
) where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut checker = Checker::default();
    pools.mark_changed();
    loop {
        let next = checker.next();
        tokio::select! {
            changed = pools.changed() => {
                if changed.is_err() {
                    return;
                }
                let pools = Arc::clone(&pools.borrow_and_update());
                checker.set(&pools);
            }
            Some(ended) = checker.under_way.join_next() => checker.ended(ended),
            () = sleep_until(next) => checker.start(&ask),
        }
        // What has ended meanwhile is one change.
        while let Some(ended) = checker.under_way.try_join_next() {
            checker.ended(ended);
        }
        for news in checker.news() {
            if verdicts.send(news).await.is_err() {
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

/// What is asked of whom, and when.
#[derive(Default)]
struct Checker {
    services: BTreeMap<Name, Checked>,
    /// The questions, by a number that is never used again: what comes of one that is no longer here is nobody's.
    questions: HashMap<u64, Question>,
    numbers: u64,
    due: BTreeSet<(Instant, u64)>,
    under_way: JoinSet<(u64, Instant, Outcome)>,
    complained: Option<Instant>,
}

struct Checked {
    pool: Pool,
    check: Arc<HealthCheck>,
    judge: Judge,
    /// The question to each target, by its id.
    numbers: BTreeMap<String, u64>,
    told: Option<HealthReport>,
    /// Whether there may be something to tell.
    stirred: bool,
    /// Whether it is told even if nothing has changed.
    owed: bool,
}

struct Question {
    service: Name,
    id: String,
    address: SocketAddr,
    check: Arc<HealthCheck>,
}

impl Checker {
    /// When the next question is due, if it may be asked.
    fn next(&self) -> Option<Instant> {
        let free = self.under_way.len() < LIMIT;
        self.due.first().filter(|_| free).map(|(at, _)| *at)
    }

    fn set(&mut self, pools: &[Pool]) {
        let named: BTreeSet<_> = pools.iter().map(|pool| &pool.service).collect();
        let questions = &mut self.questions;
        self.services.retain(|name, checked| {
            let kept = named.contains(name);
            if !kept {
                checked.numbers.values().for_each(|number| drop(questions.remove(number)));
            }
            kept
        });
        for pool in pools {
            if self.services.get(&pool.service).is_none_or(|checked| checked.pool != *pool) {
                self.set_one(pool);
            }
        }
        self.due.retain(|(_, number)| self.questions.contains_key(number));
    }

    fn set_one(&mut self, pool: &Pool) {
        let Pool { service, check, targets, failed } = pool;
        let is_first = !self.services.contains_key(service);
        let checked = self.services.entry(service.clone()).or_insert_with(|| Checked {
            pool: Pool { targets: Vec::new(), ..pool.clone() },
            check: Arc::new(check.clone()),
            judge: Judge::new(check),
            numbers: BTreeMap::new(),
            told: None,
            stirred: true,
            owed: true,
        });
        (checked.stirred, checked.owed) = (true, true);
        let mut numbers = std::mem::take(&mut checked.numbers);
        if checked.pool.check != *check {
            let asks = |check: &HealthCheck| (check.probe.clone(), check.port);
            checked.judge.reconfigure(check, asks(&checked.pool.check) != asks(check));
            checked.check = Arc::new(check.clone());
            // Everybody is asked anew, in the new way and at the new pace.
            std::mem::take(&mut numbers).values().for_each(|number| drop(self.questions.remove(number)));
        }
        let unasked: BTreeSet<_> = checked.judge.set(targets).into_iter().collect();
        if is_first {
            checked.judge.recall(failed);
        }
        let now = Instant::now();
        let mut spread = Vec::new();
        for target in targets {
            let kept = numbers.remove(&target.id);
            if let Some(number) = kept {
                if self.questions.get(&number).is_some_and(|question| question.address == target.address) {
                    checked.numbers.insert(target.id.clone(), number);
                    continue;
                }
                self.questions.remove(&number);
            }
            self.numbers += 1;
            let question = Question {
                service: service.clone(),
                id: target.id.clone(),
                address: target.address,
                check: Arc::clone(&checked.check),
            };
            self.questions.insert(self.numbers, question);
            // Should an id be there twice, the last one holds, as it does for the judge.
            if let Some(number) = checked.numbers.insert(target.id.clone(), self.numbers) {
                self.questions.remove(&number);
            }
            if unasked.contains(&target.id) {
                self.due.insert((now, self.numbers));
            } else {
                spread.push(self.numbers);
            }
        }
        numbers.values().for_each(|number| drop(self.questions.remove(number)));
        // In no order, so that neighbours, which tend to share a machine, are not asked one after the other.
        fastrand::shuffle(&mut spread);
        let share = check.interval.div_f64(spread.len().max(1) as f64);
        for (i, number) in spread.into_iter().enumerate() {
            self.due.insert((now + share.mul_f64(i as f64 + fastrand::f64()), number));
        }
        checked.pool = pool.clone();
    }

    /// Asks what is due.
    fn start<F>(&mut self, ask: impl Fn(SocketAddr, Arc<HealthCheck>) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let now = Instant::now();
        while self.under_way.len() < LIMIT
            && let Some((at, number)) = self.due.pop_first()
        {
            if at > now {
                self.due.insert((at, number));
                return;
            }
            let Some(Question { service, id, address, check }) = self.questions.get(&number) else { continue };
            if let Some(checked) = self.services.get_mut(service) {
                checked.judge.begin(id);
            }
            let asked = ask(*address, Arc::clone(check));
            self.under_way.spawn(async move { (number, now, asked.await) });
        }
    }

    fn ended(&mut self, ended: Result<(u64, Instant, Outcome), JoinError>) {
        // A panic in a probe is one of this task, which is watched over.
        let (number, began, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Some(Question { service, id, check, .. }) = self.questions.get(&number) else { return };
        let pause = JITTER.apply(check.interval);
        self.due.insert((began + pause, number));
        let Some(checked) = self.services.get_mut(service) else { return };
        let result = match outcome {
            Outcome::Pass => Ok(()),
            Outcome::Fail(cause) => Err(cause),
            Outcome::Unasked(cause) => {
                if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
                    self.complained = Some(Instant::now());
                    tracing::warn!("{service}: health checks cannot be made from this machine: {cause}");
                }
                return;
            }
        };
        checked.stirred |= checked.judge.note(id, result);
    }

    /// What has not been told yet.
    fn news(&mut self) -> Vec<HealthReport> {
        self.services.iter_mut().filter_map(|(service, checked)| checked.news(service)).collect()
    }
}

impl Checked {
    fn news(&mut self, service: &Name) -> Option<HealthReport> {
        if !std::mem::take(&mut self.stirred) {
            return None;
        }
        let news = HealthReport {
            service: service.clone(),
            targets: self.judge.targets(),
            out: self.judge.out(),
            panicking: self.judge.is_panicking(),
        };
        if self.told.as_ref() == Some(&news) && !self.owed {
            return None;
        }
        self.owed = false;
        if let Some(told) = self.told.replace(news.clone()) {
            self.log(&told, &news);
        }
        Some(news)
    }

    fn log(&self, before: &HealthReport, now: &HealthReport) {
        let service = &now.service;
        let known = |id: &String| before.out.get(id).is_some_and(|why| why != UNCHECKED);
        for (id, why) in now.out.iter().filter(|(id, why)| *why != UNCHECKED && !known(id)) {
            tracing::info!("{service}: {id} {why}");
        }
        for id in before.out.keys().filter(|id| !now.out.contains_key(*id) && self.judge.passes(id)) {
            tracing::info!("{service}: {id} passes its health check");
        }
        match (before.panicking, now.panicking) {
            (false, true) => tracing::warn!(
                "{service}: only {} of {} backends pass their health checks, fewer than panic = \"{}\"; that is taken for this \
                 machine's own fault, and nobody is taken out",
                self.judge.sound(),
                now.targets.len(),
                self.check.panic
            ),
            (true, false) => tracing::info!("{service}: enough backends pass their health checks again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
