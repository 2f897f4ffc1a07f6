//! What a sidecar has of a published set: pure. Whole or not at all, and never older than what it had.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::format::{self, Beat, Error, Manifest, Position};
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
    /// Fetch these chunks, and then [`Shelf::take`].
    Missing(Vec<String>),
}

/// The set, and the chunks it was made of.
#[derive(Debug, Default)]
pub struct Shelf {
    /// The highest position seen, in this life or an earlier one.
    floor: Position,
    set: Option<Arc<Vec<Instance>>>,
    observed: Option<Timestamp>,
    chunks: HashMap<String, Arc<Vec<Instance>>>,
    beat: Option<Beat>,
}

impl Shelf {
    /// An empty one of somebody who saw this position before.
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

    /// Judges a manifest.
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
    /// It is not whole, and what we had stays.
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

    /// Takes note of a sign of life. Whether it is a new one.
    pub fn hear(&mut self, beat: Beat) -> bool {
        let is_new = beat.position >= self.floor && self.beat.as_ref() != Some(&beat);
        if is_new {
            self.beat = Some(beat);
            self.confirm();
        }
        is_new
    }

    /// The last sign of life.
    pub const fn beat(&self) -> Option<&Beat> {
        self.beat.as_ref()
    }

    /// A beat says when the set that it names was last observed.
    fn confirm(&mut self) {
        if let Some(beat) = self.beat.as_ref().filter(|beat| self.set.is_some() && beat.position == self.floor) {
            self.observed = self.observed.max(beat.observed);
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

    fn taken(shelf: &mut Shelf, (manifest, chunks): &(Manifest, Vec<Chunk>)) -> Offer {
        let offer = shelf.offer(manifest);
        if let Offer::Missing(missing) = &offer {
            let fetched: Vec<_> = chunks.iter().filter(|chunk| missing.contains(&chunk.hash)).collect();
            let fetched: Vec<_> = fetched.iter().map(|c| (c.hash.clone(), c.bytes.clone())).collect();
            shelf.take(manifest, &fetched).unwrap();
        }
        offer
    }

    fn beat(term: u64, number: u64, second: i64) -> Beat {
        Beat {
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
    fn an_older_set_is_not_taken_in_this_life_or_the_next() {
        let mut shelf = Shelf::default();
        let [old, new] = [published(5, 9, 3), published(6, 1, 4)];
        taken(&mut shelf, &new);
        assert_eq!(shelf.offer(&old.0), Offer::Older);
        assert_eq!(shelf.offer(&new.0), Offer::Same);
        let mut reborn = Shelf::new(shelf.floor());
        assert_eq!(reborn.offer(&old.0), Offer::Older);
        assert!(matches!(taken(&mut reborn, &new), Offer::Missing(_)));
        assert_eq!(reborn.set().unwrap().len(), 4);
    }

    #[test]
    fn a_fence_moves_nothing() {
        let mut shelf = Shelf::default();
        let (mut manifest, chunks) = published(5, 1, 3);
        taken(&mut shelf, &(manifest.clone(), chunks));
        manifest.fence = 6;
        assert_eq!(shelf.offer(&manifest), Offer::Same);
        let empty = Manifest { observed: None, position: Position::default(), ..manifest };
        assert_eq!(shelf.offer(&empty), Offer::Nothing);
    }

    #[test]
    fn half_a_set_changes_nothing() {
        let mut shelf = Shelf::default();
        taken(&mut shelf, &published(1, 1, 500));
        let (manifest, chunks) = published(1, 2, 500);
        let half: Vec<_> = chunks[1..].iter().map(|c| (c.hash.clone(), c.bytes.clone())).collect();
        assert!(matches!(shelf.take(&manifest, &half), Err(Error::NotWhole { .. })));
        assert_eq!((shelf.floor().number, shelf.set().unwrap()[0].id.as_str()), (1, "i-1-0"));
    }

    #[test]
    fn a_beat_renews_the_set_it_names_and_no_other() {
        let mut shelf = Shelf::default();
        taken(&mut shelf, &published(2, 1, 1));
        assert!(shelf.hear(beat(2, 1, 5000)));
        assert!(!shelf.hear(beat(2, 1, 5000)), "the same again is no sign of life");
        assert_eq!(shelf.observed().unwrap().as_second(), 5000);
        assert!(!shelf.hear(beat(1, 7, 6000)), "an older leader's");
        // The beat may be known before the set that it names has been fetched.
        assert!(shelf.hear(beat(2, 2, 7000)));
        assert_eq!(shelf.observed().unwrap().as_second(), 5000);
        taken(&mut shelf, &published(2, 2, 1));
        assert_eq!(shelf.observed().unwrap().as_second(), 7000);
    }

    proptest! {
        /// In whatever order manifests arrive, what is held is whole, and its position only grows.
        #[test]
        fn positions_only_grow(order in prop::collection::vec((1u64..4, 1u64..6), 1..30)) {
            let mut shelf = Shelf::default();
            let mut last = Position::default();
            for (term, number) in order {
                taken(&mut shelf, &published(term, number, 70));
                prop_assert!(shelf.floor() >= last);
                last = shelf.floor();
                let prefix = format!("i-{}-", last.number);
                prop_assert!(shelf.set().unwrap().iter().all(|instance| instance.id.starts_with(&prefix)));
                prop_assert_eq!(shelf.set().unwrap().len(), 70);
            }
        }
    }
}
