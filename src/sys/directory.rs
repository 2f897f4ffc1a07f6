//! Directories of others that elasticd writes in, opened so that only root and elasticd decide where that is.
//!
//! A path is opened name by name. Each directory on the way is looked at once it is open, and so is each link before it
//! is followed: nobody can put something else in its place between the look and the use. All that is then done in the
//! directory goes by its descriptor. Functions block.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fstat, openat, readlinkat, statx,
};

use super::access::{self, Stranger};
use super::regular_file::is_trusted;

/// The kernel's own bound on the links in one path (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Entries of a directory with this bit are removed and renamed by their owners alone.
const STICKY: u32 = 0o1000;

/// An open directory to which only root and elasticd decide the way.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    is_shared: bool,
}

/// Why a directory is not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others than root and elasticd decide what lies there.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
}

/// A part of a path that others than root and elasticd can change.
#[derive(Debug)]
pub struct Untrusted {
    path: PathBuf,
    is_link: bool,
    owner: u32,
    mode: u32,
    who: Stranger,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, owner, mode, who, .. } = self;
        let path = path.display();
        if self.is_link {
            return write!(
                f,
                "{path} is a symbolic link of user {owner}, and so could lead anywhere; use `chown -h root {path}`, or name \
                 the directory it leads to"
            );
        }
        let mode = mode & 0o7777;
        write!(
            f,
            "{path} (owner {owner}, mode {mode:04o}) can be written by {who}, who could have elasticd write \
             elsewhere, or replace what it wrote; use `"
        )?;
        match who {
            Stranger::Owner(_) => write!(f, "chown root {path}"),
            Stranger::Group(_) => write!(f, "chmod g-w {path}"),
            Stranger::NamedUser(uid) => write!(f, "setfacl -x u:{uid} {path}"),
            Stranger::NamedGroup(gid) => write!(f, "setfacl -x g:{gid} {path}"),
            Stranger::Anybody => write!(f, "chmod o-w {path}"),
        }?;
        f.write_str("`, or name another directory")
    }
}

impl std::error::Error for Untrusted {}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            Error::Untrusted(error) => Self::other(error),
        }
    }
}

impl Directory {
    /// Opens a directory.
    ///
    /// Trusted are directories that belong to root or to elasticd's user, and that no one else can write but groups that
    /// elasticd's user is a member of. In a directory with the sticky bit, such as `/tmp`, others can create entries, but
    /// not replace ours. A link is followed if it belongs to root or to elasticd's user. A mount point, such as a volume
    /// of a container, may be writable for all who share it, if it is itself the directory: it cannot be replaced.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or others could change where the path leads.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut at = Step::root()?;
        let mut rest = names(path);
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            at.is_passed()?;
            let here = at.path.join(&name);
            let fd =
                openat(&at.fd, name.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let stat = fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                let path = if name == ".." { at.path.parent().unwrap_or(&at.path).to_owned() } else { here };
                at = Step { fd, path, stat };
                continue;
            }
            if !is_trusted(stat.st_uid) {
                let (owner, mode) = (stat.st_uid, stat.st_mode);
                return Err(Untrusted { path: here, is_link: true, owner, mode, who: Stranger::Owner(owner) }.into());
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            let target = readlinkat(&at.fd, name.as_os_str(), Vec::new())?;
            let target = PathBuf::from(OsStr::new(&*target.to_string_lossy()));
            if target.is_absolute() {
                at = Step::root()?;
            }
            let mut longer = names(&target);
            longer.append(&mut rest);
            rest = longer;
        }
        at.into_directory()
    }

    /// Whether others may create files in it too: what lies there may then be anybody's.
    pub const fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Its device and inode.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The mount that it is in: within one, files can be moved.
    pub fn mount(&self) -> Option<u64> {
        mount_of(&self.fd)
    }

    /// Waits until its entries are on the disk.
    ///
    /// # Errors
    ///
    /// The disk says so.
    pub fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        File::from(openat(&self.fd, ".", flags, Mode::empty())?).sync_all()
    }
}

