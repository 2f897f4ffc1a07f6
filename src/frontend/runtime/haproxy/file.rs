//! The outputs, read as HAProxy reads them: the servers of each backend section, and all other lines.

use std::collections::{BTreeMap, HashMap};

use super::inherited::Inherited;
use super::server::Server;
use super::syntax::{SECTIONS, Word, words};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    /// The sections that may have servers (`backend`, `listen`), by name.
    pub(super) pools: BTreeMap<String, Pool>,
    /// Every other line, split into words: only a reload can change them.
    pub(super) reload_only: String,
}

/// A `backend` or `listen` section.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    /// Its `server` lines.
    pub(super) servers: Vec<Server>,
    /// The place of each in that list, by its name.
    places: HashMap<String, usize>,
    /// The servers of its other lines: they are HAProxy's own, and left alone.
    others: Vec<Names>,
}

/// The names of servers that a line makes.
#[derive(Debug, PartialEq, Eq)]
enum Names {
    One(String),
    /// `server-template PREFIX FIRST-LAST …`
    Numbered {
        prefix: String,
        first: u32,
        last: u32,
    },
}

impl Names {
    /// `None`: HAProxy refuses such a range.
    fn of_template(prefix: &str, range: &str) -> Option<Self> {
        let (first, last) = range.split_once('-').unwrap_or(("1", range));
        Some(Self::Numbered { prefix: prefix.to_owned(), first: first.parse().ok()?, last: last.parse().ok()? })
    }

    fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(own) => own == name,
            Self::Numbered { prefix, first, last } => {
                let number = name.strip_prefix(prefix.as_str()).and_then(|number| number.parse::<u32>().ok());
                number.is_some_and(|number| (*first..=*last).contains(&number))
            }
        }
    }
}

impl Pool {
    fn push(&mut self, server: Server) {
        self.places.insert(server.name.clone(), self.servers.len());
        self.servers.push(server);
    }

    pub(super) fn server(&self, name: &str) -> Option<&Server> {
        self.servers.get(*self.places.get(name)?)
    }

    /// Whether a running server comes from a line that elasticd does not read.
    pub(super) fn has_other(&self, name: &str) -> bool {
        self.others.iter().any(|names| names.contains(name))
    }
}

/// The section that is being read.
#[derive(Default)]
struct Section {
    /// The name of a `backend` or `listen`.
    pool: Option<String>,
    /// The options that its servers inherit from a `defaults` section.
    inherited: Vec<Word>,
    /// Those of its own `default-server` lines.
    own: Vec<Word>,
}

impl File {
    /// Reads outputs, in their order, which come after the files of `inherited`.
    pub(super) fn of<'a>(texts: impl IntoIterator<Item = &'a str>, mut inherited: Inherited) -> Self {
        let mut file = Self::default();
        for text in texts {
            file.read(text, &mut inherited);
        }
        file
    }

    fn read(&mut self, text: &str, inherited: &mut Inherited) {
        let mut section = Section::default();
        // Conditions (`.if`) decide at HAProxy's start which lines count.
        let mut conditions = 0_u32;
        for line in text.lines() {
            let words = words(line);
            let Some(first) = words.first().map(|word| word.text.as_str()) else { continue };
            match first {
                ".if" => conditions += 1,
                ".endif" => conditions = conditions.saturating_sub(1),
                _ => {}
            }
            inherited.read(&words, conditions > 0);
            if SECTIONS.contains(&first) {
                section = self.open(&words, inherited);
            }
            let pool = section.pool.as_ref().and_then(|name| self.pools.get_mut(name));
            match (pool, first) {
                (Some(pool), "server") if words.len() >= 3 && conditions == 0 => {
                    pool.push(Server::new(&words, &section.own, &section.inherited));
                    continue;
                }
                (Some(_), "default-server") if conditions == 0 => {
                    section.own.extend_from_slice(&words[1..]);
                    continue;
                }
                (Some(pool), "server") if words.len() >= 3 => pool.others.push(Names::One(words[1].text.clone())),
                (Some(_), "default-server") => section.own.push(Word::unknown()),
                (Some(pool), "server-template") if words.len() >= 3 => {
                    pool.others.extend(Names::of_template(&words[1].text, &words[2].text));
                }
                _ => {}
            }
            for word in &words {
                self.reload_only += &word.text;
                self.reload_only.push('\u{1f}');
            }
            self.reload_only.push('\n');
        }
    }

    /// A server of a section.
    pub(super) fn server(&self, pool: &str, name: &str) -> Option<&Server> {
        self.pools.get(pool)?.server(name)
    }

    fn open(&mut self, words: &[Word], inherited: &Inherited) -> Section {
        let is_pool = matches!(words[0].text.as_str(), "backend" | "listen");
        let Some(name) = words.get(1).filter(|_| is_pool) else { return Section::default() };
        self.pools.entry(name.text.clone()).or_default();
        let inherited = inherited.of_section(words).to_vec();
        Section { pool: Some(name.text.clone()), inherited, own: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> File {
        File::of([text], Inherited::default())
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
        let server = one.server("web", "a").expect("there");
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
        let [a, b, c] = file.pools["web"].servers.as_slice() else { panic!("three") };
        assert_eq!(a.address, Some(("2001:db8::1".parse().expect("an address"), 80)));
        assert_eq!((a.options.as_str(), a.weight, a.disabled), ("check inter 2s cookie disabled", 5, false));
        assert_eq!((b.check, b.disabled, b.weight), (false, true, 5));
        assert_eq!(b.options, "check inter 2s no-check weight 300", "an invalid weight is left to HAProxy");
        assert!(c.address.is_none() && !c.is_addable);
        let other = &file.pools["other"].servers[0];
        assert_eq!((other.options.as_str(), other.check, other.is_addable), ("sni str(x;y)", false, false));
        assert_ne!(a.fingerprint(), other.fingerprint());
    }

    #[test]
    fn servers_of_lines_that_elasticd_does_not_read_are_told_from_those_left_over() {
        let file = read(
            "backend web\n server-template dns 2-3 x:80\n server-template n 2 x:80\n .if 1\n server maybe 10.0.0.1:80\n \
             .endif\n server a 10.0.0.2:80\n",
        );
        let pool = &file.pools["web"];
        for (name, is_other) in [
            ("dns1", false),
            ("dns2", true),
            ("dns3", true),
            ("dns4", false),
            ("dns", false),
            ("n1", true),
            ("n2", true),
            ("n0", false),
            ("maybe", true),
            ("a", false),
            ("b", false),
        ] {
            assert_eq!(pool.has_other(name), is_other, "{name}");
        }
        assert_eq!(pool.servers.len(), 1);
        assert!(file.reload_only.contains("maybe"), "only a reload changes it");
    }
}
