//! The state on disk: the published snapshot and what the registry needs to go on from it after a restart.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pool::PersistedService;
use super::registration::Registrations;
use crate::model::{Name, Snapshot};
use crate::sys::atomic_file;
use crate::sys::{regular_file, text};

/// The format that is written. Each earlier one that is still read has its own arm in [`decode`]; formats before 3 were
/// never released.
const FORMAT: u32 = 3;

/// A larger revision cannot be reached by counting, and would leave no room to count on.
const MAX_REVISION: u64 = u64::MAX / 2;

/// The state's file name in `state_dir`.
const FILE: &str = "snapshot.json";

/// The state that is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedState {
    /// The last published snapshot.
    pub snapshot: Snapshot,
    /// The registered backends, those that have expired meanwhile included.
    pub registered: Registrations,
    /// By service. Empty once the registry has taken them over.
    pub pools: BTreeMap<Name, PersistedService>,
}

#[derive(Serialize)]
struct Stored<'a> {
    version: u32,
    snapshot: &'a Snapshot,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    registered: &'a Registrations,
    pools: &'a BTreeMap<&'a Name, &'a PersistedService>,
}

/// Format 3.
#[derive(Deserialize)]
struct StoredV3 {
    snapshot: Snapshot,
    #[serde(default)]
    registered: Registrations,
    pools: BTreeMap<Name, PersistedService>,
}

/// Why the state cannot be restored although there is a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; make it readable for elasticd's user")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold a state.
    #[error("{path} is damaged ({source}); it is kept as {path}.unreadable, and everything is discovered anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file is not what elasticd wrote.
    #[error(
        "{path} is damaged (its checksum does not match); it is kept as {path}.unreadable, and everything is discovered anew"
    )]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// A newer elasticd wrote the file.
    #[error(
        "{path} has format {found}, and this elasticd reads formats up to {FORMAT}: a newer one wrote it. It is kept as \
         {path}.unreadable, and everything is discovered anew; to go on from it, install the newer elasticd and rename \
         the file back"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The format is too old.
    #[error(
        "{path} has format {found}, which this elasticd no longer reads; it is kept as {path}.unreadable, and everything \
         is discovered anew"
    )]
    OldFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// The file that holds the state.
#[derive(Debug, Clone)]
pub struct State {
    path: PathBuf,
}

impl State {
    /// The file in `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Reads the state. `None`: there is none yet.
    ///
    /// # Errors
    ///
    /// There is a file that cannot be used. It is renamed, so that it can be examined.
    pub fn load(&self) -> Result<Option<SavedState>, Error> {
        self.read().inspect_err(|error| {
            if !matches!(error, Error::Unreadable { .. }) {
                self.set_aside();
            }
        })
    }

    /// Reads the state, and never renames the file.
    ///
    /// # Errors
    ///
    /// There is a file that cannot be used.
    pub fn read(&self) -> Result<Option<SavedState>, Error> {
        let bytes = match regular_file::read_own(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Unreadable { path: self.path.clone(), source }),
        };
        self.parse(&bytes).map(Some)
    }

    fn parse(&self, bytes: &[u8]) -> Result<SavedState, Error> {
        let (json, sum) = split(bytes);
        let state = decode(json).map_err(|error| {
            let path = self.path.clone();
            match error {
                DecodeError::Json(source) => Error::Damaged { path, source },
                DecodeError::Format(found) if found > FORMAT => Error::NewerFormat { path, found },
                DecodeError::Format(found) => Error::OldFormat { path, found },
            }
        })?;
        if sum != Some(checksum(json).as_bytes()) || state.snapshot.revision > MAX_REVISION {
            return Err(Error::Altered { path: self.path.clone() });
        }
        Ok(state)
    }

    fn set_aside(&self) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".unreadable");
        if let Err(error) = std::fs::rename(&self.path, &aside) {
            tracing::warn!(path = %self.path.display(), %error, "cannot rename the unusable state file");
        }
    }

    /// Writes the state.
    ///
    /// # Errors
    ///
    /// It could not be written; the previous file is still in place.
    pub fn save(
        &self,
        snapshot: &Snapshot,
        registered: &Registrations,
        pools: &BTreeMap<&Name, &PersistedService>,
    ) -> Result<(), atomic_file::Error> {
        let stored = Stored { version: FORMAT, snapshot, registered, pools };
        let json = serde_json::to_vec(&stored).expect("plain data always serialises");
        atomic_file::write(&self.path, &sealed(json))
    }
}

