//! A listening Unix socket that never exists with the wrong mode or owner, and that never takes another's place.
//!
//! The socket is made inside a fresh directory only we can enter, given its mode and group there, and then renamed
//! into place. A sibling `.lock` file, locked as long as the socket lives, settles who owns the path: two processes
//! that start together would both find the same stale socket, and each would replace the other's.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, OFlag};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

/// The longest path a socket can be bound at, in bytes: `sun_path` has 108, one of them for the final NUL (unix(7)).
pub const MAX_PATH: usize = 107;

/// Random characters in the name of the directory in which a socket is made.
const STAGING_RANDOM: usize = 6;

/// What the path of a socket being made has beyond the directory: `/.XXXXXX/s`.
const STAGING_LEN: usize = STAGING_RANDOM + 4;

/// Why a path cannot be listened on. Each message is complete: it holds its cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path does not fit into a socket address.
    #[error("cannot listen on {}: the path is {len} bytes too long for a Unix socket; set api.socket or api.admin_socket to a shorter one", path.display())]
    TooLong {
        /// The path asked for.
        path: PathBuf,
        /// By how many bytes.
        len: usize,
    },
    /// The path ends in no file name.
    #[error("cannot listen on {}: it names no file; set api.socket or api.admin_socket to a path that does", path.display())]
    NoFileName {
        /// The path asked for.
        path: PathBuf,
    },
    /// The mode holds more than permission bits.
    #[error("cannot listen on {}: mode {mode:o} is not made of permission bits; set api.mode to 0 to 0777", path.display())]
    Mode {
        /// The path asked for.
        path: PathBuf,
        /// The mode asked for.
        mode: u32,
    },
    /// The directory is not there.
    #[error("cannot listen on {}: there is no directory {}; create it, or set api.socket or api.admin_socket", path.display(), parent.display())]
    NoDirectory {
        /// The path asked for.
        path: PathBuf,
        /// Its directory.
        parent: PathBuf,
    },
    /// The directory is there, and takes no new entry from us.
    #[error(
        "cannot listen on {}: cannot write to the directory {}: {cause}; make it writable for the user elasticd runs \
         as, or set api.socket or api.admin_socket", path.display(), parent.display()
    )]
    Directory {
        /// The path asked for.
        path: PathBuf,
        /// Its directory.
        parent: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process holds the lock.
    #[error(
        "cannot listen on {}: another process holds the lock {}; stop it or set api.socket or api.admin_socket", path.display(), lock.display()
    )]
    Locked {
        /// The path asked for.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock file cannot be opened or locked.
    #[error(
        "cannot listen on {}: cannot lock {}: {cause}; remove that file if nothing else uses it, or set api.socket or api.admin_socket",
        path.display(), lock.display()
    )]
    Lock {
        /// The path asked for.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process listens there.
    #[error("cannot listen on {}: another process answers on it; stop it or set api.socket or api.admin_socket", path.display())]
    Live {
        /// The path asked for.
        path: PathBuf,
    },
    /// A socket lies there of which nobody can say whether it is in use.
    #[error(
        "cannot listen on {}: a socket is there and connecting to it fails: {cause}; remove it if nothing uses it, or \
         set api.socket or api.admin_socket", path.display()
    )]
    Unclear {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Something else lies there, and it is not ours to remove.
    #[error("cannot listen on {}: {kind} is there; remove it yourself or set api.socket or api.admin_socket", path.display())]
    Occupied {
        /// The path asked for.
        path: PathBuf,
        /// What lies there.
        kind: &'static str,
    },
    /// The group cannot be given.
    #[error(
        "cannot listen on {}: cannot give the socket to group {gid}: {cause}; run elasticd as a member of that group, \
         or set api.group", path.display()
    )]
    Group {
        /// The path asked for.
        path: PathBuf,
        /// The group.
        gid: u32,
        /// What the system said.
        cause: io::Error,
    },
    /// Any other step.
    #[error("cannot listen on {}: cannot {step}: {cause}; set api.socket or api.admin_socket to a path on another file system", path.display())]
    Step {
        /// The path asked for.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

/// A listening socket. Dropping it removes the path, if that still is this socket, and then stops listening.
#[derive(Debug)]
pub struct Listener {
    // Before the listener, because fields are dropped in this order: a client then finds no socket rather than a
    // dead one.
    /// `None`: the socket belongs to whoever handed it to us.
    _guard: Option<Guard>,
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    ///
    /// Whatever accept(2) says; the listener stays usable.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The listening sockets that were handed to us (systemd's socket activation, `sd_listen_fds(3)`): those of an
/// `elasticd.socket` stay open while elasticd is replaced, and a client that connects meanwhile waits and is served. To be
/// called once, inside a tokio runtime.
pub fn inherited() -> Vec<Listener> {
    let mut handed = listenfd::ListenFd::from_env();
    let count = handed.len();
    let listener = |index| {
        let listener = handed.take_unix_listener(index).ok().flatten()?;
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        // What elasticd starts has no business with it.
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC).ok()?;
        listener.set_nonblocking(true).ok()?;
        Some(Listener { _guard: None, path, listener: UnixListener::from_std(listener).ok()? })
    };
    (0..count).filter_map(listener).collect()
}

/// Removes a socket's path when dropped, but only as long as the path still is the socket that was made.
#[derive(Debug)]
struct Guard {
    path: PathBuf,
    identity: Identity,
    // Never removed: who removes a lock file lets a third process lock a new file of the same name.
    _lock: Flock<File>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| Identity::of(&found) == self.identity);
        if ours && let Err(cause) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %cause, "cannot remove the socket");
        }
    }
}

