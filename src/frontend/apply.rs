//! One change of one frontend: stage, check, swap, reload, prove; and back, if any of it fails.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::checking::{Checking, Refusal, Staged, Unread};
use super::config::{Config, Output, Proof, Reload};
use super::digest::Digest;
use super::journal::{FileChange, FileStamp, Generation, Journal, Proven, Step};
use super::proof::{self, Asked, Found};
use super::runtime::{self, Evidence, LiveUpdate, Runtime, Wanted};
use super::staging::{Staging, unproven};
use crate::model::Snapshot;
use crate::status::Timings;
use crate::sys::atomic_file;
use crate::sys::child::{self, CommandError};
use crate::sys::output_file::Store;
use crate::sys::process::{self, Find, Identity, Process};
use crate::sys::signal_state::SignalState;
use crate::sys::ticks::now_ticks;
use crate::sys::unconfined::Unconfined;

/// How often it is looked whether a busy process has become ready.
const STEP: Duration = Duration::from_millis(10);

/// How long a busy process is waited for where the proof sets no limit.
const PATIENCE: Duration = Duration::from_secs(20);

/// All outputs of a frontend, rendered from one snapshot.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// In the order of the configuration.
    pub contents: Vec<String>,
    /// Of each of them.
    pub digests: Vec<Digest>,
    /// Of all of them.
    pub digest: Digest,
    /// The snapshot's revision.
    pub revision: u64,
}

impl Rendered {
    /// Contents in the order of `outputs`.
    pub fn new(outputs: &[Output], contents: Vec<String>, revision: u64) -> Self {
        let digests: Vec<_> = contents.iter().map(|content| Digest::of(content.as_bytes())).collect();
        let paths = outputs.iter().map(|output| output.path.as_path());
        let digest = Digest::of_all(paths.zip(digests.iter().cloned().map(Some)));
        Self { contents, digests, digest, revision }
    }
}

/// Why a change was not made. The previous outputs are back in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The frontend's process was not found, for another reason than that it does not run.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// An output could not be written.
    #[error(transparent)]
    Write(#[from] atomic_file::Error),
    /// The frontend's own check fails.
    #[error(transparent)]
    Check(#[from] Refusal),
    /// Nothing would come of a reload. The new outputs stay in place.
    #[error("{0}; the frontend is not reloaded for it")]
    Unread(Unread),
    /// There is no room for the file that the check is to judge.
    #[error("there is no room in `state_dir` for the candidate that the check is to judge; free some space")]
    NoCandidate,
    /// The command failed.
    #[error("the reload failed: {0}")]
    Reload(#[source] CommandError),
    /// The command failed, and it cannot be seen whether the frontend runs. The new outputs have passed their check and
    /// stay, so that it can start with them.
    #[error(
        "the reload failed: {0}; the new configuration has passed its check and stays in place, and the reload is repeated"
    )]
    ReloadUnclear(#[source] CommandError),
    /// The command failed since there is no process that it could have reloaded.
    #[error("{absence} (and so the reload failed: {source})")]
    NothingToReload {
        /// Why no process is found.
        absence: process::Error,
        /// The command's own words.
        source: CommandError,
    },
    /// The runtime API cannot be used, or refuses.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A change cannot be applied over the runtime API, and there is no other way.
    #[error("{0}, and the frontend has no other `reload`")]
    NoReload(String),
    /// The frontend was asked to reload and did not.
    #[error(transparent)]
    Unproven(#[from] proof::Error),
    /// The previous outputs could not be restored.
    #[error("{cause}; and then the previous configuration could not be restored: {source}")]
    Rollback {
        /// Why they had to be.
        cause: Box<Self>,
        /// Why they could not.
        source: atomic_file::Error,
    },
}

impl Error {
    /// Whether the frontend crashed when it was asked to load the outputs.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Unproven(proof::Error::Ended { .. }))
    }

    /// Whether it means that the frontend does not run at present, rather than that it failed to reload.
    const fn is_not_running(&self) -> bool {
        match self {
            Self::Process(error) => error.is_not_running(),
            Self::Runtime(error) => error.is_not_running(),
            Self::NothingToReload { .. } => true,
            _ => false,
        }
    }

    /// Whether the frontend has not come to it yet, rather than refused: it is at another reload.
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Unproven(proof::Error::Busy { .. }))
    }

    /// Whether the new outputs are in place all the same, and the frontend has yet to be asked or to be proven.
    pub const fn keeps_outputs(&self) -> bool {
        self.is_busy() || matches!(self, Self::Unread(_) | Self::ReloadUnclear(_))
    }
}

