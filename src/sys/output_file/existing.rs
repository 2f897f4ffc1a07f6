//! What is in an output's place before a change.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, Timestamps, fstat, statat, statx,
};

use super::super::access;
use super::super::atomic_file::directory_of;
use super::super::directory::Directory;
use super::super::ownership::Attributes;

/// One writing of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Stat> for Stamp {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the types differ between architectures")]
    fn from(stat: &Stat) -> Self {
        Self {
            inode: (stat.st_dev as u64, stat.st_ino as u64),
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

/// The name of a file in its directory.
pub(super) fn name(target: &Path) -> &OsStr {
    target.file_name().unwrap_or_default()
}

pub(super) fn stamp(directory: &Directory, target: &Path) -> io::Result<Option<Stamp>> {
    match statat(directory, name(target), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Stamp::from(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn open(directory: &Directory, target: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name(target), flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

pub(super) fn contents(mut file: &File) -> io::Result<Vec<u8>> {
    use std::io::Seek as _;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is in the target's place before a change.
pub(super) struct Existing {
    /// `None`: nothing is.
    pub(super) stamp: Option<Stamp>,
    /// `None`: no regular file is.
    pub(super) file: Option<File>,
    /// What a new version keeps. `None`: there is nothing, or it may be anybody's.
    pub(super) attributes: Option<Attributes>,
}

impl Existing {
    pub(super) fn open(directory: &Directory, target: &Path) -> io::Result<Self> {
        refuse_unchangeable(directory, target)?;
        let stat = match statat(directory, name(target), AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => return Ok(Self { stamp: None, file: None, attributes: None }),
            stat => stat?,
        };
        let stamp = Some(Stamp::from(&stat));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(io::Error::other("it is a directory: name a file")),
            // A link or a pipe is nothing to go back to.
            _ => return Ok(Self { stamp, file: None, attributes: None }),
        }
        let file = open(directory, target, OFlags::RDONLY)?;
        let is_ours = !directory.is_shared() || access::stranger(&file, &stat).is_none();
        let attributes = is_ours.then(|| Attributes::of(&file)).transpose()?;
        Ok(Self { stamp, file: Some(file), attributes })
    }

    pub(super) fn bytes(&self) -> io::Result<Option<Vec<u8>>> {
        self.file.as_ref().map(contents).transpose()
    }
}

/// Attributes by which the file system itself refuses a change, whoever asks (`chattr`).
pub(super) fn refuse_unchangeable(directory: &Directory, target: &Path) -> io::Result<()> {
    let of_directory = statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty());
    let of_target = statx(directory, name(target), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    for (stat, path) in [(of_target, target), (of_directory, directory_of(target))] {
        let Ok(stat) = stat else { continue };
        for (attribute, letter, word) in
            [(StatxAttributes::IMMUTABLE, 'i', "immutable"), (StatxAttributes::APPEND, 'a', "append-only")]
        {
            if stat.stx_attributes.contains(attribute) {
                let path = path.display();
                let message = format!("{path} is {word} (chattr +{letter}); use `chattr -{letter} {path}`");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
        }
    }
    Ok(())
}

/// The times of a file, to be given to another.
pub(super) fn times_of(file: &File) -> io::Result<Timestamps> {
    let stat = fstat(file)?;
    let at = |seconds: i64, nanoseconds: i64| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let Stamp { modified, .. } = Stamp::from(&stat);
    Ok(Timestamps { last_access: at(modified.0, modified.1), last_modification: at(modified.0, modified.1) })
}
