//! Where new versions of outputs wait, and previous ones are kept.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::super::ownership::{Attributes, Ownership};
use super::super::{regular_file, text};
use super::existing::{contents, times_of};

/// The most bytes of a file's name that stand in the store's. A file system may allow 255.
const MAX_NAME: usize = 200;

/// A directory of elasticd's own, below `state_dir`, with the new and the previous versions of one frontend's outputs.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store of a frontend.
    pub fn new(state_dir: &Path, frontend: &str) -> Self {
        Self { directory: Self::parent(state_dir).join(frontend) }
    }

    /// The directory of all stores.
    pub fn parent(state_dir: &Path) -> PathBuf {
        state_dir.join("staging")
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made, or somebody else has made it, and could change what is moved to its place.
    pub fn create(&self) -> io::Result<()> {
        let kinds = ["new", "previous"].map(|kind| self.directory.join(kind));
        for kind in &kinds {
            DirBuilder::new().recursive(true).mode(0o700).create(kind)?;
        }
        let parent = self.directory.parent().unwrap_or(&self.directory);
        [parent, &self.directory].into_iter().chain(kinds.iter().map(PathBuf::as_path)).try_for_each(is_own)
    }

    /// Where the new version of `target` lies for a check: its name ends like the target's, by which some tools go.
    pub fn candidate(&self, target: &Path) -> PathBuf {
        self.directory.join("new").join(name(target))
    }

    /// Where its previous version is kept, written when that was.
    pub fn previous(&self, target: &Path) -> PathBuf {
        self.directory.join("previous").join(name(target))
    }

    /// Removes both versions of `target`.
    pub fn discard(&self, target: &Path) {
        for path in [self.candidate(target), self.previous(target)] {
            let _ = fs::remove_file(path);
        }
    }

    /// Removes what is kept of all outputs but of these.
    pub fn discard_all_but<'a>(&self, targets: impl Iterator<Item = &'a Path> + Clone) {
        for kind in ["new", "previous"] {
            let directory = self.directory.join(kind);
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if !targets.clone().any(|target| name(target) == entry.file_name()) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Opens a new file for a new version.
    pub(super) fn make_candidate(&self, target: &Path) -> io::Result<File> {
        make(&self.candidate(target))
    }

    /// An empty file, which a check sees in place of an output that is to be removed.
    ///
    /// # Errors
    ///
    /// The store has no room for it.
    pub fn make_empty(&self, target: &Path) -> io::Result<PathBuf> {
        self.make_candidate(target).map(|_| self.candidate(target))
    }

    /// Keeps a copy of an open file as the previous version of `target`.
    pub(super) fn keep(&self, target: &Path, file: &File) -> io::Result<()> {
        let path = self.previous(target);
        let keep = || {
            let mut copy = make(&path)?;
            copy.write_all(&contents(file)?)?;
            // As far as the store's file system has them, and elasticd may give them: what is in place has them, too.
            let _ = Attributes::of(file)?.give(&copy, Ownership::default());
            rustix::fs::futimens(&copy, &times_of(file)?)?;
            copy.sync_all()
        };
        keep().inspect_err(|_| drop(fs::remove_file(&path)))
    }
}

/// Whether a directory is elasticd's alone.
fn is_own(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() && regular_file::is_trusted(metadata.uid()) && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let (path, owner, mode) = (path.display(), metadata.uid(), metadata.mode() & 0o7777);
    Err(io::Error::other(format!("others can write {path} (owner {owner}, mode {mode:04o}); remove it")))
}

/// Whatever lies there is replaced: it may be linked to elsewhere.
fn make(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// A name of its own for each path.
fn name(target: &Path) -> std::ffi::OsString {
    let hash = text::hex(Sha256::digest(target.as_os_str().as_bytes()));
    let name = target.file_name().unwrap_or_default().as_bytes();
    let end = &name[name.len().saturating_sub(MAX_NAME)..];
    let mut whole = std::ffi::OsString::from(format!("{}-", &hash[..16]));
    whole.push(OsStr::from_bytes(end));
    whole
}