/// How a change ended.
#[derive(Debug)]
pub enum Outcome {
    /// The frontend runs it.
    Proven(Found),
    /// It is in place and checked, and there is no process to run it; why.
    NotRunning(String),
}

/// What an attempt did, whether or not it succeeded.
#[derive(Debug, Default)]
pub struct Effort {
    /// The frontend was asked to reload.
    pub reloaded: bool,
    /// Whether it was changed over its runtime API.
    pub live_updated: bool,
    /// Whether that was a part of the change, for the check refuses the whole.
    pub in_part: bool,
    /// How long each step took.
    pub timings: Timings,
}

/// One change of one frontend.
#[derive(Debug)]
pub struct Change<'a> {
    /// The frontend.
    pub config: &'a Config,
    /// Its apply record.
    pub journal: &'a mut Journal,
    /// Its outputs on disk.
    pub staging: &'a mut Staging,
    /// What it should run.
    pub rendered: &'a Rendered,
    /// Files of earlier outputs that are removed with the change.
    pub removed: &'a [PathBuf],
    /// What was applied since the frontend last agreed with the first of them. None: that is not known.
    pub earlier: &'a [Arc<Rendered>],
    /// What the outputs were rendered from.
    pub snapshot: &'a Snapshot,
    /// What was done so far.
    pub effort: &'a mut Effort,
    /// Writes its outputs, starts its commands and examines its processes.
    pub unconfined: &'a Unconfined,
}

impl Rendered {
    /// What a runtime API compares with what the frontend runs.
    pub fn wanted<'a>(
        &'a self,
        config: &'a Config,
        swapped_at: u64,
        store: &'a Store,
        unconfined: &'a Unconfined,
    ) -> Wanted<'a> {
        let paths = config.outputs.iter().map(|output| output.path.as_path());
        let outputs = paths.zip(self.contents.iter().map(String::as_str)).collect();
        Wanted::new(outputs, &self.digest, swapped_at, store, unconfined)
    }
}

