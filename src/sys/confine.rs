//! What a thread may no longer do: write outside a few directories, start programs, use capabilities, gain privileges.
//!
//! All of it holds for the calling thread and for those it starts, not for threads that exist already. What must stay
//! possible is therefore left to [`super::unconfined`], a thread started before.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, make_bitflags,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The newest version of Landlock whose rights over writing are handled. The one after (9) adds connections to Unix
/// sockets, to which elasticd must be free.
const NEWEST: ABI = ABI::V8;

/// The oldest that will do: before it nothing could be moved from one directory to another, as a socket is when it is
/// made.
const OLDEST: ABI = ABI::V2;

/// What may be done within the directories that are named.
const WITHIN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | RemoveFile | MakeDir | RemoveDir | MakeSock | Refer
});

/// What was achieved, as `/v1/status` and the log tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Confinement")]
pub struct Report {
    /// The version of Landlock by which writing is restricted. `None`: it is not.
    pub landlock: Option<u8>,
    /// Neither elasticd nor what it starts gains privileges by what it executes.
    pub no_new_privileges: bool,
    /// No core dump of elasticd is written, and other processes of its user cannot look into its memory.
    pub no_core_dumps: bool,
    /// The capabilities left, but for the thread that starts programs; by name, such as `KILL`.
    pub capabilities: Vec<String>,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<String> = self.landlock.iter().map(|abi| format!("writes by Landlock {abi}")).collect();
        said.extend(self.no_new_privileges.then(|| "no new privileges".to_owned()));
        said.extend(self.no_core_dumps.then(|| "no core dumps".to_owned()));
        said.push(match self.capabilities.as_slice() {
            [] => "no capabilities".to_owned(),
            some => format!("capabilities {}", some.join(" ")),
        });
        said.extend(self.missing.iter().map(|gap| format!("NOT {gap}")));
        f.write_str(&said.join(", "))
    }
}

/// For the whole process, as long as it has one thread: no new privileges, and no core dumps.
pub fn process() -> Report {
    let mut report = Report::default();
    match set_no_new_privs(true) {
        Ok(()) => report.no_new_privileges = true,
        Err(errno) => report.missing.push(format!("without new privileges: {errno}")),
    }
    match set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        Ok(()) => report.no_core_dumps = true,
        Err(errno) => report.missing.push(format!("kept from core dumps: {errno}")),
    }
    report
}

/// From now on the thread can write within `directories` alone, start no program, and has of its capabilities only those
/// in `keep`. Adds the result to `report`.
pub fn thread<'a>(directories: impl IntoIterator<Item = &'a File>, keep: CapabilitySet, report: &mut Report) {
    match landlock(directories) {
        Ok(abi) => report.landlock = Some(abi),
        Err(why) => report.missing.push(format!("confined in what it writes: {why}")),
    }
    // A system call filter may forbid it; the list shows what is left.
    let _ = shed(keep);
    let left = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    report.capabilities = left.iter_names().map(|(name, _)| name.to_owned()).collect();
}

/// The capabilities of a thread that serves, polls and renders: to read what is others', to give its socket a group, to
/// listen below port 1024, and to signal.
pub const SERVING: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// The capabilities of a thread that writes outputs: to write into others' directories, with any owner and mode.
pub const WRITING: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::FOWNER).union(CapabilitySet::FSETID);

/// A directory, held so that it can be named in a rule.
///
/// # Errors
///
/// It cannot be opened, or is none.
pub fn directory(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY;
    std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn shed(keep: CapabilitySet) -> rustix::io::Result<()> {
    let held = capabilities(None)?;
    if keep.contains(held.permitted) {
        return Ok(());
    }
    let kept = held.permitted & keep;
    let effective = held.effective & keep;
    set_capabilities(None, CapabilitySets { effective, permitted: kept, inheritable: CapabilitySet::empty() })
}

fn landlock<'a>(directories: impl IntoIterator<Item = &'a File>) -> Result<u8, String> {
    let restrict = || -> Result<LandlockStatus, RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_write(OLDEST))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_write(NEWEST) | AccessFs::Execute)?
            .create()?;
        for directory in directories {
            ruleset = ruleset.add_rule(PathBeneath::new(directory, WITHIN))?;
        }
        Ok(ruleset.restrict_self()?.landlock)
    };
    match restrict() {
        Ok(LandlockStatus::Available { effective_abi, kernel_abi }) => {
            Ok(kernel_abi.and_then(|abi| abi.try_into().ok()).unwrap_or(effective_abi as u8))
        }
        Ok(LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) | Err(RulesetError::HandleAccesses(_)) => {
            Err("the kernel has no Landlock, or too old a one (5.19 has what it takes)".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_thread_writes_where_it_may_and_starts_nothing_and_others_are_free() {
        let dir = tempfile::tempdir().expect("a directory");
        let (within, beside) = (dir.path().join("within"), dir.path().join("beside"));
        for path in [&within, &beside] {
            fs::create_dir(path).expect("a directory");
        }
        fs::write(beside.join("there"), "old").expect("written");
        let opened = directory(&within).expect("opened");
        let (inside, outside) = (within.clone(), beside.clone());
        let program = std::env::current_exe().expect("this program");
        let confined = move || {
            let mut report = Report::default();
            thread([&opened], CapabilitySet::KILL, &mut report);
            assert!(report.landlock.is_some() && report.missing.is_empty(), "{report}");
            assert!(report.capabilities.iter().all(|name| name == "KILL"), "{report}");
            fs::write(inside.join("new"), "text").expect("it may");
            fs::rename(inside.join("new"), inside.join("newer")).expect("it may");
            assert_eq!(fs::read_to_string(outside.join("there")).expect("it may read"), "old");
            let refused = [
                fs::write(outside.join("new"), "text"),
                fs::write(outside.join("there"), "text"),
                fs::remove_file(outside.join("there")),
                fs::create_dir(outside.join("new")),
                fs::rename(inside.join("newer"), outside.join("newer")),
                std::process::Command::new(&program).status().map(drop),
            ];
            for (nth, refused) in refused.into_iter().enumerate() {
                let kind = refused.expect_err("refused").kind();
                assert!(
                    matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices),
                    "{nth}: {kind:?}"
                );
            }
        };
        std::thread::spawn(confined).join().expect("as it should be");
        fs::write(beside.join("new"), "text").expect("no other thread is confined");
        assert!(directory(&beside.join("there")).is_err() && directory(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn it_is_said_in_a_line() {
        assert_eq!(Report::default().to_string(), "no capabilities");
    }
}
