//! What a leader has published of one provider: every write of it is fenced.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::kv::{Operation, Store};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::model::{Instance, Name};
use crate::provider::nats::connection::{Error, Session};
use crate::provider::nats::format::{self, Heartbeat, Leader, Manifest, Position};

/// How long chunks that no manifest names are kept for those who still fetch them.
const GRACE: Duration = Duration::from_secs(30);

/// Chunks written at once.
const AT_ONCE: usize = 16;

/// Bytes of a message that are not the chunk's: its subject and headers.
const OVERHEAD: usize = 1024;

/// Why a leader stops publishing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// Another one leads.
    #[error("another publisher leads")]
    Deposed,
    /// The store holds sets of a later term than ours, which the leader key knew nothing of.
    #[error("the store holds sets of the later term {0}")]
    Behind(u64),
    /// It failed; whether it was done may be unknown.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// What a leader has published of one provider.
#[derive(Debug)]
pub(super) struct ManifestWriter {
    provider: Name,
    leader: Leader,
    manifest: Manifest,
    /// The manifest's revision, as far as is known.
    revision: u64,
    heartbeat_revision: u64,
    heartbeats: u64,
    number: u64,
    /// The chunks that the manifest names, with the highest revision each may have.
    chunks: HashMap<String, u64>,
    /// Chunks that no manifest names any more, up to which revision, since when.
    unused: Vec<(String, u64, Instant)>,
}

/// What a heartbeat says beside the set's position.
#[derive(Debug, Clone, Default)]
pub(super) struct HeartbeatInfo {
    pub readers: Option<usize>,
    pub every: Duration,
    pub error: Option<String>,
}

impl ManifestWriter {
    /// Fences a provider's keys off from earlier leaders, and learns what they left.
    pub async fn fence(session: &Session, store: &Store, leader: &Leader, provider: &Name) -> Result<Self, Stop> {
        let key = format::set_key(provider);
        let (manifest, revision) = loop {
            let (before, found) = read::<Manifest>(session, store, &key, &leader.stamp.fleet).await?;
            let latest = found.as_ref().map_or(0, |found| found.fence.max(found.position.term));
            if latest > leader.term {
                return Err(Stop::Behind(latest));
            }
            let mut manifest = found.unwrap_or_else(|| Manifest {
                stamp: leader.stamp.clone(),
                fence: 0,
                position: Position::default(),
                observed: None,
                instances: 0,
                chunks: Vec::new(),
            });
            manifest.fence = leader.term;
            // An earlier leader may have written once more meanwhile.
            if let Some(revision) = compare_and_set(session, store, &key, format::encode(&manifest), before).await? {
                break (manifest, revision);
            }
        };
        let (heartbeat_revision, heartbeat) =
            read::<Heartbeat>(session, store, &format::heartbeat_key(provider), &leader.stamp.fleet).await?;
        if let Some(heartbeat) = heartbeat.filter(|heartbeat| heartbeat.fence > leader.term) {
            return Err(Stop::Behind(heartbeat.fence));
        }
        let mut writer = Self {
            provider: provider.clone(),
            leader: leader.clone(),
            number: if manifest.position.term == leader.term { manifest.position.number } else { 0 },
            manifest,
            revision,
            heartbeat_revision,
            heartbeats: 0,
            chunks: HashMap::new(),
            unused: Vec::new(),
        };
        // Chunks that cannot be listed are written again, and unknown ones are never removed.
        for hash in writer.listed(session, store).await.unwrap_or_default() {
            if writer.manifest.chunks.contains(&hash) {
                writer.chunks.insert(hash, revision);
            } else {
                writer.unused.push((hash, revision, Instant::now()));
            }
        }
        Ok(writer)
    }

