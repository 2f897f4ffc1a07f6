//! What is kept of a worker that was proven, so that it is known again: a line of text in the apply record.

use std::collections::{BTreeMap, BTreeSet};

use super::Known;
use super::file::File;
use super::running::Running;

/// What was last proven, beside the fixed part.
pub(super) struct Proven {
    /// The worker that ran it.
    pub(super) worker: String,
    /// When the outputs had been changed, in ticks since boot.
    pub(super) changed_at: u64,
    pub(super) options: Options,
}

impl Proven {
    pub(super) fn written(&self) -> String {
        format!("{} {}{}", self.worker, self.changed_at, self.options.written())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (worker, changed_at) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Self { worker, changed_at, options: Options::parse(parts.next().unwrap_or_default()) })
    }
}

/// Fingerprints of the servers' options: for a section in which all have the same just that, otherwise with the names
/// of those that have it.
///
/// Of a server that is not named it is known that it was added since, with the options it should have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl Options {
    pub(super) fn of(file: &File, running: &Running, known: &Known) -> Self {
        let mut all = BTreeMap::new();
        for (pool, servers) in &file.pools {
            let mut by_fingerprint = BTreeMap::<String, Vec<String>>::new();
            for server in servers {
                by_fingerprint.entry(server.fingerprint()).or_default().push(server.name.clone());
            }
            // A server left over may be wanted again before it is gone.
            let wanted: BTreeSet<_> = servers.iter().map(|server| &server.name).collect();
            let leftover = |name: &&String| !wanted.contains(*name);
            if let Known::Options(options) = known {
                for name in running.pools.get(pool).into_iter().flat_map(BTreeMap::keys).filter(leftover) {
                    if let Some(fingerprint) = options.of_server(pool, name) {
                        by_fingerprint.entry(fingerprint.clone()).or_default().push(name.clone());
                    }
                }
            }
            if by_fingerprint.len() == 1 {
                by_fingerprint.values_mut().for_each(Vec::clear);
            }
            all.insert(pool.clone(), by_fingerprint);
        }
        Self(all)
    }

    pub(super) fn of_server(&self, pool: &str, name: &str) -> Option<&String> {
        let by_fingerprint = self.0.get(pool)?;
        let has = |(_, names): &(&String, &Vec<String>)| names.is_empty() || names.iter().any(|n| n == name);
        by_fingerprint.iter().find(has).map(|(fingerprint, _)| fingerprint)
    }

    /// ` POOL=FINGERPRINT:NAME,NAME`, for each.
    pub(super) fn written(&self) -> String {
        let mut text = String::new();
        for (pool, by_fingerprint) in &self.0 {
            for (fingerprint, names) in by_fingerprint {
                text += &format!(" {pool}={fingerprint}:{}", names.join(","));
            }
        }
        text
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut all = BTreeMap::<String, BTreeMap<String, Vec<String>>>::new();
        for part in text.split_whitespace() {
            let Some((pool, (fingerprint, names))) =
                part.split_once('=').and_then(|(pool, rest)| Some((pool, rest.split_once(':')?)))
            else {
                continue;
            };
            let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            all.entry(pool.to_owned()).or_default().insert(fingerprint.to_owned(), names);
        }
        Self(all)
    }
}
