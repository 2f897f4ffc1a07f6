//! Files that others read, replaced whole or not at all, and put back if need be. Functions block until the disk has
//! confirmed what they did.
//!
//! What reads an output may read its whole directory, hidden files included. So nothing of elasticd's lies there: a new
//! version is written in the [`Store`] below `state_dir`, or without a name, and the previous version is kept in the store
//! until the new one has proven itself. Where the output is in the same mount as the store, the new version is moved to its
//! place. Otherwise it is written without a name in the output's directory (`O_TMPFILE`); a file that is replaced then
//! needs a hidden name for the moment between two system calls. Only a file system that knows no nameless files has the
//! new version under that name for as long as it is checked.
//!
//! All is done on the thread that may write in the directory ([`Unconfined::write_in`]), by the directory's descriptor.

mod existing;
mod form;
mod store;

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, fstat, statat, unlinkat};

use super::atomic_file::{Error, directory_of, failed, hidden_name, writable};
use super::directory::Directory;
use super::lock::TargetLock;
use super::ownership::Ownership;
use super::unconfined::Unconfined;
use existing::{Existing, Stamp, contents, name, open, refuse_unchangeable, stamp};
use form::{Form, Made};
pub use store::Store;

/// A new version of an output, complete and synced.
#[derive(Debug)]
pub struct Prepared {
    form: Form,
    replaced: Option<Stamp>,
    /// What is in place. `None`: no regular file is.
    pub previous: Option<Vec<u8>>,
    /// Whether the store has it too, for a later run.
    pub is_kept: bool,
    /// A file with the new version's content, owner and mode, for a check. `None`: the store has no room for it.
    pub candidate: Option<PathBuf>,
    /// What the file in place has and the new one could not be given, for people.
    pub not_kept: Option<String>,
}

/// Prepares a new version of `target`, and keeps what is in place.
///
/// # Errors
///
/// Whatever step failed; nothing is left behind.
pub fn prepare(
    unconfined: &Unconfined,
    store: &Store,
    target: &Path,
    bytes: &[u8],
    ownership: Ownership,
) -> Result<Prepared, Error> {
    let (bytes, store) = (bytes.to_vec(), store.clone());
    by_its_writer(unconfined, "write", target, move |directory, target| {
        let existing = Existing::open(directory, target)?;
        let (replaced, previous) = (existing.stamp, existing.bytes());
        let is_kept = existing.file.as_ref().is_some_and(|file| store.keep(target, file).is_ok());
        let new = form::New { directory, store: &store, target, bytes: &bytes, ownership, existing: &existing };
        let Made { form, candidate, not_kept } = new.make().inspect_err(|_| store.discard(target))?;
        Ok(Prepared { form, replaced, previous: previous?, is_kept, candidate, not_kept })
    })
}

/// Keeps what is in place, which is to be removed. Returns it, and whether the store has it too. `None`: no regular file
/// is there.
///
/// # Errors
///
/// It cannot be read, or could not be removed.
pub fn prepare_removal(
    unconfined: &Unconfined,
    store: &Store,
    target: &Path,
) -> Result<Option<(Vec<u8>, bool)>, Error> {
    let store = store.clone();
    by_its_writer(unconfined, "remove", target, move |directory, target| {
        let existing = Existing::open(directory, target)?;
        let is_kept = existing.file.as_ref().is_some_and(|file| store.keep(target, file).is_ok());
        Ok(existing.bytes()?.map(|bytes| (bytes, is_kept)))
    })
}

/// Moves a new version to its place. Returns the lock on it.
///
/// # Errors
///
/// It could not be moved, or what was in place has been changed since the new version was prepared; the target is
/// untouched.
pub fn swap(
    unconfined: &Unconfined,
    store: &Store,
    target: &Path,
    prepared: Prepared,
) -> Result<Option<TargetLock>, Error> {
    let store = store.clone();
    by_its_writer(unconfined, "replace", target, move |directory, target| {
        if stamp(directory, target)? != prepared.replaced {
            prepared.form.discard(directory, &store, target);
            return Err(io::Error::other("somebody has changed it in this moment; it is compared again"));
        }
        let lock = prepared.form.put_in_place(directory, &store, target, prepared.replaced.is_some())?;
        directory.sync()?;
        Ok(lock)
    })
}

