//! Whose a file is, and who may use it: kept when the file is replaced, unless configured. Functions block.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{
    Gid, Mode, Stat, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat,
};

use super::access::{ACL, DEFAULT_ACL};

/// The permission bits of a file that did not exist, unless configured.
pub const NEW: u32 = 0o644;

/// What is configured of a file's mode and owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The permission bits, such as `0o644`. `None`: those of the file that is replaced, or else [`NEW`].
    pub mode: Option<u32>,
    /// The user id. `None`: that of the file that is replaced, or else elasticd's.
    pub uid: Option<u32>,
    /// The group id. `None`: that of the file that is replaced, or else what the directory gives.
    pub gid: Option<u32>,
}

impl Ownership {
    /// How a file differs from it, for people. `None`: it does not.
    pub fn difference(&self, stat: &Stat) -> Option<String> {
        let mode = self.mode.filter(|mode| *mode != stat.st_mode & 0o7777);
        let uid = self.uid.filter(|uid| *uid != stat.st_uid);
        let gid = self.gid.filter(|gid| *gid != stat.st_gid);
        let found: Vec<_> = [
            mode.map(|mode| format!("mode {:04o} instead of {mode:04o}", stat.st_mode & 0o7777)),
            uid.map(|uid| format!("owner {} instead of {uid}", stat.st_uid)),
            gid.map(|gid| format!("group {} instead of {gid}", stat.st_gid)),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// Gives a file what is configured.
    ///
    /// # Errors
    ///
    /// Not permitted.
    pub fn give(&self, file: &File) -> io::Result<()> {
        if let Some(mode) = self.mode {
            fchmod(file, Mode::from_raw_mode(mode))?;
        }
        self.give_owner(file)
    }

    fn give_owner(&self, file: &File) -> io::Result<()> {
        change_owner(file, self.uid, self.gid).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => io::Error::new(
                io::ErrorKind::PermissionDenied,
                "elasticd may not give it to the configured `owner` and `group`; give elasticd CAP_CHOWN, or leave them out",
            ),
            _ => error,
        })
    }

    /// Gives a file that did not exist what is configured, or what any new file has. It was opened with the mode
    /// [`NEW`] if `is_inherited`, as where its directory has an access control list for it.
    ///
    /// # Errors
    ///
    /// Not permitted.
    pub fn give_new(&self, file: &File, is_inherited: bool) -> io::Result<()> {
        let mode = self.mode.or_else(|| (!is_inherited).then_some(NEW));
        Self { mode, ..*self }.give(file)
    }
}

/// A system call filter may forbid even the change that changes nothing.
fn change_owner(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let stat = fstat(file)?;
    let uid = uid.filter(|uid| *uid != stat.st_uid).map(Uid::from_raw);
    let gid = gid.filter(|gid| *gid != stat.st_gid).map(Gid::from_raw);
    if uid.is_some() || gid.is_some() { Ok(fchown(file, uid, gid)?) } else { Ok(()) }
}

/// Whether a directory has an access control list for what is made in it.
pub fn passes_on_a_list(directory: impl AsFd) -> bool {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    rustix::fs::getxattr(path, DEFAULT_ACL, &mut [0; 1 << 12][..]).is_ok()
}

/// What a file that is replaced has, and the new one is to keep.
#[derive(Debug, Clone)]
pub struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    extended: Vec<(CString, Vec<u8>)>,
}

/// Extended attributes that go with the file and not with its content, and so are kept: those of users, the access
/// control list, and the labels of SELinux and Smack. Signatures of the content (`security.ima`) are not.
fn is_kept(name: &CStr) -> bool {
    let name = name.to_bytes();
    name.starts_with(b"user.") || [ACL.as_bytes(), b"security.selinux", b"security.SMACK64"].contains(&name)
}

