//! HAProxy's runtime API (chapter 9 of its management guide): addresses, weights, states and whole servers change in
//! the running process; what cannot is left to a reload.
//!
//! What counts is the output as it stands: whatever template wrote it, its `server` lines are compared with
//! `show servers state`. HAProxy cannot be asked about the other lines, nor about a server's other options. Of these it
//! is known what the running process has read: either it certainly started after the outputs were last changed, or it
//! is the one that was last proven to have read just these.
//!
//! A server that is left over is put into maintenance, in which it gets no traffic, and deleted once its last
//! connections are gone.

mod cli;
mod file;
mod maps;
mod master;
mod proven;
mod running;

use std::collections::BTreeSet;

use cli::Session;
use file::{File, Server};
pub(super) use master::reload_by_master;
use proven::{Options, Proven};
use running::{Running, State};

use super::{Comparison, Error, Evidence, LiveUpdate, Runtime, Wanted};
use crate::frontend::digest::Digest;

pub(super) async fn compare(
    runtime: &Runtime,
    wanted: &Wanted<'_>,
    last: Option<&Evidence>,
) -> Result<Comparison, Error> {
    let mut session = Session::open(runtime).await?;
    let asked = Asked::ask(&mut session, wanted, last).await?;
    if let Some(why) = asked.unknown() {
        return Ok(Comparison::Differs(why));
    }
    let difference = asked.difference();
    if let Some(how) = difference.reload.or_else(|| difference.commands.first().map(|told| told.what.clone())) {
        return Ok(Comparison::Differs(how));
    }
    if let Some(how) = maps::differ(&mut session, wanted).await? {
        return Ok(Comparison::Differs(how));
    }
    // Refused as long as they have connections; nothing depends on it.
    session.ask(&difference.leftovers).await?;
    Ok(Comparison::Runs(asked.evidence()))
}

pub(super) async fn apply(
    runtime: &Runtime,
    wanted: &Wanted<'_>,
    last: Option<&Evidence>,
) -> Result<LiveUpdate, Error> {
    let mut session = Session::open(runtime).await?;
    let asked = Asked::ask(&mut session, wanted, last).await?;
    let unknown = asked.unknown();
    // What is on no record is what a failed change went back to: there the servers are brought back as far as may be.
    if let Some(why) = unknown.as_ref().filter(|_| wanted.swapped_at > 0) {
        running::await_other_second(asked.changed_at).await;
        return Ok(LiveUpdate::NeedsReload(why.clone()));
    }
    let difference = asked.difference();
    let mut reload = difference.reload.or(unknown);
    if reload.is_none() || wanted.swapped_at == 0 {
        let commands: Vec<_> = difference.commands.iter().map(|told| told.command.as_str()).collect();
        let answers = session.ask(&commands).await?;
        let refused = difference.commands.iter().zip(&answers).find(|(told, answer)| !told.expects.is_met_by(answer));
        reload = reload.or_else(|| {
            refused.map(|(told, answer)| format!("{}: HAProxy refuses `{}`: {answer}", told.what, told.command))
        });
        session.ask(&difference.leftovers).await?;
        let refused = maps::tell(&mut session, wanted).await?;
        reload = reload.or(refused);
    }
    match reload {
        None => Ok(LiveUpdate::Applied),
        Some(why) => {
            running::await_other_second(asked.changed_at).await;
            Ok(LiveUpdate::NeedsReload(why))
        }
    }
}

/// What is wanted, what runs, and what is known of it.
struct Asked {
    file: File,
    fixed: Digest,
    running: Running,
    changed_at: u64,
    /// What each server's other options are in the running process.
    known: Known,
}

/// What is known of the lines that HAProxy cannot be asked about.
enum Known {
    /// Nothing.
    Nothing,
    /// The process has read the outputs as they are.
    AsWanted,
    /// Fingerprints of the servers' options, as they were last proven.
    Options(Options),
}

impl Asked {
    async fn ask(session: &mut Session<'_>, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<Self, Error> {
        let mut file = File::default();
        for (_, content) in wanted.outputs.iter().filter(|(_, content)| file::is_configuration(content)) {
            file.read(content);
        }
        let fixed = Digest::of(file.fixed.as_bytes());
        let running = Running::ask(session).await?;
        let changed_at = running::outputs_changed_at(wanted);
        let last = last.filter(|last| last.fixed.as_ref() == Some(&fixed));
        let last = last.and_then(|last| Proven::parse(last.instance.as_deref()?));
        let known = match last {
            _ if running.has_started_after(changed_at) => Known::AsWanted,
            // The same one, or one started since, which has read what was then in place.
            Some(last)
                if last.worker == running.identity()
                    || running.has_started_after(last.changed_at)
                        && file::previous(wanted, last.changed_at)
                            .is_some_and(|previous| previous.fixed == file.fixed) =>
            {
                Known::Options(last.options)
            }
            _ => Known::Nothing,
        };
        Ok(Self { file, fixed, running, changed_at, known })
    }

