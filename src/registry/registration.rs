//! Backends that were registered over the admin API, rather than reported by a provider. Pure.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::clock::ClockStep;
use crate::model::{Backend, Name};

/// The shortest and the longest time that a registration may last.
pub const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// The largest number of registered backends of one service.
pub const MAX_PER_SERVICE: usize = 10_000;

/// All registrations: by service, then by the backend's id.
pub type Registrations = BTreeMap<Name, BTreeMap<String, Registered>>;

/// One registered backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The backend.
    pub backend: Backend,
    /// How long the registration lasts unless it is renewed.
    pub ttl: Duration,
    /// When it ends unless it is renewed.
    pub expires: SystemTime,
}

impl Registered {
    /// A registration made at `now`.
    pub fn new(backend: Backend, ttl: Duration, now: SystemTime) -> Self {
        Self { backend, ttl, expires: now + ttl }
    }
}

/// Renews every registration at `now`, after a restart: meanwhile no client could renew its own.
pub fn renew_all(all: &mut Registrations, now: SystemTime) {
    for registered in all.values_mut().flat_map(BTreeMap::values_mut) {
        // The state file may have been edited by hand.
        registered.ttl = registered.ttl.clamp(*TTL.start(), *TTL.end());
        registered.expires = now + registered.ttl;
    }
}

/// Moves the end of every registration along with the system clock.
pub(super) fn shift(all: &mut Registrations, step: ClockStep) {
    all.values_mut().flat_map(BTreeMap::values_mut).for_each(|registered| step.shift(&mut registered.expires));
}

/// Removes the registrations that have ended by `now`. Returns when the next one ends. `None`: none is left.
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
        renew_all(&mut all, SystemTime::UNIX_EPOCH + Duration::from_secs(10));
        assert_eq!(expire(&mut all, at), Some(at + Duration::from_secs(10)));
        assert_eq!((expire(&mut all, at + Duration::from_secs(10)), all.len()), (None, 0));
    }

    #[test]
    fn a_registration_from_disk_lasts_no_longer_than_one_that_is_sent() {
        let mut forever = Registered::new(backend("a", 9), Duration::ZERO, SystemTime::UNIX_EPOCH);
        forever.ttl = Duration::MAX;
        let mut all = Registrations::from([("web".parse().expect("a name"), [("a".to_owned(), forever)].into())]);
        renew_all(&mut all, SystemTime::UNIX_EPOCH);
        assert_eq!(expire(&mut all, SystemTime::UNIX_EPOCH), Some(SystemTime::UNIX_EPOCH + *TTL.end()));
    }
}
