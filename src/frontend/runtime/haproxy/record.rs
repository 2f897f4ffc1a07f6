//! What is recorded of a worker that was proven, so that it is recognised later: a line of text in the apply record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::file::{File, Pool};
use super::server::Server;
use super::worker::Worker;

/// In place of a server's name, for all servers; HAProxy allows no such name.
const ALL: &str = "*";

/// What is known of the options that HAProxy cannot be asked about.
pub(super) enum Known {
    Nothing,
    /// The worker has read the outputs as they are.
    AsWanted,
    /// The options of the last proof.
    Options(OptionFingerprints),
}

impl Known {
    /// Whether a running server is known to have other options than it should. `earlier`: what elasticd has applied since
    /// the options were recorded.
    pub(super) fn differs(&self, pool: &str, server: &Server, earlier: &[File]) -> bool {
        let Self::Options(options) = self else { return false };
        // One that was in none of the earlier outputs was added since then, with the options that it should have.
        let is_new = !earlier.is_empty() && earlier.iter().all(|file| file.server(pool, &server.name).is_none());
        let known = match options.named(pool, &server.name) {
            None if is_new => None,
            None => options.of_all(pool),
            named => named,
        };
        known.is_some_and(|known| *known != server.fingerprint())
    }
}

/// A worker that was proven; written as `WORKER CHANGED_AT` and the options.
pub(super) struct WorkerRecord {
    /// As [`Worker::identity`] has it.
    pub(super) worker: String,
    /// When the outputs had last been changed, in ticks since boot.
    pub(super) changed_at: u64,
    pub(super) options: OptionFingerprints,
}

impl WorkerRecord {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (worker, changed_at) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Self { worker, changed_at, options: OptionFingerprints::parse(parts.next().unwrap_or_default()) })
    }
}

impl fmt::Display for WorkerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.worker, self.changed_at, self.options)
    }
}

/// For each section the fingerprints of its servers' options, each with the names of the servers that have it. If all
/// servers of the outputs have the same options there, [`ALL`] stands for them; those that are left over are named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OptionFingerprints(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl OptionFingerprints {
    pub(super) fn of(file: &File, worker: &Worker, known: &Known) -> Self {
        let mut all = BTreeMap::new();
        for (pool, Pool { servers, .. }) in &file.pools {
            let mut by_fingerprint = BTreeMap::<String, Vec<String>>::new();
            for server in servers {
                by_fingerprint.entry(server.fingerprint()).or_default().push(server.name.clone());
            }
            if by_fingerprint.len() == 1 {
                by_fingerprint.values_mut().for_each(|names| *names = vec![ALL.to_owned()]);
            }
            // A server that is left over may be wanted again before it is deleted.
            let wanted: BTreeSet<_> = servers.iter().map(|server| &server.name).collect();
            if let Known::Options(options) = known {
                for name in worker.pools.get(pool).into_iter().flat_map(BTreeMap::keys) {
                    let fingerprint = options.named(pool, name).or_else(|| options.of_all(pool));
                    if let Some(fingerprint) = fingerprint.filter(|_| !wanted.contains(name)) {
                        by_fingerprint.entry(fingerprint.clone()).or_default().push(name.clone());
                    }
                }
            }
            all.insert(pool.clone(), by_fingerprint);
        }
        Self(all)
    }

    /// Of a server that is named.
    fn named(&self, pool: &str, name: &str) -> Option<&String> {
        let has = |(_, names): &(&String, &Vec<String>)| names.iter().any(|n| n == name);
        self.0.get(pool)?.iter().find(has).map(|(fingerprint, _)| fingerprint)
    }

    /// Of all servers that are not named.
    fn of_all(&self, pool: &str) -> Option<&String> {
        self.named(pool, ALL)
    }

    fn parse(text: &str) -> Self {
        let mut all = BTreeMap::<String, BTreeMap<String, Vec<String>>>::new();
        for part in text.split_whitespace() {
            let Some((pool, (fingerprint, names))) =
                part.split_once('=').and_then(|(pool, rest)| Some((pool, rest.split_once(':')?)))
            else {
                continue;
            };
            let names = names.split(',').map(|name| if name.is_empty() { ALL } else { name }.to_owned()).collect();
            all.entry(pool.to_owned()).or_default().insert(fingerprint.to_owned(), names);
        }
        Self(all)
    }
}

/// ` POOL=FINGERPRINT:NAME,NAME` for each fingerprint, and without a name where it is that of all servers.
impl fmt::Display for OptionFingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (pool, by_fingerprint) in &self.0 {
            for (fingerprint, names) in by_fingerprint {
                let names = if names.as_slice() == [ALL] { String::new() } else { names.join(",") };
                write!(f, " {pool}={fingerprint}:{names}")?;
            }
        }
        Ok(())
    }
}
