//! Evidence, read from the frontend itself, that it runs the new outputs.

use std::time::Duration;

use super::config::{Config, Proof, Reload};
use super::journal::{FileStamp, Generation};
use super::runtime::{self, Comparison, Evidence, LiveUpdate, Wanted};
use crate::sys::child::{self, CommandError};
use crate::sys::process::{Find, Identity, Process};
use crate::sys::signal_state::SignalState;
use crate::sys::unconfined::Unconfined;
use crate::units::HumanDuration;

/// How often the evidence is looked for.
const STEP: Duration = Duration::from_millis(10);

/// How often a command is asked for it.
const COMMAND_STEP: Duration = Duration::from_millis(200);

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signalled process went on with its old children.
    #[error(
        "PID {pid} was signalled and had no new generation of workers within {}: it refused the new \
         configuration, and its own error log says why; or raise `proof_timeout`",
        HumanDuration(*limit)
    )]
    NoNewGeneration {
        /// The process.
        pid: i32,
        /// How long it had.
        limit: Duration,
    },
    /// The process is at a reload: this one, or one that somebody else asked for.
    #[error(
        "PID {pid} is still at a reload after {}: the new configuration is in place, and whether it is taken shows when that \
         is over; the frontend's own error log may say what holds it up",
        HumanDuration(*limit)
    )]
    Busy {
        /// The process.
        pid: i32,
        /// How long it had.
        limit: Duration,
    },
    /// The signalled process is gone.
    #[error(
        "PID {pid} ended when it was asked to take the new configuration; start the frontend again, with the previous \
         configuration, which is back in place; its own error log says why. The new one is not tried again before it \
         changes, or elasticd is restarted"
    )]
    Ended {
        /// The process.
        pid: i32,
    },
    /// By its runtime API, the frontend does not run what it should.
    #[error("the frontend does not run the new configuration after {}: {how}; its own log may say why", HumanDuration(*limit))]
    Differs {
        /// How long it had.
        limit: Duration,
        /// In which way.
        how: String,
    },
    /// Its runtime API cannot be asked.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The command that should show it never succeeded.
    #[error("not proven within {}: {source}", HumanDuration(*limit))]
    Command {
        /// How long it had.
        limit: Duration,
        /// What it said last.
        source: CommandError,
    },
}

/// A frontend of which the evidence is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its proof, and how it is found.
    pub config: &'a Config,
    /// What it should run.
    pub wanted: &'a Wanted<'a>,
    /// Its processes when it was asked to reload. `None`: it was not found by a process.
    pub before: Option<&'a Generation>,
    /// What it was proven to run before.
    pub last: Option<&'a Evidence>,
    /// Where processes are examined and commands started.
    pub unconfined: &'a Unconfined,
}

/// The process that runs the new outputs, if the frontend is known by a process, and the evidence of its runtime API, if
/// it has one.
pub type Found = (Option<Identity>, Option<Evidence>);