impl Attributes {
    /// Of an open file.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn of(file: &File) -> io::Result<Self> {
        let stat = fstat(file)?;
        let mut names = vec![0; 1 << 16];
        // Not every file system has any.
        let length = flistxattr(file, &mut names[..]).unwrap_or_default();
        let names = names[..length].split_inclusive(|byte| *byte == 0);
        let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok()).filter(|name| is_kept(name));
        let value = |name: &CStr| {
            let mut value = vec![0; 1 << 16];
            let length = fgetxattr(file, name, &mut value[..]).ok()?;
            value.truncate(length);
            Some((name.to_owned(), value))
        };
        let (mode, uid, gid) = (stat.st_mode & 0o777, stat.st_uid, stat.st_gid);
        Ok(Self { mode, uid, gid, extended: names.filter_map(value).collect() })
    }

    /// The same with the mode and the owner of another file.
    pub fn owned_like(self, other: &Self) -> Self {
        Self { mode: other.mode, uid: other.uid, gid: other.gid, ..self }
    }

    /// Gives them to a new file, but for what is configured. Returns what could not be kept, if that matters to nobody
    /// who reads the file.
    ///
    /// # Errors
    ///
    /// What is configured is not permitted, or what is kept is not and some reader of the file would lose it.
    pub fn give(&self, file: &File, configured: Ownership) -> io::Result<Option<String>> {
        let acl = |name: &CStr| name.to_bytes() == ACL.as_bytes();
        if !self.extended.iter().any(|(name, _)| acl(name)) {
            // The directory may have given it one.
            let _ = fremovexattr(file, ACL);
        }
        let mut lost = Vec::new();
        for (name, value) in &self.extended {
            if fsetxattr(file, name.as_c_str(), value, XattrFlags::empty()).is_err() && !is_label(name) {
                lost.push(name.to_string_lossy().into_owned());
            }
        }
        fchmod(file, Mode::from_raw_mode(configured.mode.unwrap_or(self.mode)))?;
        configured.give_owner(file)?;
        let uid = Some(self.uid).filter(|_| configured.uid.is_none());
        let gid = Some(self.gid).filter(|_| configured.gid.is_none());
        if change_owner(file, uid, gid).is_err() {
            // Its own groups are a user's to give.
            let gid_kept = change_owner(file, None, gid).is_ok();
            let mode = configured.mode.unwrap_or(self.mode);
            let is_read_by = |bits| mode & bits != 0 && mode & 0o004 == 0;
            let loses_owner = uid.is_some_and(|uid| uid != 0 && fstat(file).is_ok_and(|stat| stat.st_uid != uid));
            if loses_owner && is_read_by(0o400) {
                return Err(not_kept("owner", self.uid));
            }
            if !gid_kept && is_read_by(0o040) {
                return Err(not_kept("group", self.gid));
            }
            lost.push(if gid_kept {
                format!("owner {}", self.uid)
            } else {
                format!("owner {}, group {}", self.uid, self.gid)
            });
        }
        Ok((!lost.is_empty()).then(|| lost.join(", ")))
    }
}

/// Labels are the system's own to set, where it does.
fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.")
}

fn not_kept(what: &str, id: u32) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "its {what} {id}, who reads it, cannot be kept: elasticd may not give files to others; set `{what}` in the \
             configuration to elasticd's own, or give elasticd CAP_CHOWN"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_said_and_put_right() {
        let file = tempfile::tempfile().expect("a file");
        let ours = fstat(&file).expect("open");
        fchmod(&file, Mode::from_raw_mode(0o666)).expect("ours");
        let found = |wanted: Ownership| wanted.difference(&fstat(&file).expect("open"));
        assert_eq!(found(Ownership::default()), None);
        let wanted = Ownership { mode: Some(0o600), uid: Some(ours.st_uid), gid: Some(ours.st_gid) };
        assert_eq!(found(wanted).as_deref(), Some("mode 0666 instead of 0600"));
        wanted.give(&file).expect("ours");
        assert_eq!(found(wanted), None);
    }

    #[test]
    fn what_a_file_has_goes_over_to_the_next_but_for_what_is_configured() {
        let (old, new) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        fchmod(&old, Mode::from_raw_mode(0o640)).expect("ours");
        if fsetxattr(&old, "user.note", b"keep me", XattrFlags::empty()).is_err() {
            return;
        }
        let kept = Attributes::of(&old).expect("read");
        assert_eq!(kept.give(&new, Ownership::default()).expect("given"), None);
        assert_eq!(fstat(&new).expect("open").st_mode & 0o777, 0o640);
        let mut value = [0; 16];
        assert_eq!(fgetxattr(&new, "user.note", &mut value[..]).expect("there"), 7);
        assert_eq!(&value[..7], b"keep me");
        kept.give(&new, Ownership { mode: Some(0o600), ..Ownership::default() }).expect("given");
        assert_eq!(fstat(&new).expect("open").st_mode & 0o777, 0o600);
    }
}
