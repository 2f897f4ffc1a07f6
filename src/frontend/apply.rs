//! One change of one frontend: stage, check, swap, reload, prove; and back, if any of it fails.

mod error;
mod live;
mod reload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::Error;

use super::checking::{Checking, Refusal, Staged, Unread};
use super::config::{Config, Output, Proof};
use super::digest::Digest;
use super::journal::{FileChange, Generation, Journal, Proven, Step};
use super::proof::{self, Asked, Found};
use super::runtime::Wanted;
use super::staging::{Staging, unproven};
use crate::model::Snapshot;
use crate::status::Timings;
use crate::sys::child::CommandError;
use crate::sys::output_file::Store;
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
        let checked = match checking.staged(self.staging, &staged).await {
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
