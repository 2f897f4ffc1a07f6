//! Files of elasticd's own that are replaced whole or not at all. All functions block until the disk has confirmed what
//! they did.
//!
//! Outputs, which are others' to read, have more to mind: [`super::output_file`].

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags};

/// Why a file could not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}{}", remedy(.source))]
pub struct Error {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    // What elasticd says itself has its remedy in it.
    if error.get_ref().is_some() {
        return "";
    }
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

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { action, path: path.to_owned(), source }
}

/// The hidden name beside `target` under which its next version lies for as long as it is written.
pub(super) fn hidden_name(target: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".elasticd");
    name
}

/// Replaces `target`, which only elasticd's user may read, in one step. Blocks.
///
/// # Errors
///
/// Whatever step failed; the target is then untouched.
pub fn write(target: &Path, bytes: &[u8]) -> Result<(), Error> {
    let staged = target.with_file_name(hidden_name(target));
    let remove = || drop(fs::remove_file(&staged));
    remove();
    let fill = || -> io::Result<()> {
        // Created anew: a user who can write the directory cannot have us write elsewhere.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    fill().map_err(failed("write", target)).inspect_err(|_| remove())?;
    fs::rename(&staged, target).map_err(failed("replace", target)).inspect_err(|_| remove())?;
    File::open(directory_of(target)).and_then(|d| d.sync_all()).map_err(failed("sync the directory of", target))
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

pub(super) fn directory_of(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("state");
        for text in ["one", "two"] {
            write(&target, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&target).expect("readable"), text);
        }
        assert_eq!(fs::metadata(&target).expect("there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_link_at_the_hidden_name_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, victim) = (dir.path().join("out"), dir.path().join("victim"));
        fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, target.with_file_name(hidden_name(&target))).expect("linked");
        write(&target, b"new").expect("written");
        assert_eq!(fs::read(&victim).expect("readable"), b"precious");
        assert_eq!(fs::read(&target).expect("readable"), b"new");
    }

    #[test]
    fn an_error_names_the_path_and_the_remedy() {
        let error = write(Path::new("/nonexistent/dir/out"), b"").expect_err("must fail").to_string();
        assert!(error.contains("/nonexistent/dir/out") && error.contains("create the directory"), "{error}");
    }
}
