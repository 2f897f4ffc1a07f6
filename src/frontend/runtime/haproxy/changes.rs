//! From the difference between the outputs and the running servers to the commands that remove it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::file::File;
use super::record::Known;
use super::server::Server;
use super::worker::{ServerState, Worker};

/// What makes the running worker agree with the outputs.
#[derive(Default)]
pub(super) struct Changes {
    /// Why commands alone cannot do it.
    pub(super) reload: Option<String>,
    /// To be sent in this order.
    pub(super) commands: Vec<Command>,
    /// Commands that delete servers which are in maintenance. HAProxy may refuse them.
    pub(super) deletions: Vec<String>,
    /// What others have changed and is left as it is, by `BACKEND/SERVER`.
    pub(super) overrides: BTreeMap<String, String>,
    /// The section and name of each server that is added.
    added: Vec<(String, String)>,
}

pub(super) struct Command {
    pub(super) text: String,
    /// The difference that the command removes.
    pub(super) reason: String,
    expects: Expect,
}

/// The answer of HAProxy to a command that succeeded.
#[derive(Clone, Copy)]
enum Expect {
    Nothing,
    Registered,
    Address,
}

impl Command {
    pub(super) fn is_done_by(&self, answer: &str) -> bool {
        match self.expects {
            Expect::Nothing => answer.is_empty(),
            Expect::Registered => answer.ends_with("New server registered."),
            Expect::Address => answer.contains("changed from") || answer.starts_with("no need to change"),
        }
    }
}

/// What tells a change of elasticd's own from one that others made.
pub(super) struct Earlier<'a> {
    /// What elasticd has applied since the frontend last agreed with the first of them. None: that is not known.
    pub(super) files: &'a [File],
    /// Whether the worker is the one that was last proven. Another one may have been given an earlier state: by a file of
    /// `load-server-state-from-file`, which holds elasticd's own changes too.
    pub(super) is_same_worker: bool,
    /// What was found to be changed by others before, as [`Changes::overrides`] has it.
    pub(super) overrides: &'a BTreeMap<String, String>,
    /// Where only a part of the outputs can be applied: the addresses of all backends. `None`: all or nothing.
    pub(super) in_use: Option<&'a BTreeSet<SocketAddr>>,
}

impl Earlier<'_> {
    /// Whether a server that is not in the outputs may be taken out. Outputs that are refused as a whole may lack servers by
    /// mistake.
    fn may_take_out(&self, state: &ServerState) -> bool {
        self.in_use.is_none_or(|in_use| state.address.is_none_or(|address| !in_use.contains(&address.into())))
    }

    /// Whether something that differs now was changed by others: it was right in all that elasticd has applied, or was
    /// found before.
    fn is_override(&self, pool: &str, name: &str, what: &str, was_right: impl Fn(&Server) -> bool) -> bool {
        let is_known = || {
            let found = self.overrides.get(&format!("{pool}/{name}"));
            found.is_some_and(|found| found.split(SEPARATOR).any(|found| found == what))
        };
        let was_right = |file: &File| file.server(pool, name).is_some_and(&was_right);
        self.is_same_worker && !self.files.is_empty() && self.files.iter().all(was_right) || is_known()
    }
}

/// Between several overrides of a server.
const SEPARATOR: &str = ", ";

impl Changes {
    /// `can_add`: the options that new servers inherit are known; otherwise why they are not.
    pub(super) fn between(
        worker: &Worker,
        file: &File,
        known: &Known,
        earlier: &Earlier<'_>,
        can_add: Result<(), &str>,
    ) -> Self {
        let mut changes = Self::default();
        for (name, pool) in &file.pools {
            let Some(running) = worker.pools.get(name) else {
                changes.needs_reload(|| format!("HAProxy has no backend {name:?}"));
                continue;
            };
            for server in &pool.servers {
                match running.get(&server.name) {
                    Some(state) if server.id.is_some_and(|id| id != state.id) => changes.needs_reload(|| {
                        format!("server {name}/{} has another id than it should: {}", server.name, state.id)
                    }),
                    Some(_) if known.differs(name, server, earlier.files) => {
                        changes.needs_reload(|| format!("the options of server {name}/{} have changed", server.name));
                    }
                    Some(state) => changes.update(name, server, state, earlier),
                    None => changes.add(name, server, can_add),
                }
            }
            let is_left_over = |name: &str| pool.server(name).is_none() && !pool.has_other(name);
            for (server, state) in running.iter().filter(|(name, _)| is_left_over(name)) {
                if earlier.may_take_out(state) {
                    changes.take_out(name, server, state);
                    changes.deletions.push(format!("del server {name}/{server}"));
                }
            }
        }
        if earlier.in_use.is_some() {
            changes.take_out_gone_sections(worker, file, earlier);
        }
        changes
    }

    /// Takes out the servers of sections that are in the outputs no more. The sections themselves stay until a reload.
    fn take_out_gone_sections(&mut self, worker: &Worker, file: &File, earlier: &Earlier<'_>) {
        let sections: BTreeMap<_, _> = earlier.files.iter().flat_map(|earlier| &earlier.pools).collect();
        for (name, pool) in sections {
            let Some(running) = worker.pools.get(name).filter(|_| !file.pools.contains_key(name)) else { continue };
            for server in &pool.servers {
                if let Some(state) = running.get(&server.name).filter(|state| earlier.may_take_out(state)) {
                    self.take_out(name, &server.name, state);
                }
            }
        }
    }

