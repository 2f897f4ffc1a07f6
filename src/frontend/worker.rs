//! The reconciler of one frontend: it compares what the frontend has been proven to run with what the snapshot renders
//! to, and works until they agree.

mod outputs;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::applied::Applied;
use super::apply::{Change, Effort, Outcome, Rendered};
use super::config::{Config, Pacing, Proof, Reload};
use super::digest::Digest;
use super::fatal::Fatal;
use super::journal::{Journal, Proven, Step};
use super::orphans;
use super::output_index::OutputIndex;
use super::plan::{self, Action};
use super::runtime::{Comparison, Evidence};
use super::staging::{Staging, all_on_disk, unproven};
use super::template::{Facts, Template};
use crate::model::{Name, Snapshot};
use crate::status::{self, OrphanedOutput, Phase, Timings};
use crate::sys::backoff::{Backoff, Jitter};
use crate::sys::lock;
use crate::sys::output_file::Store;
use crate::sys::process::Identity;
use crate::sys::unconfined::Unconfined;

/// Why a worker could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A template does not compile.
    #[error(transparent)]
    Template(#[from] super::template::Error),
    /// A directory for apply records, or for versions of outputs, cannot be made.
    #[error("cannot create {path}: {source}; make `state_dir` writable for elasticd's user")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What workers are connected to.
#[derive(Debug, Clone)]
pub struct Links {
    /// What they render.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Our own zone, once it was found out; a configured one comes first.
    pub own_zone: watch::Receiver<Option<String>>,
    /// Writes their outputs, starts their commands and examines their processes.
    pub unconfined: Unconfined,
    /// The outputs of all frontends.
    pub outputs: OutputIndex,
    /// Changed to have files removed that are no outputs any more.
    pub prune: watch::Receiver<u64>,
}

/// One frontend's worker, built and not yet running.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    templates: Vec<Template>,
    record: PathBuf,
    store: Store,
    links: Links,
    report: watch::Sender<Arc<status::Frontend>>,
}

