//! Backends that were registered by hand or by program, rather than reported by a provider. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::{Backend, Name};

/// The shortest and the longest time for which a registration holds.
pub const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 60 * 60));

/// Registrations for one service, at most.
pub const MOST: usize = 10_000;

/// All registrations: by service, then by the backend's id.
pub type Registrations = BTreeMap<Name, BTreeMap<String, Registered>>;

/// One registered backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// What frontends are told of.
    pub backend: Backend,
    /// For how long it was registered.
    pub ttl: Duration,
    /// When it goes unless it is registered anew.
    pub expires: SystemTime,
}

impl Registered {
    /// From `now` on.
    pub fn new(backend: Backend, ttl: Duration, now: SystemTime) -> Self {
        Self { backend, ttl, expires: now + ttl }
    }
}

/// A provider's backends and the registered ones, ordered by id. One that is registered stands for the provider's of
/// the same id: somebody wanted it so, and for a bounded time.
pub fn merge<'a>(observed: &'a [Backend], registered: Option<&BTreeMap<String, Registered>>) -> Cow<'a, [Backend]> {
    let Some(registered) = registered.filter(|registered| !registered.is_empty()) else { return observed.into() };
    let observed = observed.iter().map(|backend| (&backend.id, backend));
    let registered = registered.iter().map(|(id, registered)| (id, &registered.backend));
    let all: BTreeMap<_, _> = observed.chain(registered).collect();
    all.into_values().cloned().collect()
}

/// Lets every registration hold anew from `now`: while nobody listened, nobody could renew one.
pub fn renew(all: &mut Registrations, now: SystemTime) {
    for registered in all.values_mut().flat_map(BTreeMap::values_mut) {
        registered.expires = now + registered.ttl;
    }
}

/// Takes out what has expired by `now`, and says when the next one will. `None`: none is left.
pub fn expire(all: &mut Registrations, now: SystemTime) -> Option<SystemTime> {
    all.retain(|_, registered| {
        registered.retain(|_, registered| registered.expires > now);
        !registered.is_empty()
    });
    all.values().flat_map(BTreeMap::values).map(|registered| registered.expires).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(id: &str, port: u16) -> Backend {
        let address = "10.0.0.1".parse().expect("an address");
        let (zone, tags) = (None, BTreeMap::new());
        Backend { id: id.to_owned(), address, port, zone, weight: 1, state: crate::model::BackendState::Up, tags }
    }

    #[test]
    fn registered_backends_join_those_observed_and_stand_for_their_namesakes() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let registered = |id: &str, port| {
            (id.to_owned(), Registered::new(backend(id, port), Duration::from_secs(60), SystemTime::UNIX_EPOCH))
        };
        let registered = BTreeMap::from([registered("a", 9), registered("c", 9)]);
        let observed = [backend("b", 1), backend("c", 1)];
        let merged = merge(&observed, Some(&registered));
        assert_eq!(*merged, [backend("a", 9), backend("b", 1), backend("c", 9)]);
        assert_eq!(*merge(&[backend("b", 1)], None), [backend("b", 1)]);

        let mut all = Registrations::from([("web".parse().expect("a name"), registered)]);
        assert_eq!(expire(&mut all, SystemTime::UNIX_EPOCH), Some(at));
        assert_eq!((expire(&mut all, at), all.len()), (None, 0));
    }
}