    /// Whether servers are added.
    pub(super) fn adds(&self) -> bool {
        !self.added.is_empty()
    }

    fn needs_reload(&mut self, reason: impl FnOnce() -> String) {
        self.reload.get_or_insert_with(reason);
    }

    fn push(&mut self, text: String, expects: Expect, reason: String) {
        self.commands.push(Command { text, reason, expects });
    }

    fn take_out(&mut self, pool: &str, name: &str, state: &ServerState) {
        if !state.is_in_maintenance() {
            let command = format!("set server {pool}/{name} state maint");
            self.push(command, Expect::Nothing, format!("{pool}/{name} is still there"));
        }
    }

    /// Changes a running server into what it should be, except where others have changed it.
    fn update(&mut self, pool: &str, server: &Server, state: &ServerState, earlier: &Earlier<'_>) {
        let name = format!("{pool}/{}", server.name);
        if let Some((ip, port)) = server.address
            && state.address != Some((ip, port))
        {
            let is = state.address.map_or_else(|| "elsewhere".to_owned(), Server::written_address);
            let reason = format!("{name} is at {is} and not {}", Server::written_address((ip, port)));
            self.push(format!("set server {name} addr {ip} port {port}"), Expect::Address, reason);
        }
        let mut overrides = Vec::new();
        let mut is_override = |what: &str, was_right: &dyn Fn(&Server) -> bool| {
            let found = earlier.is_override(pool, &server.name, what, was_right);
            overrides.extend(found.then(|| what.to_owned()));
            found
        };
        if state.weight != server.weight
            // No weight of others' brings traffic to a server that should have none.
            && (server.weight == 0
                || !is_override(&format!("weight {}", state.weight), &|earlier| earlier.weight != state.weight))
        {
            // With a static balance algorithm HAProxy accepts only 0 and the initial weight, as percentages.
            let weight = match server.weight {
                0 => "0%".to_owned(),
                weight if weight == state.initial_weight => "100%".to_owned(),
                weight => weight.to_string(),
            };
            let reason = format!("{name} has weight {} and not {}", state.weight, server.weight);
            self.push(format!("set server {name} weight {weight}"), Expect::Nothing, reason);
        }
        if server.check && !state.is_checked() && !is_override("no health checks", &|earlier| earlier.check) {
            let reason = format!("the health of {name} is not checked");
            self.push(format!("enable health {name}"), Expect::Nothing, reason);
        }
        if server.agent && !state.is_agent_asked() && !is_override("no agent checks", &|earlier| earlier.agent) {
            let reason = format!("the agent of {name} is not asked");
            self.push(format!("enable agent {name}"), Expect::Nothing, reason);
        }
        if server.disabled && !state.is_in_maintenance() {
            let reason = format!("{name} is not disabled");
            self.push(format!("set server {name} state maint"), Expect::Nothing, reason);
        }
        if !server.disabled && !state.is_ready() {
            let what = if state.is_in_maintenance() { "maintenance" } else { "drain" };
            if !is_override(what, &|earlier| !earlier.disabled) {
                let reason = format!("{name} is disabled");
                self.push(format!("set server {name} state ready"), Expect::Nothing, reason);
            }
        }
        if !overrides.is_empty() {
            self.overrides.insert(name, overrides.join(SEPARATOR));
        }
    }

    fn add(&mut self, pool: &str, server: &Server, can_add: Result<(), &str>) {
        let name = format!("{pool}/{}", server.name);
        let command = match (server.command_to_add(pool), can_add) {
            (Some(command), Ok(())) => command,
            (None, _) => {
                return self.needs_reload(|| {
                    format!("the new server {name} has a name, an address or options that cannot be added at run time")
                });
            }
            (_, Err(reason)) => return self.needs_reload(|| format!("{name} is missing, and {reason}")),
        };
        self.push(command, Expect::Registered, format!("{name} is missing"));
        if server.check {
            let reason = format!("the health of the new server {name} is not checked");
            self.push(format!("enable health {name}"), Expect::Nothing, reason);
        }
        if server.agent {
            let reason = format!("the agent of the new server {name} is not asked");
            self.push(format!("enable agent {name}"), Expect::Nothing, reason);
        }
        if !server.disabled {
            let reason = format!("the new server {name} is disabled");
            self.push(format!("enable server {name}"), Expect::Nothing, reason);
        }
        self.added.push((pool.to_owned(), server.name.clone()));
    }

    /// Why servers that were added run with other options than others that have the same line. HAProxy may know of options
    /// that elasticd does not: in files that it cannot read, or by variables.
    pub(super) fn odd_among_siblings(&self, before: &Worker, now: &Worker, file: &File) -> Option<String> {
        self.added.iter().find_map(|(pool, name)| {
            let servers = &file.pools.get(pool)?.servers;
            let options = &file.server(pool, name)?.options;
            let added = now.pools.get(pool)?.get(name)?;
            let running = before.pools.get(pool)?;
            let siblings = servers.iter().filter(|server| server.options == *options);
            let other = siblings
                .filter_map(|server| Some((&server.name, running.get(&server.name)?)))
                .find(|(_, sibling)| added.has_other_options_than(sibling))?;
            let (pool, other) = (pool, other.0);
            Some(format!("{pool}/{other} has options, such as `check` or `ssl`, that {pool}/{name} lacks"))
        })
    }
}
