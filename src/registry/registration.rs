//! Backends that were registered by hand or by program, rather than reported by a provider. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::clock::Step;
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

/// Lets every registration hold anew from `now`: while nobody listened, nobody could renew one.
pub fn renew(all: &mut Registrations, now: SystemTime) {
    for registered in all.values_mut().flat_map(BTreeMap::values_mut) {
        // What was on disk is no safer than what is sent.
        registered.ttl = registered.ttl.clamp(TTL.0, TTL.1);
        registered.expires = now + registered.ttl;
    }
}

/// Moves all of them along with a clock that was set.
pub(super) fn shift(all: &mut Registrations, step: Step) {
    all.values_mut().flat_map(BTreeMap::values_mut).for_each(|registered| step.shift(&mut registered.expires));
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
        let (zone, tags) = (None, crate::model::Tags::default());
        Backend { id: id.to_owned(), address, port, zone, weight: 1, state: crate::model::BackendState::Up, tags }
    }

    #[test]
    fn a_registration_ends_with_its_time() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let registered = Registered::new(backend("a", 9), Duration::from_secs(60), SystemTime::UNIX_EPOCH);
        let mut all = Registrations::from([("web".parse().expect("a name"), [("a".to_owned(), registered)].into())]);
        assert_eq!(expire(&mut all, SystemTime::UNIX_EPOCH), Some(at));
        renew(&mut all, SystemTime::UNIX_EPOCH + Duration::from_secs(10));
        assert_eq!(expire(&mut all, at), Some(at + Duration::from_secs(10)));
        assert_eq!((expire(&mut all, at + Duration::from_secs(10)), all.len()), (None, 0));
    }

    #[test]
    fn a_registration_from_disk_lasts_no_longer_than_one_that_is_sent() {
        let mut forever = Registered::new(backend("a", 9), Duration::ZERO, SystemTime::UNIX_EPOCH);
        forever.ttl = Duration::MAX;
        let mut all = Registrations::from([("web".parse().expect("a name"), [("a".to_owned(), forever)].into())]);
        renew(&mut all, SystemTime::UNIX_EPOCH);
        assert_eq!(expire(&mut all, SystemTime::UNIX_EPOCH), Some(SystemTime::UNIX_EPOCH + TTL.1));
    }
}
