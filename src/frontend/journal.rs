//! The apply record: how far the last change of a frontend came, written before each step. After a restart in the middle
//! of a change it says what must be undone, what is still to be done, and what is already proven.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::runtime::Evidence;
use crate::sys::atomic_file;
use crate::sys::process::Identity;
use crate::sys::regular_file;
use crate::sys::ticks::boot_id;

/// The format that is written. Each earlier one that is still read has its own arm in [`decode`].
const FORMAT: u32 = 1;

/// What the frontend was last proven to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// All its outputs.
    pub digest: Digest,
    /// The snapshot they were rendered from.
    pub revision: u64,
    /// The process that ran them. `None`: the frontend is not known by a process.
    pub process: Option<Identity>,
    /// When they were swapped in, in ticks since boot.
    pub swapped_at: u64,
    /// What identifies it over its runtime API. `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// One output being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// The output.
    pub path: PathBuf,
    /// What it becomes. `None`: it is removed.
    pub new: Option<Digest>,
    /// What it was. `None`: it did not exist.
    pub previous: Option<Digest>,
}

/// The frontend's processes as they were before it was asked to reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The process that is signalled.
    pub frontend: Identity,
    /// Those it had started.
    pub workers: Vec<Identity>,
    /// Its pid file. `None`: it is not found by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<FileStamp>,
}

/// One writing of a file: each has another inode or another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// The file's inode.
    pub inode: u64,
    /// When it was last modified: seconds and nanoseconds since the epoch.
    pub modified: (i64, i64),
}

impl FileStamp {
    /// Of a file as it is now. `None`: it is not there.
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { inode: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

/// How far a change came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Nothing is under way.
    Idle,
    /// Outputs may be swapped that no check has passed yet: to be undone.
    Swapping {
        /// Those that are replaced.
        #[serde(rename = "swaps")]
        changes: Vec<FileChange>,
    },
    /// The outputs are in place and checked; the frontend has yet to be proven to run them.
    Reloading {
        /// Those that were replaced.
        #[serde(rename = "swaps")]
        changes: Vec<FileChange>,
        /// All outputs.
        digest: Digest,
        /// The snapshot they were rendered from.
        revision: u64,
        /// When they were swapped in, in ticks since boot.
        swapped_at: u64,
        /// The frontend before the reload. `None`: it did not run.
        before: Option<Generation>,
        /// What its runtime API showed before the reload, to compare with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Box<Evidence>>,
        /// Whether it is certain that it was asked to reload.
        asked: bool,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    boot: String,
    proven: Option<Proven>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    written: BTreeMap<PathBuf, BTreeSet<Digest>>,
    #[serde(flatten)]
    step: Step,
}

enum DecodeError {
    Json(serde_json::Error),
    /// This format is not read.
    Format(u32),
}

/// Reads a record of any format that is still supported.
fn decode(bytes: &[u8]) -> Result<Stored, DecodeError> {
    // The rest of another format may be of any shape.
    #[derive(Deserialize)]
    struct Header {
        version: u32,
    }
    let Header { version } = serde_json::from_slice(bytes).map_err(DecodeError::Json)?;
    match version {
        1 => serde_json::from_slice(bytes).map_err(DecodeError::Json),
        other => Err(DecodeError::Format(other)),
    }
}

/// One frontend's apply record, in memory and on disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    boot: String,
    proven: Option<Proven>,
    written: BTreeMap<PathBuf, BTreeSet<Digest>>,
    step: Step,
}

impl Journal {
    /// Reads the record at `path`. If it is absent or unreadable, nothing is known to be proven, which costs one reload.
    /// Blocks.
    pub fn open(path: PathBuf) -> Self {
        let boot = boot_id();
        let mut journal = Self { path, boot, proven: None, written: BTreeMap::new(), step: Step::Idle };
        match regular_file::read_own(&journal.path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(stored) => journal.adopt(stored),
                Err(DecodeError::Format(format)) => tracing::warn!(path = %journal.path.display(), format,
                    "the apply record has the format of another version of elasticd; the frontend will be reloaded once"),
                Err(DecodeError::Json(error)) => tracing::warn!(path = %journal.path.display(), %error,
                    "the apply record is damaged; the frontend will be reloaded once"),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %journal.path.display(), %error,
                "cannot read the apply record; the frontend will be reloaded once"),
        }
        journal
    }

    fn adopt(&mut self, stored: Stored) {
        self.proven = stored.proven;
        self.written = stored.written;
        self.step = stored.step;
        if stored.boot == self.boot {
            return;
        }
        // The machine was booted since: every process has read the outputs in place, and no earlier process is left.
        if let Some(proven) = &mut self.proven {
            proven.swapped_at = 0;
        }
        if let Step::Reloading { swapped_at, before, .. } = &mut self.step {
            *swapped_at = 0;
            *before = None;
        }
    }

    /// How far the last change came.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// What the frontend was last proven to run.
    pub fn proven(&self) -> Option<&Proven> {
        self.proven.as_ref()
    }

    /// The files that elasticd has written for this frontend, with what it wrote.
    pub fn written(&self) -> &BTreeMap<PathBuf, BTreeSet<Digest>> {
        &self.written
    }

