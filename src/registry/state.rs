//! The last known good, on disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pool::PersistedService;
use super::registration::Registrations;
use crate::model::{Name, Snapshot};
use crate::sys::atomic_file::{self, Ownership};
use crate::sys::{regular_file, text};

/// The format's version; another one is not read.
const VERSION: u32 = 3;

/// A revision that nobody comes to by counting: half of all there are.
const LAST_REVISION: u64 = u64::MAX / 2;

/// The state's file name in `state_dir`.
const FILE: &str = "snapshot.json";

/// What was known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// The last snapshot published.
    pub snapshot: Snapshot,
    /// By service and id; those that have expired meanwhile included.
    pub registered: Registrations,
    /// What is known of each service beside what is served.
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

#[derive(Deserialize)]
struct Read {
    version: u32,
    snapshot: Snapshot,
    #[serde(default)]
    registered: Registrations,
    pools: BTreeMap<Name, PersistedService>,
}

/// Why there is nothing to restore though a file is there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {path}: {source}; make it readable for elasticd's user")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold a snapshot.
    #[error("{path} is damaged ({source}); it is kept as {path}.unreadable and everything is discovered anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It holds something else than elasticd wrote.
    #[error(
        "{path} is damaged (its checksum is another); it is kept as {path}.unreadable and everything is discovered anew"
    )]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version of elasticd.
    #[error(
        "{path} has format {found}, not {VERSION}; it is kept as {path}.unreadable and everything is discovered anew"
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// Where the last known good is kept.
#[derive(Debug, Clone)]
pub struct State {
    path: PathBuf,
}

impl State {
    /// In `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Reads the last known good. `None`: there is none yet.
    ///
    /// # Errors
    ///
    /// There is a file that cannot be used. It is moved aside, so that it can be looked at.
    pub fn load(&self) -> Result<Option<Restored>, Error> {
        self.read().inspect_err(|error| {
            if !matches!(error, Error::Unreadable { .. }) {
                self.set_aside();
            }
        })
    }

    /// The same, and moves nothing.
    ///
    /// # Errors
    ///
    /// There is a file that cannot be used.
    pub fn read(&self) -> Result<Option<Restored>, Error> {
        let bytes = match regular_file::read_own(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Unreadable { path: self.path.clone(), source }),
        };
        self.parse(&bytes).map(Some)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Restored, Error> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let other = |found| Error::OtherVersion { path: self.path.clone(), found };
        let (json, sum) = split(bytes);
        let Read { version, snapshot, registered, pools } = serde_json::from_slice(json).map_err(|source| {
            // What another version holds may not be what this one expects.
            match serde_json::from_slice(json) {
                Ok(Version { version }) if version != VERSION => other(version),
                _ => Error::Damaged { path: self.path.clone(), source },
            }
        })?;
        if version != VERSION {
            return Err(other(version));
        }
        if sum != Some(checksum(json).as_bytes()) || snapshot.revision > LAST_REVISION {
            return Err(Error::Altered { path: self.path.clone() });
        }
        Ok(Restored { snapshot, registered, pools })
    }

    fn set_aside(&self) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".unreadable");
        if let Err(error) = std::fs::rename(&self.path, &aside) {
            tracing::warn!(path = %self.path.display(), %error, "cannot move the unusable state aside");
        }
    }

    /// Writes the last known good.
    ///
    /// # Errors
    ///
    /// It could not be written; the previous one is still there.
    pub fn save(
        &self,
        snapshot: &Snapshot,
        registered: &Registrations,
        pools: &BTreeMap<&Name, &PersistedService>,
    ) -> Result<(), atomic_file::Error> {
        let stored = Stored { version: VERSION, snapshot, registered, pools };
        let json = serde_json::to_vec(&stored).expect("plain data always serialises");
        atomic_file::write(&self.path, &sealed(json), Ownership { mode: 0o600, uid: None, gid: None })
    }
}

/// What the file holds, and the checksum on its last line, of which JSON has but one.
fn split(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    }
}

/// What [`split`] takes apart.
fn sealed(mut json: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&json);
    json.push(b'\n');
    json.extend(sum.bytes());
    json
}

/// A flipped bit may be another address, and still JSON.
fn checksum(bytes: &[u8]) -> String {
    text::hex(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::pool::Source;
    use super::super::registration::Registered;
    use super::*;
    use crate::model::{Backend, BackendState, Member, ServiceSet};

    fn restored() -> Restored {
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
        let source = Source {
            observed: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            members: vec![Member { backend: backend.clone(), launched: None }],
        };
        let kept = PersistedService {
            sources: [("prod".parse().expect("a name"), source)].into(),
            ..PersistedService::default()
        };
        let set = ServiceSet { revision: 3, backends: vec![backend] };
        Restored {
            snapshot: Snapshot { revision: 4, services: [(web.clone(), Arc::new(set))].into() },
            pools: [(web.clone(), kept)].into(),
            registered: [(web, [("i-1".to_owned(), registered)].into())].into(),
        }
    }

    fn save(state: &State) {
        let Restored { snapshot, registered, pools } = restored();
        state.save(&snapshot, &registered, &pools.iter().collect()).expect("saved");
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::new(dir.path());
        assert_eq!(state.load().expect("nothing is no fault"), None);
        save(&state);
        assert_eq!(state.load().expect("whole"), Some(restored()));
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_is_served() {
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
    fn what_cannot_be_used_is_set_aside_and_named() {
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