enum DecodeError {
    Json(serde_json::Error),
    Format(u32),
}

/// Reads a state of any format that is still supported.
fn decode(json: &[u8]) -> Result<SavedState, DecodeError> {
    #[derive(Deserialize)]
    struct Header {
        version: u32,
    }
    let Header { version } = serde_json::from_slice(json).map_err(DecodeError::Json)?;
    match version {
        3 => serde_json::from_slice::<StoredV3>(json).map(Into::into).map_err(DecodeError::Json),
        other => Err(DecodeError::Format(other)),
    }
}

impl From<StoredV3> for SavedState {
    fn from(StoredV3 { snapshot, registered, pools }: StoredV3) -> Self {
        Self { snapshot, registered, pools }
    }
}

/// The JSON on the first line and the checksum on the second.
fn split(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    }
}

/// The JSON with its checksum, as [`split`] takes them apart.
fn sealed(mut json: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&json);
    json.push(b'\n');
    json.extend(sum.bytes());
    json
}

/// A flipped bit in an address would still be valid JSON.
fn checksum(bytes: &[u8]) -> String {
    text::hex(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::pool::AcceptedSet;
    use super::super::registration::Registered;
    use super::*;
    use crate::model::{Backend, BackendState, Member, ServiceSet};

    fn saved() -> SavedState {
        let backend = Backend {
            id: "i-1".to_owned(),
            address: "10.0.0.1".parse().expect("an address"),
            port: 80,
            zone: None,
            weight: 1,
            state: BackendState::Up,
            tags: [("Name".to_owned(), "a\"b\n".to_owned())].into(),
        };
        let web: Name = "web".parse().expect("a name");
        let registered = Registered {
            backend: backend.clone(),
            ttl: Duration::from_secs(30),
            expires: UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
        };
        let source = AcceptedSet {
            observed: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            members: vec![Member { backend: backend.clone(), launched: None }],
        };
        let kept = PersistedService {
            sources: [("prod".parse().expect("a name"), source)].into(),
            ..PersistedService::default()
        };
        let set = ServiceSet { revision: 3, backends: vec![backend] };
        SavedState {
            snapshot: Snapshot { revision: 4, services: [(web.clone(), Arc::new(set))].into() },
            pools: [(web.clone(), kept)].into(),
            registered: [(web, [("i-1".to_owned(), registered)].into())].into(),
        }
    }

    fn save(state: &State) {
        let SavedState { snapshot, registered, pools } = saved();
        state.save(&snapshot, &registered, &pools.iter().collect()).expect("saved");
    }

    #[test]
    fn a_saved_state_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::new(dir.path());
        assert_eq!(state.load().expect("no file is no error"), None);
        save(&state);
        assert_eq!(state.load().expect("whole"), Some(saved()));
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_is_accepted() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::new(dir.path());
        save(&state);
        let whole = std::fs::read(&state.path).expect("readable");
        for length in 0..whole.len() {
            assert!(state.parse(&whole[..length]).is_err(), "{length} bytes of it");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(state.parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_unusable_file_is_renamed_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::new(dir.path());
        save(&state);
        let whole = std::fs::read_to_string(&state.path).expect("readable");
        let (json, _) = whole.split_once('\n').expect("a checksum");
        let with = |from: &str, to: &str| {
            assert!(json.contains(from), "{from} in {json}");
            String::from_utf8(sealed(json.replacen(from, to, 1).into())).expect("text")
        };
        let newer = with("\"version\":3", "\"version\":4");
        let beyond = with("\"revision\":4", "\"revision\":18446744073709551615");
        let never = with("\"observed\":1700000000", "\"observed\":253402300800");
        for content in ["", "{}", "null", json, &whole[..whole.len() / 2], &newer, &beyond, &never] {
            std::fs::write(&state.path, content).expect("written");
            let error = state.load().expect_err("unusable").to_string();
            assert!(error.contains("snapshot.json") && error.contains("discovered anew"), "{error}");
            assert_eq!(std::fs::read_to_string(dir.path().join("snapshot.json.unreadable")).expect("kept"), content);
            assert_eq!(state.load().expect("nothing is left"), None);
        }
    }
}
