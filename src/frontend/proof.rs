//! Evidence, read from the frontend itself, that it runs the new outputs.

use std::time::Duration;

use super::config::Proof;
use super::journal::Generation;
use crate::sys::command;
use crate::sys::process::{Find, Identity, Process};

/// How often the evidence is looked for.
const STEP: Duration = Duration::from_millis(10);

/// How often a command is asked for it.
const COMMAND_STEP: Duration = Duration::from_millis(200);

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signalled process went on with its old children.
    #[error(
        "PID {pid} was signalled and had no new generation of workers within {limit:?}: it refused the new \
         configuration, and its own error log says why; or raise `proof_timeout`"
    )]
    NoNewGeneration {
        /// The process.
        pid: i32,
        /// How long it had.
        limit: Duration,
    },
    /// The command that should show it never succeeded.
    #[error("not proven within {limit:?}: {source}")]
    Command {
        /// How long it had.
        limit: Duration,
        /// What it said last.
        source: command::Error,
    },
}

/// Waits for the evidence that a frontend, which was as `before` says when it was asked to reload, runs what was
/// swapped in at `swapped_at` (ticks since boot). `limit` stands in for the proof's own. Returns the process that runs
/// it.
///
/// # Errors
///
/// None was found in time.
pub async fn await_proof(
    proof: &Proof,
    find: Option<&Find>,
    before: Option<&Generation>,
    swapped_at: u64,
    limit: Option<Duration>,
) -> Result<Option<Identity>, Error> {
    let (own, step) = match proof {
        Proof::None => return Ok(before.map(|generation| generation.frontend)),
        Proof::Workers { limit } => (*limit, STEP),
        Proof::Command { limit, .. } => (*limit, COMMAND_STEP),
    };
    let limit = limit.unwrap_or(own);
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        match look(proof, find, before, swapped_at, limit).await {
            Err(_) if tokio::time::Instant::now() + step < deadline => tokio::time::sleep(step).await,
            found => return found,
        }
    }
}

/// Looks for the evidence once.
async fn look(
    proof: &Proof,
    find: Option<&Find>,
    before: Option<&Generation>,
    swapped_at: u64,
    limit: Duration,
) -> Result<Option<Identity>, Error> {
    let process = before.map(|generation| generation.frontend);
    match (proof, find, before) {
        (Proof::Workers { .. }, Some(find), Some(before)) => new_generation(find, before, swapped_at)
            .map(Some)
            .ok_or(Error::NoNewGeneration { pid: before.frontend.pid, limit }),
        (Proof::Command { argv, .. }, ..) => match command::run(argv, limit).await {
            Ok(()) => Ok(process),
            Err(source) => Err(Error::Command { limit, source }),
        },
        (Proof::None | Proof::Workers { .. }, ..) => Ok(process),
    }
}

/// Looks at the processes once. `None`: no evidence yet.
fn new_generation(find: &Find, before: &Generation, swapped_at: u64) -> Option<Identity> {
    let frontend = Process::find(find).ok()?;
    if frontend.identity != before.frontend {
        // It was restarted meanwhile, and read what was in place then.
        return (frontend.identity.start_ticks > swapped_at).then_some(frontend.identity);
    }
    let (old, new): (Vec<_>, Vec<_>) =
        frontend.children().into_iter().partition(|child| before.workers.contains(&child.identity));
    let old_have_left = old.iter().all(|child| child.title.contains("shutting down"));
    (!new.is_empty() && old_have_left).then_some(frontend.identity)
}
