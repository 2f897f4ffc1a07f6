//! Files that elasticd wrote and that are no output any more: an output was moved, its frontend removed, or its service
//! is gone. Functions block.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::digest::{Digest, on_disk};
use super::journal::Journal;
use super::output_index::OutputIndex;
use crate::model::Name;
use crate::status::OrphanedOutput;
use crate::sys::output_file;
use crate::sys::unconfined::Unconfined;

/// The directory of apply records.
pub fn records(state_dir: &Path) -> PathBuf {
    state_dir.join("frontends")
}

/// The apply record of a frontend.
pub fn record(state_dir: &Path, frontend: &Name) -> PathBuf {
    records(state_dir).join(format!("{frontend}.json"))
}

/// What is left of files that elasticd wrote: in place as it wrote them, edited since, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// As elasticd wrote it.
    InPlace,
    /// Somebody has changed it since.
    Edited,
    /// It is not there.
    Gone,
}

/// What is left of a file.
pub fn written(path: &Path, digests: &BTreeSet<Digest>) -> Written {
    match on_disk(path) {
        Some(digest) if digests.contains(&digest) => Written::InPlace,
        None if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) => {
            Written::Gone
        }
        _ => Written::Edited,
    }
}

/// The files that elasticd has written, by frontend, as the apply records of those that are `wanted` tell.
pub fn on_record(
    state_dir: &Path,
    wanted: impl Fn(&Name) -> bool,
) -> BTreeMap<Name, BTreeMap<PathBuf, BTreeSet<Digest>>> {
    let entries = std::fs::read_dir(records(state_dir)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse::<Name>().ok());
    let names = names.filter(|name| wanted(name));
    names.map(|name| (name.clone(), Journal::open(record(state_dir, &name)).written().clone())).collect()
}

/// The files of frontends that are not configured any more, without those that another frontend writes now.
pub fn of_removed_frontends(
    state_dir: &Path,
    configured: &BTreeSet<Name>,
    outputs: &OutputIndex,
) -> Vec<OrphanedOutput> {
    let removed = on_record(state_dir, |name| !configured.contains(name));
    let files = removed.into_iter().flat_map(|(name, files)| files.into_iter().map(move |file| (name.clone(), file)));
    let files = files.filter(|(name, (path, _))| !outputs.is_of_another(name, path));
    let mut found: Vec<_> = files.filter_map(|(name, (path, digests))| orphan(&name, path, &digests)).collect();
    // A file that several frontends wrote is that one's whose content it has.
    found.sort_by(|one, other| (&one.path, one.edited).cmp(&(&other.path, other.edited)));
    found.dedup_by(|later, first| later.path == first.path);
    found
}

/// `None`: the file is gone.
pub fn orphan(frontend: &Name, path: PathBuf, digests: &BTreeSet<Digest>) -> Option<OrphanedOutput> {
    let edited = match written(&path, digests) {
        Written::Gone => return None,
        Written::Edited => true,
        Written::InPlace => false,
    };
    Some(OrphanedOutput { path, frontend: frontend.clone(), edited })
}

/// Names a file in the log.
pub fn log(orphan: &OrphanedOutput) {
    let OrphanedOutput { path, frontend, edited } = orphan;
    let path = path.display();
    if *edited {
        tracing::warn!(%frontend, %path, "a file that was an output is no output any more, and was edited since; remove \
            it by hand if nothing needs it");
    } else {
        tracing::warn!(%frontend, %path, "a file that was an output is no output any more, and is still there; to remove \
            it: elasticd outputs --prune, or prune = true");
    }
}

/// Removes files of frontends that are not configured any more, but for those that were edited since, and the apply records
/// of frontends that have none left. Returns those that are left.
pub fn remove(state_dir: &Path, unconfined: &Unconfined, orphans: Vec<OrphanedOutput>) -> Vec<OrphanedOutput> {
    unconfined.allow_directories(orphans.iter().filter_map(|orphan| orphan.path.parent().map(Path::to_owned)));
    let frontends: BTreeSet<_> = orphans.iter().map(|orphan| orphan.frontend.clone()).collect();
    let is_left = |orphan: &OrphanedOutput| {
        if orphan.edited {
            return true;
        }
        let (frontend, path) = (&orphan.frontend, orphan.path.display());
        match output_file::remove(unconfined, &orphan.path) {
            Ok(()) => tracing::info!(%frontend, %path, "file of a frontend that is not configured any more removed"),
            Err(ref error) => {
                tracing::error!(%frontend, %path, %error, "a file that is no output any more was not removed");
                return true;
            }
        }
        false
    };
    let left: Vec<_> = orphans.into_iter().filter(is_left).collect();
    for frontend in frontends.iter().filter(|name| left.iter().all(|orphan| orphan.frontend != **name)) {
        let _ = std::fs::remove_file(record(state_dir, frontend));
    }
    left
}
