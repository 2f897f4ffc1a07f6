//! Files that are replaced whole or not at all.
//!
//! A new version is written beside its target under a hidden name, synced, given its mode and owner, and only then
//! moved. Where the target exists the two are exchanged, so that the previous version lies under the hidden name until
//! the new one has proven itself: going back is one more exchange.
//!
//! All functions block until the disk has confirmed what they did. Outputs are written on the thread that may write in
//! their directory ([`Unconfined::write_in`]); [`write()`] is for state of our own, which the caller may write.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags};

use super::unconfined::Unconfined;

/// Mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The permission bits, such as `0o644`.
    pub mode: u32,
    /// The user id; `None` leaves it to the process.
    pub uid: Option<u32>,
    /// The group id; `None` leaves it to the process.
    pub gid: Option<u32>,
}

/// Why a file could not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}{}", remedy(.source))]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create the directory",
        io::ErrorKind::PermissionDenied => "; give elasticd's user write access to the directory",
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable for elasticd (systemd: ReadWritePaths=)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        io::ErrorKind::AlreadyExists => "; remove the file .NAME.elasticd beside it, which is not elasticd's",
        io::ErrorKind::ResourceBusy => "; it is a mount point itself: mount its directory instead of the file",
        _ => "",
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { action, path: path.to_owned(), source }
}

/// The hidden name beside `target` under which its next, then its previous version lies.
pub fn staging_path(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".elasticd");
    target.with_file_name(name)
}

/// Replaces `target` in one step. Blocks.
///
/// # Errors
///
/// Whatever step failed; the target is then untouched.
pub fn write(target: &Path, bytes: &[u8], ownership: Ownership) -> Result<(), Error> {
    let staged = fill(target, bytes, ownership)?;
    fs::rename(&staged, target).map_err(failed("replace", target)).inspect_err(|_| remove(target))?;
    sync_directory(target)
}

/// Writes `bytes` under the target's hidden name, synced, with mode and owner set. Returns that name. Blocks.
///
/// # Errors
///
/// Whatever step failed; nothing is left behind.
pub fn stage(unconfined: &Unconfined, target: &Path, bytes: &[u8], ownership: Ownership) -> Result<PathBuf, Error> {
    let bytes = bytes.to_vec();
    by_its_writer(unconfined, "write", target, move |target| fill(target, &bytes, ownership))
}

/// Moves the staged version to its place. The previous one, if there is one, lies under the hidden name afterwards.
/// Blocks.
///
/// # Errors
///
/// The move failed; the target is untouched.
pub fn swap(unconfined: &Unconfined, target: &Path) -> Result<(), Error> {
    by_its_writer(unconfined, "replace", target, |target| {
        let staged = staging_path(target);
        let moved = match rustix::fs::renameat_with(CWD, &staged, CWD, target, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => exchange(&staged, target),
            // Not every file system knows the flag. Without it, a file that appears just now would be replaced.
            Err(rustix::io::Errno::INVAL) if !target.exists() => fs::rename(&staged, target),
            Err(rustix::io::Errno::INVAL) => exchange(&staged, target),
            other => other.map_err(Into::into),
        };
        moved.map_err(failed("replace", target))?;
        sync_directory(target)
    })
}

/// Restores the previous version: the one under the hidden name, or none. Blocks.
///
/// # Errors
///
/// The move failed; the new version is still in place.
pub fn unswap(unconfined: &Unconfined, target: &Path, had_previous: bool) -> Result<(), Error> {
    by_its_writer(unconfined, "restore", target, move |target| {
        let previous = staging_path(target);
        let moved = if had_previous { fs::rename(&previous, target) } else { fs::remove_file(target) };
        moved.map_err(failed("restore", target))?;
        sync_directory(target)
    })
}

/// Removes what lies under the target's hidden name, if anything does. Blocks.
pub fn discard(unconfined: &Unconfined, target: &Path) {
    // Nothing depends on it: the next change removes a leftover.
    let _ = by_its_writer(unconfined, "clear", target, |target| {
        remove(target);
        Ok(())
    });
}

fn by_its_writer<T: Send + 'static>(
    unconfined: &Unconfined,
    action: &'static str,
    target: &Path,
    work: impl FnOnce(&Path) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let path = target.to_owned();
    unconfined.write_in(directory_of(target), move || work(&path)).map_err(failed(action, target))?
}

fn fill(target: &Path, bytes: &[u8], ownership: Ownership) -> Result<PathBuf, Error> {
    let path = staging_path(target);
    remove(target);
    let fill = || -> io::Result<()> {
        // Created anew and closed to others: a user who can write the directory cannot have us write elsewhere.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        // A system call filter may forbid even the change that changes nothing.
        if ownership.uid.is_some() || ownership.gid.is_some() {
            fchown(&file, ownership.uid, ownership.gid)?;
        }
        file.set_permissions(fs::Permissions::from_mode(ownership.mode))?;
        file.sync_all()
    };
    fill().map_err(failed("write", target)).inspect_err(|_| remove(target))?;
    Ok(path)
}

