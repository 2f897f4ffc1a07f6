//! Who may write a file or a directory, beside root and elasticd.

use std::fmt;
use std::os::fd::AsFd;

use nix::unistd::{getegid, getgroups};
use rustix::fs::{Stat, getxattr};

use super::regular_file::is_trusted;

/// Where the kernel keeps the access control list that decides (`acl(5)`).
pub const ACL: &str = "system.posix_acl_access";

/// Where it keeps a directory's list for what is made in it.
pub const DEFAULT_ACL: &str = "system.posix_acl_default";

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Somebody who may write, and is neither root nor elasticd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// The owner.
    Owner(u32),
    /// The group.
    Group(u32),
    /// A user whom the access control list names.
    NamedUser(u32),
    /// A group that the access control list names.
    NamedGroup(u32),
    /// Every user.
    Anybody,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(uid) => write!(f, "its owner, user {uid}"),
            Self::Group(gid) => write!(f, "its group, {gid}"),
            Self::NamedUser(uid) => write!(f, "user {uid}, by its access control list"),
            Self::NamedGroup(gid) => write!(f, "group {gid}, by its access control list"),
            Self::Anybody => f.write_str("every user"),
        }
    }
}

/// Whether the members of a group are trusted like us: of root's group, and of those that we are a member of.
fn is_trusted_group(gid: u32) -> bool {
    gid == 0 || gid == getegid().as_raw() || getgroups().is_ok_and(|ours| ours.iter().any(|own| own.as_raw() == gid))
}

/// Who else may write the file or directory that is open, apart from its owner. The user and the group in `also` may.
pub fn stranger_among_others(file: impl AsFd, stat: &Stat, also: Option<(u32, u32)>) -> Option<Stranger> {
    if stat.st_mode & OTHERS_WRITE != 0 {
        return Some(Stranger::Anybody);
    }
    // With an access control list these bits are its mask: without them nobody who is named may write either.
    if stat.st_mode & GROUP_WRITES == 0 {
        return None;
    }
    let is_ours = |gid| is_trusted_group(gid) || also.is_some_and(|(_, group)| group == gid);
    match named_writers(file) {
        None => Some(Stranger::Group(stat.st_gid)).filter(|_| !is_ours(stat.st_gid)),
        Some(Named { group_writes, named }) => {
            let owning = Some(Stranger::Group(stat.st_gid)).filter(|_| group_writes && !is_ours(stat.st_gid));
            owning.or_else(|| {
                named.into_iter().find(|one| match one {
                    Stranger::NamedUser(uid) => !is_trusted(*uid) && also.is_none_or(|(user, _)| user != *uid),
                    Stranger::NamedGroup(gid) => !is_ours(*gid),
                    Stranger::Owner(_) | Stranger::Group(_) | Stranger::Anybody => true,
                })
            })
        }
    }
}

/// Who else may write the file or directory that is open.
pub fn stranger(file: impl AsFd, stat: &Stat) -> Option<Stranger> {
    let owner = Some(Stranger::Owner(stat.st_uid)).filter(|_| !is_trusted(stat.st_uid));
    owner.or_else(|| stranger_among_others(file, stat, None))
}

/// Whom an access control list lets write, beside the owner and all others.
struct Named {
    group_writes: bool,
    named: Vec<Stranger>,
}

/// `None`: there is no list.
fn named_writers(file: impl AsFd) -> Option<Named> {
    use std::os::fd::AsRawFd;
    // By its name in /proc, as a descriptor that only names a path has no attributes to be read.
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let mut list = vec![0; 1 << 16];
    let length = getxattr(path, ACL, &mut list[..]).ok()?;
    list.truncate(length);
    Some(writers_in(&list))
}

/// The entries of a list as the kernel shows it: a version of four bytes, then tag, permissions and id of each.
fn writers_in(list: &[u8]) -> Named {
    const USER: u16 = 0x02;
    const OWNING_GROUP: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const WRITE: u16 = 0x02;
    let mut found = Named { group_writes: false, named: Vec::new() };
    for entry in list.get(4..).unwrap_or_default().chunks_exact(8) {
        let (tag, permissions) = (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        if permissions & WRITE == 0 {
            continue;
        }
        match tag {
            USER => found.named.push(Stranger::NamedUser(id)),
            GROUP => found.named.push(Stranger::NamedGroup(id)),
            OWNING_GROUP => found.group_writes = true,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt, chown};

    use rustix::fs::{XattrFlags, fsetxattr, fstat};

    use super::*;

    /// A list with these entries: tag, permissions, id.
    pub(crate) fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |(tag, permissions, id): &(u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [2u32.to_le_bytes().to_vec()].into_iter().chain(entries.iter().map(entry)).flatten().collect()
    }

    #[test]
    fn whoever_else_may_write_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let file = File::create(&path).expect("made");
        let at = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
            stranger(&file, &fstat(&file).expect("open"))
        };
        assert_eq!((at(0o644), at(0o666)), (None, Some(Stranger::Anybody)));
        assert_eq!(at(0o664), None, "our own group");
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        chown(&path, None, Some(64_000)).expect("as root");
        assert_eq!((at(0o644), at(0o664)), (None, Some(Stranger::Group(64_000))));
        let with = |id, permissions| {
            [(1, 6, u32::MAX), (2, permissions, id), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)]
        };
        let set = |entries: &[(u16, u16, u32)]| {
            fsetxattr(&file, ACL, &list(entries), XattrFlags::empty()).expect("a list");
            stranger(&file, &fstat(&file).expect("open"))
        };
        assert_eq!(set(&with(33, 6)), Some(Stranger::NamedUser(33)));
        assert_eq!(set(&with(33, 4)), None, "who is named may read");
        assert_eq!(set(&with(0, 6)), None);
        chown(&path, Some(65_534), None).expect("as root");
        assert_eq!(stranger(&file, &fstat(&file).expect("open")), Some(Stranger::Owner(65_534)));
    }
}
