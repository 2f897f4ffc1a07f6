//! Outputs on disk: staged beside their places, and restored. All functions block.

use super::config::{Config, Output};
use super::digest::{Digest, on_disk};
use super::journal::{FileChange, Journal, Step};
use crate::sys::atomic_file;
use crate::sys::unconfined::Unconfined;

/// Undoes what an earlier run left swapped in and unchecked, and removes what it left staged.
///
/// # Errors
///
/// The previous outputs could not be restored.
pub fn recover(unconfined: &Unconfined, config: &Config, journal: &mut Journal) -> Result<(), atomic_file::Error> {
    if let Step::Swapping { changes } = journal.step().clone() {
        tracing::info!(frontend = %config.name, "interrupted change undone; it will be made again");
        restore(unconfined, &changes)?;
        journal.end(journal.proven().cloned());
    }
    let owed = unproven(journal);
    for output in config.outputs.iter().filter(|output| owed.iter().all(|change| change.path != output.path)) {
        atomic_file::discard(unconfined, &output.path);
    }
    Ok(())
}

/// The changes that are swapped in and checked, but not proven: their previous versions are kept to go back to.
pub fn unproven(journal: &Journal) -> Vec<FileChange> {
    match journal.step() {
        Step::Reloading { changes, .. } => changes.clone(),
        Step::Idle | Step::Swapping { .. } => Vec::new(),
    }
}

/// Stages every output whose content differs: all of them, or none.
///
/// # Errors
///
/// Some could not be written.
pub fn stage(
    unconfined: &Unconfined,
    outputs: &[Output],
    contents: &[String],
) -> Result<Vec<FileChange>, atomic_file::Error> {
    let mut changes = Vec::new();
    for (output, content) in outputs.iter().zip(contents) {
        let (new, previous) = (Digest::of(content.as_bytes()), on_disk(&output.path));
        if previous.as_ref() == Some(&new) {
            continue;
        }
        if let Err(error) = atomic_file::stage(unconfined, &output.path, content.as_bytes(), output.ownership) {
            discard(unconfined, &changes);
            return Err(error);
        }
        changes.push(FileChange { path: output.path.clone(), new, previous });
    }
    Ok(changes)
}

/// The digest of what is on disk at all outputs.
pub fn all_on_disk(outputs: &[Output]) -> Digest {
    Digest::of_all(outputs.iter().map(|output| (output.path.as_path(), on_disk(&output.path))))
}

/// Restores the previous outputs. Goes by what is really there: any of the changes may not have happened.
///
/// # Errors
///
/// Some could not be restored.
pub fn restore(unconfined: &Unconfined, changes: &[FileChange]) -> Result<(), atomic_file::Error> {
    for change in changes {
        let kept = on_disk(&atomic_file::staging_path(&change.path));
        let is_new = on_disk(&change.path).as_ref() == Some(&change.new);
        if is_new && change.previous.is_none() {
            atomic_file::unswap(unconfined, &change.path, false)?;
        } else if is_new && kept == change.previous {
            atomic_file::unswap(unconfined, &change.path, true)?;
        } else {
            atomic_file::discard(unconfined, &change.path);
        }
    }
    Ok(())
}

/// Removes the staged or previous versions beside the outputs.
pub fn discard<'a>(unconfined: &Unconfined, changes: impl IntoIterator<Item = &'a FileChange>) {
    for change in changes {
        atomic_file::discard(unconfined, &change.path);
    }
}
