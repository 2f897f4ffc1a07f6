//! A directory that only one process uses at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock's file name in the directory.
const FILE: &str = "lock";

/// Held as long as it lives, and let go by the kernel however the process ends.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("another elasticd uses {0}; stop it, or give this one a `state_dir` of its own")]
    Held(PathBuf),
    /// The lock file could not be opened.
    #[error("cannot use {path} as `state_dir`: {source}; create it, writable for elasticd's user")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Locks `directory`.
///
/// # Errors
///
/// Another process holds it, or it cannot be written.
pub fn lock(directory: &Path) -> Result<DirectoryLock, Error> {
    let unusable = |source| Error::Unusable { path: directory.to_owned(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(directory.join(FILE))
        .map_err(unusable)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(DirectoryLock(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::Held(directory.to_owned())),
        Err((_, errno)) => Err(unusable(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = lock(dir.path()).expect("free");
        assert!(matches!(lock(dir.path()), Err(Error::Held(_))));
        drop(first);
        lock(dir.path()).expect("free again");
        assert!(matches!(lock(Path::new("/nonexistent")), Err(Error::Unusable { .. })));
    }
}
