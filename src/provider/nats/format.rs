//! The keys and values of a fleet's bucket: pure.
//!
//! | key | value |
//! | --- | --- |
//! | `leader` | [`Leader`]: who publishes, renewed while it does |
//! | `p.PROVIDER.set` | [`Manifest`]: the chunks that make up the provider's whole set, and its position |
//! | `p.PROVIDER.heartbeat` | [`Heartbeat`]: that the set was observed again, unchanged, and by which publisher |
//! | `p.PROVIDER.d.SHA256` | a chunk: a JSON list of instances, under the hash of its bytes |
//!
//! A chunk ends where the hash of an instance's id says so, so that an instance that changes alters its own chunk and
//! no other: that one, and the manifest, are all that a change moves.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Instance, Name};
use crate::provider::machine_size;
use crate::sys::text;

/// The format's version. A reader takes this one and no other.
pub const FORMAT: u32 = 1;

/// The key of the leader.
pub const LEADER: &str = "leader";

/// Instances in a chunk, on average: some 20 kB. Smaller ones make the manifest, which names them all, the larger part
/// of a change.
const PER_CHUNK: u8 = 64;

/// The largest chunk, in bytes, unless a message may hold less.
pub const MAX_CHUNK: usize = 256 * 1024;

/// Chunks in one manifest at most: with 67 bytes each it stays below the megabyte that a server takes by default.
pub const MAX_CHUNKS: usize = 12_000;

/// The place of a set in the order of all that a fleet ever published. It only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The leader's term: each leader's is higher than all before it.
    pub term: u64,
    /// Counts the leader's different sets, from 1.
    pub number: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

/// What every value but a chunk begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// [`FORMAT`].
    pub format: u32,
    /// The fleet.
    pub fleet: String,
}

/// The publisher that leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The format and the fleet.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// Its term.
    pub term: u64,
    /// Unique to the process.
    pub id: String,
    /// Its machine's name.
    pub host: String,
    /// Since when it leads, by its own clock.
    pub since: Timestamp,
    /// Grows with each renewal, so that each is a new value.
    pub renewals: u64,
    /// It gave the lead away: others need not wait.
    #[serde(default)]
    pub released: bool,
}

/// A provider's whole set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format and the fleet.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The term of the leader that wrote this last. A new leader writes it before it polls, and changes nothing else: the
    /// revision that its predecessor expects to replace is then gone for good.
    pub fence: u64,
    /// The set's position.
    pub position: Position,
    /// When it was first observed, by the publisher's clock. None: nothing was published yet.
    pub observed: Option<Timestamp>,
    /// How many instances there are in all chunks.
    pub instances: usize,
    /// The chunks' hashes, in their order.
    pub chunks: Vec<String>,
}

/// Says that a publisher polls, and with which result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The format and the fleet.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The term of the leader that wrote this.
    pub fence: u64,
    /// The set that was observed.
    pub position: Position,
    /// When it was last observed, by the publisher's clock.
    pub observed: Option<Timestamp>,
    /// The machine that leads.
    pub host: String,
    /// Since when it leads.
    pub since: Timestamp,
    /// How many sidecars watch the bucket. None: the server did not say.
    pub readers: Option<usize>,
    /// Milliseconds until the next heartbeat is due.
    pub every_ms: u64,
    /// Grows with each heartbeat of a leader, so that each is a new value.
    pub count: u64,
    /// Why the last poll failed, while polls do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why what was found is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was not written by elasticd.
    #[error(
        "the key {key} holds something that no elasticd wrote ({why}): is the bucket used for something else? Name one of the fleet's own"
    )]
    Garbage {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another version wrote it.
    #[error(
        "the key {key} has format {found}, and this elasticd reads format {FORMAT}: run the same version of elasticd on publishers and sidecars"
    )]
    OtherFormat {
        /// The key.
        key: String,
        /// Its format.
        found: u64,
    },
    /// Another fleet's.
    #[error("the key {key} is of the fleet {found:?}, not of {expected:?}: give each fleet a bucket of its own")]
    OtherFleet {
        /// The key.
        key: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A chunk is not what the manifest says.
    #[error("the chunk {hash} is not what was published: its bytes have another hash")]
    Altered {
        /// The hash it should have.
        hash: String,
    },
    /// The chunks do not add up.
    #[error("the set {position} is not whole: {why}")]
    NotWhole {
        /// The set.
        position: Position,
        /// What is missing.
        why: String,
    },
    /// An instance that fits into no message.
    #[error(
        "the instance {id:?} takes {size} bytes, and a message may have {most}: shorten its tags, or raise the NATS server's max_payload"
    )]
    TooLarge {
        /// The instance.
        id: String,
        /// Its size.
        size: usize,
        /// What a chunk may have.
        most: usize,
    },
    /// A set that fits into no manifest.
    #[error("the set takes {chunks} chunks, and {MAX_CHUNKS} are the most there may be: split the provider in several")]
    TooMany {
        /// The chunks.
        chunks: usize,
    },
}

/// One piece of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The SHA-256 of its bytes, in hexadecimal.
    pub hash: String,
    /// A JSON list of instances.
    pub bytes: Vec<u8>,
}

/// A provider's key. A dot in a name would be another level: `=`, which names cannot have, replaces it.
fn prefix(provider: &Name) -> String {
    format!("p.{}", provider.as_str().replace('.', "="))
}

