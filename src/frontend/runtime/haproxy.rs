//! HAProxy's runtime API (chapter 9 of its management guide). Addresses, weights, states and whole servers change in the
//! running process; everything else is left to a reload.
//!
//! The output on disk is authoritative, whatever template wrote it: its `server` lines are compared with
//! `show servers state`. HAProxy cannot be asked about its other lines, nor about the other options of a server. What the
//! running process has read of these is known in two cases: it certainly started after the outputs were last changed, or
//! it is the process that was last proven with the same lines.
//!
//! A server that is in no output any more is put into maintenance, where it gets no traffic, and is deleted once its
//! last connections are closed.

mod changes;
mod cli;
mod disk;
mod file;
mod maps;
mod master;
mod record;
pub(in crate::frontend) mod syntax;
mod worker;

use changes::Changes;
use cli::Session;
use file::File;
use futures_util::future::BoxFuture;
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
    let inspection = Inspection::of(&mut session, wanted, last).await?;
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
    Ok(Comparison::Runs(inspection.evidence()))
}

async fn apply(access: &Access, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<LiveUpdate, Error> {
    let mut session = Session::open(access).await?;
    let inspection = Inspection::of(&mut session, wanted, last).await?;
    let unproven = inspection.unproven();
    // Outputs that are not on record were restored after a failed change: their servers are restored as far as possible.
    let is_restoring = wanted.swapped_at == 0;
    let changes = inspection.changes();
    let mut reload = if is_restoring { changes.reload.or(unproven) } else { unproven.or(changes.reload) };
    if reload.is_none() || is_restoring {
        let commands: Vec<_> = changes.commands.iter().map(|command| command.text.as_str()).collect();
        let answers = session.send(&commands).await?;
        let refused = changes.commands.iter().zip(&answers).find(|(command, answer)| !command.is_done_by(answer));
        reload = reload.or_else(|| {
            refused.map(|(command, answer)| format!("{}: HAProxy refuses `{}`: {answer}", command.reason, command.text))
        });
        session.send(&changes.deletions).await?;
        let refused = maps::replace(&mut session, wanted).await?;
        reload = reload.or(refused);
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
}

impl Inspection {
    async fn of(session: &mut Session<'_>, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<Self, Error> {
        let mut file = File::default();
        for (_, content) in wanted.outputs.iter().filter(|(_, content)| syntax::is_configuration(content)) {
            file.read(content);
        }
        let digest = Digest::of(file.reload_only.as_bytes());
        let worker = Worker::get(session, wanted.unconfined).await?;
        let changed_at = disk::outputs_changed_at(wanted);
        let last = last.filter(|last| last.digest.as_ref() == Some(&digest));
        let last = last.and_then(|last| WorkerRecord::parse(last.identity.as_deref()?));
        let known = match last {
            _ if worker.has_started_after(changed_at) => Known::AsWanted,
            // The proven worker, or one that started since then and has read what was in place at its start.
            Some(last)
                if last.worker == worker.identity()
                    || worker.has_started_after(last.changed_at)
                        && disk::previous(wanted, last.changed_at)
                            .is_some_and(|previous| previous.reload_only == file.reload_only) =>
            {
                Known::Options(last.options)
            }
            _ => Known::Nothing,
        };
        Ok(Self { file, digest, worker, changed_at, known })
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

    fn changes(&self) -> Changes {
        Changes::between(&self.worker, &self.file, &self.known)
    }

    fn evidence(&self) -> Evidence {
        let options = OptionFingerprints::of(&self.file, &self.worker, &self.known);
        let record = WorkerRecord { worker: self.worker.identity(), changed_at: self.changed_at, options };
        Evidence { identity: Some(record.to_string()), digest: Some(self.digest.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "Name: HAProxy\nPid: 7\nUptime_sec: 1\nStart_time_sec: 1";
    const HEAD: &str = "1\n# be_id be_name …\n";

    fn state(pool: &str, name: &str, address: &str, admin: u16, weight: u16) -> String {
        format!("3 {pool} 1 {name} {address} 2 {admin} {weight} 1 9 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n")
    }

    fn inspection(text: &str, servers: &str, known: Known) -> Inspection {
        let mut file = File::default();
        file.read(text);
        let worker = Worker::parse(INFO, "# name\nweb\n", &format!("{HEAD}{servers}"), 0).expect("well formed");
        Inspection { digest: Digest::of(file.reload_only.as_bytes()), file, worker, changed_at: 0, known }
    }

    fn commands(changes: &Changes) -> Vec<&str> {
        changes.commands.iter().map(|command| command.text.as_str()).collect()
    }

    #[test]
    fn differences_become_commands_and_new_servers_come_first() {
        let file = "backend web\n server a 10.0.0.9:81 weight 5\n server new [::1]:80 weight 2 check inter 2s\n \
                    server off 10.0.0.3:80 disabled\n server same 10.0.0.4:80\n server zero 10.0.0.5:80 weight 0\n";
        let servers = [
            state("web", "a", "10.0.0.1", 1, 1),
            state("web", "off", "10.0.0.3", 0, 1),
            state("web", "same", "10.0.0.4", 4, 1),
            state("web", "zero", "10.0.0.5", 8, 1),
            state("web", "gone", "10.0.0.6", 0, 1),
            state("web", "leaving", "10.0.0.7", 1, 1),
            state("other", "x", "10.0.0.8", 0, 1),
        ]
        .concat();
        let changes = inspection(file, &servers, Known::AsWanted).changes();
        assert_eq!(
            commands(&changes),
            [
                "set server web/a addr 10.0.0.9 port 81",
                "set server web/a weight 5",
                "set server web/a state ready",
                "add server web/new [::1]:80 weight 2 check inter 2s",
                "enable health web/new",
                "enable server web/new",
                "set server web/off state maint",
                "set server web/zero weight 0%",
                "set server web/zero state ready",
                "set server web/gone state maint",
            ]
        );
        assert_eq!(changes.deletions, ["del server web/gone", "del server web/leaving"]);
        assert_eq!(changes.reload, None);
    }

    #[test]
    fn changes_that_no_command_can_make_need_a_reload() {
        let reload = |file: &str| inspection(file, "", Known::AsWanted).changes().reload.expect("a reason");
        assert!(reload("backend new\n").contains("no backend \"new\""));
        assert!(reload("backend web\n server a example.com:80\n").contains("web/a"));
        assert!(reload("backend web\n server a 10.0.0.1:80 sni str(a;b)\n").contains("cannot be added at run time"));
    }

    #[test]
    fn changed_options_of_a_server_are_recognised_from_the_record() {
        let with = |a: &str, b: &str| format!("backend web\n server a 10.0.0.1:80 {a}\n server b 10.0.0.2:80 {b}\n");
        let servers = state("web", "a", "10.0.0.1", 0, 1) + &state("web", "b", "10.0.0.2", 0, 1);
        let known = |a: &str, b: &str| {
            let proven = inspection(&with(a, b), &servers, Known::AsWanted);
            let record = WorkerRecord::parse(&proven.evidence().identity.expect("a record"));
            Known::Options(record.expect("as written").options)
        };
        let needs_reload =
            |known, a: &str, b: &str| inspection(&with(a, b), &servers, known).changes().reload.is_some();
        for (a, b) in [("", ""), ("backup", ""), ("check", "check")] {
            assert!(!needs_reload(known(a, b), a, b), "{a} {b}");
        }
        assert!(needs_reload(known("", ""), "backup", ""));
        assert!(needs_reload(known("backup", ""), "", "backup"), "exchanged");
        // Only `a` is in the file, while `b` still runs.
        let only_a = inspection("backend web\n server a 10.0.0.1:80 backup\n", &servers, known("backup", ""));
        let after = OptionFingerprints::of(&only_a.file, &only_a.worker, &only_a.known);
        assert!(needs_reload(Known::Options(after), "backup", "backup"), "b still runs without the option");
    }

    #[test]
    fn a_worker_that_started_before_the_change_is_known_by_its_record_alone() {
        let file = "backend web\n balance first\n";
        let inspection = inspection(file, "", Known::Nothing);
        assert!(inspection.unproven().expect("not known").contains("worker 7"));
        assert!(!inspection.worker.has_started_after(1));
        assert_eq!(inspection.evidence().digest, Some(Digest::of(inspection.file.reload_only.as_bytes())));
    }

    #[test]
    fn malformed_answers_are_not_taken_for_agreement() {
        assert!(Worker::parse("", "", HEAD, 0).is_none());
        assert!(Worker::parse(INFO, "", "Permission denied", 0).is_none());
        assert!(Worker::parse(INFO, "web", &format!("{HEAD}3 web 1 a"), 0).is_none());
    }
}