impl Asked<'_> {
    /// Waits for the evidence, for as long as the proof's own limit, or for `limit` if there is one.
    ///
    /// # Errors
    ///
    /// None was found in time.
    pub async fn await_proof(self, limit: Option<Duration>) -> Result<Found, Error> {
        let step = if matches!(self.config.proof, Proof::Command { .. }) { COMMAND_STEP } else { STEP };
        let limit = limit.or(self.config.proof.limit()).unwrap_or_default();
        // As long as this one runs it is what the executable would be found by: nothing else need be looked at.
        let signalled = self.before.and_then(|before| Process::hold(before.frontend));
        let started = tokio::time::Instant::now();
        let mut updated_at = None;
        loop {
            match self.look(signalled.as_ref(), limit).await {
                Ok(found) => return Ok(found),
                Err(Error::Differs { .. }) if self.update_live(&mut updated_at).await => {}
                Err(error) => {
                    let error = self.ended(signalled.as_ref()).await.unwrap_or(error);
                    let limit = if matches!(error, Error::Ended { .. }) {
                        limit.min(self.config.pacing.restart_grace)
                    } else {
                        limit
                    };
                    if started.elapsed() + step >= limit {
                        return Err(self.busy(signalled.as_ref(), limit).await.unwrap_or(error));
                    }
                    // An API is asked less and less often: some frontends take seconds to read their files.
                    tokio::time::sleep(step.max(started.elapsed() / 10).min(COMMAND_STEP)).await;
                }
            }
        }
    }

    /// Whether the process that was signalled has not come to it yet.
    async fn busy(&self, signalled: Option<&Process>, limit: Duration) -> Option<Error> {
        let Reload::Signal { signal, caught_when_ready, .. } = &self.config.reload else { return None };
        let process = signalled.filter(|process| !process.has_ended())?;
        let state = process.signal_state(self.unconfined, *signal, *caught_when_ready).await;
        (state == SignalState::Busy).then_some(Error::Busy { pid: process.identity.pid, limit })
    }

    /// Applies what differs over the runtime API. A frontend that has just been reloaded may have restored a state of its
    /// own, and others may have reloaded it with earlier files. `true`: it should agree now.
    async fn update_live(&self, updated_at: &mut Option<tokio::time::Instant>) -> bool {
        /// Whatever undoes the change all the time is not fought without a pause.
        const GAP: Duration = Duration::from_secs(1);
        let Some(runtime) = self.config.runtime.as_ref().filter(|runtime| runtime.protocol.takes_changes()) else {
            return false;
        };
        if updated_at.is_some_and(|at| at.elapsed() < GAP) {
            return false;
        }
        let is_updated = matches!(runtime.apply(self.wanted, self.last).await, Ok(LiveUpdate::Applied));
        if is_updated {
            *updated_at = Some(tokio::time::Instant::now());
        }
        is_updated
    }

    /// Whether the process that was signalled is gone, and no other has taken its place.
    async fn ended(&self, signalled: Option<&Process>) -> Option<Error> {
        let (find, before) = self.config.find().zip(self.before)?;
        if signalled.is_some_and(|process| !process.has_ended()) {
            return None;
        }
        let is_gone = matches!(Process::find(self.unconfined, find).await, Err(error) if error.is_not_running());
        is_gone.then_some(Error::Ended { pid: before.frontend.pid })
    }

    /// Looks for the evidence once.
    async fn look(&self, signalled: Option<&Process>, limit: Duration) -> Result<Found, Error> {
        let Self { config, wanted, before, last, unconfined } = *self;
        let process = before.map(|generation| generation.frontend);
        match (&config.proof, config.find(), before) {
            (proof @ (Proof::Workers { .. } | Proof::Generation { .. }), Some(find), Some(before)) => {
                let old_leave = matches!(proof, Proof::Workers { .. });
                let reload = Signalled { find, process: signalled, before, old_leave };
                let found = reload.new_generation(unconfined, wanted.swapped_at).await;
                found
                    .map(|process| (Some(process), None))
                    .ok_or(Error::NoNewGeneration { pid: before.frontend.pid, limit })
            }
            (Proof::Command { argv, .. }, ..) => match child::run(unconfined, argv, limit).await {
                Ok(()) => Ok((process.or(config.seen_process(unconfined).await), None)),
                Err(source) => Err(Error::Command { limit, source }),
            },
            (Proof::Runtime { .. }, ..) => {
                let Some(runtime) = &config.runtime else { return Ok((process, None)) };
                match runtime.compare(wanted, last).await {
                    Ok(Comparison::Runs(evidence)) => {
                        // A frontend that replaces itself on a reload is another process by now.
                        let now = config.find_process(unconfined).await.and_then(Result::ok);
                        Ok((now.map(|process| process.identity).or(process), Some(evidence)))
                    }
                    Ok(Comparison::Differs(how)) => Err(Error::Differs { limit, how }),
                    Err(source) => Err(Error::Runtime(source)),
                }
            }
            (Proof::None, ..) => Ok((process.or(config.seen_process(unconfined).await), None)),
            (Proof::Workers { .. } | Proof::Generation { .. }, ..) => Ok((process, None)),
        }
    }
}

/// A frontend that was signalled, and what shows that it has reloaded.
struct Signalled<'a> {
    find: &'a Find,
    /// The process that was signalled. `None`: it has ended.
    process: Option<&'a Process>,
    /// Its processes when it was signalled.
    before: &'a Generation,
    /// Whether the old workers must leave.
    old_leave: bool,
}

impl Signalled<'_> {
    /// Looks at the processes once. `None`: no evidence yet.
    ///
    /// A new child may be just one more of the old generation. So where `old_leave`, the old ones must be gone too or,
    /// by their title, be about to. Otherwise they may finish what they have begun, under titles that tell nothing, and
    /// the pid file must have been written anew: Apache does that at every graceful restart, once it has read the whole
    /// new configuration without a fault and before it forks (`ap_log_pid`, first thing in each of its
    /// multi-processing modules' runs).
    async fn new_generation(&self, unconfined: &Unconfined, swapped_at: u64) -> Option<Identity> {
        // A search by executable looks at every process of the machine: it is not repeated as long as the process that
        // it found still runs, but once more when there is evidence.
        let is_search = self.find.pid_file().is_none();
        if let Some(process) = self.process.filter(|process| is_search && !process.has_ended()) {
            self.is_reloaded(process, unconfined).await.then_some(())?;
            let found = Process::find(unconfined, self.find).await.ok()?;
            return (found.identity == process.identity).then_some(found.identity);
        }
        let frontend = Process::find(unconfined, self.find).await.ok()?;
        if frontend.identity != self.before.frontend {
            // It was restarted meanwhile, and read what was in place then.
            return (frontend.identity.start_ticks > swapped_at).then_some(frontend.identity);
        }
        self.is_reloaded(&frontend, unconfined).await.then_some(frontend.identity)
    }

    async fn is_reloaded(&self, frontend: &Process, unconfined: &Unconfined) -> bool {
        let children = frontend.children(unconfined).await.into_iter();
        let (old, new): (Vec<_>, Vec<_>) = children.partition(|child| self.before.workers.contains(&child.identity));
        let is_taken = if self.old_leave {
            old.iter().all(|child| child.title.contains("shutting down"))
        } else {
            self.find.pid_file().is_none_or(|path| FileStamp::of(path) != self.before.pid_file)
        };
        !new.is_empty() && is_taken
    }
}
