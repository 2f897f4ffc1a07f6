//! The outputs, read as HAProxy reads them: the servers of each backend section, and all other lines.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::syntax::{SECTIONS, Word, is_plain, words};
use crate::sys::text;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    /// The servers of each section that has any (`backend`, `listen`), by the section's name.
    pub(super) pools: BTreeMap<String, Vec<Server>>,
    /// Every other line, split into words: only a reload can change them.
    pub(super) reload_only: String,
}

/// A `server` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    /// `None`: it is not an IP address and a port, so only a reload can change it.
    pub(super) address: Option<(IpAddr, u16)>,
    pub(super) weight: u16,
    pub(super) disabled: bool,
    /// Whether its health is checked.
    pub(super) check: bool,
    /// Its other options, including those of the `default-server` lines before it.
    pub(super) options: String,
    /// Whether name, address and options can be written in an `add server` command.
    pub(super) is_addable: bool,
}

impl Server {
    /// A short text that differs for different options.
    pub(super) fn fingerprint(&self) -> String {
        text::hex(&Sha256::digest(self.options.as_bytes())[..8])
    }

    /// The address in the form of HAProxy's commands and configuration.
    pub(super) fn written_address((ip, port): (IpAddr, u16)) -> String {
        std::net::SocketAddr::new(ip, port).to_string()
    }
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
    "ws",
];

impl File {
    /// Adds the sections of one output.
    pub(super) fn read(&mut self, text: &str) {
        let mut pool: Option<String> = None;
        let mut defaults: Vec<Word> = Vec::new();
        for line in text.lines() {
            let mut words = words(line);
            let Some(first) = words.first().map(|word| word.text.clone()) else { continue };
            if SECTIONS.contains(&first.as_str()) {
                defaults.clear();
                pool = words.get(1).filter(|_| matches!(first.as_str(), "backend" | "listen")).map(|n| n.text.clone());
                if let Some(name) = &pool {
                    self.pools.entry(name.clone()).or_default();
                }
            }
            match (&pool, first.as_str()) {
                (Some(pool), "server") if words.len() >= 3 => {
                    let options = words.split_off(3);
                    let server = server(&words[1], &words[2], defaults.iter().chain(&options));
                    self.pools.entry(pool.clone()).or_default().push(server);
                }
                (Some(_), "default-server") => defaults.extend(words.drain(1..)),
                _ => {
                    for word in &words {
                        self.reload_only += &word.text;
                        self.reload_only.push('\u{1f}');
                    }
                    self.reload_only.push('\n');
                }
            }
        }
    }
}

fn server<'a>(name: &Word, address: &Word, options: impl Iterator<Item = &'a Word>) -> Server {
    let mut server = Server {
        name: name.text.clone(),
        address: socket_address(&address.text),
        weight: 1,
        disabled: false,
        check: false,
        options: String::new(),
        is_addable: !name.expands && !address.expands,
    };
    if server.address.is_none() {
        server.options = format!("{} ", address.text);
    }
    let mut options = options.peekable();
    while let Some(word) = options.next() {
        let argument = WITH_ARGUMENT.contains(&word.text.as_str());
        match word.text.as_str() {
            "disabled" => server.disabled = true,
            "enabled" => server.disabled = false,
            "weight" => match options.peek().and_then(|next| next.text.parse().ok()).filter(|n| *n <= 256) {
                Some(weight) => {
                    server.weight = weight;
                    options.next();
                }
                None => server.push(word),
            },
            text => {
                match text {
                    "check" => server.check = true,
                    "no-check" => server.check = false,
                    _ => {}
                }
                server.push(word);
                if argument && let Some(next) = options.next() {
                    server.push(next);
                }
            }
        }
    }
    server
}

impl Server {
    fn push(&mut self, word: &Word) {
        if !self.options.is_empty() && !self.options.ends_with(' ') {
            self.options.push(' ');
        }
        self.options += &word.text;
        self.is_addable &= !word.expands && is_plain(&word.text);
    }
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
    use super::*;

    fn read(text: &str) -> File {
        let mut file = File::default();
        file.read(text);
        file
    }

    #[test]
    fn only_server_lines_are_left_out_of_what_needs_a_reload() {
        let file = |balance: &str, servers: &str| {
            read(&format!("# x\nbackend web\n  balance {balance}\n{servers}\nfrontend f\n  server x\n"))
        };
        let one = file("roundrobin", "server a 10.0.0.1:80 weight 3 check");
        assert_eq!(
            one.reload_only,
            file("roundrobin", " server b [::1]:81 disabled\n server c 10.0.0.1:80").reload_only
        );
        assert_ne!(one.reload_only, file("leastconn", "server a 10.0.0.1:80").reload_only);
        let server = &one.pools["web"][0];
        assert_eq!(server.address, Some(([10, 0, 0, 1].into(), 80)));
        assert!(server.weight == 3 && server.check && !server.disabled && server.is_addable);
        assert_eq!(server.options, "check");
    }

    #[test]
    fn options_are_read_with_their_arguments_and_defaults() {
        let file = read(
            "backend web\n default-server check inter 2s weight 5\n server a ipv6@2001:db8::1:80 cookie disabled\n \
             server b 10.0.0.1:80 no-check disabled weight 300\n server c example.com:80 sni \"${X}\"\nbackend other\n \
             server a [2001:db8::1]:80 sni str(x;y)\n",
        );
        let [a, b, c] = file.pools["web"].as_slice() else { panic!("three") };
        assert_eq!(a.address, Some(("2001:db8::1".parse().expect("an address"), 80)));
        assert_eq!((a.options.as_str(), a.weight, a.disabled), ("check inter 2s cookie disabled", 5, false));
        assert_eq!((b.check, b.disabled, b.weight), (false, true, 5));
        assert_eq!(b.options, "check inter 2s no-check weight 300", "an invalid weight is left to HAProxy");
        assert!(c.address.is_none() && !c.is_addable);
        let other = &file.pools["other"][0];
        assert_eq!((other.options.as_str(), other.check, other.is_addable), ("sni str(x;y)", false, false));
        assert_ne!(a.fingerprint(), other.fingerprint());
    }

    #[test]
    fn an_address_whose_port_haproxy_would_misread_is_not_parsed() {
        for text in ["10.0.0.1:9x00", "10.0.0.1:+5", "10.0.0.1:0", "10.0.0.1", "10.0.0.1:", "host:80", "10.0.0.1:65536"]
        {
            assert_eq!(socket_address(text), None, "{text}");
        }
    }
}
