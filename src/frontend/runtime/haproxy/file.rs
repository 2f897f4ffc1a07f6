//! What the outputs say, read as HAProxy reads them: the servers of each backend section, and the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::super::Wanted;
use super::running::{changed_at, written_at};
use crate::sys::{atomic_file, text};

/// The outputs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    /// The sections with servers (`backend`, `listen`), by name.
    pub(super) pools: BTreeMap<String, Vec<Server>>,
    /// Every line but those of servers, in words: what only a reload can change.
    pub(super) fixed: String,
}

/// A `server` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    /// `None`: not an IP address and a port, so that only a reload can change it.
    pub(super) address: Option<(IpAddr, u16)>,
    pub(super) weight: u16,
    pub(super) disabled: bool,
    /// Whether its health is checked.
    pub(super) check: bool,
    /// Its other options, those of `default-server` lines before it included.
    pub(super) options: String,
    /// Whether the options can be written on HAProxy's command line.
    pub(super) tellable: bool,
}

impl Server {
    /// A short text that tells its options from others.
    pub(super) fn fingerprint(&self) -> String {
        text::hex(&Sha256::digest(self.options.as_bytes())[..8])
    }

    /// The address as HAProxy's command line and configuration write it.
    pub(super) fn written_address((ip, port): (IpAddr, u16)) -> String {
        std::net::SocketAddr::new(ip, port).to_string()
    }
}

/// The first words of lines that open a section.
const SECTIONS: &[&str] = &[
    "backend",
    "cache",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "mailers",
    "namespace_list",
    "peers",
    "program",
    "resolvers",
    "ring",
    "userlist",
];

/// The options of a server that the next word belongs to (section 5.2 of HAProxy's configuration manual).
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

/// Whether a text is configuration, rather than a map.
pub(super) fn is_configuration(text: &str) -> bool {
    text.lines().any(|line| words(line).first().is_some_and(|word| SECTIONS.contains(&word.text.as_str())))
}

/// What was in place before the outputs were last swapped in, if nobody has written it after that moment, in ticks
/// since boot.
pub(super) fn previous(wanted: &Wanted<'_>, moment: u64) -> Option<File> {
    let mut previous = File::default();
    for (path, content) in wanted.outputs.iter().filter(|(_, content)| is_configuration(content)) {
        let kept = atomic_file::staging_path(path);
        // One that was not changed has nothing kept beside it.
        let (text, written) = match std::fs::read_to_string(&kept) {
            Ok(text) => (text, written_at(&kept)?),
            Err(_) => ((*content).to_owned(), changed_at(path)?),
        };
        // Times in ticks may be one off.
        if written > moment + 1 {
            return None;
        }
        previous.read(&text);
    }
    Some(previous)
}

impl File {
    /// Takes the sections of one output.
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
                        self.fixed += &word.text;
                        self.fixed.push('\u{1f}');
                    }
                    self.fixed.push('\n');
                }
            }
        }
    }
}

/// Whether a word means itself on HAProxy's command line, where `;`, a backslash, white space and `<<` do not.
pub(super) fn is_plain(word: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b';' | b'\\' | b'"' | b'\'' | b'#' | b'$' | b'<');
    !word.is_empty() && word.bytes().all(plain)
}

/// The keys and values of a map's file, sorted.
pub(super) fn map_entries(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        (key.to_owned(), value.trim().to_owned())
    };
    let mut entries: Vec<_> = lines.map(entry).collect();
    entries.sort();
    entries
}

fn server<'a>(name: &Word, address: &Word, options: impl Iterator<Item = &'a Word>) -> Server {
    let mut server = Server {
        name: name.text.clone(),
        address: socket_address(&address.text),
        weight: 1,
        disabled: false,
        check: false,
        options: String::new(),
        tellable: !name.expands && !address.expands,
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
        self.tellable &= !word.expands && is_plain(&word.text);
    }
}

/// `10.0.0.1:80`, `[2001:db8::1]:80`, `ipv6@2001:db8::1:80`.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let (ip, port) = text.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let port = Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?;
    Some((ip.parse().ok()?, port.parse().ok().filter(|port| *port > 0)?))
}

/// A word of a line, as HAProxy reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// It holds a variable of HAProxy's environment, which is left as it is written.
    pub(super) expands: bool,
}

