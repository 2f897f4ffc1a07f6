//! Outputs on disk: staged, swapped in, restored, and those of which nobody is the frontend any more. All functions block.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::config::{Config, Output};
use super::digest::{Digest, on_disk};
use super::journal::{FileChange, Journal, Step};
use crate::model::Name;
use crate::sys::atomic_file;
use crate::sys::lock::{self, TargetLock};
use crate::sys::output_file::{self, Prepared, Righted, Store};
use crate::sys::ownership::Ownership;
use crate::sys::unconfined::Unconfined;

/// The outputs of one frontend on disk: what is staged and kept of them, and the locks on those in place.
#[derive(Debug)]
pub struct Staging {
    frontend: Name,
    unconfined: Unconfined,
    store: Store,
    locks: BTreeMap<PathBuf, TargetLock>,
    /// New versions that are not swapped in yet.
    prepared: BTreeMap<PathBuf, Prepared>,
    /// Previous versions that the store has no room for.
    in_memory: BTreeMap<PathBuf, Vec<u8>>,
    /// What was logged of outputs, so that it is not repeated.
    logged: BTreeSet<String>,
}

impl Staging {
    /// Of a frontend with this store.
    pub fn new(frontend: Name, unconfined: Unconfined, store: Store) -> Self {
        Self {
            frontend,
            unconfined,
            store,
            locks: BTreeMap::new(),
            prepared: BTreeMap::new(),
            in_memory: BTreeMap::new(),
            logged: BTreeSet::new(),
        }
    }

    /// Where the previous versions are kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes sure that no other elasticd writes the outputs. A lock on a file that was replaced or removed by others is
    /// taken anew.
    ///
    /// A file that cannot be locked can as a rule not be replaced either; that is reported when it is.
    ///
    /// # Errors
    ///
    /// Another elasticd writes one, or others than root and elasticd decide where it is.
    pub fn lock(&mut self, outputs: &[Output]) -> Result<(), lock::Error> {
        self.locks.retain(|path, lock| outputs.iter().any(|output| output.path == *path) && lock.is_of(path));
        for output in outputs.iter().filter(|output| !self.locks.contains_key(&output.path)).collect::<Vec<_>>() {
            let lock = lock::target(&self.unconfined, &output.path)?;
            self.set_lock(&output.path, lock);
        }
        Ok(())
    }

    fn set_lock(&mut self, path: &Path, lock: Option<TargetLock>) {
        match lock {
            Some(lock) => drop(self.locks.insert(path.to_owned(), lock)),
            None => drop(self.locks.remove(path)),
        }
    }

    /// Undoes what an earlier run left swapped in and unchecked, and removes what it left staged.
    ///
    /// # Errors
    ///
    /// The previous outputs could not be restored.
    pub fn recover(&mut self, config: &Config, journal: &mut Journal) -> Result<(), atomic_file::Error> {
        let under_way = match journal.step().clone() {
            Step::Idle => Vec::new(),
            Step::Swapping { changes } | Step::Reloading { changes, .. } => changes,
        };
        let outputs = config.outputs.iter().map(|output| &output.path);
        let paths: BTreeSet<_> = outputs.chain(under_way.iter().map(|change| &change.path)).collect();
        for path in paths {
            let previous = under_way.iter().find(|change| change.path == *path);
            let previous = previous.and_then(|change| change.previous.clone());
            let is_needed = move |bytes: &[u8]| previous == Some(Digest::of(bytes));
            // What is wrong with the directory is reported when the output is written.
            let _ = output_file::tidy(&self.unconfined, &self.store, path, is_needed);
        }
        if let Step::Swapping { changes } = journal.step().clone() {
            tracing::info!(frontend = %config.name, "interrupted change undone; it will be made again");
            self.restore(&changes)?;
            journal.end(journal.proven().cloned());
        }
        let owed = unproven(journal);
        self.store.discard_all_but(owed.iter().map(|change| change.path.as_path()));
        Ok(())
    }

    /// Stages every output whose content differs, and every removal: all of them, or none.
    ///
    /// # Errors
    ///
    /// Some could not be written.
    pub fn stage(
        &mut self,
        outputs: &[Output],
        contents: &[String],
        removed: &[PathBuf],
    ) -> Result<Vec<FileChange>, atomic_file::Error> {
        let mut changes = Vec::new();
        let staged = self.stage_each(outputs, contents, removed, &mut changes);
        staged.inspect_err(|_| self.discard(&changes)).map(|()| changes)
    }

    fn stage_each(
        &mut self,
        outputs: &[Output],
        contents: &[String],
        removed: &[PathBuf],
        changes: &mut Vec<FileChange>,
    ) -> Result<(), atomic_file::Error> {
        for (output, content) in outputs.iter().zip(contents) {
            let new = Digest::of(content.as_bytes());
            if on_disk(&output.path).as_ref() != Some(&new) {
                let previous = self.prepare(output, content)?;
                changes.push(FileChange { path: output.path.clone(), new: Some(new), previous });
            }
        }
        for path in removed {
            let Some((bytes, is_kept)) = output_file::prepare_removal(&self.unconfined, &self.store, path)? else {
                continue;
            };
            changes.push(FileChange { path: path.clone(), new: None, previous: Some(Digest::of(&bytes)) });
            self.keep_in_memory(path, bytes, is_kept);
        }
        Ok(())
    }

