//! HAProxy's runtime API (chapter 9 of its management guide). Addresses, weights, states and whole servers change in the
//! running process; everything else is left to a reload.
//!
//! The output on disk is authoritative, whatever template wrote it: its `server` lines are compared with
//! `show servers state`. HAProxy cannot be asked about its other lines, nor about the other options of a server. What the
//! running process has read of these is known in two cases: it certainly started after the outputs were last changed, or
//! it is the process that was last proven with the same lines.
//!
//! What others change at the runtime API stays if it is theirs to decide: maintenance, drain, weights, and whether health is
//! checked. It is distinguished from elasticd's own commands by the outputs: what was right in all that elasticd has applied since
//! the worker was last proven, and is not right any more, was changed by others.
//!
//! A server that is added at run time gets the options that it would have after a reload, those of `default-server` lines in
//! the files that HAProxy was started with included.
//!
//! A server that is in no output any more is put into maintenance, where it gets no traffic, and is deleted once its
//! last connections are closed.

mod changes;
mod cli;
mod disk;
mod file;
mod inherited;
mod maps;
mod master;
mod record;
mod server;
pub(in crate::frontend) mod syntax;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use changes::{Changes, Earlier};
use cli::Session;
use file::File;
use futures_util::future::BoxFuture;
use inherited::Inherited;
pub use master::reload_by_master;
use record::{Known, OptionFingerprints, WorkerRecord};
use worker::Worker;

use super::api::{Access, Comparison, Error, Evidence, LiveUpdate, RuntimeApi, Wanted};
use crate::frontend::digest::Digest;

pub(super) struct Haproxy;

impl RuntimeApi for Haproxy {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>> {
        Box::pin(compare(access, wanted, last))
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn applies_in_part(&self) -> bool {
        true
    }