/// A running worker.
struct Running {
    /// As configured, with an output for each service that the configuration names.
    configured: Config,
    /// With an output for each service that there is.
    config: Config,
    templates: Vec<Template>,
    journal: Journal,
    unconfined: Unconfined,
    staging: Staging,
    /// The outputs of all frontends.
    outputs: OutputIndex,
    /// Files that are no outputs any more, as far as they were logged.
    orphans: Vec<OrphanedOutput>,
    prune: watch::Receiver<u64>,
    /// Whether these are to be removed with the next change, as somebody asked for.
    is_prune_asked: bool,
    is_recovered: bool,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    own_zone: watch::Receiver<Option<String>>,
    report: watch::Sender<Arc<status::Frontend>>,
    last_reload: Option<Instant>,
    retry: Backoff,
    /// The outputs at which the frontend ended.
    fatal: Option<Fatal>,
    /// What was applied since the frontend last agreed.
    applied: Applied,
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
    pub fn build(config: Config, state_dir: &Path, links: Links) -> Result<Self, BuildError> {
        let templates = config.templates()?;
        let records = orphans::records(state_dir);
        std::fs::create_dir_all(&records).map_err(|source| BuildError::StateDir { path: records, source })?;
        let record = orphans::record(state_dir, &config.name);
        let store = Store::new(state_dir, config.name.as_str());
        store.create().map_err(|source| BuildError::StateDir { path: Store::parent(state_dir), source })?;
        let report = status::Frontend { type_name: config.type_name.clone(), ..Default::default() };
        let report = watch::Sender::new(Arc::new(report));
        Ok(Self { config, templates, record, store, links, report })
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
        let Worker { config, templates, record, store, links, report } = worker;
        let Links { snapshots, own_zone, unconfined, outputs, mut prune } = links;
        // What was asked for before was not asked of this one.
        prune.mark_unchanged();
        let Pacing { retry_min, retry_max, .. } = config.pacing;
        // Frontends that fail for a common reason do not all try again in one moment.
        let retry = Backoff::new(retry_min, retry_max, Jitter::PlusMinus { percent: 20 });
        let retry = retry.expect("the configuration was checked for it");
        let facts = config.facts();
        Self {
            configured: config.clone(),
            staging: Staging::new(config.name.clone(), unconfined.clone(), store),
            config,
            templates,
            journal: Journal::open(record),
            unconfined,
            outputs,
            orphans: Vec::new(),
            prune,
            is_prune_asked: false,
            is_recovered: false,
            snapshots,
            own_zone,
            report,
            last_reload: None,
            retry,
            fatal: None,
            applied: Applied::default(),
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
                // The sender ends with the process.
                Ok(()) = self.prune.changed() => self.is_prune_asked = true,
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
    fn lock_outputs(&mut self) -> Result<(), lock::Error> {
        self.staging.lock(&self.config.outputs)?;
        if !std::mem::replace(&mut self.is_recovered, true)
            && let Err(error) = self.staging.recover(&self.config, &mut self.journal)
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
        if let Err(error) = self.staging.put_right(&self.config.outputs, &rendered.contents) {
            return self.failed(&error.to_string());
        }
        let removed = self.find_orphans();
        let (action, evidence) = self.plan(&rendered).await;
        // What may be loading at this moment is looked for first.
        let action = if removed.is_empty() || action == Action::Prove { action } else { Action::Apply };
        self.is_prune_asked &= action == Action::Prove;
        if matches!(action, Action::Apply)
            && let Some(pause) = self.pause_after_death(&rendered.digest).await
        {
            return pause;
        }
        if matches!(action, Action::Apply) && self.config.reload != Reload::None && !self.wait_for_gap(shutdown).await {
            return self.config.pacing.audit_interval;
        }
        match action {
            Action::Nothing => {
                let process = self.process().await;
                self.set_written(&rendered);
                self.record_overrides(evidence);
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
            Action::Prove | Action::Apply => self.apply(&rendered, render, action, &removed).await,
        }
    }

    /// How long outputs at which the frontend ended are kept back from it; `None`: they are not.
    async fn pause_after_death(&self, wanted: &Digest) -> Option<Duration> {
        let fatal = self.fatal.as_ref().filter(|fatal| fatal.digest == *wanted)?;
        let left = fatal.again_at.saturating_duration_since(Instant::now());
        if left.is_zero() && self.process().await.is_some() {
            return None;
        }
        // The previous ones are in place, with which it can start.
        let Pacing { retry_min, audit_interval, .. } = self.config.pacing;
        Some(left.clamp(retry_min, audit_interval.max(retry_min)))
    }

    async fn plan(&mut self, rendered: &Rendered) -> (Action, Option<Evidence>) {
        let on_disk = all_on_disk(&self.config.outputs);
        self.applied.read(&self.config.outputs, &on_disk, self.journal.proven().map(|proven| &proven.digest));
        let (running, evidence) = match &self.config.runtime {
            Some(runtime) if matches!(self.config.proof, Proof::Runtime { .. }) && on_disk == rendered.digest => {
                let earlier = self.applied.before(rendered);
                let earlier = earlier.iter().map(|rendered| rendered.contents.as_slice());
                let wanted = rendered
                    .wanted(&self.config, self.swapped_at(), self.staging.store(), &self.unconfined)
                    .after(earlier);
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
                None => (self.process().await.map_or(plan::Running::Unknown, plan::Running::Seen), None),
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
        self.config.seen_process(&self.unconfined).await
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
    async fn apply(
        &mut self,
        rendered: &Arc<Rendered>,
        render: Duration,
        action: Action,
        removed: &[PathBuf],
    ) -> Duration {
        let Some(snapshot) = self.rendered.as_ref().map(|(snapshot, ..)| Arc::clone(snapshot)) else {
            return self.config.pacing.audit_interval;
        };
        self.say(|report| {
            report.phase = Phase::Applying;
            report.applies += u64::from(action == Action::Apply);
        });
        let mut effort = Effort { timings: Timings { render, ..Timings::default() }, ..Effort::default() };
        let earlier = self.applied.before(rendered);
        let change = Change {
            config: &self.config,
            journal: &mut self.journal,
            staging: &mut self.staging,
            rendered,
            removed,
            earlier: &earlier,
            snapshot: &snapshot,
            effort: &mut effort,
            unconfined: &self.unconfined,
        };
        let outcome = match action {
            Action::Prove => change.prove_interrupted().await.map(Outcome::Proven),
            _ => change.apply().await,
        };
        match &outcome {
            Ok(Outcome::Proven(_)) => self.applied.agreed(rendered),
            _ if self.applied.attempted(rendered) && effort.in_part => tracing::warn!(frontend = %self.config.name,
                "the check refuses the outputs; what the runtime API can change of them was changed nevertheless"),
            _ => {}
        }
        if effort.reloaded {
            self.last_reload = Some(Instant::now());
        }
        self.say(|report| {
            report.reloads += u64::from(effort.reloaded);
            report.live_updates += u64::from(effort.live_updated || effort.in_part);
            report.last_attempt_seconds = effort.timings;
        });
        if outcome.is_ok() && action == Action::Apply {
            self.set_written(rendered);
            for path in removed {
                tracing::info!(frontend = %self.config.name, path = %path.display(), "former output removed");
                self.journal.forget_written(path);
            }
            self.orphans.retain(|orphan| !removed.contains(&orphan.path));
            let left = self.orphans.clone();
            self.say(|report| report.orphaned_outputs = left);
        }
        match outcome {
            Ok(Outcome::Proven((process, evidence))) => {
                self.show_overrides(evidence.as_ref());
                self.proven(rendered, process)
            }
            Ok(Outcome::NotRunning(why)) => {
                let pause = self.not_running(&why);
                // To learn more, the command must be run again.
                if matches!(self.config.reload, Reload::Command { .. }) { self.retry.next_delay() } else { pause }
            }
            Err(error) if error.keeps_outputs() => {
                let pause = self.unfinished(&error.to_string());
                // A busy process was waited for already.
                if error.is_busy() { self.config.pacing.retry_min } else { pause }
            }
            Err(error) => {
                if error.is_fatal() {
                    let first = self.config.pacing.retry_min;
                    self.fatal = Some(Fatal::next(self.fatal.take(), &rendered.digest, first));
                }
                let former = self.orphans.first().filter(|_| removed.is_empty());
                let hint = former.map(|orphan| {
                    let path = orphan.path.display();
                    format!(
                        "; {path}, a former output, is still there and may be why: elasticd outputs --prune removes it"
                    )
                });
                self.failed(&format!("{error}{}", hint.unwrap_or_default()))
            }
        }
    }

    async fn adopt(&mut self, rendered: &Arc<Rendered>, evidence: Option<Evidence>) -> Duration {
        let process = self.process().await;
        let swapped_at = self.swapped_at();
        self.staging.discard(&unproven(&self.journal));
        self.set_written(rendered);
        self.show_overrides(evidence.as_ref());
        self.applied.agreed(rendered);
        let Rendered { digest, revision, .. } = &**rendered;
        let proven = Proven { digest: digest.clone(), revision: *revision, process, swapped_at, evidence };
        self.journal.end(Some(proven));
        self.proven(rendered, process)
    }
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
        let links = Links {
            snapshots: watch::channel(None).1,
            own_zone: watch::channel(None).1,
            unconfined: Unconfined::default(),
            outputs: OutputIndex::default(),
            prune: watch::channel(0).1,
        };
        let worker = Worker::build(config.expect("valid"), dir.path(), links).expect("built");
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
}
