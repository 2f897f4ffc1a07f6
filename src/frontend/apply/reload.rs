//! Having a frontend take the outputs that are in place.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Change, Error};
use crate::frontend::config::{Proof, Reload};
use crate::frontend::journal::{FileStamp, Generation, Step};
use crate::frontend::proof;
use crate::frontend::runtime::{self, Evidence, LiveUpdate};
use crate::sys::child::{self, CommandError};
use crate::sys::process::{self, Find, Process};
use crate::sys::signal_state::SignalState;

/// How often it is looked whether a busy process has become ready.
const STEP: Duration = Duration::from_millis(10);

/// How long a busy process is waited for where the proof sets no limit.
const PATIENCE: Duration = Duration::from_secs(20);

impl Change<'_> {
    /// Applies the change over the runtime API, or asks the frontend to reload. Returns its processes as they were before.
    pub(super) async fn apply_live_or_reload(&mut self, swapped_at: u64) -> Result<Option<Generation>, Error> {
        let config = self.config;
        if let Some(runtime) = &config.runtime {
            let last = self.journal.proven().and_then(|proven| proven.evidence.clone());
            match runtime.apply(&self.wanted(swapped_at), last.as_ref()).await? {
                LiveUpdate::Applied => {
                    self.effort.live_updated = true;
                    return Ok(None);
                }
                LiveUpdate::NotNeeded => {}
                LiveUpdate::NeedsReload(why) => {
                    tracing::info!(frontend = %config.name, why, "change needs a reload");
                    if config.reload == Reload::None {
                        return Err(Error::NoReload(why));
                    }
                }
            }
        }
        if let Some(runtime) = config.runtime.as_ref().filter(|_| matches!(config.proof, Proof::Runtime { .. }))
            && let Some(new) = runtime.state_before_reload().await?
        {
            self.amend(|_, mark, _| *mark = Some(Box::new(new)));
        }
        let mut before = None;
        match &config.reload {
            Reload::None => return Ok(None),
            Reload::Command { argv, limit, find } => {
                self.effort.reloaded = true;
                if let Err(error) = child::run(self.unconfined, argv, *limit).await {
                    return Err(self.failed_command(error, find.as_ref()).await);
                }
            }
            Reload::Master { endpoint, limit } => {
                self.effort.reloaded = true;
                runtime::reload_by_master(endpoint, *limit).await?;
                self.begin_reloading(None, true);
            }
            Reload::Signal { signal, find, caught_when_ready } => {
                let process = Process::find(self.unconfined, find).await?;
                self.await_ready(&process, *signal, *caught_when_ready).await?;
                let children = process.children(self.unconfined).await;
                let workers = children.into_iter().map(|child| child.identity).collect();
                let pid_file = find.pid_file().and_then(FileStamp::of);
                before = Some(Generation { frontend: process.identity, workers, pid_file });
                self.begin_reloading(before.clone(), false);
                self.effort.reloaded = true;
                let sent = process.signal(*signal);
                self.begin_reloading(before.clone(), true);
                sent?;
            }
        }
        Ok(before)
    }

    /// Waits until the process would act on the signal at once. A reload that somebody else asked for, and that it is at,
    /// may have read the previous outputs: the generation of workers that comes of it proves nothing. Any that it begins
    /// later reads those in place.
    pub(super) async fn await_ready(
        &self,
        process: &Process,
        signal: Signal,
        caught: Option<Signal>,
    ) -> Result<(), Error> {
        let limit = self.config.proof.limit().unwrap_or(PATIENCE);
        let started = Instant::now();
        while process.signal_state(self.unconfined, signal, caught).await == SignalState::Busy {
            if process.has_ended() {
                return Err(process::Error::Ended(process.identity.pid).into());
            }
            if started.elapsed() >= limit {
                return Err(proof::Error::Busy { pid: process.identity.pid, limit }.into());
            }
            tokio::time::sleep(STEP.max(started.elapsed() / 10).min(10 * STEP)).await;
        }
        Ok(())
    }

    /// What it means that the command failed.
    pub(super) async fn failed_command(&self, source: CommandError, find: Option<&Find>) -> Error {
        let found = match find {
            Some(find) => Some(Process::find(self.unconfined, find).await),
            None => None,
        };
        match found {
            Some(Ok(_)) => Error::Reload(source),
            Some(Err(absence)) if absence.is_not_running() => {
                Error::NothingToReload { absence: absence.into(), source }
            }
            _ if self.config.check.is_some() => Error::ReloadUnclear(source),
            _ => Error::Reload(source),
        }
    }

    /// Records whether the frontend was asked to reload, and its processes as they were before.
    pub(super) fn begin_reloading(&mut self, processes: Option<Generation>, sure: bool) {
        self.amend(|before, _, asked| (*before, *asked) = (processes, sure));
    }

    /// Amends the record of the reload that is under way.
    pub(super) fn amend(&mut self, amend: impl FnOnce(&mut Option<Generation>, &mut Option<Box<Evidence>>, &mut bool)) {
        let mut step = self.journal.step().clone();
        if let Step::Reloading { before, mark, asked, .. } = &mut step {
            amend(before, mark, asked);
            self.journal.begin(step);
        }
    }
}