    fn apply<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<LiveUpdate, Error>> {
        Box::pin(apply(access, wanted, last))
    }
}

async fn compare(access: &Access, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<Comparison, Error> {
    let mut session = Session::open(access).await?;
    let inspection = Inspection::of(&mut session, access, wanted, last).await?;
    if let Some(reason) = inspection.unproven() {
        return Ok(Comparison::Differs(reason));
    }
    let changes = inspection.changes();
    if let Some(difference) = changes.reload.or_else(|| changes.commands.first().map(|command| command.reason.clone()))
    {
        return Ok(Comparison::Differs(difference));
    }
    if let Some(difference) = maps::difference(&mut session, wanted).await? {
        return Ok(Comparison::Differs(difference));
    }
    // HAProxy refuses to delete a server that still has connections; that is tried again with the next comparison.
    session.send(&changes.deletions).await?;
    Ok(Comparison::Runs(inspection.evidence(changes.overrides)))
}

async fn apply(access: &Access, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<LiveUpdate, Error> {
    let mut session = Session::open(access).await?;
    let inspection = Inspection::of(&mut session, access, wanted, last).await?;
    let unproven = inspection.unproven();
    let mut changes = inspection.changes();
    let mut reload = unproven.or_else(|| changes.reload.take());
    if reload.is_none() || wanted.in_part.is_some() {
        let commands: Vec<_> = changes.commands.iter().map(|command| command.text.as_str()).collect();
        let answers = session.send(&commands).await?;
        let refused = changes.commands.iter().zip(&answers).find(|(command, answer)| !command.is_done_by(answer));
        reload = reload.or_else(|| {
            refused.map(|(command, answer)| format!("{}: HAProxy refuses `{}`: {answer}", command.reason, command.text))
        });
        session.send(&changes.deletions).await?;
        let refused = maps::replace(&mut session, wanted).await?;
        reload = reload.or(refused);
        if changes.adds() && reload.is_none() {
            let now = Worker::get(&mut session, wanted.unconfined).await?;
            reload = changes.odd_among_siblings(&inspection.worker, &now, &inspection.file);
        }
    }
    match reload {
        None => Ok(LiveUpdate::Applied),
        Some(reason) => {
            worker::wait_for_next_second(inspection.changed_at).await;
            Ok(LiveUpdate::NeedsReload(reason))
        }
    }
}

/// What is wanted and what runs, read at one moment.
struct Inspection {
    file: File,
    /// Of the lines that only a reload can change.
    digest: Digest,
    worker: Worker,
    /// When the outputs were last changed, in ticks since boot; 0: before that.
    changed_at: u64,
    known: Known,
    /// The options that servers inherit from the files that the worker has read before the outputs.
    inherited: Result<Inherited, String>,
    /// What elasticd has applied before.
    earlier: Vec<File>,
    /// Whether the worker is the one that was last proven.
    is_recorded: bool,
    /// What was found to be changed by others before.
    overrides: BTreeMap<String, String>,
    /// As [`Wanted::in_part`] has it.
    in_use: Option<BTreeSet<SocketAddr>>,
}

impl Inspection {
    async fn of(
        session: &mut Session<'_>,
        access: &Access,
        wanted: &Wanted<'_>,
        last: Option<&Evidence>,
    ) -> Result<Self, Error> {
        let worker = Worker::get(session, wanted.unconfined).await?;
        let record = last.and_then(|last| WorkerRecord::parse(last.identity.as_deref()?));
        let is_recorded = record.as_ref().is_some_and(|record| record.worker == worker.identity());
        let recorded = last.filter(|_| is_recorded).and_then(|last| Inherited::from_record(last.details.as_deref()?));
        let inherited = match recorded {
            Some(inherited) => Ok(inherited),
            None => disk::inherited(session, access, wanted, &worker).await?,
        };
        let read = |contents: &[String]| {
            let contents = contents.iter().map(String::as_str).filter(|content| syntax::is_configuration(content));
            File::of(contents, inherited.as_ref().cloned().unwrap_or_default())
        };
        let contents: Vec<_> = wanted.outputs.iter().map(|(_, content)| (*content).to_owned()).collect();
        let file = read(&contents);
        let earlier = wanted.earlier.iter().map(|contents| read(contents)).collect();
        let digest = Digest::of(file.reload_only.as_bytes());
        let changed_at = disk::outputs_changed_at(wanted);
        let record = record.filter(|_| last.is_some_and(|last| last.digest.as_ref() == Some(&digest)));
        let known = match record {
            _ if worker.has_started_after(changed_at) => Known::AsWanted,
            // The proven worker, or one that started since then and has read what was in place at its start.
            Some(record)
                if is_recorded
                    || worker.has_started_after(record.changed_at)
                        && disk::previous(wanted, record.changed_at)
                            .is_some_and(|previous| previous.reload_only == file.reload_only) =>
            {
                Known::Options(record.options)
            }
            _ => Known::Nothing,
        };
        let overrides = last.map(|last| last.overrides.clone()).unwrap_or_default();
        let in_use = wanted.in_part.clone();
        Ok(Self { file, digest, worker, changed_at, known, inherited, earlier, is_recorded, overrides, in_use })
    }

    /// Why it is not known whether the worker has read the lines that only a reload can change.
    fn unproven(&self) -> Option<String> {
        matches!(self.known, Known::Nothing).then(|| {
            format!(
                "HAProxy's worker {} is not known to have read the lines that only a reload can change",
                self.worker.pid
            )
        })
    }

    fn earlier(&self) -> Earlier<'_> {
        let Self { earlier, is_recorded, overrides, in_use, .. } = self;
        Earlier { files: earlier, is_same_worker: *is_recorded, overrides, in_use: in_use.as_ref() }
    }

    fn changes(&self) -> Changes {
        let can_add = self.inherited.as_ref().map(drop).map_err(String::as_str);
        Changes::between(&self.worker, &self.file, &self.known, &self.earlier(), can_add)
    }

    fn evidence(&self, overrides: BTreeMap<String, String>) -> Evidence {
        let options = OptionFingerprints::of(&self.file, &self.worker, &self.known);
        let record = WorkerRecord { worker: self.worker.identity(), changed_at: self.changed_at, options };
        let details = self.inherited.as_ref().ok().map(Inherited::to_record);
        Evidence { identity: Some(record.to_string()), digest: Some(self.digest.clone()), overrides, details }
    }
}

#[cfg(test)]
mod tests;
