//! Assembles published sets from their chunks: pure. A set is complete or not used, and never older than the one before.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::format::{self, Error, Heartbeat, Manifest, Position};
use crate::model::Instance;

/// What to do about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Nothing: no set was published yet.
    Nothing,
    /// Nothing: it is older than what was seen.
    Older,
    /// Nothing: it is what we have.
    Same,
    /// Fetch these chunks, and then [`SetAssembler::take`].
    Missing(Vec<String>),
}

/// The set, and the chunks it was made of.
#[derive(Debug, Default)]
pub struct SetAssembler {
    /// The highest position seen, by this process or an earlier one.
    floor: Position,
    set: Option<Arc<Vec<Instance>>>,
    observed: Option<Timestamp>,
    chunks: HashMap<String, Arc<Vec<Instance>>>,
    heartbeat: Option<Heartbeat>,
}

impl SetAssembler {
    /// Without a set. `floor` is the highest position that was seen before.
    pub fn new(floor: Position) -> Self {
        Self { floor, ..Self::default() }
    }

    /// The highest position seen.
    pub const fn floor(&self) -> Position {
        self.floor
    }

    /// The whole set.
    pub const fn set(&self) -> Option<&Arc<Vec<Instance>>> {
        self.set.as_ref()
    }

    /// When it was last observed.
    pub const fn observed(&self) -> Option<Timestamp> {
        self.observed
    }

    /// What to do about a manifest.
    pub fn offer(&self, manifest: &Manifest) -> Offer {
        if manifest.observed.is_none() {
            return Offer::Nothing;
        }
        match (manifest.position.cmp(&self.floor), &self.set) {
            (std::cmp::Ordering::Less, _) => Offer::Older,
            (std::cmp::Ordering::Equal, Some(_)) => Offer::Same,
            _ => {
                let missing = manifest.chunks.iter().filter(|hash| !self.chunks.contains_key(*hash));
                Offer::Missing(missing.cloned().collect())
            }
        }
    }

    /// Takes the set of a manifest, of which the missing chunks were fetched.
    ///
    /// # Errors
    ///
    /// It is not complete. The previous set is kept.
    pub fn take(&mut self, manifest: &Manifest, fetched: &[(String, Vec<u8>)]) -> Result<(), Error> {
        let mut chunks = HashMap::with_capacity(manifest.chunks.len());
        for (hash, bytes) in fetched {
            chunks.insert(hash.clone(), Arc::new(format::open(hash, bytes)?));
        }
        for hash in &manifest.chunks {
            if !chunks.contains_key(hash) {
                let known = self.chunks.get(hash).ok_or_else(|| Error::NotWhole {
                    position: manifest.position,
                    why: format!("the chunk {hash} is missing"),
                })?;
                chunks.insert(hash.clone(), Arc::clone(known));
            }
        }
        let set = format::join(manifest, manifest.chunks.iter().map(|hash| chunks[hash].as_slice()))?;
        self.set = Some(Arc::new(set));
        self.chunks = chunks;
        self.floor = manifest.position;
        self.observed = manifest.observed;
        self.confirm();
        Ok(())
    }

    /// Takes note of a heartbeat. Returns whether it is a new one.
    pub fn hear(&mut self, heartbeat: Heartbeat) -> bool {
        let is_new = heartbeat.position >= self.floor && self.heartbeat.as_ref() != Some(&heartbeat);
        if is_new {
            self.heartbeat = Some(heartbeat);
            self.confirm();
        }
        is_new
    }

    /// The last heartbeat.
    pub const fn heartbeat(&self) -> Option<&Heartbeat> {
        self.heartbeat.as_ref()
    }

