//! A directory that only one process uses at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock's file name in the directory.
const FILE: &str = "lock";

/// How long a lock that is held is waited for, and how often it is looked at. A program that is just being started
/// shares its starter's files until it has become itself: for that moment it holds the locks of a starter that was
/// killed meanwhile.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(10));

/// Locks a file, waiting for a moment if it is held. Blocks the thread.
///
/// # Errors
///
/// `EWOULDBLOCK`: somebody holds it for longer. Anything else: the file cannot be locked.
pub fn exclusive(mut file: File) -> Result<Flock<File>, Errno> {
    let deadline = Instant::now() + PATIENCE.0;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((same, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = same,
            Err((_, errno)) => return Err(errno),
        }
        std::thread::sleep(PATIENCE.1);
    }
}

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
    exclusive(file).map(DirectoryLock).map_err(|errno| match errno {
        Errno::EWOULDBLOCK => Error::Held(directory.to_owned()),
        other => unusable(other.into()),
    })
}

/// Whether another process holds `directory`. Nothing is made: where nobody ever locked it, nobody holds it.
///
/// # Errors
///
/// The lock file is there and cannot be opened.
pub fn is_held(directory: &Path) -> Result<bool, Error> {
    let unusable = |source| Error::Unusable { path: directory.to_owned(), source };
    match OpenOptions::new().write(true).custom_flags(nix::libc::O_NOFOLLOW).open(directory.join(FILE)) {
        Ok(file) => match exclusive(file) {
            Ok(_) => Ok(false),
            Err(Errno::EWOULDBLOCK) => Ok(true),
            Err(errno) => Err(unusable(errno.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(error)),
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
        assert!(is_held(dir.path()).expect("looked at"));
        drop(first);
        assert!(!is_held(dir.path()).expect("looked at"));
        assert!(!is_held(Path::new("/nonexistent")).expect("looked at"));
        lock(dir.path()).expect("free again");
        // Held for a moment only, as by a program that is just being started.
        let held = lock(dir.path()).expect("free again");
        let letting_go = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        lock(dir.path()).expect("waited for");
        letting_go.join().expect("let go");
        assert!(matches!(lock(Path::new("/nonexistent")), Err(Error::Unusable { .. })));
    }
}
