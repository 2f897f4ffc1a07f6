use std::sync::Arc;

use super::documents::{Documents, SnapshotDocuments};
use super::sources::Sources;

/// What handlers answer from.
#[derive(Debug)]
pub(super) struct Context {
    /// What elasticd knows.
    pub(super) sources: Sources,
    /// The parts of it that are serialised already.
    pub(super) documents: Documents,
}

impl Context {
    pub(super) fn new(sources: Sources) -> Self {
        Self { sources, documents: Documents::new() }
    }

    /// The documents of the newest snapshot. `None`: there is none yet.
    pub(super) fn newest(&self) -> Option<Arc<SnapshotDocuments>> {
        // Cloned first: a borrow would keep the registry from writing while documents are looked up.
        let snapshot = self.sources.snapshot.borrow().clone()?;
        Some(self.documents.of(&snapshot))
    }
}