impl Change<'_> {
    /// Looks for the proof of a reload that an earlier run asked for, or meant to.
    ///
    /// # Errors
    ///
    /// There is none: it must be asked for again.
    pub async fn prove_interrupted(mut self) -> Result<Found, Error> {
        let Step::Reloading { changes, swapped_at, before, asked, .. } = self.journal.step().clone() else {
            return Ok((None, None));
        };
        if matches!(self.config.proof, Proof::None) && !asked {
            // Nothing could ever show whether it was asked to reload.
            return self.reload_and_prove().await;
        }
        // Only a signal that was certainly sent deserves the full patience.
        let limit = (!asked).then_some(Duration::from_secs(2));
        match self.await_proof(before.as_ref(), swapped_at, limit).await {
            Ok(found) => Ok(self.conclude(&changes, swapped_at, found)),
            Err(error @ proof::Error::Ended { .. }) if asked => Err(self.undo(&changes, error.into(), None)),
            Err(error @ proof::Error::Busy { .. }) if asked => Err(error.into()),
            // It has come to it, and has refused.
            Err(error @ proof::Error::NoNewGeneration { .. }) if asked => Err(self.undo(&changes, error.into(), None)),
            Err(_) => self.reload_and_prove().await,
        }
    }

    /// Makes the change. Outputs whose content is right already are not touched.
    ///
    /// # Errors
    ///
    /// Some step failed, and all was undone.
    pub async fn apply(mut self) -> Result<Outcome, Error> {
        let (config, rendered) = (self.config, self.rendered);
        // A wrong setup is found before anything is touched.
        let absent = config.absence(self.unconfined).await?;
        let owed = unproven(self.journal);
        let started = Instant::now();
        let staged = self.staging.stage(&config.outputs, &rendered.contents, self.removed)?;
        self.effort.timings.stage = started.elapsed();
        // With all in place already, this is another attempt at what an earlier one swapped in, and that is what a
        // failure must undo. Otherwise there is no one earlier version to go back to but what is in place.
        let changes = if staged.is_empty() {
            owed
        } else {
            self.staging.discard(owed.iter().filter(|change| staged.iter().all(|new| new.path != change.path)));
            staged.clone()
        };
        let started = Instant::now();
        let checking = Checking { config, unconfined: self.unconfined };
        let checked = match checking.staged(&self.staging, &staged).await {
            Ok(Staged::NoCandidate) => {
                self.staging.discard(&staged);
                return Err(Error::NoCandidate);
            }
            Ok(checked) => checked,
            Err(error) => {
                self.staging.discard(&staged);
                let refusal = checking.explain(error, &staged).await;
                self.apply_in_part().await;
                return Err(refusal.into());
            }
        };
        self.effort.timings.check = started.elapsed();
        let started = Instant::now();
        self.swap(&staged, &changes)?;
        let swapped_at = now_ticks();
        self.effort.timings.swap = started.elapsed();
        let passed = if let Staged::Passed(passed) = checked {
            passed
        } else {
            let started = Instant::now();
            let passed = match checking.in_place().await {
                Ok(passed) => passed,
                Err(error) => {
                    let error = self.undo_refused(checking, error, &changes).await;
                    self.apply_in_part().await;
                    return Err(error);
                }
            };
            self.effort.timings.check += started.elapsed();
            passed
        };
        self.journal.begin(Step::Reloading {
            changes,
            digest: rendered.digest.clone(),
            revision: rendered.revision,
            swapped_at,
            before: None,
            mark: None,
            asked: false,
        });
        if let Some(path) = passed.unread.into_iter().next() {
            return Err(Error::Unread(Unread(path)));
        }
        if let Some(why) = absent {
            return Ok(Outcome::NotRunning(why));
        }
        match self.reload_and_prove().await {
            Err(error) if error.is_not_running() => Ok(Outcome::NotRunning(error.to_string())),
            other => other.map(Outcome::Proven),
        }
    }

    /// Has the frontend load the outputs that are in place, and waits for the proof.
    async fn reload_and_prove(&mut self) -> Result<Found, Error> {
        let Step::Reloading { changes, swapped_at, .. } = self.journal.step().clone() else { return Ok((None, None)) };
        let started = Instant::now();
        let asked = self.apply_live_or_reload(swapped_at).await;
        self.effort.timings.reload = started.elapsed();
        let result = match asked {
            Ok(before) => {
                let started = Instant::now();
                let found = self.await_proof(before.as_ref(), swapped_at, None).await;
                self.effort.timings.proof = started.elapsed();
                found.map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(found) => Ok(self.conclude(&changes, swapped_at, found)),
            // It ended just now. When it is started again it reads what is in place.
            Err(error) if error.is_not_running() || error.keeps_outputs() => Err(error),
            // It may still load the new outputs, late: from here on nothing is known of it, except by its runtime API.
            Err(error) => {
                let live = self.live().map(|_| self.journal.proven().cloned());
                let known = live.flatten().filter(|_| matches!(self.config.proof, Proof::Runtime { .. }));
                let error = self.undo(&changes, error, known.clone());
                self.restore_live(known.and_then(|known| known.evidence)).await;
                Err(error)
            }
        }
    }

    /// Applies the change over the runtime API, or asks the frontend to reload. Returns its processes as they were before.
    async fn apply_live_or_reload(&mut self, swapped_at: u64) -> Result<Option<Generation>, Error> {
        let config = self.config;
        if let Some(runtime) = &config.runtime {
            let last = self.journal.proven().and_then(|proven| proven.evidence.clone());
            match runtime.apply(&self.wanted(swapped_at), last.as_ref()).await? {
                LiveUpdate::Applied => {
                    self.effort.live_updated = true;
                    return Ok(None);
                }
                LiveUpdate::NotNeeded => {}
                LiveUpdate::NeedsReload(why) => {
                    tracing::info!(frontend = %config.name, why, "change needs a reload");
                    if config.reload == Reload::None {
                        return Err(Error::NoReload(why));
                    }
                }
            }
        }
        if let Some(runtime) = config.runtime.as_ref().filter(|_| matches!(config.proof, Proof::Runtime { .. }))
            && let Some(new) = runtime.state_before_reload().await?
        {
            self.amend(|_, mark, _| *mark = Some(Box::new(new)));
        }
        let mut before = None;
        match &config.reload {
            Reload::None => return Ok(None),
            Reload::Command { argv, limit, find } => {
                self.effort.reloaded = true;
                if let Err(error) = child::run(self.unconfined, argv, *limit).await {
                    return Err(self.failed_command(error, find.as_ref()).await);
                }
            }
            Reload::Master { endpoint, limit } => {
                self.effort.reloaded = true;
                runtime::reload_by_master(endpoint, *limit).await?;
                self.begin_reloading(None, true);
            }
            Reload::Signal { signal, find, caught_when_ready } => {
                let process = Process::find(self.unconfined, find).await?;
                self.await_ready(&process, *signal, *caught_when_ready).await?;
                let children = process.children(self.unconfined).await;
                let workers = children.into_iter().map(|child| child.identity).collect();
                let pid_file = find.pid_file().and_then(FileStamp::of);
                before = Some(Generation { frontend: process.identity, workers, pid_file });
                self.begin_reloading(before.clone(), false);
                self.effort.reloaded = true;
                let sent = process.signal(*signal);
                self.begin_reloading(before.clone(), true);
                sent?;
            }
        }
        Ok(before)
    }

    /// Waits until the process would act on the signal at once. A reload that somebody else asked for, and that it is at,
    /// may have read the previous outputs: the generation of workers that comes of it proves nothing. Any that it begins
    /// later reads those in place.
    async fn await_ready(&self, process: &Process, signal: Signal, caught: Option<Signal>) -> Result<(), Error> {
        let limit = self.config.proof.limit().unwrap_or(PATIENCE);
        let started = Instant::now();
        while process.signal_state(self.unconfined, signal, caught).await == SignalState::Busy {
            if process.has_ended() {
                return Err(process::Error::Ended(process.identity.pid).into());
            }
            if started.elapsed() >= limit {
                return Err(proof::Error::Busy { pid: process.identity.pid, limit }.into());
            }
            tokio::time::sleep(STEP.max(started.elapsed() / 10).min(10 * STEP)).await;
        }
        Ok(())
    }

    /// What it means that the command failed.
    async fn failed_command(&self, source: CommandError, find: Option<&Find>) -> Error {
        let found = match find {
            Some(find) => Some(Process::find(self.unconfined, find).await),
            None => None,
        };
        match found {
            Some(Ok(_)) => Error::Reload(source),
            Some(Err(absence)) if absence.is_not_running() => Error::NothingToReload { absence, source },
            _ if self.config.check.is_some() => Error::ReloadUnclear(source),
            _ => Error::Reload(source),
        }
    }

    /// Restores the previous outputs after the check has refused the new ones, and says which of them are to blame.
    async fn undo_refused(&mut self, checking: Checking<'_>, error: CommandError, changes: &[FileChange]) -> Error {
        let known = self.journal.proven().cloned();
        match self.staging.restore(changes) {
            Ok(()) => {
                self.journal.end(known);
                checking.explain(error, changes).await.into()
            }
            Err(source) => Error::Rollback { cause: Box::new(Refusal::Candidate(error).into()), source },
        }
    }

    async fn await_proof(
        &self,
        before: Option<&Generation>,
        swapped_at: u64,
        limit: Option<Duration>,
    ) -> Result<Found, proof::Error> {
        let wanted = &self.wanted(swapped_at);
        let marked =
            if let Step::Reloading { mark, .. } = self.journal.step() { mark.as_deref().cloned() } else { None };
        let last = marked.or_else(|| self.journal.proven().and_then(|proven| proven.evidence.clone()));
        let asked = Asked { config: self.config, wanted, before, last: last.as_ref(), unconfined: self.unconfined };
        asked.await_proof(limit).await
    }

    /// Records what was found.
    fn conclude(&mut self, changes: &[FileChange], swapped_at: u64, found: Found) -> Found {
        self.staging.discard(changes);
        let (process, evidence) = found.clone();
        let Rendered { digest, revision, .. } = self.rendered;
        self.journal.end(Some(Proven { digest: digest.clone(), revision: *revision, process, swapped_at, evidence }));
        found
    }

    /// The runtime API, if changes are sent over it.
    fn live(&self) -> Option<&Runtime> {
        self.config.runtime.as_ref().filter(|runtime| runtime.protocol.takes_changes())
    }

    fn wanted(&self, swapped_at: u64) -> Wanted<'_> {
        let earlier = self.earlier.iter().map(|rendered| rendered.contents.as_slice());
        self.rendered.wanted(self.config, swapped_at, self.staging.store(), self.unconfined).after(earlier)
    }

    /// The check refuses the outputs, which therefore are not in place. What the runtime API can change is not held up by
    /// that: a check loads all files of a frontend, and any of them may be the reason. It is lost if the frontend restarts.
    async fn apply_in_part(&mut self) {
        let Some(runtime) = self.live().filter(|runtime| runtime.protocol.applies_in_part()) else { return };
        let Some(proven) = self.journal.proven().cloned() else { return };
        let backends = self.snapshot.services.values().flat_map(|service| &service.backends);
        let in_use = backends.map(|backend| (backend.address, backend.port).into()).collect();
        let wanted = self.wanted(proven.swapped_at).in_part(in_use);
        let applied = runtime.apply(&wanted, proven.evidence.as_ref()).await;
        match applied {
            Ok(_) => {
                self.effort.in_part = true;
                // The frontend runs neither the earlier outputs nor these: after a restart nothing may be told from them.
                let digest = self.rendered.digest.clone();
                if proven.digest != digest {
                    self.journal.end(Some(Proven { digest, ..proven }));
                }
            }
            Err(error) => tracing::debug!(frontend = %self.config.name, %error, "cannot apply a part of a change"),
        }
    }

    /// Makes the frontend agree with the files as they are now: its runtime API may have applied a part of a change before
    /// it refused the rest.
    async fn restore_live(&self, last: Option<Evidence>) {
        let Some(runtime) = self.live() else { return };
        let outputs = &self.config.outputs;
        let contents: Result<Vec<_>, _> = outputs.iter().map(|o| std::fs::read_to_string(&o.path)).collect();
        let Ok(contents) = contents else { return };
        let previous = Rendered::new(outputs, contents, 0);
        let earlier = self.earlier.iter().map(|earlier| earlier.contents.as_slice());
        let attempted = (!self.earlier.is_empty()).then_some(self.rendered.contents.as_slice());
        let wanted =
            previous.wanted(self.config, 0, self.staging.store(), self.unconfined).after(earlier.chain(attempted));
        if let Err(error) = runtime.apply(&wanted.in_part(BTreeSet::new()), last.as_ref()).await {
            tracing::warn!(frontend = %self.config.name, %error, "failed to restore previous backends over the runtime API");
        }
    }

    /// Records whether the frontend was asked to reload, and its processes as they were before.
    fn begin_reloading(&mut self, processes: Option<Generation>, sure: bool) {
        self.amend(|before, _, asked| (*before, *asked) = (processes, sure));
    }

    /// Amends the record of the reload that is under way.
    fn amend(&mut self, amend: impl FnOnce(&mut Option<Generation>, &mut Option<Box<Evidence>>, &mut bool)) {
        let mut step = self.journal.step().clone();
        if let Step::Reloading { before, mark, asked, .. } = &mut step {
            amend(before, mark, asked);
            self.journal.begin(step);
        }
    }

    /// Swaps all that are staged, or none. `changes` are those to be undone until they have passed the check.
    fn swap(&mut self, staged: &[FileChange], changes: &[FileChange]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.journal.begin(Step::Swapping { changes: changes.to_vec() });
        for change in staged {
            if let Err(error) = self.staging.swap(change) {
                let known = self.journal.proven().cloned();
                return Err(self.undo(changes, error.into(), known));
            }
        }
        Ok(())
    }

    /// Restores the previous outputs and records what the frontend then runs.
    fn undo(&mut self, changes: &[FileChange], cause: Error, proven: Option<Proven>) -> Error {
        match self.staging.restore(changes) {
            Ok(()) => {
                self.journal.end(proven);
                cause
            }
            Err(source) => Error::Rollback { cause: Box::new(cause), source },
        }
    }
}

