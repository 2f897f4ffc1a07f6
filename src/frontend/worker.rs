//! The reconciler of one frontend: it compares what the frontend has been proven to run with what the snapshot renders
//! to, and works until they agree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::apply::{Change, Effort, Outcome, Rendered};
use super::config::{Config, Pacing, Proof, Reload};
use super::digest::Digest;
use super::journal::{Journal, Proven, Step};
use super::plan::{self, Action};
use super::rendering::{self, LeftOut};
use super::runtime::{Comparison, Evidence};
use super::staging::{self, all_on_disk};
use super::template::{Facts, Template};
use crate::model::{Name, Snapshot};
use crate::status::{self, Phase, Timings, Unrendered, UnrenderedBackend};
use crate::sys::atomic_file;
use crate::sys::backoff::{Backoff, Jitter};
use crate::sys::lock::{self, TargetLock};
use crate::sys::process::Identity;
use crate::sys::unconfined::Unconfined;

/// Why a worker could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A template does not compile.
    #[error(transparent)]
    Template(#[from] super::template::Error),
    /// The directory for apply records cannot be made.
    #[error("cannot create {path}: {source}; make `state_dir` writable for elasticd's user")]
    Records {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// One frontend's worker, built and not yet running.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    templates: Vec<Template>,
    record: PathBuf,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    own_zone: watch::Receiver<Option<String>>,
    report: watch::Sender<Arc<status::Frontend>>,
    unconfined: Unconfined,
}

/// A running worker.
struct Running {
    config: Config,
    templates: Vec<Template>,
    journal: Journal,
    unconfined: Unconfined,
    /// The outputs that no other elasticd can write.
    locks: BTreeMap<PathBuf, TargetLock>,
    is_recovered: bool,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    own_zone: watch::Receiver<Option<String>>,
    report: watch::Sender<Arc<status::Frontend>>,
    last_reload: Option<Instant>,
    retry: Backoff,
    /// The outputs of which the frontend crashed: they are not applied again.
    fatal: Option<Digest>,
    /// What the last snapshot rendered to, for every audit until there is another one, or another fact.
    rendered: Option<(Arc<Snapshot>, Facts, Arc<Rendered>)>,
    /// Of which process the version is known, if of any.
    version_of: Option<Option<Identity>>,
    facts: Facts,
}

impl Worker {
    /// Compiles the templates, and makes sure that the apply record has a place. `own_zone` is our own zone once it was found
    /// out; a configured one comes first.
    ///
    /// # Errors
    ///
    /// A template does not compile, or the apply record has no place.
    pub fn build(
        config: Config,
        state_dir: &Path,
        snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        own_zone: watch::Receiver<Option<String>>,
        unconfined: Unconfined,
    ) -> Result<Self, BuildError> {
        let templates = config.templates()?;
        let records = state_dir.join("frontends");
        std::fs::create_dir_all(&records).map_err(|source| BuildError::Records { path: records.clone(), source })?;
        let record = records.join(format!("{}.json", config.name));
        let report = status::Frontend { type_name: config.type_name.clone(), ..Default::default() };
        let report = watch::Sender::new(Arc::new(report));
        Ok(Self { config, templates, record, snapshots, own_zone, report, unconfined })
    }

    /// The frontend's name.
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    /// The worker's status, after each of its steps.
    pub fn report(&self) -> watch::Receiver<Arc<status::Frontend>> {
        self.report.subscribe()
    }

    /// Reconciles until told to stop. A change under way is brought to its end first. Blocks between the points at which
    /// it waits, on files and until the disk has confirmed them, and is therefore to be run on a thread of its own.
    ///
    /// The apply record is read only now: until here, a worker that this one replaces may still be at it.
    pub async fn run(self, shutdown: CancellationToken) {
        Running::open(self).reconcile_until(shutdown).await;
    }
}

impl Running {
    /// Goes on from the apply record.
    fn open(worker: Worker) -> Self {
        let Worker { config, templates, record, snapshots, own_zone, report, unconfined } = worker;
        let Pacing { retry_min, retry_max, .. } = config.pacing;
        // Frontends that fail for a common reason do not all try again in one moment.
        let retry = Backoff::new(retry_min, retry_max, Jitter::PlusMinus { percent: 20 });
        let retry = retry.expect("the configuration was checked for it");
        let facts = config.facts();
        Self {
            config,
            templates,
            journal: Journal::open(record),
            unconfined,
            locks: BTreeMap::new(),
            is_recovered: false,
            snapshots,
            own_zone,
            report,
            last_reload: None,
            retry,
            fatal: None,
            rendered: None,
            version_of: None,
            facts,
        }
    }

    async fn reconcile_until(mut self, shutdown: CancellationToken) {
        loop {
            let pause = match self.lock_outputs() {
                Ok(()) => self.reconcile(&shutdown).await,
                Err(error) => self.failed(&error.to_string()),
            };
            let wake = Instant::now() + pause;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(wake) => {}
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.settle(&shutdown).await;
                }
                () = Self::zone_found(&mut self.own_zone), if self.config.depends_on_own_zone => {}
            }
        }
    }

    /// Ends when our own zone was found.
    async fn zone_found(own_zone: &mut watch::Receiver<Option<String>>) {
        if own_zone.changed().await.is_err() {
            // Nobody looks for it.
            std::future::pending::<()>().await;
        }
    }

    /// Makes sure that no other elasticd writes the outputs, and then, once, recovers from what an earlier run left.
    ///
    /// A directory in which no lock can be created can have no output written either, as a rule; that is reported when an
    /// output is written.
    fn lock_outputs(&mut self) -> Result<(), lock::Error> {
        for output in &self.config.outputs {
            if self.locks.contains_key(&output.path) {
                continue;
            }
            if let Some(lock) = lock::target(&self.unconfined, &output.path)? {
                self.locks.insert(output.path.clone(), lock);
            }
        }
        if !std::mem::replace(&mut self.is_recovered, true)
            && let Err(error) = staging::recover(&self.unconfined, &self.config, &mut self.journal)
        {
            self.failed(&error.to_string());
        }
        Ok(())
    }

    /// Waits until no change has come for `settle`, or for `settle_max` altogether.
    async fn settle(&mut self, shutdown: &CancellationToken) {
        let pacing = self.config.pacing;
        let latest = Instant::now() + pacing.settle_max;
        loop {
            let quiet = (Instant::now() + pacing.settle).min(latest);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(quiet) => return,
                changed = self.snapshots.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Compares once, and acts on the difference. Returns how long to wait for the next comparison.
    async fn reconcile(&mut self, shutdown: &CancellationToken) -> Duration {
        let Some(snapshot) = self.snapshots.borrow_and_update().clone() else {
            return self.config.pacing.audit_interval;
        };
        if self.config.services.iter().any(|service| !snapshot.services.contains_key(service)) {
            self.say(|report| report.phase = Phase::Waiting);
            return self.config.pacing.audit_interval;
        }
        self.update_facts(&snapshot).await;
        let started = Instant::now();
        let rendered = match self.render(snapshot) {
            Ok(rendered) => rendered,
            Err(error) => return self.failed(&error.to_string()),
        };
        let render = started.elapsed();
        self.say(|report| report.wanted_revision = Some(rendered.revision));
        let (action, evidence) = self.plan(&rendered).await;
        if matches!(action, Action::Apply) && self.fatal.as_ref() == Some(&rendered.digest) {
            return self.config.pacing.audit_interval;
        }
        if matches!(action, Action::Apply) && self.config.reload != Reload::None && !self.wait_for_gap(shutdown).await {
            return self.config.pacing.audit_interval;
        }
        match action {
            Action::Nothing => {
                let process = self.process().await;
                self.settled(rendered.revision, process)
            }
            Action::Adopt => self.adopt(&rendered, evidence).await,
            Action::AwaitFrontend => {
                // Looked for again: the reason may have changed.
                let why = self.config.absence(&self.unconfined).await;
                self.not_running(&match why {
                    Ok(Some(why)) => why,
                    Ok(None) => "it was not running just now".to_owned(),
                    Err(error) => error.to_string(),
                })
            }
            Action::Prove | Action::Apply => self.apply(&rendered, render, action).await,
        }
    }

    /// Finds out what templates can use of the machine and of the frontend's program. A program is asked only if another
    /// process runs than before, or if there is none to be known by and the snapshot is a new one.
    async fn update_facts(&mut self, snapshot: &Arc<Snapshot>) {
        if self.config.depends_on_own_zone {
            self.facts.own_zone = self.config.own_zone.clone().or_else(|| self.own_zone.borrow_and_update().clone());
        }
        if self.config.version_command().is_none() {
            return;
        }
        let process = self.process().await;
        let is_rendered = self.rendered.as_ref().is_some_and(|(of, ..)| Arc::ptr_eq(of, snapshot));
        if self.version_of != Some(process) || (process.is_none() && !is_rendered) {
            self.facts.version = self.config.look_up_version(process, &self.unconfined).await;
            self.version_of = Some(process);
        }
    }

    fn render(&mut self, snapshot: Arc<Snapshot>) -> Result<Arc<Rendered>, rendering::Error> {
        let last = self.rendered.as_ref();
        if let Some((.., rendered)) = last.filter(|(of, facts, _)| Arc::ptr_eq(of, &snapshot) && *facts == self.facts) {
            return Ok(Arc::clone(rendered));
        }
        let rendering = self.config.render(&self.templates, &snapshot, &self.facts)?;
        self.report_left_out(rendering.left_out);
        let rendered = Arc::new(Rendered::new(&self.config.outputs, rendering.contents, snapshot.revision));
        self.rendered = Some((snapshot, self.facts.clone(), Arc::clone(&rendered)));
        Ok(rendered)
    }

    /// Says which backends are left out because they cannot be rendered, each once for each reason.
    fn report_left_out(&self, left_out: Vec<LeftOut>) {
        /// The rest are counted: a template may fail for every backend of a large service.
        const MAX_LOGGED: usize = 10;
        let before = Arc::clone(&self.report.borrow().excluded.all);
        if left_out.is_empty() && before.is_empty() {
            return;
        }
        let named = |out: LeftOut| UnrenderedBackend { service: out.service, id: out.id, message: out.reason };
        let now: Vec<_> = left_out.into_iter().map(named).collect();
        let frontend = &self.config.name;
        let new: Vec<_> = now.iter().filter(|out| !before.contains(out)).collect();
        for UnrenderedBackend { service, id, message } in new.iter().take(MAX_LOGGED) {
            tracing::warn!(%frontend, %service, backend = id, reason = message, "backend left out of the frontend, as it cannot be rendered");
        }
        if let Some(count) = new.len().checked_sub(MAX_LOGGED).filter(|count| *count > 0) {
            tracing::warn!(%frontend, count, "more backends left out of the frontend, as they cannot be rendered");
        }
        if now.is_empty() {
            tracing::info!(%frontend, "every backend can be rendered again");
        }
        self.say(|report| report.excluded = Unrendered::of(now));
    }

    async fn plan(&self, rendered: &Rendered) -> (Action, Option<Evidence>) {
        let on_disk = all_on_disk(&self.config.outputs);
        let (running, evidence) = match &self.config.runtime {
            Some(runtime) if matches!(self.config.proof, Proof::Runtime { .. }) && on_disk == rendered.digest => {
                let wanted = rendered.wanted(&self.config, self.swapped_at(), &self.unconfined);
                let last = self.journal.proven().and_then(|proven| proven.evidence.as_ref());
                match runtime.compare(&wanted, last).await {
                    Ok(Comparison::Runs(evidence)) => (plan::Running::Asked { agrees: true }, Some(evidence)),
                    Ok(Comparison::Differs(how)) => {
                        tracing::debug!(frontend = %self.config.name, how, "frontend runs another configuration");
                        (plan::Running::Asked { agrees: false }, None)
                    }
                    Err(error) if error.is_not_running() => (plan::Running::No, None),
                    Err(_) => return (Action::Apply, None),
                }
            }
            _ => match self.config.find_process(&self.unconfined).await {
                None => (plan::Running::Unknown, None),
                Some(Ok(process)) => (plan::Running::Yes(process.identity), None),
                // One that cannot be identified is treated as absent here; an attempt to reload it says what is wrong.
                Some(Err(error)) if error.is_not_running() => (plan::Running::No, None),
                Some(Err(_)) => return (Action::Apply, None),
            },
        };
        let action = plan::plan(&rendered.digest, &on_disk, self.journal.proven(), self.journal.step(), running);
        (action, evidence)
    }

    /// The process that runs now, where it is known by one.
    async fn process(&self) -> Option<Identity> {
        self.config.process(&self.unconfined).await
    }

    /// When the outputs in place were swapped in, in ticks since boot; 0 if that is not on record.
    fn swapped_at(&self) -> u64 {
        match self.journal.step() {
            Step::Reloading { swapped_at, .. } => *swapped_at,
            Step::Idle | Step::Swapping { .. } => self.journal.proven().map_or(0, |proven| proven.swapped_at),
        }
    }

    /// Waits until `min_reload_gap` after the last reload. `false`: it is to stop.
    async fn wait_for_gap(&self, shutdown: &CancellationToken) -> bool {
        let Some(last) = self.last_reload else { return true };
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = sleep_until(last + self.config.pacing.min_reload_gap) => true,
        }
    }

    /// Makes a change, or looks for the proof of one that was interrupted.
    async fn apply(&mut self, rendered: &Rendered, render: Duration, action: Action) -> Duration {
        self.say(|report| {
            report.phase = Phase::Applying;
            report.applies += u64::from(action == Action::Apply);
        });
        let mut effort = Effort { timings: Timings { render, ..Timings::default() }, ..Effort::default() };
        let change = Change {
            config: &self.config,
            journal: &mut self.journal,
            rendered,
            effort: &mut effort,
            unconfined: &self.unconfined,
        };
        let outcome = match action {
            Action::Prove => change.prove_interrupted().await.map(Outcome::Proven),
            _ => change.apply().await,
        };
        if effort.reloaded {
            self.last_reload = Some(Instant::now());
        }
        self.say(|report| {
            report.reloads += u64::from(effort.reloaded);
            report.live_updates += u64::from(effort.live_updated);
            report.last_attempt_seconds = effort.timings;
        });
        match outcome {
            Ok(Outcome::Proven((process, _))) => self.proven(rendered, process),
            Ok(Outcome::NotRunning(why)) => self.not_running(&why),
            Err(error) => {
                if error.is_fatal() {
                    // Another attempt would crash it again.
                    self.fatal = Some(rendered.digest.clone());
                }
                self.failed(&error.to_string())
            }
        }
    }

    async fn adopt(&mut self, rendered: &Rendered, evidence: Option<Evidence>) -> Duration {
        let process = self.process().await;
        let swapped_at = self.swapped_at();
        if let Step::Reloading { changes, .. } = self.journal.step() {
            for change in changes {
                atomic_file::discard(&self.unconfined, &change.path);
            }
        }
        let Rendered { digest, revision, .. } = rendered;
        let proven = Proven { digest: digest.clone(), revision: *revision, process, swapped_at, evidence };
        self.journal.end(Some(proven));
        self.proven(rendered, process)
    }

    fn proven(&mut self, rendered: &Rendered, process: Option<Identity>) -> Duration {
        let revision = rendered.revision;
        tracing::info!(frontend = %self.config.name, revision, pid = process.map(|p| p.pid), "frontend runs the new configuration");
        self.say(|report| report.proven_age_seconds = Some(SystemTime::now().into()));
        self.settled(revision, process)
    }

    fn settled(&mut self, revision: u64, process: Option<Identity>) -> Duration {
        if self.retry.failures() > 0 {
            tracing::info!(frontend = %self.config.name, failures = self.retry.failures(), "recovered");
        }
        self.retry.reset();
        self.say(|report| {
            report.phase = Phase::Proven;
            report.proven_revision = Some(revision);
            report.proven_age_seconds.get_or_insert_with(|| SystemTime::now().into());
            report.pid = process.map(|process| process.pid);
            report.error = None;
            report.attempted = true;
        });
        self.config.pacing.audit_interval
    }

    fn not_running(&mut self, why: &str) -> Duration {
        if self.report.borrow().phase != Phase::NotRunning {
            tracing::warn!(frontend = %self.config.name, why, "the frontend is not running; its configuration is in place");
        }
        self.say(|report| {
            report.phase = Phase::NotRunning;
            report.error = Some(why.to_owned());
            report.pid = None;
            report.attempted = true;
        });
        self.config.pacing.retry_min
    }

    /// Logs a failure, unless it is the same as the last one, and returns how long to wait before another attempt.
    fn failed(&mut self, message: &str) -> Duration {
        if !self.report.borrow().error.as_deref().is_some_and(|before| says_the_same(before, message)) {
            tracing::error!(frontend = %self.config.name, error = message, "frontend update failed; previous configuration kept");
        }
        self.say(|report| {
            report.phase = Phase::Failed;
            report.failures += 1;
            report.error = Some(message.to_owned());
            report.attempted = true;
        });
        self.retry.next_delay()
    }

    fn say(&self, change: impl FnOnce(&mut status::Frontend)) {
        self.report.send_modify(|report| change(Arc::make_mut(report)));
    }
}