/// The words of a line, after `parse_line` in HAProxy's `src/tools.c` (section 2.2 of its configuration manual).
pub(super) fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let (mut weak, mut strong) = (false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if !strong => {
                weak = !weak;
                word.get_or_insert_default();
            }
            '\'' if !weak => {
                strong = !strong;
                word.get_or_insert_default();
            }
            '\\' if !strong => {
                let escaped = match chars.peek() {
                    Some('n') => Some('\n'),
                    Some('r') => Some('\r'),
                    Some('t') => Some('\t'),
                    Some('x') => {
                        let digits: String = chars.clone().skip(1).take(2).collect();
                        let code = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
                        // A byte of a longer character is left as it is written.
                        let code = code.filter(u8::is_ascii);
                        if code.is_some() {
                            chars.nth(1);
                        }
                        code.map(char::from)
                    }
                    Some(&c @ (' ' | '\\' | '#' | '"' | '\'' | '$')) => Some(c),
                    _ => None,
                };
                if escaped.is_some() {
                    chars.next();
                }
                word.get_or_insert_default().text.push(escaped.unwrap_or('\\'));
            }
            '#' if !weak && !strong => break,
            ' ' | '\t' | '\r' | '\u{b}' | '\u{c}' if !weak && !strong => words.extend(word.take()),
            c => {
                let word = word.get_or_insert_default();
                word.expands |= c == '$' && weak;
                word.text.push(c);
            }
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        words(line).into_iter().map(|word| word.text).collect()
    }

    fn read(text: &str) -> File {
        let mut file = File::default();
        file.read(text);
        file
    }

    #[test]
    fn a_line_is_cut_as_haproxy_cuts_it() {
        for (line, expected) in [
            ("", &[][..]),
            ("  # a comment", &[]),
            ("a  b\tc # d", &["a", "b", "c"]),
            (r#"a\ b "c d" 'e f'"g"h"#, &["a b", "c d", "e fgh"]),
            (r##"\# "#" \" '"' \' "'" \\"##, &["#", "#", "\"", "\"", "'", "'", "\\"]),
            (r"\n\r\t\x41 \q '\n'", &["\n\r\tA", "\\q", "\\n"]),
            (r#""" ''"#, &["", ""]),
            ("größe", &["größe"]),
        ] {
            assert_eq!(texts(line), expected, "{line}");
        }
        assert!(words(r#""$HOME""#)[0].expands && words(r#""${HOME}""#)[0].expands);
        for literal in [r#""\$HOME""#, "'$HOME'", "$HOME"] {
            assert!(!words(literal)[0].expands, "{literal}");
        }
    }

    #[test]
    fn only_what_can_be_told_is_left_out_of_the_fixed_part() {
        let file = |balance: &str, servers: &str| {
            read(&format!("# x\nbackend web\n  balance {balance}\n{servers}\nfrontend f\n  server x\n"))
        };
        let one = file("roundrobin", "server a 10.0.0.1:80 weight 3 check");
        assert_eq!(one.fixed, file("roundrobin", " server b [::1]:81 disabled\n server c 10.0.0.1:80").fixed);
        assert_ne!(one.fixed, file("leastconn", "server a 10.0.0.1:80").fixed);
        let server = &one.pools["web"][0];
        assert_eq!(server.address, Some(([10, 0, 0, 1].into(), 80)));
        assert!(server.weight == 3 && server.check && !server.disabled && server.tellable);
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
        assert_eq!(b.options, "check inter 2s no-check weight 300", "a weight that is none is left to HAProxy");
        assert!(c.address.is_none() && !c.tellable);
        let other = &file.pools["other"][0];
        assert_eq!((other.options.as_str(), other.check, other.tellable), ("sni str(x;y)", false, false));
        assert_ne!(a.fingerprint(), other.fingerprint());
    }

    #[test]
    fn a_port_that_haproxy_would_misread_is_none() {
        for text in ["10.0.0.1:9x00", "10.0.0.1:+5", "10.0.0.1:0", "10.0.0.1", "10.0.0.1:", "host:80", "10.0.0.1:65536"]
        {
            assert_eq!(socket_address(text), None, "{text}");
        }
    }

    #[test]
    fn a_map_is_told_from_configuration() {
        assert!(is_configuration("# c\nbackend web\n"));
        assert!(!is_configuration("# c\n") && !is_configuration("web/a 10.0.0.1:80\n"));
    }
}