/// The manifest's key.
pub fn set_key(provider: &Name) -> String {
    prefix(provider) + ".set"
}

/// The heartbeat's key.
pub fn heartbeat_key(provider: &Name) -> String {
    prefix(provider) + ".heartbeat"
}

/// A chunk's key.
pub fn chunk_key(provider: &Name, hash: &str) -> String {
    format!("{}.d.{hash}", prefix(provider))
}

/// What matches the manifest and the heartbeat, and no chunk.
pub fn watch_key(provider: &Name) -> String {
    prefix(provider) + ".*"
}

/// The SHA-256 of some bytes, in hexadecimal.
fn hash(bytes: &[u8]) -> String {
    text::hex(Sha256::digest(bytes))
}

/// Whether the chunk ends with this instance.
fn ends_chunk(id: &str) -> bool {
    Sha256::digest(id.as_bytes())[0] % PER_CHUNK == 0
}

/// One value's bytes.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always serialises")
}

/// Reads the value of a key.
///
/// # Errors
///
/// It is not ours, not of this version or not of this fleet.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8], fleet: &str) -> Result<T, Error> {
    let garbage = |error: serde_json::Error| Error::Garbage { key: key.to_owned(), why: error.to_string() };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(garbage)?;
    match (value["format"].as_u64(), value["fleet"].as_str()) {
        (Some(format), _) if format != u64::from(FORMAT) => {
            Err(Error::OtherFormat { key: key.to_owned(), found: format })
        }
        (Some(_), Some(found)) if found != fleet => {
            Err(Error::OtherFleet { key: key.to_owned(), found: found.to_owned(), expected: fleet.to_owned() })
        }
        _ => serde_json::from_value(value).map_err(garbage),
    }
}

/// Cuts a set into chunks of at most `most` bytes. Equal sets, in whatever order, make equal chunks.
///
/// # Errors
///
/// An instance, or the set, is too large.
pub fn split(mut instances: Vec<&Instance>, most: usize) -> Result<Vec<Chunk>, Error> {
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    let mut chunks = Vec::new();
    let mut bytes = Vec::new();
    let mut end = |bytes: &mut Vec<u8>| {
        if !bytes.is_empty() {
            bytes.push(b']');
            let bytes = std::mem::take(bytes);
            chunks.push(Chunk { hash: hash(&bytes), bytes });
        }
    };
    for instance in instances {
        let text = encode(&slim(instance));
        if text.len() + 2 > most {
            return Err(Error::TooLarge { id: instance.id.clone(), size: text.len() + 2, most });
        }
        if bytes.len() + text.len() + 2 > most {
            end(&mut bytes);
        }
        bytes.push(if bytes.is_empty() { b'[' } else { b',' });
        bytes.extend(text);
        if ends_chunk(&instance.id) {
            end(&mut bytes);
        }
    }
    end(&mut bytes);
    if chunks.len() > MAX_CHUNKS {
        return Err(Error::TooMany { chunks: chunks.len() });
    }
    Ok(chunks)
}

/// The instance without what is not known of it, or is as usual.
fn slim(instance: &Instance) -> serde_json::Value {
    let mut value = serde_json::to_value(instance).expect("plain data always serialises");
    if let Some(fields) = value.as_object_mut() {
        let default = |key: &str, value: &serde_json::Value| match key {
            "availability" => value == "ready",
            "state" => value == "running",
            _ => value.is_null(),
        };
        fields.retain(|key, value| !default(key, value));
    }
    value
}

/// The instances of one chunk, if it is the one that was published.
///
/// # Errors
///
/// It has another hash, or is no list of instances.
pub fn open(hash_expected: &str, bytes: &[u8]) -> Result<Vec<Instance>, Error> {
    if hash(bytes) != hash_expected {
        return Err(Error::Altered { hash: hash_expected.to_owned() });
    }
    let mut instances: Vec<Instance> = serde_json::from_slice(bytes)
        .map_err(|error| Error::Garbage { key: format!("d.{hash_expected}"), why: error.to_string() })?;
    for instance in &mut instances {
        instance.size = instance.instance_type.as_deref().and_then(machine_size::of_kind);
    }
    Ok(instances)
}

/// The whole set, of all its chunks in their order, or nothing.
///
/// # Errors
///
/// Instances are missing or double.
pub fn join<'a>(manifest: &Manifest, chunks: impl IntoIterator<Item = &'a [Instance]>) -> Result<Vec<Instance>, Error> {
    let set: Vec<Instance> = chunks.into_iter().flatten().cloned().collect();
    let not_whole = |why: String| Error::NotWhole { position: manifest.position, why };
    if set.len() != manifest.instances {
        return Err(not_whole(format!("{} instances of {}", set.len(), manifest.instances)));
    }
    let mut seen = HashSet::with_capacity(set.len());
    match set.iter().find(|instance| !seen.insert(instance.id.as_str())) {
        Some(double) => Err(not_whole(format!("{:?} is in it twice", double.id))),
        None => Ok(set),
    }
}

/// A time as it is written.
pub fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time as it was written.
pub fn system_time(at: Timestamp) -> SystemTime {
    let since = u64::try_from(at.as_millisecond()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(since)
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
