//! From the difference between the outputs and the running servers to the commands that remove it.

use std::collections::BTreeSet;

use super::file::{File, Server};
use super::record::Known;
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

impl Changes {
    pub(super) fn between(worker: &Worker, file: &File, known: &Known) -> Self {
        let mut changes = Self::default();
        for (pool, servers) in &file.pools {
            let Some(running) = worker.pools.get(pool) else {
                changes.reload.get_or_insert_with(|| format!("HAProxy has no backend {pool:?}"));
                continue;
            };
            for server in servers {
                match running.get(&server.name) {
                    Some(_) if known.differs(pool, server) => {
                        let reason = || format!("the options of server {pool}/{} have changed", server.name);
                        changes.reload.get_or_insert_with(reason);
                    }
                    Some(state) => changes.update(pool, server, state),
                    None => changes.add(pool, server),
                }
            }
            let wanted: BTreeSet<_> = servers.iter().map(|server| server.name.as_str()).collect();
            for (name, state) in running.iter().filter(|(name, _)| !wanted.contains(name.as_str())) {
                if !state.is_in_maintenance() {
                    let command = format!("set server {pool}/{name} state maint");
                    changes.push(command, Expect::Nothing, format!("{pool}/{name} is still there"));
                }
                changes.deletions.push(format!("del server {pool}/{name}"));
            }
        }
        changes
    }

    fn push(&mut self, text: String, expects: Expect, reason: String) {
        self.commands.push(Command { text, reason, expects });
    }

    /// Changes a running server into what it should be.
    fn update(&mut self, pool: &str, server: &Server, state: &ServerState) {
        let name = format!("{pool}/{}", server.name);
        if let Some((ip, port)) = server.address
            && state.address != Some((ip, port))
        {
            let is = state.address.map_or_else(|| "elsewhere".to_owned(), Server::written_address);
            let reason = format!("{name} is at {is} and not {}", Server::written_address((ip, port)));
            self.push(format!("set server {name} addr {ip} port {port}"), Expect::Address, reason);
        }
        if state.weight != server.weight {
            // With a static balance algorithm HAProxy accepts only 0 and the initial weight, as percentages.
            let weight = match server.weight {
                0 => "0%".to_owned(),
                weight if weight == state.initial_weight => "100%".to_owned(),
                weight => weight.to_string(),
            };
            let reason = format!("{name} has weight {} and not {}", state.weight, server.weight);
            self.push(format!("set server {name} weight {weight}"), Expect::Nothing, reason);
        }
        if server.check && !state.is_checked() {
            let reason = format!("the health of {name} is not checked");
            self.push(format!("enable health {name}"), Expect::Nothing, reason);
        }
        if server.disabled && !state.is_in_maintenance() {
            let reason = format!("{name} is not disabled");
            self.push(format!("set server {name} state maint"), Expect::Nothing, reason);
        }
        if !server.disabled && !state.is_ready() {
            let reason = format!("{name} is disabled");
            self.push(format!("set server {name} state ready"), Expect::Nothing, reason);
        }
    }

    fn add(&mut self, pool: &str, server: &Server) {
        let name = format!("{pool}/{}", server.name);
        let Some(address) = server.address.filter(|_| server.is_addable) else {
            self.reload.get_or_insert_with(|| {
                format!("the new server {name} has a name, an address or options that cannot be added at run time")
            });
            return;
        };
        let address = Server::written_address(address);
        let space = if server.options.is_empty() { "" } else { " " };
        let command = format!("add server {name} {address} weight {}{space}{}", server.weight, server.options);
        self.push(command, Expect::Registered, format!("{name} is missing"));
        if server.check {
            let reason = format!("the health of the new server {name} is not checked");
            self.push(format!("enable health {name}"), Expect::Nothing, reason);
        }
        if !server.disabled {
            let reason = format!("the new server {name} is disabled");
            self.push(format!("enable server {name}"), Expect::Nothing, reason);
        }
    }
}