/// The mount that an open file or directory is in. `None`: the kernel does not say (before 5.8).
pub(super) fn mount_of(fd: impl AsFd) -> Option<u64> {
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

/// How far a path was opened.
struct Step {
    fd: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

impl Step {
    fn root() -> Result<Self, Error> {
        let fd = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&fd)?;
        Ok(Self { fd, path: PathBuf::from("/"), stat })
    }

    fn untrusted(&self, who: Stranger) -> Error {
        let (path, owner, mode) = (self.path.clone(), self.stat.st_uid, self.stat.st_mode);
        Untrusted { path, is_link: false, owner, mode, who }.into()
    }

    fn stranger(&self) -> Option<Stranger> {
        access::stranger(&self.fd, &self.stat)
    }

    /// Whether what it holds can be relied on to stay: entries that belong to us, or to root, can be replaced by no one
    /// else.
    fn is_passed(&self) -> Result<(), Error> {
        match self.stranger() {
            None => Ok(()),
            // Entries of others are refused when it is their turn.
            Some(who) if !matches!(who, Stranger::Owner(_)) && self.stat.st_mode & STICKY != 0 => Ok(()),
            Some(who) => Err(self.untrusted(who)),
        }
    }

    fn is_mount_point(&self) -> io::Result<bool> {
        let stat = statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
        Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    fn into_directory(self) -> Result<Directory, Error> {
        if FileType::from_raw_mode(self.stat.st_mode) != FileType::Directory {
            return Err(rustix::io::Errno::NOTDIR.into());
        }
        let is_shared = self.stranger().is_some();
        let is_passed = self.is_passed();
        if is_passed.is_err() && !self.is_mount_point()? {
            is_passed?;
        }
        Ok(Directory { fd: self.fd, is_shared })
    }
}

/// The names in a path, from its start, with `..` as a name.
pub(super) fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        Directory::open(path).expect_err("refused").to_string()
    }

    #[test]
    fn a_directory_is_opened_where_only_root_and_we_decide_where_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let mode =
            |name: &str, mode| std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).expect("ours");
        std::fs::create_dir_all(at("above/out")).expect("made");
        symlink("above/out", at("link")).expect("made");
        for good in ["above/out", "link", "above/../above/out", "above/./out"] {
            assert!(!Directory::open(&at(good)).expect(good).is_shared(), "{good}");
        }
        let one = Directory::open(&at("link")).expect("ours").identity().expect("known");
        assert_eq!(one, Directory::open(&at("above/out")).expect("ours").identity().expect("known"));
        mode("above", 0o1777);
        Directory::open(&at("above/out")).expect("as in /tmp");
        mode("above", 0o777);
        for path in ["above/out", "link", "above/out/../out"] {
            let said = refusal(&at(path));
            let expected = format!("{} (owner ", at("above").display());
            assert!(said.starts_with(&expected) && said.contains("0777") && said.contains("every user"), "{said}");
            assert!(said.contains(&format!("`chmod o-w {}`", at("above").display())), "{said}");
        }
        mode("above", 0o755);
        mode("above/out", 0o1777);
        assert!(Directory::open(&at("above/out")).expect("as /tmp itself").is_shared());
        mode("above/out", 0o777);
        assert!(refusal(&at("above/out")).contains("above/out (owner "));
        std::fs::write(at("file"), "").expect("written");
        let kind = |path: &str| io::Error::from(Directory::open(&at(path)).expect_err("none")).kind();
        assert_eq!((kind("file"), kind("absent/x")), (io::ErrorKind::NotADirectory, io::ErrorKind::NotFound));
        symlink("loop", at("loop")).expect("made");
        assert!(Directory::open(&at("loop")).is_err());
    }

    #[test]
    fn what_belongs_to_others_is_refused_by_name() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("above/out")).expect("made");
        chown(at("above"), Some(65_534), None).expect("as root");
        let said = refusal(&at("above/out"));
        assert!(said.contains("above (owner 65534, mode 0755)") && said.contains("`chown root "), "{said}");
        chown(at("above"), Some(0), Some(64_000)).expect("as root");
        Directory::open(&at("above/out")).expect("the group may not write");
        std::fs::set_permissions(at("above"), std::fs::Permissions::from_mode(0o775)).expect("ours");
        let said = refusal(&at("above/out"));
        assert!(said.contains("its group, 64000") && said.contains("`chmod g-w "), "{said}");
        chown(at("above"), Some(0), Some(0)).expect("as root");
        Directory::open(&at("above/out")).expect("root's own group");
        symlink("above/out", at("link")).expect("made");
        lchown(at("link"), Some(65_534), None).expect("as root");
        let said = refusal(&at("link"));
        assert!(said.contains("link is a symbolic link of user 65534") && said.contains("`chown -h root"), "{said}");
    }
}