/// Whether two errors differ at most in their numbers: tools print the time and their PID.
fn says_the_same(one: &str, other: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::Raw;
    use crate::model::ServiceSet;

    #[test]
    fn a_snapshot_is_rendered_once_and_the_next_one_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let web: Name = "web".parse().expect("a name");
        let output = serde_json::json!({ "path": "/nonexistent", "template": "json/services.json" });
        let raw: Raw =
            serde_json::from_value(serde_json::json!({ "escape": "json", "outputs": [output] })).expect("keys");
        let config = raw.resolve("json".parse().expect("a name"), "json", std::slice::from_ref(&web), dir.path());
        let worker = Worker::build(
            config.expect("valid"),
            dir.path(),
            watch::channel(None).1,
            watch::channel(None).1,
            Unconfined::default(),
        )
        .expect("built");
        let mut running = Running::open(worker);
        let snapshot = |revision| {
            let set = Arc::new(ServiceSet { revision, backends: Vec::new() });
            Arc::new(Snapshot { revision, services: [(web.clone(), set)].into() })
        };
        let first = snapshot(1);
        let rendered = running.render(Arc::clone(&first)).expect("renders");
        assert!(Arc::ptr_eq(&rendered, &running.render(first).expect("renders")), "once");
        let next = running.render(snapshot(2)).expect("renders");
        assert_eq!(next.revision, 2);
        assert_ne!(next.digest, rendered.digest, "this template prints the revision");
    }

    #[test]
    fn a_tools_clock_and_pid_make_no_other_error() {
        let at = |time: &str, what: &str| format!("2026/11/22 {time} [emerg] {what} in x.conf:1");
        assert!(says_the_same(&at("21:15:39", "7331#7331: unknown"), &at("21:15:40", "7332#7332: unknown")));
        assert!(!says_the_same(&at("21:15:39", "unknown"), &at("21:15:39", "unexpected")));
    }
}
