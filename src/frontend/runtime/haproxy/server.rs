//! A `server` line: what can be changed of it at run time, and the options with which it can be added.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::syntax::{Word, is_plain};
use crate::sys::text;

/// A `server` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    /// `None`: it is not an IP address and a port, so only a reload can change it.
    pub(super) address: Option<(IpAddr, u16)>,
    pub(super) weight: u16,
    pub(super) disabled: bool,
    /// Its number, by which consistent hashing places it. `None`: HAProxy gives it the next one that is free.
    pub(super) id: Option<u32>,
    /// Whether its health is checked.
    pub(super) check: bool,
    /// Whether an agent is asked about it.
    pub(super) agent: bool,
    /// Its other options, with those of the section's `default-server` lines before it, as they are written.
    pub(super) options: String,
    /// All its options, in the form that an `add server` command takes; with those of a `defaults` section.
    pub(super) live_options: String,
    /// Whether name, address and options can be written in an `add server` command.
    pub(super) is_addable: bool,
}

/// The options of a server that take the next word as their argument (section 5.2 of HAProxy's configuration manual).
const WITH_ARGUMENT: &[&str] = &[
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "ca-file",
    "check-alpn",
    "check-proto",
    "check-sni",
    "ciphers",
    "ciphersuites",
    "cookie",
    "crl-file",
    "crt",
    "downinter",
    "error-limit",
    "fall",
    "fastinter",
    "id",
    "init-addr",
    "inter",
    "log-proto",
    "max-reuse",
    "maxconn",
    "maxqueue",
    "minconn",
    "namespace",
    "npn",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "shard",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "track",
    "usesrc",
    "verify",
    "verifyhost",
    "weight",
    "ws",
];

/// Options that their form with `no-` takes back. An `add server` command does not take these forms.
const SWITCHES: &[&str] = &[
    "agent-check",
    "backup",
    "check",
    "check-send-proxy",
    "check-ssl",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "ssl",
    "tfo",
    "verifyhost",
];

/// Options that say how an address is found, which mean nothing for an IP address. An `add server` command does not take
/// them.
const OF_NAMES: &[&str] = &["init-addr", "resolve-net", "resolve-opts", "resolve-prefer", "resolvers"];

impl Server {
    /// From the words of its line, those of the section's `default-server` lines, and those of its `defaults` section.
    pub(super) fn new(line: &[Word], defaults: &[Word], inherited: &[Word]) -> Self {
        let (name, address) = (&line[1], &line[2]);
        let mut server = Self {
            name: name.text.clone(),
            address: socket_address(&address.text),
            weight: 1,
            disabled: false,
            id: None,
            check: false,
            agent: false,
            options: String::new(),
            live_options: String::new(),
            is_addable: !name.expands && !address.expands && is_plain(&name.text),
        };
        let mut live = Vec::new();
        for option in options(inherited) {
            if !server.read(&option) {
                live.push(option);
            }
        }
        // A name or the like that may change only with a reload.
        let mut own: Vec<&str> = server.address.is_none().then_some(address.text.as_str()).into_iter().collect();
        for option in options(defaults).chain(options(&line[3..])) {
            if !server.read(&option) {
                own.extend(option.iter().map(|word| word.text.as_str()));
                live.push(option);
            }
        }
        server.options = own.join(" ");
        let live: Vec<_> = in_effect(live).into_iter().flatten().collect();
        server.is_addable &= live.iter().all(|word| !word.expands && is_plain(&word.text));
        server.live_options = live.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        server
    }

    /// Takes in an option that can be changed, or is compared, by itself. `false`: it is none of these.
    fn read(&mut self, option: &[&Word]) -> bool {
        let argument = option.get(1).map(|word| word.text.as_str());
        match (option[0].text.as_str(), argument) {
            ("disabled", _) => self.disabled = true,
            ("enabled", _) => self.disabled = false,
            ("weight", Some(weight)) => match weight.parse() {
                Ok(weight @ ..=256) => self.weight = weight,
                // Left to HAProxy, which refuses it.
                _ => return false,
            },
            ("id", Some(id)) => match id.parse() {
                Ok(id) => self.id = Some(id),
                Err(_) => return false,
            },
            (name, _) => {
                match name {
                    "check" => self.check = true,
                    "no-check" => self.check = false,
                    "agent-check" => self.agent = true,
                    "no-agent-check" => self.agent = false,
                    _ => {}
                }
                return false;
            }
        }
        true
    }