impl Config {
    /// How its process is found. `None`: it is not known by a process.
    pub fn find(&self) -> Option<&Find> {
        match &self.reload {
            Reload::Signal { find, .. } => Some(find),
            Reload::None | Reload::Command { .. } | Reload::Master { .. } => None,
        }
    }

    /// The process that runs now, as far as it can be seen: that of a frontend which a command reloads may be elsewhere.
    pub(super) async fn seen_process(&self, unconfined: &Unconfined) -> Option<Identity> {
        Process::find(unconfined, self.find_if_seen()?).await.ok().map(|process| process.identity)
    }

    /// How its process is found, if it can be seen at all.
    pub(super) fn find_if_seen(&self) -> Option<&Find> {
        match &self.reload {
            Reload::Command { find, .. } => find.as_ref(),
            _ => self.find(),
        }
    }

    /// The process that runs now. `None`: it is not known by a process.
    pub(super) async fn find_process(&self, unconfined: &Unconfined) -> Option<Result<Process, process::Error>> {
        Some(Process::find(unconfined, self.find()?).await)
    }

    /// Why nothing runs that could take a change; `None` if something does, or nothing can tell.
    ///
    /// # Errors
    ///
    /// It cannot be told, for something is set up wrongly.
    pub(super) async fn absence(&self, unconfined: &Unconfined) -> Result<Option<String>, Error> {
        if let Some(runtime) = &self.runtime {
            return match runtime.probe().await {
                Ok(()) => Ok(None),
                Err(error) if error.is_not_running() => Ok(Some(error.to_string())),
                Err(error) => Err(error.into()),
            };
        }
        match self.find_process(unconfined).await.transpose() {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_running() => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}