/// A file's device and inode number: what tells it from another of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// Listens on `path` with permission bits `mode` (0 to 0o777), in group `gid` if one is given.
///
/// A stale socket is replaced; whatever else lies there is left alone. To be called inside a tokio runtime.
///
/// # Errors
///
/// The [`Error`] that names the path, what was tried and the remedy. Nothing but a `.lock` file is left behind.
pub fn bind(path: &Path, mode: u32, gid: Option<u32>) -> Result<Listener, Error> {
    let parent = checked_parent(path, mode)?;
    let lock = lock(path, parent)?;
    let stale = stale(path)?;
    let staging = tempfile::Builder::new()
        .prefix(".")
        .rand_bytes(STAGING_RANDOM)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|cause| Error::Directory { path: path.into(), parent: parent.into(), cause })?;
    let staged = staging.path().join("s");
    let (listener, identity) = stage(path, &staged, mode, gid)?;
    put_in_place(path, &staged, stale)?;
    // From here on the path is ours to remove, whatever else fails.
    let guard = Guard { path: path.into(), identity, _lock: lock };
    remove_staging(staging);
    Ok(Listener { _guard: Some(guard), path: path.into(), listener })
}

/// What [`bind`] would say of `path`, as far as that shows without making anything.
///
/// # Errors
///
/// The [`Error`] of [`bind`]; [`Error::Live`] where somebody listens.
pub fn examine(path: &Path, mode: u32) -> Result<(), Error> {
    let parent = checked_parent(path, mode)?;
    super::atomic_file::writable(parent).map_err(|cause| Error::Directory {
        path: path.into(),
        parent: parent.into(),
        cause,
    })?;
    stale(path).map(drop)
}

fn checked_parent(path: &Path, mode: u32) -> Result<&Path, Error> {
    if mode & !0o777 != 0 {
        return Err(Error::Mode { path: path.into(), mode });
    }
    if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(Error::NoFileName { path: path.into() });
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let longest = path.as_os_str().len().max(parent.as_os_str().len() + STAGING_LEN);
    if longest > MAX_PATH {
        return Err(Error::TooLong { path: path.into(), len: longest - MAX_PATH });
    }
    match fs::metadata(parent) {
        Ok(found) if found.is_dir() => Ok(parent),
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::Directory { path: path.into(), parent: parent.into(), cause })
        }
        Ok(_) | Err(_) => Err(Error::NoDirectory { path: path.into(), parent: parent.into() }),
    }
}