    /// A short text that differs for different options.
    pub(super) fn fingerprint(&self) -> String {
        text::hex(&Sha256::digest(self.options.as_bytes())[..8])
    }

    /// The command that adds it. `None`: its line cannot be written as a command.
    pub(super) fn command_to_add(&self, pool: &str) -> Option<String> {
        let address = Self::written_address(self.address.filter(|_| self.is_addable)?);
        let mut command = format!("add server {pool}/{} {address} weight {}", self.name, self.weight);
        if let Some(id) = self.id {
            command += &format!(" id {id}");
        }
        if !self.live_options.is_empty() {
            command += " ";
            command += &self.live_options;
        }
        Some(command)
    }

    /// The address in the form of HAProxy's commands and configuration.
    pub(super) fn written_address((ip, port): (IpAddr, u16)) -> String {
        std::net::SocketAddr::new(ip, port).to_string()
    }
}

/// The options in a row of words, each with its argument.
fn options(words: &[Word]) -> impl Iterator<Item = Vec<&Word>> {
    let mut words = words.iter();
    std::iter::from_fn(move || {
        let word = words.next()?;
        let argument = WITH_ARGUMENT.contains(&word.text.as_str()).then(|| words.next()).flatten();
        Some(std::iter::once(word).chain(argument).collect())
    })
}

/// The options that count for a server with an IP address.
fn in_effect(options: Vec<Vec<&Word>>) -> Vec<Vec<&Word>> {
    let mut effective = Vec::<Vec<&Word>>::with_capacity(options.len());
    for option in options {
        let name = option[0].text.as_str();
        match name.strip_prefix("no-").filter(|name| SWITCHES.contains(name)) {
            Some(switch) => effective.retain(|earlier| earlier[0].text != switch),
            None if OF_NAMES.contains(&name) => {}
            None => effective.push(option),
        }
    }
    effective
}

/// Parses `10.0.0.1:80`, `[2001:db8::1]:80` and `ipv6@2001:db8::1:80`.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let (ip, port) = text.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let port = Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?;
    Some((ip.parse().ok()?, port.parse().ok().filter(|port| *port > 0)?))
}

#[cfg(test)]
mod tests {
    use super::super::syntax::words;
    use super::*;

    fn server(line: &str, defaults: &str, inherited: &str) -> Server {
        Server::new(&words(line), &words(defaults), &words(inherited))
    }

    #[test]
    fn a_command_has_the_options_that_the_line_has_in_effect() {
        for (line, defaults, inherited, expected) in [
            ("check", "", "", "check"),
            ("", "inter 2s", "check ssl verify none", "check ssl verify none inter 2s"),
            ("no-check no-ssl", "", "check ssl verify none", "verify none"),
            ("check", "no-check", "check inter 1s", "inter 1s check"),
            ("no-agent-check", "", "agent-check agent-port 9", "agent-port 9"),
            ("no-backup", "backup", "", ""),
            ("init-addr last,none resolvers dns resolve-prefer ipv4 backup", "", "", "backup"),
            ("id 7 weight 3 cookie a enabled", "", "weight 9 disabled", "cookie a"),
        ] {
            let server = server(&format!("server a 10.0.0.1:80 {line}"), defaults, inherited);
            assert_eq!(server.live_options, expected, "{line}");
        }
        let server = server("server a 10.0.0.1:80 id 7 slowstart 5s", "weight 3", "weight 9 disabled check");
        assert!(server.disabled && server.check, "both are inherited");
        let command = server.command_to_add("web");
        assert_eq!(command.as_deref(), Some("add server web/a 10.0.0.1:80 weight 3 id 7 check slowstart 5s"));
        assert_eq!(server.options, "slowstart 5s", "what others' files say is not elasticd's to compare");
    }

    #[test]
    fn what_a_command_cannot_hold_is_left_to_a_reload() {
        for (line, inherited) in [
            ("server a example.com:80", ""),
            ("server a 10.0.0.1:80 sni str(a;b)", ""),
            ("server a 10.0.0.1:80", "sni \"${NAME}\""),
        ] {
            assert_eq!(server(line, "", inherited).command_to_add("web"), None, "{line} {inherited}");
        }
    }

    #[test]
    fn an_address_whose_port_haproxy_would_misread_is_not_parsed() {
        for text in ["10.0.0.1:9x00", "10.0.0.1:+5", "10.0.0.1:0", "10.0.0.1", "10.0.0.1:", "host:80", "10.0.0.1:65536"]
        {
            assert_eq!(socket_address(text), None, "{text}");
        }
    }
}