    /// Why it is not known whether the fixed part is what it should be.
    fn unknown(&self) -> Option<String> {
        matches!(self.known, Known::Nothing).then(|| {
            format!(
                "HAProxy's worker {} is not known to have read the lines that only a reload can change",
                self.running.pid
            )
        })
    }

    fn difference(&self) -> Difference {
        let mut difference = Difference::default();
        for (pool, servers) in &self.file.pools {
            let Some(running) = self.running.pools.get(pool) else {
                difference.reload.get_or_insert_with(|| format!("HAProxy has no backend {pool:?}"));
                continue;
            };
            for server in servers {
                match running.get(&server.name) {
                    Some(_) if self.known.differs(pool, server) => {
                        let why = || format!("the options of server {pool}/{} have changed", server.name);
                        difference.reload.get_or_insert_with(why);
                    }
                    Some(state) => difference.bring(pool, server, state),
                    None => difference.add(pool, server),
                }
            }
            let wanted: BTreeSet<_> = servers.iter().map(|server| server.name.as_str()).collect();
            for (name, state) in running.iter().filter(|(name, _)| !wanted.contains(name.as_str())) {
                if !state.is_in_maintenance() {
                    difference.tell(format!("set server {pool}/{name} state maint"), Expect::Nothing, || {
                        format!("{pool}/{name} is still there")
                    });
                }
                difference.leftovers.push(format!("del server {pool}/{name}"));
            }
        }
        difference
    }

    fn evidence(&self) -> Evidence {
        let options = Options::of(&self.file, &self.running, &self.known);
        let proven = Proven { worker: self.running.identity(), changed_at: self.changed_at, options };
        Evidence { instance: Some(proven.written()), fixed: Some(self.fixed.clone()) }
    }
}

/// How what runs differs from what is wanted.
#[derive(Default)]
struct Difference {
    /// Why a reload is needed.
    reload: Option<String>,
    /// What makes the rest agree, in this order.
    commands: Vec<Told>,
    /// What may be tried after that.
    leftovers: Vec<String>,
}

/// A command, and what the matter is.
struct Told {
    command: String,
    expects: Expect,
    what: String,
}

/// The answer of a command that was obeyed.
#[derive(Clone, Copy)]
enum Expect {
    Nothing,
    Registered,
    Address,
}

impl Expect {
    fn is_met_by(self, answer: &str) -> bool {
        match self {
            Self::Nothing => answer.is_empty(),
            Self::Registered => answer.ends_with("New server registered."),
            Self::Address => answer.contains("changed from") || answer.starts_with("no need to change"),
        }
    }
}

impl Difference {
    fn tell(&mut self, command: String, expects: Expect, what: impl FnOnce() -> String) {
        self.commands.push(Told { command, expects, what: what() });
    }

    /// Makes a server that runs what it should be.
    fn bring(&mut self, pool: &str, server: &Server, state: &State) {
        let name = format!("{pool}/{}", server.name);
        if let Some((ip, port)) = server.address
            && state.address != Some((ip, port))
        {
            let command = format!("set server {name} addr {ip} port {port}");
            self.tell(command, Expect::Address, || {
                let is = state.address.map_or_else(|| "elsewhere".to_owned(), Server::written_address);
                format!("{name} is at {is} and not {}", Server::written_address((ip, port)))
            });
        }
        if state.weight != server.weight {
            // Where the balance algorithm is static, only all or nothing of the initial weight can be told.
            let weight = match server.weight {
                0 => "0%".to_owned(),
                weight if weight == state.initial_weight => "100%".to_owned(),
                weight => weight.to_string(),
            };
            self.tell(format!("set server {name} weight {weight}"), Expect::Nothing, || {
                format!("{name} has weight {} and not {}", state.weight, server.weight)
            });
        }
        if server.check && !state.is_checked() {
            let what = || format!("the health of {name} is not checked");
            self.tell(format!("enable health {name}"), Expect::Nothing, what);
        }
        if server.disabled && !state.is_in_maintenance() {
            self.tell(format!("set server {name} state maint"), Expect::Nothing, || format!("{name} is not disabled"));
        }
        if !server.disabled && !state.is_ready() {
            self.tell(format!("set server {name} state ready"), Expect::Nothing, || format!("{name} is disabled"));
        }
    }

    fn add(&mut self, pool: &str, server: &Server) {
        let name = format!("{pool}/{}", server.name);
        let Some(address) = server.address.filter(|_| server.tellable) else {
            self.reload.get_or_insert_with(|| format!("the new server {name} has what cannot be told at run time"));
            return;
        };
        let address = Server::written_address(address);
        let space = if server.options.is_empty() { "" } else { " " };
        let command = format!("add server {name} {address} weight {}{space}{}", server.weight, server.options);
        self.tell(command, Expect::Registered, || format!("{name} is missing"));
        if server.check {
            let what = || format!("the health of the new server {name} is not checked");
            self.tell(format!("enable health {name}"), Expect::Nothing, what);
        }
        if !server.disabled {
            self.tell(format!("enable server {name}"), Expect::Nothing, || {
                format!("the new server {name} is disabled")
            });
        }
    }
}