fn lock(path: &Path, parent: &Path) -> Result<Flock<File>, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let failed = |cause| Error::Lock { path: path.into(), lock: lock.clone(), cause };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(&lock)
        .map_err(|cause| match lock.symlink_metadata() {
            Err(_) => Error::Directory { path: path.into(), parent: parent.into(), cause },
            Ok(_) => failed(cause),
        })?;
    super::lock::exclusive(file).map_err(|errno| match errno {
        Errno::EWOULDBLOCK => Error::Locked { path: path.into(), lock: lock.clone() },
        other => failed(other.into()),
    })
}

/// The stale socket at `path`; `None` if nothing lies there.
fn stale(path: &Path) -> Result<Option<Identity>, Error> {
    let unclear = |cause| Error::Unclear { path: path.into(), cause };
    let found = match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::Step { path: path.into(), step: "look at what lies there", cause }),
        Ok(found) => found,
    };
    if let Some(kind) = foreign(&found) {
        return Err(Error::Occupied { path: path.into(), kind });
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => Ok(Some(Identity::of(&found))),
        Err(Errno::ENOENT) => Ok(None),
        // Non-blocking connect says EAGAIN when the backlog is full: overloaded, but alive.
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS | Errno::EPROTOTYPE) => Err(Error::Live { path: path.into() }),
        Err(errno) => Err(unclear(errno.into())),
    }
}

fn foreign(found: &fs::Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    if kind.is_socket() {
        None
    } else if kind.is_file() {
        Some("a regular file")
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else {
        Some("a device or a pipe")
    }
}

fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Makes the socket where nobody else can reach it, and gives it its group and mode.
fn stage(path: &Path, staged: &Path, mode: u32, gid: Option<u32>) -> Result<(UnixListener, Identity), Error> {
    let step = |step| move |cause| Error::Step { path: path.into(), step, cause };
    let listener = UnixListener::bind(staged).map_err(step("bind a socket in its directory"))?;
    // A system call filter may forbid even the change that changes nothing.
    if let Some(gid) = gid.filter(|gid| fs::symlink_metadata(staged).is_ok_and(|made| made.gid() != *gid)) {
        chown(staged, None, Some(gid)).map_err(|cause| Error::Group { path: path.into(), gid, cause })?;
    }
    fs::set_permissions(staged, Permissions::from_mode(mode)).map_err(step("set the socket's mode"))?;
    let made = fs::symlink_metadata(staged).map_err(step("look at the socket just made"))?;
    Ok((listener, Identity::of(&made)))
}

/// Renames the socket into place. What appeared at the path since it was looked at is neither replaced nor removed.
fn put_in_place(path: &Path, staged: &Path, stale: Option<Identity>) -> Result<(), Error> {
    let failed = |cause: io::Error| Error::Step { path: path.into(), step: "rename the socket into place", cause };
    let flags = if stale.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    match renameat_with(CWD, staged, CWD, path, flags) {
        Ok(()) => {}
        // A stale socket that went away meanwhile.
        Err(rustix::io::Errno::NOENT) if stale.is_some() => return put_in_place(path, staged, None),
        Err(rustix::io::Errno::EXIST) => {
            return Err(Error::Occupied { path: path.into(), kind: "something that has just appeared" });
        }
        // NFS and some FUSE file systems know neither flag; the lock still keeps other elasticds away.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => return fs::rename(staged, path).map_err(failed),
        Err(errno) => return Err(failed(errno.into())),
    }
    let Some(stale) = stale else { return Ok(()) };
    let replaced = fs::symlink_metadata(staged).map_err(failed)?;
    if Identity::of(&replaced) == stale {
        return Ok(());
    }
    renameat_with(CWD, staged, CWD, path, RenameFlags::EXCHANGE).map_err(|errno| failed(errno.into()))?;
    Err(Error::Occupied { path: path.into(), kind: "something that has just appeared" })
}

fn remove_staging(staging: TempDir) {
    let path = staging.path().to_owned();
    if let Err(cause) = staging.close() {
        tracing::warn!(path = %path.display(), %cause, "cannot remove the directory the socket was made in");
    }
}

#[cfg(test)]
#[path = "unix_socket_tests.rs"]
mod tests;
