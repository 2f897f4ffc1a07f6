//! Locks on a directory or a file that only one process uses at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rustix::fs::{Mode, OFlags};

use super::unconfined::Unconfined;

/// The lock's file name in the directory.
const FILE: &str = "lock";

/// A link is not followed, and a pipe not waited for.
const FLAGS: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;

/// How long a lock that is held is waited for, and how often it is tried. Between fork and exec a child shares its
/// parent's files: for that moment it holds the locks of a parent that was killed meanwhile.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(10));

/// Locks a file, waiting for a moment if it is held. Blocks the thread.
///
/// # Errors
///
/// `EWOULDBLOCK`: another process holds it for longer. Anything else: the file cannot be locked.
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

/// Held as long as it lives; the kernel releases it however the process ends.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// A file that only one process replaces at a time: held as long as it lives. Its lock file lies beside it, under a
/// hidden name, and is removed with it; one that a killed process left is used by the next.
#[derive(Debug)]
pub struct TargetLock {
    path: PathBuf,
    unconfined: Unconfined,
    _lock: Flock<File>,
}

impl Drop for TargetLock {
    fn drop(&mut self) {
        // It is still held, so that it is not another process's file that is removed. A leftover does no harm.
        let path = self.path.clone();
        let _ = beside(&self.unconfined, &self.path, move || std::fs::remove_file(path));
    }
}

/// Locks the file at `target`, which need not exist. `None`: it cannot be locked, as in a directory that is not
/// writable or not there yet, or on a file system without locks. Blocks for a moment if it is held.
///
/// # Errors
///
/// [`Error::Target`]: another process holds it.
pub fn target(unconfined: &Unconfined, target: &Path) -> Result<Option<TargetLock>, Error> {
    let path = super::atomic_file::staging_path(target).with_added_extension("lock");
    loop {
        let made = path.clone();
        let file = beside(unconfined, target, move || {
            // Not for writing: a file system on which a file is open for that cannot be made read-only.
            let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::open(&made, flags, Mode::RUSR | Mode::WUSR)?))
        });
        let Ok((file, opened)) = file.and_then(|file| file.metadata().map(|metadata| (file, metadata))) else {
            return Ok(None);
        };
        let lock = match exclusive(file) {
            Ok(lock) => lock,
            Err(Errno::EWOULDBLOCK) => return Err(Error::Target(target.to_owned())),
            Err(_) => return Ok(None),
        };
        // The process that held it until now has removed it: another file may lie there by now.
        if std::fs::symlink_metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (opened.dev(), opened.ino())) {
            return Ok(Some(TargetLock { path, unconfined: unconfined.clone(), _lock: lock }));
        }
    }
}

/// Runs `work` on the thread that may write into the directory of `path`.
fn beside<T: Send + 'static>(
    unconfined: &Unconfined,
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    unconfined.write_in(super::atomic_file::directory_of(path), work)?
}

/// Why a directory, or a file, could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("another elasticd uses {0}; stop it, or give this one a `state_dir` of its own")]
    Held(PathBuf),
    /// Another process replaces the file.
    #[error("another elasticd writes {0}; stop it, or give this one an `output` of its own")]
    Target(PathBuf),
    /// The directory's lock file could not be opened.
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
        .custom_flags(FLAGS)
        .open(directory.join(FILE))
        .map_err(unusable)?;
    exclusive(file).map(DirectoryLock).map_err(|errno| match errno {
        Errno::EWOULDBLOCK => Error::Held(directory.to_owned()),
        other => unusable(other.into()),
    })
}

/// Whether another process holds `directory`. Creates no lock file. Blocks for a moment if it is held.
///
/// # Errors
///
/// The lock file is there and cannot be opened.
pub fn is_held(directory: &Path) -> Result<bool, Error> {
    let unusable = |source| Error::Unusable { path: directory.to_owned(), source };
    match OpenOptions::new().write(true).custom_flags(FLAGS).open(directory.join(FILE)) {
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

    #[test]
    fn a_file_is_replaced_by_one_only_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let first = target(&Unconfined::default(), &one).expect("free").expect("to be had");
        let error = target(&Unconfined::default(), &one).expect_err("held").to_string();
        assert!(error.contains("another elasticd writes") && error.contains("/one"), "{error}");
        let second = target(&Unconfined::default(), &other).expect("another file");
        drop(first);
        drop(target(&Unconfined::default(), &one).expect("free again"));
        drop(second);
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        assert!(matches!(target(&Unconfined::default(), Path::new("/nonexistent/x")), Ok(None)));
    }

    #[test]
    fn what_is_planted_in_a_locks_place_neither_holds_us_up_nor_leads_elsewhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let (place, victim) = (dir.path().join(FILE), dir.path().join("victim"));
        nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert!(matches!(lock(dir.path()), Err(Error::Unusable { .. })), "a pipe without a reader");
        std::fs::remove_file(&place).expect("removed");
        std::os::unix::fs::symlink(&victim, &place).expect("made");
        assert!(matches!(lock(dir.path()), Err(Error::Unusable { .. })));
        assert!(!victim.exists());
    }
}