impl Known {
    fn differs(&self, pool: &str, server: &Server) -> bool {
        let Self::Options(options) = self else { return false };
        options.of_server(pool, &server.name).is_some_and(|known| *known != server.fingerprint())
    }
}

#[cfg(test)]
pub(super) fn words(line: &str) -> Vec<String> {
    file::words(line).into_iter().map(|word| word.text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "Name: HAProxy\nPid: 7\nUptime_sec: 1\nStart_time_sec: 1";
    const HEAD: &str = "1\n# be_id be_name …\n";

    fn state(pool: &str, name: &str, address: &str, admin: u16, weight: u16) -> String {
        format!("3 {pool} 1 {name} {address} 2 {admin} {weight} 1 9 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n")
    }

    fn asked(file: &str, servers: &str, known: Known) -> Asked {
        let mut read = File::default();
        read.read(file);
        let running = Running::parse(INFO, "# name\nweb\n", &format!("{HEAD}{servers}"), 0).expect("well formed");
        Asked { fixed: Digest::of(read.fixed.as_bytes()), file: read, running, changed_at: 0, known }
    }

    fn commands(difference: &Difference) -> Vec<&str> {
        difference.commands.iter().map(|told| told.command.as_str()).collect()
    }

    #[test]
    fn the_difference_becomes_commands_new_servers_first() {
        let file = "backend web\n server a 10.0.0.9:81 weight 5\n server new [::1]:80 weight 2 check inter 2s\n \
                    server off 10.0.0.3:80 disabled\n server same 10.0.0.4:80\n server zero 10.0.0.5:80 weight 0\n";
        let running = [
            state("web", "a", "10.0.0.1", 1, 1),
            state("web", "off", "10.0.0.3", 0, 1),
            state("web", "same", "10.0.0.4", 4, 1),
            state("web", "zero", "10.0.0.5", 8, 1),
            state("web", "gone", "10.0.0.6", 0, 1),
            state("web", "leaving", "10.0.0.7", 1, 1),
            state("other", "x", "10.0.0.8", 0, 1),
        ]
        .concat();
        let difference = asked(file, &running, Known::AsWanted).difference();
        assert_eq!(
            commands(&difference),
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
        assert_eq!(difference.leftovers, ["del server web/gone", "del server web/leaving"]);
        assert_eq!(difference.reload, None);
    }

    #[test]
    fn what_cannot_be_told_needs_a_reload() {
        let reload = |file: &str| asked(file, "", Known::AsWanted).difference().reload.expect("a reason");
        assert!(reload("backend new\n").contains("no backend \"new\""));
        assert!(reload("backend web\n server a example.com:80\n").contains("web/a"));
        assert!(reload("backend web\n server a 10.0.0.1:80 sni str(a;b)\n").contains("cannot be told"));
    }

    #[test]
    fn a_servers_other_options_are_known_again() {
        let with = |a: &str, b: &str| format!("backend web\n server a 10.0.0.1:80 {a}\n server b 10.0.0.2:80 {b}\n");
        let running = state("web", "a", "10.0.0.1", 0, 1) + &state("web", "b", "10.0.0.2", 0, 1);
        let known = |a: &str, b: &str| {
            let asked = asked(&with(a, b), &running, Known::AsWanted);
            Known::Options(Proven::parse(&asked.evidence().instance.expect("known")).expect("as written").options)
        };
        let needs = |known, a: &str, b: &str| asked(&with(a, b), &running, known).difference().reload.is_some();
        for (a, b) in [("", ""), ("backup", ""), ("check", "check")] {
            assert!(!needs(known(a, b), a, b), "{a} {b}");
        }
        assert!(needs(known("", ""), "backup", ""));
        assert!(needs(known("backup", ""), "", "backup"), "exchanged");
        // Added since, or left over since.
        let only_a = asked("backend web\n server a 10.0.0.1:80 backup\n", &running, known("backup", ""));
        let Known::Options(options) = only_a.known else { panic!("options") };
        let after = Options::of(&only_a.file, &only_a.running, &Known::Options(options));
        assert!(needs(Known::Options(after), "backup", "backup"), "b is still there, without it");
    }

    #[test]
    fn a_worker_that_started_before_the_change_is_only_known_by_its_record() {
        let file = "backend web\n balance first\n";
        let asked = asked(file, "", Known::Nothing);
        assert!(asked.unknown().expect("unknown").contains("worker 7"));
        assert!(!asked.running.has_started_after(1));
        assert_eq!(asked.evidence().fixed, Some(Digest::of(asked.file.fixed.as_bytes())));
    }

    #[test]
    fn answers_that_are_none_are_not_taken_for_agreement() {
        assert!(Running::parse("", "", HEAD, 0).is_none());
        assert!(Running::parse(INFO, "", "Permission denied", 0).is_none());
        assert!(Running::parse(INFO, "web", &format!("{HEAD}3 web 1 a"), 0).is_none());
    }
}