    /// A heartbeat says when the set that it names was last observed.
    fn confirm(&mut self) {
        if let Some(heartbeat) =
            self.heartbeat.as_ref().filter(|heartbeat| self.set.is_some() && heartbeat.position == self.floor)
        {
            self.observed = self.observed.max(heartbeat.observed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::format::{Chunk, FORMAT, MAX_CHUNK, Stamp, split};
    use super::*;

    fn stamp() -> Stamp {
        Stamp { format: FORMAT, fleet: "shop".to_owned() }
    }

    fn published(term: u64, number: u64, n: u32) -> (Manifest, Vec<Chunk>) {
        let set: Vec<_> = (0..n).map(|i| Instance::new(format!("i-{number}-{i}"))).collect();
        let chunks = split(set.iter().collect(), MAX_CHUNK).unwrap();
        let manifest = Manifest {
            stamp: stamp(),
            fence: term,
            position: Position { term, number },
            observed: Some(Timestamp::from_second(1000 + number.cast_signed()).unwrap()),
            instances: set.len(),
            chunks: chunks.iter().map(|chunk| chunk.hash.clone()).collect(),
        };
        (manifest, chunks)
    }

    fn taken(assembler: &mut SetAssembler, (manifest, chunks): &(Manifest, Vec<Chunk>)) -> Offer {
        let offer = assembler.offer(manifest);
        if let Offer::Missing(missing) = &offer {
            let fetched: Vec<_> = chunks.iter().filter(|chunk| missing.contains(&chunk.hash)).collect();
            let fetched: Vec<_> = fetched.iter().map(|c| (c.hash.clone(), c.bytes.clone())).collect();
            assembler.take(manifest, &fetched).unwrap();
        }
        offer
    }

    fn heartbeat(term: u64, number: u64, second: i64) -> Heartbeat {
        Heartbeat {
            stamp: stamp(),
            fence: term,
            position: Position { term, number },
            observed: Some(Timestamp::from_second(second).unwrap()),
            host: "p1".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            readers: None,
            every_ms: 15_000,
            count: 1,
            error: None,
        }
    }

    #[test]
    fn an_older_set_is_not_taken_by_this_process_or_the_next() {
        let mut assembler = SetAssembler::default();
        let [old, new] = [published(5, 9, 3), published(6, 1, 4)];
        taken(&mut assembler, &new);
        assert_eq!(assembler.offer(&old.0), Offer::Older);
        assert_eq!(assembler.offer(&new.0), Offer::Same);
        let mut restarted = SetAssembler::new(assembler.floor());
        assert_eq!(restarted.offer(&old.0), Offer::Older);
        assert!(matches!(taken(&mut restarted, &new), Offer::Missing(_)));
        assert_eq!(restarted.set().unwrap().len(), 4);
    }

    #[test]
    fn a_fence_moves_nothing() {
        let mut assembler = SetAssembler::default();
        let (mut manifest, chunks) = published(5, 1, 3);
        taken(&mut assembler, &(manifest.clone(), chunks));
        manifest.fence = 6;
        assert_eq!(assembler.offer(&manifest), Offer::Same);
        let empty = Manifest { observed: None, position: Position::default(), ..manifest };
        assert_eq!(assembler.offer(&empty), Offer::Nothing);
    }

    #[test]
    fn half_a_set_changes_nothing() {
        let mut assembler = SetAssembler::default();
        taken(&mut assembler, &published(1, 1, 500));
        let (manifest, chunks) = published(1, 2, 500);
        let half: Vec<_> = chunks[1..].iter().map(|c| (c.hash.clone(), c.bytes.clone())).collect();
        assert!(matches!(assembler.take(&manifest, &half), Err(Error::NotWhole { .. })));
        assert_eq!((assembler.floor().number, assembler.set().unwrap()[0].id.as_str()), (1, "i-1-0"));
    }

    #[test]
    fn a_heartbeat_renews_the_set_it_names_and_no_other() {
        let mut assembler = SetAssembler::default();
        taken(&mut assembler, &published(2, 1, 1));
        assert!(assembler.hear(heartbeat(2, 1, 5000)));
        assert!(!assembler.hear(heartbeat(2, 1, 5000)), "the same again is not a new one");
        assert_eq!(assembler.observed().unwrap().as_second(), 5000);
        assert!(!assembler.hear(heartbeat(1, 7, 6000)), "an older leader's");
        // The heartbeat may be known before the set that it names has been fetched.
        assert!(assembler.hear(heartbeat(2, 2, 7000)));
        assert_eq!(assembler.observed().unwrap().as_second(), 5000);
        taken(&mut assembler, &published(2, 2, 1));
        assert_eq!(assembler.observed().unwrap().as_second(), 7000);
    }

    proptest! {
        /// In whatever order manifests arrive, what is held is whole, and its position only grows.
        #[test]
        fn positions_only_grow(order in prop::collection::vec((1u64..4, 1u64..6), 1..30)) {
            let mut assembler = SetAssembler::default();
            let mut last = Position::default();
            for (term, number) in order {
                taken(&mut assembler, &published(term, number, 70));
                prop_assert!(assembler.floor() >= last);
                last = assembler.floor();
                let prefix = format!("i-{}-", last.number);
                prop_assert!(assembler.set().unwrap().iter().all(|instance| instance.id.starts_with(&prefix)));
                prop_assert_eq!(assembler.set().unwrap().len(), 70);
            }
        }
    }
}