    /// Prepares a new version. Returns what is in place.
    fn prepare(&mut self, output: &Output, content: &str) -> Result<Option<Digest>, atomic_file::Error> {
        let Output { path, ownership, .. } = output;
        let mut prepared = output_file::prepare(&self.unconfined, &self.store, path, content.as_bytes(), *ownership)?;
        if let Some(not_kept) = prepared.not_kept.as_ref().filter(|lost| self.is_new(path, lost)) {
            tracing::warn!(frontend = %self.frontend, path = %path.display(), lost = not_kept,
                "what the output that is replaced has cannot be given to the new one; set `owner` and `group`, or give \
                 elasticd CAP_CHOWN");
        }
        let previous = prepared.previous.take();
        let digest = previous.as_deref().map(Digest::of);
        if let Some(bytes) = previous {
            self.keep_in_memory(path, bytes, prepared.is_kept);
        }
        self.prepared.insert(path.clone(), prepared);
        Ok(digest)
    }

    fn keep_in_memory(&mut self, path: &Path, bytes: Vec<u8>, is_kept: bool) {
        if is_kept {
            self.in_memory.remove(path);
        } else {
            self.in_memory.insert(path.to_owned(), bytes);
        }
    }

    /// Whether something is said of an output for the first time.
    fn is_new(&mut self, path: &Path, said: &str) -> bool {
        self.logged.insert(format!("{}: {said}", path.display()))
    }

    /// A file for a check to see in place of an output. `None`: there is none, as the store has no room for it.
    pub fn candidate(&self, change: &FileChange) -> Option<PathBuf> {
        match &change.new {
            Some(_) => self.prepared.get(&change.path)?.candidate.clone(),
            None => self.store.make_empty(&change.path).ok(),
        }
    }

    /// Makes a change that is staged.
    ///
    /// # Errors
    ///
    /// It was not made.
    pub fn swap(&mut self, change: &FileChange) -> Result<(), atomic_file::Error> {
        match self.prepared.remove(&change.path) {
            Some(prepared) => {
                let lock = output_file::swap(&self.unconfined, &self.store, &change.path, prepared)?;
                self.set_lock(&change.path, lock);
            }
            None => {
                output_file::remove(&self.unconfined, &change.path)?;
                self.set_lock(&change.path, None);
            }
        }
        Ok(())
    }

    /// Restores the previous outputs. Goes by what is really there: any of the changes may not have happened.
    ///
    /// # Errors
    ///
    /// Some could not be restored.
    pub fn restore(&mut self, changes: &[FileChange]) -> Result<(), atomic_file::Error> {
        for change in changes {
            let path = &change.path;
            if is_made(change) {
                let in_memory = self.in_memory.get(path).cloned();
                let kept = in_memory.as_deref().map(Digest::of).or_else(|| on_disk(&self.store.previous(path)));
                if change.previous.is_none() {
                    output_file::remove(&self.unconfined, path)?;
                    self.set_lock(path, None);
                } else if kept == change.previous {
                    let lock = output_file::put_back(&self.unconfined, &self.store, path, in_memory)?;
                    self.set_lock(path, lock);
                } else {
                    tracing::error!(frontend = %self.frontend, path = %path.display(),
                        "the previous version of the output is lost; the new one stays in place");
                }
            }
            self.discard([change]);
        }
        Ok(())
    }

    /// Removes what is staged and kept of these changes.
    pub fn discard<'a>(&mut self, changes: impl IntoIterator<Item = &'a FileChange>) {
        for change in changes {
            if let Some(prepared) = self.prepared.remove(&change.path) {
                output_file::discard(&self.unconfined, &self.store, &change.path, prepared);
            }
            self.in_memory.remove(&change.path);
            self.store.discard(&change.path);
        }
    }

    /// Gives outputs whose content is right the mode and owner that are configured: in place, or, where elasticd may not
    /// do that, by replacing the file. The frontend need not load them for that.
    ///
    /// # Errors
    ///
    /// One cannot be put right.
    pub fn put_right(&mut self, outputs: &[Output], contents: &[String]) -> Result<(), atomic_file::Error> {
        for (output, content) in outputs.iter().zip(contents) {
            let path = &output.path;
            if output.ownership == Ownership::default() || on_disk(path) != Some(Digest::of(content.as_bytes())) {
                continue;
            }
            let difference = match output_file::put_right(&self.unconfined, path, output.ownership)? {
                Righted::Already => continue,
                Righted::Done(difference) => difference,
                Righted::MustReplace(difference) => {
                    self.prepare(output, content)?;
                    let change = FileChange { path: path.clone(), new: None, previous: None };
                    let swapped = self.swap(&change);
                    self.discard([&change]);
                    swapped?;
                    difference
                }
            };
            tracing::warn!(frontend = %self.frontend, path = %path.display(), found = difference,
                "the output's mode or owner was not as configured; it is now");
        }
        Ok(())
    }
}

/// Whether a change is in place.
fn is_made(change: &FileChange) -> bool {
    match &change.new {
        Some(new) => on_disk(&change.path).as_ref() == Some(new),
        None => change.path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound),
    }
}

/// The changes that are swapped in and checked, but not proven: their previous versions are kept to go back to.
pub fn unproven(journal: &Journal) -> Vec<FileChange> {
    match journal.step() {
        Step::Reloading { changes, .. } => changes.clone(),
        Step::Idle | Step::Swapping { .. } => Vec::new(),
    }
}

/// The digest of what is on disk at all outputs.
pub fn all_on_disk(outputs: &[Output]) -> Digest {
    Digest::of_all(outputs.iter().map(|output| (output.path.as_path(), on_disk(&output.path))))
}