    /// The chunks that are there.
    async fn listed(&self, session: &Session, store: &Store) -> Result<Vec<String>, Error> {
        let any = format!("{}{}", store.prefix, format::chunk_key(&self.provider, "*"));
        let list = async {
            let subjects = store.stream.info_with_subjects(any).await?;
            subjects.map_ok(|(subject, _)| subject).try_collect::<Vec<_>>().await
        };
        let subjects = session.ask("list the chunks", list).await?;
        Ok(subjects.iter().filter_map(|subject| Some(subject.rsplit_once('.')?.1.to_owned())).collect())
    }

    /// Publishes what was observed: a new set if it differs from the last one, a heartbeat in any case. Returns the bytes of
    /// chunks and manifest; `None`: the set is the same.
    pub async fn publish(
        &mut self,
        session: &Session,
        store: &Store,
        instances: &[Instance],
        at: SystemTime,
        info: &HeartbeatInfo,
    ) -> Result<Option<usize>, Stop> {
        let most = format::MAX_CHUNK.min(session.max_payload().saturating_sub(OVERHEAD));
        let chunks = format::split(instances.iter().collect(), most).map_err(|error| session.content(error))?;
        let same = self.manifest.observed.is_some()
            && chunks.len() == self.manifest.chunks.len()
            && chunks.iter().zip(&self.manifest.chunks).all(|(chunk, hash)| chunk.hash == *hash)
            && chunks.iter().all(|chunk| self.chunks.contains_key(&chunk.hash));
        let mut bytes = None;
        if same {
            // The manifest in our hands says when the set was last observed; the one in the store when it first was.
            self.manifest.observed = Some(format::timestamp(at));
        } else {
            bytes = Some(self.replace(session, store, chunks, instances.len(), at).await?);
        }
        self.heartbeat(session, store, info).await?;
        self.tidy(session, store).await;
        Ok(bytes)
    }

    async fn replace(
        &mut self,
        session: &Session,
        store: &Store,
        chunks: Vec<format::Chunk>,
        instances: usize,
        at: SystemTime,
    ) -> Result<usize, Stop> {
        let mut next = HashMap::with_capacity(chunks.len());
        let hashes: Vec<_> = chunks.iter().map(|chunk| chunk.hash.clone()).collect();
        let mut bytes = 0;
        let (known, new): (Vec<_>, Vec<_>) =
            chunks.into_iter().partition(|chunk| self.chunks.contains_key(&chunk.hash));
        for chunk in known {
            let revision = self.chunks[&chunk.hash];
            next.insert(chunk.hash, revision);
        }
        bytes += new.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
        let put = async |chunk: format::Chunk| {
            let key = format::chunk_key(&self.provider, &chunk.hash);
            let revision = session.ask("store a chunk", store.put(key, chunk.bytes.into())).await?;
            Ok::<_, Error>((chunk.hash, revision))
        };
        let written: Vec<_> = stream::iter(new).map(put).buffer_unordered(AT_ONCE).collect().await;
        for result in written {
            let (hash, revision) = result?;
            next.insert(hash, revision);
        }
        let manifest = Manifest {
            stamp: self.leader.stamp.clone(),
            fence: self.leader.term,
            position: Position { term: self.leader.term, number: self.number + 1 },
            observed: Some(format::timestamp(at)),
            instances,
            chunks: hashes,
        };
        // Whatever becomes of this one, its number is used up.
        self.number += 1;
        let encoded = format::encode(&manifest);
        bytes += encoded.len();
        let key = format::set_key(&self.provider);
        self.revision = match compare_and_set(session, store, &key, encoded, self.revision).await? {
            Some(revision) => revision,
            None => self.recover(session, store, &key).await?,
        };
        let before = std::mem::replace(&mut self.chunks, next);
        let now = Instant::now();
        self.unused.extend(
            before
                .into_iter()
                .filter(|(hash, _)| !self.chunks.contains_key(hash))
                .map(|(hash, up_to)| (hash, up_to, now)),
        );
        self.manifest = manifest;
        Ok(bytes)
    }

