//! Locks on a directory or a file that only one process uses at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use rustix::fs::{Mode, OFlags};

use super::directory;
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

/// A file that only one elasticd replaces at a time: held as long as it lives.
///
/// The lock is on the file itself, as nothing may lie beside it that an include could read. It is a lock for writing of
/// the open file (`F_OFD_SETLK`), which takes the right to write the file: who may only read it cannot keep elasticd out.
/// Whoever replaces the file locks the new one before it gets its name.
#[derive(Debug)]
pub struct TargetLock {
    _file: File,
    identity: (u64, u64),
}

impl TargetLock {
    /// The lock of a file that was [claimed](claim) before it got its name. `None`: it could not be.
    pub fn of_new(file: File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        claim(&file).ok()?;
        Some(Self { _file: file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Whether it is of the file that lies at a path now. An operator may have replaced or removed that file.
    pub fn is_of(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity)
    }
}

/// Locks the file at `target`, waiting for a moment if it is held. `None`: there is nothing to lock, or it cannot be
/// locked, as where elasticd may not write the file itself, or on a file system without locks. Blocks.
///
/// # Errors
///
/// [`Error::Target`]: another process holds it. [`Error::Directory`]: others decide where the file is.
pub fn target(unconfined: &Unconfined, target: &Path) -> Result<Option<TargetLock>, Error> {
    let deadline = Instant::now() + PATIENCE.0;
    loop {
        let name = target.file_name().unwrap_or_default().to_owned();
        let opened = unconfined.write_in(super::atomic_file::directory_of(target), move |directory| {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            File::from(rustix::fs::openat(directory, &name, flags, Mode::empty()).ok()?).into()
        });
        let file: Option<File> = match opened {
            Ok(file) => file,
            Err(directory::Error::Io(_)) => None,
            Err(source) => return Err(Error::Directory { path: target.to_owned(), source }),
        };
        let Some((file, opened)) = file.and_then(|file| file.metadata().ok().map(|metadata| (file, metadata))) else {
            return Ok(None);
        };
        if !opened.is_file() {
            return Ok(None);
        }
        match claim(&file) {
            Ok(()) => {}
            Err(Errno::EAGAIN | Errno::EACCES) if !is_held_for_writing(&file) => return Ok(None),
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < deadline => {
                std::thread::sleep(PATIENCE.1);
                continue;
            }
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(Error::Target(target.to_owned())),
            Err(_) => return Ok(None),
        }
        // The process that held it until now may have replaced the file.
        let lock = TargetLock { _file: file, identity: (opened.dev(), opened.ino()) };
        if lock.is_of(target) {
            return Ok(Some(lock));
        }
    }
}

/// A lock of the whole file.
fn whole(kind: i32) -> nix::libc::flock {
    nix::libc::flock {
        l_type: i16::try_from(kind).expect("a small constant"),
        l_whence: i16::try_from(nix::libc::SEEK_SET).expect("a small constant"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Locks an open file for as long as it is open, or until its [`TargetLock`] is dropped.
///
/// # Errors
///
/// `EAGAIN`, `EACCES`: another process holds it. Anything else: it cannot be locked.
pub fn claim(file: &File) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole(nix::libc::F_WRLCK))).map(drop)
}

/// Whether what stands in the way is a lock like ours. One for reading, which takes no right to write, is not.
fn is_held_for_writing(file: &File) -> bool {
    let mut lock = whole(nix::libc::F_WRLCK);
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && i32::from(lock.l_type) == nix::libc::F_WRLCK
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
    /// Others than root and elasticd decide where the file is.
    #[error("cannot write {path}: {source}")]
    Directory {
        /// The file.
        path: PathBuf,
        /// Why.
        source: directory::Error,
    },
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
    fn a_file_is_replaced_by_one_only_and_nothing_lies_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let of = |path: &Path| target(&Unconfined::default(), path);
        assert!(of(&one).expect("free").is_none(), "there is nothing to lock");
        for path in [&one, &other] {
            std::fs::write(path, "").expect("written");
        }
        let first = of(&one).expect("free").expect("to be had");
        let error = of(&one).expect_err("held").to_string();
        assert!(error.contains("another elasticd writes") && error.contains("/one"), "{error}");
        let second = of(&other).expect("another file").expect("to be had");
        // What lies there now is another file, which is anybody's to lock.
        std::fs::rename(&other, &one).expect("moved");
        assert!(!first.is_of(&one) && !second.is_of(&other) && second.is_of(&one));
        drop(first);
        assert!(of(&one).is_err(), "the second one is of this file");
        drop(second);
        assert!(of(&one).expect("free again").is_some());
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
        assert!(matches!(of(Path::new("/nonexistent/x")), Ok(None)));
    }

    #[test]
    fn who_may_only_read_the_file_keeps_nobody_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("one");
        std::fs::write(&path, "").expect("written");
        let reader = File::open(&path).expect("open");
        fcntl(&reader, FcntlArg::F_OFD_SETLK(&whole(nix::libc::F_RDLCK))).expect("locked for reading");
        let flocked = Flock::lock(File::open(&path).expect("open"), FlockArg::LockExclusive).expect("locked");
        assert!(target(&Unconfined::default(), &path).expect("not an elasticd's").is_none());
        drop(reader);
        assert!(target(&Unconfined::default(), &path).expect("free").is_some());
        drop(flocked);
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
