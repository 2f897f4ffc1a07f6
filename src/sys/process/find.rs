//! How a process is found.

use std::fmt;
use std::path::{Path, PathBuf};

/// The program a process must be running: an absolute path, or a file name in any directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable(String);

impl Executable {
    /// `/usr/sbin/nginx`, or just `nginx`.
    pub fn new(path_or_name: impl Into<String>) -> Self {
        Self(path_or_name.into())
    }

    pub(super) fn is(&self, exe: &Path) -> bool {
        // The kernel marks a program whose file was replaced, as an upgrade does.
        let exe = exe.to_string_lossy();
        let exe = exe.strip_suffix(" (deleted)").unwrap_or(&exe);
        if self.0.contains('/') { exe == self.0 } else { exe.rsplit('/').next() == Some(&self.0) }
    }
}

impl Executable {
    /// Whether the kernel calls a process so that runs it (`/proc/PID/comm`): by the file's name, cut after 15 bytes.
    pub(super) fn has_command_name(&self, command: &str) -> bool {
        const MAX: usize = 15;
        let name = self.0.rsplit('/').next().unwrap_or_default();
        let end = name.len().min(MAX);
        !name.is_empty() && name.as_bytes()[..end] == *command.as_bytes()
    }
}

impl fmt::Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a process is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// Its PID stands in a file; it must run `executable`.
    PidFile {
        /// The file.
        path: PathBuf,
        /// The program.
        executable: Executable,
    },
    /// It is the only process that runs `executable` and whose parent does not.
    Match {
        /// The program.
        executable: Executable,
    },
}

impl Find {
    /// Its pid file, if it is found by one.
    pub fn pid_file(&self) -> Option<&Path> {
        match self {
            Self::PidFile { path, .. } => Some(path),
            Self::Match { .. } => None,
        }
    }

    /// The program that the process must run.
    pub fn executable(&self) -> &Executable {
        let (Self::PidFile { executable, .. } | Self::Match { executable }) = self;
        executable
    }
}
