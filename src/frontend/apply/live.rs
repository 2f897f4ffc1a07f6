//! What is changed over a runtime API when the rest of a change fails.

use std::collections::BTreeSet;

use super::{Change, Rendered};
use crate::frontend::journal::Proven;
use crate::frontend::runtime::{Evidence, Runtime, Wanted};

impl Change<'_> {
    /// The runtime API, if changes are sent over it.
    pub(super) fn live(&self) -> Option<&Runtime> {
        self.config.runtime.as_ref().filter(|runtime| runtime.protocol.takes_changes())
    }

    pub(super) fn wanted(&self, swapped_at: u64) -> Wanted<'_> {
        let earlier = self.earlier.iter().map(|rendered| rendered.contents.as_slice());
        self.rendered.wanted(self.config, swapped_at, self.staging.store(), self.unconfined).after(earlier)
    }

    /// The check refuses the outputs, which therefore are not in place. What the runtime API can change is not held up by
    /// that: a check loads all files of a frontend, and any of them may be the reason. It is lost if the frontend restarts.
    pub(super) async fn apply_in_part(&mut self) {
        let Some(runtime) = self.live().filter(|runtime| runtime.protocol.applies_in_part()) else { return };
        let Some(proven) = self.journal.proven().cloned() else { return };
        let backends = self.snapshot.services.values().flat_map(|service| &service.backends);
        let in_use = backends.map(|backend| (backend.address, backend.port).into()).collect();
        let wanted = self.wanted(proven.swapped_at).in_part(in_use);
        let applied = runtime.apply(&wanted, proven.evidence.as_ref()).await;
        match applied {
            Ok(_) => {
                self.effort.in_part = true;
                // The frontend runs neither the earlier outputs nor these: after a restart nothing may be concluded from them.
                let digest = self.rendered.digest.clone();
                if proven.digest != digest {
                    self.journal.end(Some(Proven { digest, ..proven }));
                }
            }
            Err(error) => tracing::debug!(frontend = %self.config.name, %error, "cannot apply a part of a change"),
        }
    }

    /// Makes the frontend agree with the files as they are now: its runtime API may have applied a part of a change before
    /// it refused the rest.
    pub(super) async fn restore_live(&self, last: Option<Evidence>) {
        let Some(runtime) = self.live() else { return };
        let outputs = &self.config.outputs;
        let contents: Result<Vec<_>, _> = outputs.iter().map(|o| std::fs::read_to_string(&o.path)).collect();
        let Ok(contents) = contents else { return };
        let previous = Rendered::new(outputs, contents, 0);
        let earlier = self.earlier.iter().map(|earlier| earlier.contents.as_slice());
        let attempted = (!self.earlier.is_empty()).then_some(self.rendered.contents.as_slice());
        let wanted =
            previous.wanted(self.config, 0, self.staging.store(), self.unconfined).after(earlier.chain(attempted));
        if let Err(error) = runtime.apply(&wanted.in_part(BTreeSet::new()), last.as_ref()).await {
            tracing::warn!(frontend = %self.config.name, %error, "failed to restore previous backends over the runtime API");
        }
    }
}