fn remove(target: &Path) {
    let _ = fs::remove_file(staging_path(target));
}

/// Whether [`write()`] could replace `target`, as far as that shows without writing anything.
///
/// # Errors
///
/// Its directory is not there, or not writable for us.
pub fn examine(target: &Path) -> Result<(), Error> {
    writable(directory_of(target)).map_err(failed("write", target))
}

/// Whether we can create and rename entries of a directory.
///
/// # Errors
///
/// We cannot; why.
pub fn writable(directory: &Path) -> io::Result<()> {
    if !fs::metadata(directory)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(rustix::fs::accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Whether `path` is itself a mount point, such as a bind-mounted file, over which nothing can be renamed.
pub fn is_mount_point(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn exchange(staged: &Path, target: &Path) -> io::Result<()> {
    // A link or a pipe at its place is nothing to go back to, nor may a confined thread move it.
    if !fs::symlink_metadata(target)?.is_file() {
        return fs::rename(staged, target);
    }
    match rustix::fs::renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::INVAL) => exchange_by_link(staged, target),
        other => other.map_err(Into::into),
    }
}

/// The same outcome on a file system without an atomic exchange (NFS, some FUSE): the target is still never absent.
fn exchange_by_link(staged: &Path, target: &Path) -> io::Result<()> {
    let mut name = staged.as_os_str().to_owned();
    name.push("-previous");
    let kept = PathBuf::from(name);
    let _ = fs::remove_file(&kept);
    fs::hard_link(target, &kept)?;
    fs::rename(staged, target)?;
    fs::rename(&kept, staged)
}

pub(super) fn directory_of(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(target: &Path) -> Result<(), Error> {
    File::open(directory_of(target)).and_then(|d| d.sync_all()).map_err(failed("sync the directory of", target))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Ownership = Ownership { mode: 0o640, uid: None, gid: None };

    #[test]
    fn swaps_and_goes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("out.conf");
        stage(&Unconfined::default(), &target, b"one", PLAIN).expect("staged");
        assert!(!target.exists(), "staging alone changes nothing");
        swap(&Unconfined::default(), &target).expect("swapped");
        assert_eq!(fs::read(&target).expect("readable"), b"one");
        assert_eq!(fs::metadata(&target).expect("there").permissions().mode() & 0o7777, 0o640);

        stage(&Unconfined::default(), &target, b"two", PLAIN).expect("staged");
        swap(&Unconfined::default(), &target).expect("swapped");
        assert_eq!(fs::read(&target).expect("readable"), b"two");
        assert_eq!(fs::read(staging_path(&target)).expect("kept"), b"one");
        unswap(&Unconfined::default(), &target, true).expect("restored");
        assert_eq!(fs::read(&target).expect("readable"), b"one");
        assert!(!staging_path(&target).exists());
        unswap(&Unconfined::default(), &target, false).expect("removed");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn exchanges_by_link_where_the_file_system_cannot() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "a").expect("written");
        fs::write(&b, "b").expect("written");
        exchange_by_link(&a, &b).expect("exchanged");
        assert_eq!(fs::read(&a).expect("readable"), b"b");
        assert_eq!(fs::read(&b).expect("readable"), b"a");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2);
    }

    #[test]
    fn a_link_at_the_hidden_name_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, victim) = (dir.path().join("out"), dir.path().join("victim"));
        fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, staging_path(&target)).expect("linked");
        write(&target, b"new", PLAIN).expect("written");
        assert_eq!(fs::read(&victim).expect("readable"), b"precious");
        assert_eq!(fs::read(&target).expect("readable"), b"new");
    }

    #[test]
    fn a_link_or_a_pipe_at_the_target_is_replaced_and_not_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, victim) = (dir.path().join("out"), dir.path().join("victim"));
        fs::write(&victim, "precious").expect("written");
        let link = || std::os::unix::fs::symlink(&victim, &target).expect("linked");
        let pipe = || nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRWXU).expect("made");
        for plant in [&link as &dyn Fn(), &pipe] {
            plant();
            stage(&Unconfined::default(), &target, b"new", PLAIN).expect("staged");
            swap(&Unconfined::default(), &target).expect("swapped");
            assert_eq!(fs::read(&target).expect("readable"), b"new");
            assert!(
                fs::symlink_metadata(staging_path(&target)).is_err()
                    && fs::symlink_metadata(&target).unwrap().is_file()
            );
            assert_eq!(fs::read(&victim).expect("readable"), b"precious");
            unswap(&Unconfined::default(), &target, false).expect("removed");
        }
    }

    #[test]
    fn an_error_names_the_path_and_the_remedy() {
        let error = write(Path::new("/nonexistent/dir/out"), b"", PLAIN).expect_err("must fail").to_string();
        assert!(error.contains("/nonexistent/dir/out") && error.contains("create the directory"), "{error}");
    }
}