/// Puts the version back that the store has, or else `bytes`. Returns the lock on it.
///
/// # Errors
///
/// It could not be; the new version is still in place.
pub fn put_back(
    unconfined: &Unconfined,
    store: &Store,
    target: &Path,
    bytes: Option<Vec<u8>>,
) -> Result<Option<TargetLock>, Error> {
    let store = store.clone();
    by_its_writer(unconfined, "restore", target, move |directory, target| {
        let existing = Existing::open(directory, target)?;
        let form = form::previous(directory, &store, target, bytes.as_deref(), &existing)?;
        let lock = form.put_in_place(directory, &store, target, existing.stamp.is_some())?;
        directory.sync()?;
        store.discard(target);
        Ok(lock)
    })
}

/// Removes the target.
///
/// # Errors
///
/// It could not be.
pub fn remove(unconfined: &Unconfined, target: &Path) -> Result<(), Error> {
    by_its_writer(unconfined, "remove", target, |directory, target| {
        if stamp(directory, target)?.is_none() {
            return Ok(());
        }
        refuse_unchangeable(directory, target)?;
        unlinkat(directory, name(target), AtFlags::empty())?;
        directory.sync()
    })
}

/// Removes a new version that is not to be used.
pub fn discard(unconfined: &Unconfined, store: &Store, target: &Path, prepared: Prepared) {
    let of_store = store.clone();
    // Nothing depends on it: the next change removes a leftover.
    let _ = by_its_writer(unconfined, "clear", target, move |directory, target| {
        prepared.form.discard(directory, &of_store, target);
        Ok(())
    });
}

/// What [`put_right`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Righted {
    /// Mode and owner were as configured.
    Already,
    /// They differed like this, and are right now.
    Done(String),
    /// They differ like this, and elasticd may not change them in place: the file must be replaced.
    MustReplace(String),
}

/// Gives the file in place the mode and owner that are configured.
///
/// # Errors
///
/// It cannot be opened, or is no regular file.
pub fn put_right(unconfined: &Unconfined, target: &Path, ownership: Ownership) -> Result<Righted, Error> {
    by_its_writer(unconfined, "set mode and owner of", target, move |directory, target| {
        let stat = statat(directory, name(target), AtFlags::SYMLINK_NOFOLLOW)?;
        let Some(difference) = ownership.difference(&stat) else { return Ok(Righted::Already) };
        refuse_unchangeable(directory, target)?;
        let file = open(directory, target, OFlags::RDONLY);
        // One file by several names may be more than an output.
        let given = file.ok().filter(|file| fstat(file).is_ok_and(|stat| stat.st_nlink == 1));
        let given = given.is_some_and(|file| ownership.give(&file).is_ok());
        Ok(if given { Righted::Done(difference) } else { Righted::MustReplace(difference) })
    })
}

/// Whether [`prepare`] and [`swap`] could replace `target`, as far as that shows without writing anything.
///
/// # Errors
///
/// Its directory is not there, not writable for us, or others decide where it is.
pub fn examine(target: &Path) -> Result<(), Error> {
    let examine = || {
        let directory = Directory::open(directory_of(target))?;
        refuse_unchangeable(&directory, target)?;
        writable(directory_of(target))
    };
    examine().map_err(failed("write", target))
}

/// Takes away what an earlier version of elasticd, or a run that was killed, left beside `target`. A previous version that
/// `is_needed` goes to the store.
///
/// # Errors
///
/// The directory cannot be opened.
pub fn tidy(
    unconfined: &Unconfined,
    store: &Store,
    target: &Path,
    is_needed: impl FnOnce(&[u8]) -> bool + Send + 'static,
) -> Result<(), Error> {
    let store = store.clone();
    by_its_writer(unconfined, "clear", target, move |directory, target| {
        let hidden = target.with_file_name(hidden_name(target));
        let left = open(directory, &hidden, OFlags::RDONLY);
        if let Ok(file) = &left
            && is_needed(&contents(file)?)
        {
            store.keep(target, file)?;
        }
        let lock = hidden.with_added_extension("lock");
        for leftover in [&hidden, &lock] {
            // A directory is nobody's leftover.
            let _ = unlinkat(directory, name(leftover), AtFlags::empty());
        }
        Ok(())
    })
}

fn by_its_writer<T: Send + 'static>(
    unconfined: &Unconfined,
    action: &'static str,
    target: &Path,
    work: impl FnOnce(&Directory, &Path) -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let path = target.to_owned();
    let done = unconfined.write_in(directory_of(target), move |directory| work(directory, &path));
    done.map_err(io::Error::from).and_then(|done| done).map_err(failed(action, target))
}

#[cfg(test)]
mod tests;