    /// A write was refused: either another publisher leads, or an earlier write of ours came through though it seemed to
    /// have failed. Then the revision is known again, and the next attempt may replace it.
    async fn recover(&mut self, session: &Session, store: &Store, key: &str) -> Result<u64, Stop> {
        let (revision, found) = read::<Manifest>(session, store, key, &self.leader.stamp.fleet).await?;
        match found {
            Some(found) if found.fence == self.leader.term && revision >= self.revision => {
                self.revision = revision;
                // What it names may be there or not: the next attempt writes all of it.
                self.chunks.clear();
                self.manifest = found;
                self.manifest.chunks.clear();
                let why = "an earlier write came late".to_owned();
                Err(Error::Request { what: "replace the set", why }.into())
            }
            _ => Err(Stop::Deposed),
        }
    }

    /// Writes a heartbeat of the last set.
    pub async fn heartbeat(&mut self, session: &Session, store: &Store, info: &HeartbeatInfo) -> Result<(), Stop> {
        self.heartbeats += 1;
        let heartbeat = Heartbeat {
            stamp: self.leader.stamp.clone(),
            fence: self.leader.term,
            position: self.manifest.position,
            observed: self.manifest.observed,
            host: self.leader.host.clone(),
            since: self.leader.since,
            readers: info.readers,
            every_ms: u64::try_from(info.every.as_millis()).unwrap_or(u64::MAX),
            count: self.heartbeats,
            error: info.error.clone(),
        };
        let key = format::heartbeat_key(&self.provider);
        match compare_and_set(session, store, &key, format::encode(&heartbeat), self.heartbeat_revision).await? {
            Some(revision) => {
                self.heartbeat_revision = revision;
                Ok(())
            }
            None => {
                let (revision, found) = read::<Heartbeat>(session, store, &key, &self.leader.stamp.fleet).await?;
                if found.is_none_or(|found| found.fence > self.leader.term) || revision < self.heartbeat_revision {
                    return Err(Stop::Deposed);
                }
                // An earlier leader's, which the next heartbeat replaces, or one of ours that came late.
                self.heartbeat_revision = revision;
                Ok(())
            }
        }
    }

    /// Removes chunks that are no longer fetched. What cannot be removed now is removed later, by a successor if need be.
    async fn tidy(&mut self, session: &Session, store: &Store) {
        while let Some(due) = self.unused.iter().position(|(_, _, since)| since.elapsed() >= GRACE) {
            let (hash, up_to, _) = &self.unused[due];
            let is_named = self.chunks.contains_key(hash);
            let key = format::chunk_key(&self.provider, hash);
            if !is_named && let Err(error) = session.purge(store, &key, *up_to).await {
                tracing::debug!(provider = %self.provider, %error, "old chunks could not be removed");
                return;
            }
            self.unused.swap_remove(due);
        }
    }
}

/// A key's revision (0: there never was one) and its value, unless it was deleted.
pub(super) async fn read<T: serde::de::DeserializeOwned>(
    session: &Session,
    store: &Store,
    key: &str,
    fleet: &str,
) -> Result<(u64, Option<T>), Error> {
    match session.ask("read a key", store.entry(key)).await? {
        None => Ok((0, None)),
        Some(entry) if entry.operation != Operation::Put => Ok((entry.revision, None)),
        Some(entry) => {
            let value = format::decode(key, &entry.value, fleet).map_err(|error| session.content(error))?;
            Ok((entry.revision, Some(value)))
        }
    }
}

/// Writes a key if `expected` is still its revision. The new revision; `None`: it is not.
pub(super) async fn compare_and_set(
    session: &Session,
    store: &Store,
    key: &str,
    value: Vec<u8>,
    expected: u64,
) -> Result<Option<u64>, Error> {
    use async_nats::jetstream::kv::UpdateErrorKind::WrongLastRevision;
    let update = async {
        match store.update(key, value.into(), expected).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == WrongLastRevision => Ok(None),
            Err(error) => Err(error),
        }
    };
    session.ask("write a key", update).await
}