    /// Records what is in place of the outputs. Blocks until the record is on disk, if that is new.
    pub fn set_written(&mut self, outputs: impl IntoIterator<Item = (PathBuf, Digest)>) {
        let mut is_new = false;
        for (path, digest) in outputs {
            let only = BTreeSet::from([digest]);
            is_new |= self.written.insert(path, only.clone()) != Some(only);
        }
        if is_new {
            self.save();
        }
    }

    /// Forgets a file that is gone, or somebody else's by now. Blocks until the record is on disk.
    pub fn forget_written(&mut self, path: &Path) {
        if self.written.remove(path).is_some() {
            self.save();
        }
    }

    /// Records a step before it is taken. Blocks until the record is on disk.
    pub fn begin(&mut self, step: Step) {
        // Until it is known how the change ends, either version is elasticd's.
        if let Step::Swapping { changes } = &step {
            for (path, new) in changes.iter().filter_map(|change| Some((&change.path, change.new.clone()?))) {
                self.written.entry(path.clone()).or_default().insert(new);
            }
        }
        self.step = step;
        self.save();
    }

    /// Records that no change is under way any more, and what the frontend runs. `None`: that is not known. Blocks until
    /// the record is on disk.
    pub fn end(&mut self, proven: Option<Proven>) {
        self.proven = proven;
        self.begin(Step::Idle);
    }

    /// A record that cannot be written does not stop the change: after a restart the frontend is then reloaded once more
    /// than needed, but never once less, since the files differ from those recorded as proven.
    fn save(&self) {
        let stored = Stored {
            version: FORMAT,
            boot: self.boot.clone(),
            proven: self.proven.clone(),
            written: self.written.clone(),
            step: self.step.clone(),
        };
        let bytes = serde_json::to_vec(&stored).expect("plain data always serialises");
        if let Err(error) = atomic_file::write(&self.path, &bytes) {
            tracing::warn!(%error, "cannot save the apply record; after a restart the frontend is reloaded once more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven() -> Proven {
        Proven {
            digest: Digest::of(b"x"),
            revision: 7,
            process: Some(Identity { pid: 1, start_ticks: 2 }),
            swapped_at: 1,
            evidence: None,
        }
    }

    #[test]
    fn survives_a_restart_step_by_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nginx.json");
        let mut journal = Journal::open(path.clone());
        assert_eq!((journal.proven(), journal.step()), (None, &Step::Idle));
        journal.end(Some(proven()));
        let changes = vec![FileChange { path: "/x".into(), new: Some(Digest::of(b"y")), previous: None }];
        journal.begin(Step::Swapping { changes: changes.clone() });
        let again = Journal::open(path.clone());
        assert_eq!(again.proven(), Some(&proven()));
        assert_eq!(again.step(), &Step::Swapping { changes });
    }

    #[test]
    fn processes_of_another_boot_are_forgotten_and_contents_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nginx.json");
        let mut journal = Journal::open(path.clone());
        journal.boot = "another".to_owned();
        journal.end(Some(proven()));
        let after = Journal::open(path).proven().cloned().expect("kept");
        assert_eq!((after.swapped_at, after.digest), (0, proven().digest));
    }

    /// The files that were written when the format was introduced: at rest, in the middle of a change, and of frontends
    /// with a process, with a runtime API and with neither.
    #[test]
    fn a_record_of_each_format_is_read_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nginx.json");
        for golden in [
            include_str!("../../tests/it/golden/formats/frontends/nginx-1.json"),
            include_str!("../../tests/it/golden/formats/frontends/nginx-swapping-1.json"),
            include_str!("../../tests/it/golden/formats/frontends/nginx-reloading-1.json"),
            include_str!("../../tests/it/golden/formats/frontends/nginx-removing-1.json"),
            include_str!("../../tests/it/golden/formats/frontends/haproxy-1.json"),
            include_str!("../../tests/it/golden/formats/frontends/json-1.json"),
        ] {
            let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
            // As if this machine had not been booted since.
            let mut golden = parsed(golden);
            golden["boot"] = boot_id().into();
            std::fs::write(&path, golden.to_string()).expect("written");
            let mut journal = Journal::open(path.clone());
            journal.begin(journal.step().clone());
            let mut again = parsed(&std::fs::read_to_string(&path).expect("written"));
            if golden.get("written").is_none() {
                // What is under way is recorded as written from now on.
                again.as_object_mut().expect("a record").remove("written");
            }
            assert_eq!(again, golden, "nothing is lost");
        }
    }

    #[test]
    fn a_record_of_another_format_is_told_from_a_damaged_one() {
        let newer = decode(br#"{"version":2,"step":{"of":"another shape"}}"#);
        assert!(matches!(newer, Err(DecodeError::Format(2))));
        assert!(matches!(decode(b"{"), Err(DecodeError::Json(_))));
    }

    #[test]
    fn a_damaged_record_means_that_nothing_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nginx.json");
        for content in ["", "{", "[]", r#"{"version":2,"boot":"x","proven":null,"step":"idle"}"#] {
            std::fs::write(&path, content).expect("written");
            assert_eq!(Journal::open(path.clone()).proven(), None, "{content:?}");
        }
    }
}
