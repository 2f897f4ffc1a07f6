//! One change of one frontend: stage, check, swap, reload, prove; and back, if any of it fails.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::config::{CANDIDATE, Config, Output, Proof, Reload};
use super::digest::Digest;
use super::journal::{FileChange, FileStamp, Generation, Journal, Proven, Step};
use super::proof::{self, Asked, Found};
use super::runtime::{self, Evidence, LiveUpdate, Wanted};
use super::staging::{Staging, unproven};
use crate::status::Timings;
use crate::sys::atomic_file;
use crate::sys::child::{self, CommandError};
use crate::sys::output_file::Store;
use crate::sys::process::{self, Find, Process};
use crate::sys::ticks::now_ticks;
use crate::sys::unconfined::Unconfined;

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
    /// The frontend's own check refuses the candidate.
    #[error("the check refuses the new configuration: {0}")]
    Check(#[source] CommandError),
    /// There is no room for the file that the check is to judge.
    #[error("there is no room in `state_dir` for the candidate that the check is to judge; free some space")]
    NoCandidate,
    /// The command failed.
    #[error("the reload failed: {0}")]
    Reload(#[source] CommandError),
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
            _ => false,
        }
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
        Wanted { outputs, digest: &self.digest, swapped_at, store, unconfined }
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
        let checked = self.check_staged(&staged).await;
        let is_checked = checked.inspect_err(|_| self.staging.discard(&staged))?;
        self.effort.timings.check = started.elapsed();
        let started = Instant::now();
        self.swap(&staged, &changes)?;
        let swapped_at = now_ticks();
        self.effort.timings.swap = started.elapsed();
        if let Some(check) = config.check.as_ref().filter(|_| !is_checked) {
            let started = Instant::now();
            if let Err(error) = child::run(self.unconfined, &check.argv, check.limit).await {
                let known = self.journal.proven().cloned();
                return Err(self.undo(&changes, Error::Check(error), known));
            }
            self.effort.timings.check += started.elapsed();
        }
        self.journal.begin(Step::Reloading {
            changes,
            digest: rendered.digest.clone(),
            revision: rendered.revision,
            swapped_at,
            before: None,
            mark: None,
            asked: false,
        });
        if let Some(why) = absent {
            return Ok(Outcome::NotRunning(why));
        }
        match self.reload_and_prove().await {
            Err(error) if error.is_not_running() => Ok(Outcome::NotRunning(error.to_string())),
            other => other.map(Outcome::Proven),
        }
    }

    /// Checks the candidate before the frontend can load it. `false`: that is not possible here, and the check must follow
    /// the swap.
    async fn check_staged(&self, staged: &[FileChange]) -> Result<bool, Error> {
        let Some(check) = &self.config.check else { return Ok(true) };
        if check.is_staged() {
            let Some(output) = self.config.outputs.first() else { return Ok(true) };
            let candidate = match staged.iter().find(|change| change.path == output.path) {
                Some(change) => self.staging.candidate(change).ok_or(Error::NoCandidate)?,
                None => output.path.clone(),
            };
            let argv: Vec<_> =
                check.argv.iter().map(|argument| argument.replace(CANDIDATE, &candidate.to_string_lossy())).collect();
            child::run(self.unconfined, &argv, check.limit).await.map_err(Error::Check)?;
            return Ok(true);
        }
        // Only a file that exists can be covered by a mount.
        if !check.isolate || staged.is_empty() || staged.iter().any(|change| change.previous.is_none()) {
            return Ok(false);
        }
        let place = |change: &FileChange| Some((self.staging.candidate(change)?, change.path.clone()));
        let Some(places) = staged.iter().map(place).collect::<Option<Vec<_>>>() else { return Ok(false) };
        match child::run_isolated(self.unconfined, &places, &check.argv, check.limit).await {
            Some(checked) => checked.map(|()| true).map_err(Error::Check),
            None => Ok(false),
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
            Err(error) if error.is_not_running() => Err(error),
            // It may still load the new outputs, late: from here on nothing is known of it.
            Err(error) => {
                let error = self.undo(&changes, error, None);
                self.restore_live().await;
                Err(error)
            }
        }
    }

    /// Applies the change over the runtime API, or asks the frontend to reload. Returns its processes as they were before.
    async fn apply_live_or_reload(&mut self, swapped_at: u64) -> Result<Option<Generation>, Error> {
        let config = self.config;
        if let Some(runtime) = &config.runtime {
            let last = self.journal.proven().and_then(|proven| proven.evidence.clone());
            match runtime
                .apply(&self.rendered.wanted(config, swapped_at, self.staging.store(), self.unconfined), last.as_ref())
                .await?
            {
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
            self.amend(|_, mark, _| *mark = Some(new));
        }
        let mut before = None;
        match &config.reload {
            Reload::None => return Ok(None),
            Reload::Command { argv, limit } => {
                self.effort.reloaded = true;
                child::run(self.unconfined, argv, *limit).await.map_err(Error::Reload)?;
            }
            Reload::Master { endpoint, limit } => {
                self.effort.reloaded = true;
                runtime::reload_by_master(endpoint, *limit).await?;
                self.begin_reloading(None, true);
            }
            Reload::Signal { signal, find } => {
                let process = Process::find(self.unconfined, find).await?;
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

    async fn await_proof(
        &self,
        before: Option<&Generation>,
        swapped_at: u64,
        limit: Option<Duration>,
    ) -> Result<Found, proof::Error> {
        let wanted = &self.rendered.wanted(self.config, swapped_at, self.staging.store(), self.unconfined);
        let marked = if let Step::Reloading { mark, .. } = self.journal.step() { mark.clone() } else { None };
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

    /// Makes the frontend agree with the files as they are now: its runtime API may have applied a part of a change before
    /// it refused the rest.
    async fn restore_live(&self) {
        let Some(runtime) = &self.config.runtime else { return };
        let outputs = &self.config.outputs;
        let contents: Result<Vec<_>, _> = outputs.iter().map(|o| std::fs::read_to_string(&o.path)).collect();
        let Ok(contents) = contents else { return };
        let previous = Rendered::new(outputs, contents, 0);
        if let Err(error) =
            runtime.apply(&previous.wanted(self.config, 0, self.staging.store(), self.unconfined), None).await
        {
            tracing::warn!(frontend = %self.config.name, %error, "failed to restore previous backends over the runtime API");
        }
    }

    /// Records whether the frontend was asked to reload, and its processes as they were before.
    fn begin_reloading(&mut self, processes: Option<Generation>, sure: bool) {
        self.amend(|before, _, asked| (*before, *asked) = (processes, sure));
    }

    /// Amends the record of the reload that is under way.
    fn amend(&mut self, amend: impl FnOnce(&mut Option<Generation>, &mut Option<Evidence>, &mut bool)) {
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
