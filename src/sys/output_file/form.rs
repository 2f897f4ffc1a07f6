//! In which form a new version waits for its place.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::super::atomic_file::hidden_name;
use super::super::directory::{Directory, mount_of};
use super::super::lock::{self, TargetLock};
use super::super::ownership::{Attributes, NEW, Ownership, passes_on_a_list};
use super::super::regular_file;
use super::existing::{Existing, contents, name};
use super::store::Store;

/// A new version, complete and synced. Its open file is locked before it gets its name.
#[derive(Debug)]
pub enum Form {
    /// It lies in the store, in the same mount as the target.
    Stored(PathBuf, File),
    /// It is in the target's directory, and has no name.
    Nameless(File),
    /// It lies beside the target under the hidden name.
    Hidden(File),
}

/// A new version that is to be made.
pub struct New<'a> {
    pub directory: &'a Directory,
    pub store: &'a Store,
    pub target: &'a Path,
    pub bytes: &'a [u8],
    pub ownership: Ownership,
    pub existing: &'a Existing,
}

/// A new version that was made.
pub struct Made {
    pub form: Form,
    pub candidate: Option<PathBuf>,
    pub not_kept: Option<String>,
}

impl New<'_> {
    pub fn make(&self) -> io::Result<Made> {
        let stored = self.store.make_candidate(self.target);
        let candidate = self.store.candidate(self.target);
        let is_in_reach = stored.as_ref().is_ok_and(|file| is_in_mount_of(file, self.directory));
        // A file that did not exist gets what its directory gives to new files.
        if self.existing.stamp.is_some() && is_in_reach {
            return self.moved(stored?, candidate);
        }
        match nameless(self.directory, self.inherits()) {
            Ok(file) => self.beside(Form::Nameless(file), stored, candidate),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) if is_in_reach => self.moved(stored?, candidate),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                self.beside(Form::Hidden(hidden(self.directory, self.target)?), stored, candidate)
            }
            Err(errno) => {
                self.store.discard(self.target);
                Err(errno.into())
            }
        }
    }

    fn moved(&self, file: File, candidate: PathBuf) -> io::Result<Made> {
        let not_kept = self.fill(&file)?;
        Ok(Made { form: Form::Stored(candidate.clone(), file), candidate: Some(candidate), not_kept })
    }

    /// The store has a copy for the check, if it has room for one.
    fn beside(&self, form: Form, stored: io::Result<File>, candidate: PathBuf) -> io::Result<Made> {
        let (Form::Stored(_, file) | Form::Nameless(file) | Form::Hidden(file)) = &form;
        let not_kept = self.fill(file).inspect_err(|_| form.remove_hidden(self.directory, self.target))?;
        let copied = stored.and_then(|mut copy| {
            copy.write_all(self.bytes)?;
            let _ = Attributes::of(file)?.give(&copy, Ownership::default());
            Ok(())
        });
        let candidate = copied.is_ok().then_some(candidate);
        Ok(Made { form, candidate, not_kept })
    }

    /// Whether a new file is to have the access control list that the directory gives.
    fn inherits(&self) -> bool {
        self.existing.attributes.is_none() && self.ownership.mode.is_none() && passes_on_a_list(self.directory)
    }

    fn fill(&self, mut file: &File) -> io::Result<Option<String>> {
        claim(file);
        file.write_all(self.bytes)?;
        let not_kept = match &self.existing.attributes {
            Some(attributes) => attributes.give(file, self.ownership)?,
            None => {
                self.ownership.give_new(file, self.inherits())?;
                None
            }
        };
        file.sync_all()?;
        Ok(not_kept)
    }
}

