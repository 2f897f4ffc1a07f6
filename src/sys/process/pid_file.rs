//! Pid files.

use std::io;
use std::path::Path;

use super::error::Error;
use crate::sys::access::{self, Stranger};
use crate::sys::{regular_file, text};

/// The longest pid file worth reading, in bytes.
const MAX_PID_FILE: usize = 64;

/// What a pid file says, and who can write it.
pub(super) struct PidFile {
    pub(super) pid: i32,
    file: std::fs::File,
    stat: rustix::fs::Stat,
}

impl PidFile {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        use std::io::Read;
        let mut text = String::new();
        let read = |file: std::fs::File| {
            let stat = rustix::fs::fstat(&file)?;
            (&file).take(MAX_PID_FILE as u64).read_to_string(&mut text).map(|_| (file, stat))
        };
        let (file, stat) = regular_file::open(path).and_then(read).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoPidFile(path.to_owned()),
            io::ErrorKind::InvalidData => Error::BadPidFile { path: path.to_owned(), found: "binary data".to_owned() },
            _ => Error::UnreadablePidFile { path: path.to_owned(), source },
        })?;
        let digits = text.trim();
        if digits.is_empty() {
            return Err(Error::EmptyPidFile(path.to_owned()));
        }
        let pid = digits
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
            .ok_or_else(|| Error::BadPidFile { path: path.to_owned(), found: text::shorten(digits, 20) })?;
        Ok(Self { pid, file, stat })
    }

    /// Who else may write it than root, elasticd and the process's own user and group.
    pub(super) fn stranger(&self, (user, group): (u32, u32)) -> Option<Stranger> {
        let owner = self.stat.st_uid;
        let is_owners_own = owner == user || regular_file::is_trusted(owner);
        let owner = Some(Stranger::Owner(owner)).filter(|_| !is_owners_own);
        owner.or_else(|| access::stranger_among_others(&self.file, &self.stat, Some((user, group))))
    }
}
