//! Files in whose place other users may have put something else: read only if they are regular files. Functions block.
//!
//! Opening a pipe could wait for ever, and a device might never end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file for reading, wherever symbolic links lead.
///
/// # Errors
///
/// It cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    opened(path, 0)
}

/// Opens a file for reading, where it lies itself and not a symbolic link to it.
///
/// # Errors
///
/// It cannot be opened, or is no regular file.
pub fn open_itself(path: &Path) -> io::Result<File> {
    opened(path, nix::libc::O_NOFOLLOW)
}

/// Reads a file that only root and we can have written: state of our own, that decides what is served and undone.
///
/// # Errors
///
/// It cannot be read, is no regular file, or is another user's.
pub fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_itself(path)?;
    let owner = file.metadata()?.uid();
    if !is_trusted(owner) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it belongs to user {owner}")));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a user's files are trusted like ours: root's are, and our own.
pub fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

fn opened(path: &Path, flags: i32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_trusted_ones_as_our_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").expect("written");
        assert_eq!(read_own(&at("file")).expect("ours"), b"x");
        symlink(at("file"), at("link")).expect("made");
        assert!(open(&at("link")).is_ok() && open_itself(&at("link")).is_err() && read_own(&at("link")).is_err());
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("made");
        symlink("/dev/zero", at("device")).expect("made");
        for other in [at("pipe"), at("device"), dir.path().to_owned()] {
            assert!(open(&other).is_err() && read_own(&other).is_err(), "{}", other.display());
        }
        // As root only can it be given away.
        if std::os::unix::fs::chown(at("file"), Some(65534), None).is_ok() {
            let error = read_own(&at("file")).expect_err("another user's").to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
        }
    }
}