/// The previous version, ready to be put back.
pub fn previous(
    directory: &Directory,
    store: &Store,
    target: &Path,
    bytes: Option<&[u8]>,
    existing: &Existing,
) -> io::Result<Form> {
    let path = store.previous(target);
    // It may belong to anybody, as the output does; its directory is elasticd's own.
    let kept = regular_file::open_itself(&path);
    if let Ok(kept) = &kept
        && is_in_mount_of(kept, directory)
        && let Ok(file) = fs::OpenOptions::new().read(true).write(true).open(&path)
    {
        claim(&file);
        return Ok(Form::Stored(path, file));
    }
    let of_kept = kept.as_ref().ok().and_then(|kept| Attributes::of(kept).ok());
    let attributes = match (&existing.attributes, of_kept) {
        (Some(now), Some(then)) => Some(now.clone().owned_like(&then)),
        (now, then) => then.or_else(|| now.clone()),
    };
    let bytes = match (&kept, bytes) {
        (_, Some(bytes)) => bytes.to_vec(),
        (Ok(kept), None) => contents(kept)?,
        (Err(error), None) => {
            return Err(io::Error::new(error.kind(), format!("its previous version is lost: {error}")));
        }
    };
    let form = match nameless(directory, false) {
        Ok(file) => Form::Nameless(file),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Form::Hidden(hidden(directory, target)?),
        Err(errno) => return Err(errno.into()),
    };
    let (Form::Stored(_, file) | Form::Nameless(file) | Form::Hidden(file)) = &form;
    let fill = |mut file: &File| {
        claim(file);
        file.write_all(&bytes)?;
        match &attributes {
            Some(attributes) => drop(attributes.give(file, Ownership::default())?),
            None => Ownership::default().give_new(file, false)?,
        }
        file.sync_all()
    };
    fill(file).inspect_err(|_| form.remove_hidden(directory, target))?;
    Ok(form)
}

impl Form {
    /// Moves it to its place, locked.
    pub fn put_in_place(
        self,
        directory: &Directory,
        store: &Store,
        target: &Path,
        replaces: bool,
    ) -> io::Result<Option<TargetLock>> {
        let hidden = hidden_name(target);
        let moved = match &self {
            Self::Stored(path, _) if replaces => renameat(CWD, path, directory, name(target)),
            Self::Stored(path, _) => move_new(CWD, path.as_os_str(), directory, name(target)),
            Self::Nameless(file) if replaces => {
                self.remove_hidden(directory, target);
                link(file, directory, &hidden).and_then(|()| renameat(directory, &hidden, directory, name(target)))
            }
            Self::Nameless(file) => link(file, directory, name(target)),
            Self::Hidden(_) if replaces => renameat(directory, &hidden, directory, name(target)),
            Self::Hidden(_) => move_new(directory, &hidden, directory, name(target)),
        };
        if let Err(errno) = moved {
            self.discard(directory, store, target);
            return Err(match errno {
                Errno::EXIST => io::Error::other("somebody has made it in this moment; it is compared again"),
                other => other.into(),
            });
        }
        let (Self::Stored(_, file) | Self::Nameless(file) | Self::Hidden(file)) = self;
        Ok(TargetLock::of_new(file))
    }

    /// Removes what waits.
    pub fn discard(&self, directory: &Directory, store: &Store, target: &Path) {
        self.remove_hidden(directory, target);
        let _ = fs::remove_file(store.candidate(target));
    }

    fn remove_hidden(&self, directory: &Directory, target: &Path) {
        if !matches!(self, Self::Stored(..)) {
            let _ = unlinkat(directory, hidden_name(target), AtFlags::empty());
        }
    }
}

/// Locks a new version before it gets its name, so that another elasticd that finds it finds it locked. Not every file
/// system has locks.
fn claim(file: &File) {
    let _ = lock::claim(file);
}

fn is_in_mount_of(file: &File, directory: &Directory) -> bool {
    directory.mount().is_some_and(|mount| mount_of(file) == Some(mount))
}

fn nameless(directory: &Directory, inherits: bool) -> Result<File, Errno> {
    let mode = Mode::from_raw_mode(if inherits { NEW } else { 0o600 });
    openat(directory, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode).map(File::from)
}

fn hidden(directory: &Directory, target: &Path) -> Result<File, Errno> {
    let hidden = hidden_name(target);
    let _ = unlinkat(directory, &hidden, AtFlags::empty());
    // Created anew and closed to others: a user who can write the directory cannot have us write elsewhere.
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, &hidden, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

fn link(file: &File, directory: &Directory, name: &OsStr) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Moves a file to a place where none is.
fn move_new(from: impl AsFd, path: &OsStr, directory: &Directory, name: &OsStr) -> Result<(), Errno> {
    match renameat_with(&from, path, directory, name, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag.
        Err(Errno::INVAL) => {
            linkat(&from, path, directory, name, AtFlags::empty())?;
            unlinkat(&from, path, AtFlags::empty())
        }
        other => other,
    }
}
