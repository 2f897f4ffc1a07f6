//! One change of one frontend: stage, check, swap, reload, prove; and back, if any of it fails.

use super::config::{CANDIDATE, Config, Output, Proof, Reload};
use super::journal::{Digest, Generation, Journal, Proven, Step, Swap, on_disk};
use super::proof;
use crate::sys::process::{self, Find, Identity, Process, now_ticks};
use crate::sys::{atomic_file, command};

/// All outputs of a frontend, rendered from one snapshot.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// In the order of the configuration.
    pub contents: Vec<String>,
    /// Of all of them.
    pub digest: Digest,
    /// The snapshot's revision.
    pub revision: u64,
}

impl Rendered {
    /// Contents in the order of `outputs`.
    pub fn new(outputs: &[Output], contents: Vec<String>, revision: u64) -> Self {
        let digests = contents.iter().map(|content| Some(Digest::of(content.as_bytes())));
        let digest = Digest::of_all(outputs.iter().map(|output| output.path.as_path()).zip(digests));
        Self { contents, digest, revision }
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
    Check(#[source] command::Error),
    /// The command failed.
    #[error("the reload failed: {0}")]
    Reload(#[source] command::Error),
    /// The frontend was asked to reload and did not.
    #[error(transparent)]
    Unproven(#[from] proof::Error),
    /// The previous outputs could not be brought back.
    #[error("{cause}; and then the previous configuration could not be restored: {source}")]
    Rollback {
        /// Why they should be.
        cause: Box<Self>,
        /// Why they could not.
        source: atomic_file::Error,
    },
}

/// How a change ended.
#[derive(Debug)]
pub enum Outcome {
    /// The frontend runs it.
    Proven(Option<Identity>),
    /// It is in place and checked, and there is no process to run it.
    NotRunning(process::Error),
}

/// Undoes what an earlier run left swapped in and unchecked, and removes what it left staged.
///
/// # Errors
///
/// The previous outputs could not be brought back.
pub fn recover(config: &Config, journal: &mut Journal) -> Result<(), atomic_file::Error> {
    if let Step::Swapping { swaps } = journal.step().clone() {
        tracing::info!(frontend = %config.name, "an interrupted change is undone; it will be made again");
        restore(&swaps)?;
        journal.end(journal.proven().cloned());
    }
    let owed = unproven(journal);
    for output in config.outputs.iter().filter(|output| owed.iter().all(|swap| swap.path != output.path)) {
        atomic_file::discard(&output.path);
    }
    Ok(())
}

/// What is swapped in and checked, but was never proven: its previous versions are still there to go back to.
fn unproven(journal: &Journal) -> Vec<Swap> {
    match journal.step() {
        Step::Reloading { swaps, .. } => swaps.clone(),
        Step::Idle | Step::Swapping { .. } => Vec::new(),
    }
}

/// Looks for the proof of a reload that an earlier run asked for, or meant to.
///
/// # Errors
///
/// There is none: it must be asked for again.
pub async fn prove_interrupted(config: &Config, journal: &mut Journal) -> Result<Option<Identity>, Error> {
    let Step::Reloading { swaps, digest, revision, swapped_at, before, asked } = journal.step().clone() else {
        return Ok(None);
    };
    if matches!(config.proof, Proof::None) && !asked {
        // Nothing could ever show whether it was asked.
        return reload_and_prove(config, journal).await;
    }
    // Only a signal that was certainly sent deserves the full patience.
    let limit = (!asked).then_some(std::time::Duration::from_secs(2));
    let find = config.find();
    match proof::await_proof(&config.proof, find, before.as_ref(), swapped_at, limit).await {
        Ok(process) => {
            discard(&swaps);
            journal.end(Some(Proven { digest, revision, process, swapped_at }));
            Ok(process)
        }
        Err(_) => reload_and_prove(config, journal).await,
    }
}

/// Makes the change. Outputs whose content is right already are not touched.
///
/// # Errors
///
/// Some step failed, and all was undone.
pub async fn apply(config: &Config, journal: &mut Journal, rendered: &Rendered) -> Result<Outcome, Error> {
    // Whatever is set up wrongly is found before anything is touched.
    let absent = match config.find().map(Process::find).transpose() {
        Ok(_) => None,
        Err(error) if error.is_not_running() => Some(error),
        Err(error) => return Err(error.into()),
    };
    let owed = unproven(journal);
    let staged = stage(config, rendered)?;
    // With all in place already, this is another attempt at what an earlier one swapped in, and that is what a failure
    // must undo. Otherwise there is no one earlier version to go back to but what is in place.
    let swaps = if staged.is_empty() {
        owed
    } else {
        discard(owed.iter().filter(|swap| staged.iter().all(|new| new.path != swap.path)));
        staged.clone()
    };
    if let Some(check) = config.check.as_ref().filter(|check| check.is_staged()) {
        let output = &config.outputs[0];
        let sibling = atomic_file::sibling(&output.path);
        let candidate = if staged.iter().any(|swap| swap.path == output.path) { &sibling } else { &output.path };
        let argv: Vec<_> =
            check.argv.iter().map(|argument| argument.replace(CANDIDATE, &candidate.to_string_lossy())).collect();
        command::run(&argv, check.limit).await.map_err(Error::Check).inspect_err(|_| discard(&staged))?;
    }
    swap(journal, &staged, &swaps)?;
    let swapped_at = now_ticks();
    if let Some(check) = config.check.as_ref().filter(|check| !check.is_staged())
        && let Err(error) = command::run(&check.argv, check.limit).await
    {
        let known = journal.proven().cloned();
        return Err(undo(journal, &swaps, Error::Check(error), known));
    }
    journal.begin(Step::Reloading {
        swaps,
        digest: rendered.digest.clone(),
        revision: rendered.revision,
        swapped_at,
        before: None,
        asked: false,
    });
    match absent {
        Some(error) => Ok(Outcome::NotRunning(error)),
        None => match reload_and_prove(config, journal).await {
            Err(Error::Process(error)) if error.is_not_running() => Ok(Outcome::NotRunning(error)),
            other => other.map(Outcome::Proven),
        },
    }
}

/// Asks the frontend to take what is in place, and waits for the proof.
async fn reload_and_prove(config: &Config, journal: &mut Journal) -> Result<Option<Identity>, Error> {
    let Step::Reloading { swaps, digest, revision, swapped_at, .. } = journal.step().clone() else {
        return Ok(None);
    };
    let mut before = None;
    let asked = match &config.reload {
        Reload::None => Ok(()),
        Reload::Command { argv, limit } => command::run(argv, *limit).await.map_err(Error::Reload),
        Reload::Signal { signal, find } => match Process::find(find) {
            // It went away just now; what comes next will read what is in place.
            Err(error) if error.is_not_running() => return Err(error.into()),
            Err(error) => Err(error.into()),
            Ok(process) => {
                let workers = process.children().into_iter().map(|child| child.identity).collect();
                before = Some(Generation { frontend: process.identity, workers });
                journal.begin(reloading(&swaps, &digest, revision, swapped_at, before.clone(), false));
                let sent = process.signal(*signal).map_err(Error::Process);
                journal.begin(reloading(&swaps, &digest, revision, swapped_at, before.clone(), true));
                sent
            }
        },
    };
    if let Err(error) = asked {
        return Err(undo(journal, &swaps, error, None));
    }
    match proof::await_proof(&config.proof, config.find(), before.as_ref(), swapped_at, None).await {
        Ok(process) => {
            discard(&swaps);
            journal.end(Some(Proven { digest, revision, process, swapped_at }));
            Ok(process)
        }
        // It may yet take the new outputs, late: from here on nothing is known of it.
        Err(error) => Err(undo(journal, &swaps, error.into(), None)),
    }
}

fn reloading(
    swaps: &[Swap],
    digest: &Digest,
    revision: u64,
    swapped_at: u64,
    before: Option<Generation>,
    asked: bool,
) -> Step {
    Step::Reloading { swaps: swaps.to_vec(), digest: digest.clone(), revision, swapped_at, before, asked }
}

/// Stages every output whose content differs.
fn stage(config: &Config, rendered: &Rendered) -> Result<Vec<Swap>, Error> {
    let mut swaps = Vec::new();
    for (output, content) in config.outputs.iter().zip(&rendered.contents) {
        let (new, previous) = (Digest::of(content.as_bytes()), on_disk(&output.path));
        if previous.as_ref() == Some(&new) {
            continue;
        }
        if let Err(error) = atomic_file::stage(&output.path, content.as_bytes(), output.ownership) {
            discard(&swaps);
            return Err(error.into());
        }
        swaps.push(Swap { path: output.path.clone(), new, previous });
    }
    Ok(swaps)
}

/// All that are staged, or none. `swaps` are those to be undone until they have passed the check.
fn swap(journal: &mut Journal, staged: &[Swap], swaps: &[Swap]) -> Result<(), Error> {
    if swaps.is_empty() {
        return Ok(());
    }
    journal.begin(Step::Swapping { swaps: swaps.to_vec() });
    for swap in staged {
        if let Err(error) = atomic_file::swap(&swap.path) {
            let known = journal.proven().cloned();
            return Err(undo(journal, swaps, error.into(), known));
        }
    }
    Ok(())
}

/// Brings the previous outputs back and records what the frontend then runs.
fn undo(journal: &mut Journal, swaps: &[Swap], cause: Error, proven: Option<Proven>) -> Error {
    match restore(swaps) {
        Ok(()) => {
            journal.end(proven);
            cause
        }
        Err(source) => Error::Rollback { cause: Box::new(cause), source },
    }
}

/// Goes by what is really there: any of the swaps may not have happened.
fn restore(swaps: &[Swap]) -> Result<(), atomic_file::Error> {
    for swap in swaps {
        let kept = on_disk(&atomic_file::sibling(&swap.path));
        let is_new = on_disk(&swap.path).as_ref() == Some(&swap.new);
        if is_new && swap.previous.is_none() {
            atomic_file::unswap(&swap.path, false)?;
        } else if is_new && kept == swap.previous {
            atomic_file::unswap(&swap.path, true)?;
        } else {
            atomic_file::discard(&swap.path);
        }
    }
    Ok(())
}

fn discard<'a>(swaps: impl IntoIterator<Item = &'a Swap>) {
    for swap in swaps {
        atomic_file::discard(&swap.path);
    }
}

impl Config {
    /// How its process is found. `None`: it is not known by a process.
    pub fn find(&self) -> Option<&Find> {
        match &self.reload {
            Reload::Signal { find, .. } => Some(find),
            Reload::None | Reload::Command { .. } => None,
        }
    }
}
