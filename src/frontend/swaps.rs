//! Outputs on disk: staged beside their places, and brought back to what they were.

use super::config::{Config, Output};
use super::digest::{Digest, on_disk};
use super::journal::{Journal, Step, Swap};
use crate::sys::atomic_file;

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
pub fn unproven(journal: &Journal) -> Vec<Swap> {
    match journal.step() {
        Step::Reloading { swaps, .. } => swaps.clone(),
        Step::Idle | Step::Swapping { .. } => Vec::new(),
    }
}

/// Stages every output whose content differs: all of them, or none.
///
/// # Errors
///
/// Some could not be written.
pub fn stage(outputs: &[Output], contents: &[String]) -> Result<Vec<Swap>, atomic_file::Error> {
    let mut swaps = Vec::new();
    for (output, content) in outputs.iter().zip(contents) {
        let (new, previous) = (Digest::of(content.as_bytes()), on_disk(&output.path));
        if previous.as_ref() == Some(&new) {
            continue;
        }
        if let Err(error) = atomic_file::stage(&output.path, content.as_bytes(), output.ownership) {
            discard(&swaps);
            return Err(error);
        }
        swaps.push(Swap { path: output.path.clone(), new, previous });
    }
    Ok(swaps)
}

/// Brings the previous outputs back. Goes by what is really there: any of the swaps may not have happened.
///
/// # Errors
///
/// Some could not be brought back.
pub fn restore(swaps: &[Swap]) -> Result<(), atomic_file::Error> {
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

/// Removes what is staged, or kept of before, beside their places.
pub fn discard<'a>(swaps: impl IntoIterator<Item = &'a Swap>) {
    for swap in swaps {
        atomic_file::discard(&swap.path);
    }
}
