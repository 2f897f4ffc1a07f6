//! What the outputs of a frontend are at a snapshot, and which files are outputs no more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Running;
use crate::frontend::apply::Rendered;
use crate::frontend::config::{Config, Output};
use crate::frontend::journal::Step;
use crate::frontend::orphans::{self, Written};
use crate::frontend::{rendering, template};
use crate::model::Snapshot;
use crate::status::OrphanedOutput;

impl Running {
    /// Finds out what templates can use of the machine and of the frontend's program. A program is asked only if another
    /// process runs than before, or if there is none to be known by and the snapshot is a new one.
    pub(super) async fn update_facts(&mut self, snapshot: &Arc<Snapshot>) {
        if self.config.depends_on_own_zone {
            self.facts.own_zone = self.config.own_zone.clone().or_else(|| self.own_zone.borrow_and_update().clone());
        }
        if self.config.version_command().is_none() {
            return;
        }
        let process = self.process().await;
        let is_rendered = self.rendered.as_ref().is_some_and(|(of, ..)| Arc::ptr_eq(of, snapshot));
        if self.version_of != Some(process) || (process.is_none() && !is_rendered) {
            self.facts.version = self.config.look_up_version(process, &self.unconfined).await;
            self.version_of = Some(process);
        }
    }

    pub(super) fn render(&mut self, snapshot: Arc<Snapshot>) -> Result<Arc<Rendered>, rendering::Error> {
        let last = self.rendered.as_ref();
        if let Some((.., rendered)) = last.filter(|(of, facts, _)| Arc::ptr_eq(of, &snapshot) && *facts == self.facts) {
            return Ok(Arc::clone(rendered));
        }
        self.follow_services(&snapshot)?;
        let rendering = self.config.render(&self.templates, &snapshot, &self.facts)?;
        self.report_left_out(rendering.left_out);
        let rendered = Arc::new(Rendered::new(&self.config.outputs, rendering.contents, snapshot.revision));
        self.rendered = Some((snapshot, self.facts.clone(), Arc::clone(&rendered)));
        Ok(rendered)
    }

    /// Has an output for each service that there is now, where the configuration asks for that.
    pub(super) fn follow_services(&mut self, snapshot: &Snapshot) -> Result<(), template::Error> {
        let Some(outputs) = self.configured.outputs_at(snapshot) else { return Ok(()) };
        let is_free = |output: &Output| !self.outputs.is_of_another(&self.config.name, &output.path);
        let (outputs, taken): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_free);
        for output in taken {
            tracing::error!(frontend = %self.config.name, path = %output.path.display(), service = ?output.service,
                "a service that tags create has no output, as another frontend writes its file; name one of them otherwise");
        }
        if outputs == self.config.outputs {
            return Ok(());
        }
        let config = Config { outputs, ..self.configured.clone() };
        self.templates = config.templates()?;
        self.config = config;
        let paths = || self.config.outputs.iter().map(|output| output.path.clone());
        self.outputs
            .set(&self.config.name, paths().chain(self.config.per_service.iter().map(|output| output.path.clone())));
        self.unconfined.allow_directories(paths().filter_map(|path| path.parent().map(Path::to_owned)));
        if let Err(error) = self.staging.lock(&self.config.outputs) {
            tracing::error!(frontend = %self.config.name, %error, "cannot lock the output of a service that tags create");
        }
        Ok(())
    }

    /// Names the files that elasticd wrote for this frontend and that are no outputs any more. Returns those that are to
    /// be removed now.
    pub(super) fn find_orphans(&mut self) -> Vec<PathBuf> {
        let name = self.config.name.clone();
        let is_output = |path: &Path| self.config.outputs.iter().any(|output| output.path == path);
        let former: Vec<_> = self.journal.written().iter().filter(|(path, _)| !is_output(path)).collect();
        let (mut found, mut others, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (path, digests) in former {
            match orphans::written(path, digests) {
                _ if self.outputs.is_of_another(&name, path) => others.push(path.clone()),
                Written::Gone => gone.push(path.clone()),
                Written::InPlace => {
                    found.push(OrphanedOutput { path: path.clone(), frontend: name.clone(), edited: false })
                }
                Written::Edited => {
                    found.push(OrphanedOutput { path: path.clone(), frontend: name.clone(), edited: true })
                }
            }
        }
        for path in others.iter().chain(&gone) {
            self.journal.forget_written(path);
        }
        if !gone.is_empty() && *self.journal.step() == Step::Idle && self.journal.proven().is_some() {
            tracing::info!(frontend = %name, paths = ?gone, "a former output was removed; the frontend is checked and reloaded");
            self.journal.end(None);
        }
        for orphan in found.iter().filter(|orphan| !self.orphans.contains(orphan)) {
            orphans::log(orphan);
        }
        self.say(|report| report.orphaned_outputs.clone_from(&found));
        let is_pruned = self.is_prune_asked || self.configured.prune;
        let removed = found.iter().filter(|orphan| is_pruned && !orphan.edited).map(|orphan| orphan.path.clone());
        let removed = removed.collect();
        self.orphans = found;
        removed
    }

    /// Records what is in place.
    pub(super) fn set_written(&mut self, rendered: &Rendered) {
        let paths = self.config.outputs.iter().map(|output| output.path.clone());
        self.journal.set_written(paths.zip(rendered.digests.iter().cloned()));
    }
}
