//! Changes that an operator or a program asks for over the admin API.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::pool::Pool;
use super::registration::{self, Registered, Registrations};
use crate::model::{Backend, Name};
use crate::sys::text::list;

/// A change of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Serve the set that the guard holds.
    Accept {
        /// The service.
        service: Name,
    },
    /// Add a backend to the service for a limited time. A backend of the same id that a provider reports is replaced
    /// meanwhile.
    Register {
        /// The service.
        service: Name,
        /// The backend.
        backend: Backend,
        /// How long the registration lasts unless it is renewed, within [`registration::TTL`].
        ttl: Duration,
    },
    /// Remove a registered backend.
    Deregister {
        /// The service.
        service: Name,
        /// The backend's id.
        id: String,
    },
}

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No service has this name.
    #[error("no service {name:?}; configured: {}", list(known, 20))]
    UnknownService {
        /// The name.
        name: Name,
        /// The services there are.
        known: Vec<Name>,
    },
    /// The guard holds no set of this service.
    #[error("no set of service {0} is held, so there is nothing to accept")]
    NothingHeld(Name),
    /// The backend is not registered.
    #[error(
        "no backend {id:?} is registered for service {service}; backends that a provider reports cannot be deregistered"
    )]
    NotRegistered {
        /// The service.
        service: Name,
        /// The backend's id.
        id: String,
    },
    /// No further backend can be registered.
    #[error(
        "service {0} has {most} registered backends, the most allowed; deregister some first",
        most = registration::MAX_PER_SERVICE
    )]
    TooManyRegistrations(Name),
}

impl Change {
    /// The service it is about.
    pub const fn service(&self) -> &Name {
        match self {
            Self::Accept { service } | Self::Register { service, .. } | Self::Deregister { service, .. } => service,
        }
    }
}

/// Makes a change of the services or of the registered backends. It is served once the registry has settled.
pub(super) fn apply(
    change: Change,
    pools: &mut BTreeMap<Name, Pool>,
    registrations: &mut Registrations,
    now: SystemTime,
) -> Result<(), ChangeError> {
    let service = change.service().clone();
    let Some(pool) = pools.get_mut(&service) else {
        return Err(ChangeError::UnknownService { name: service, known: pools.keys().cloned().collect() });
    };
    match change {
        Change::Accept { .. } => {
            let backends = pool.accept_held().ok_or_else(|| ChangeError::NothingHeld(service.clone()))?;
            tracing::info!(%service, backends, "held set accepted on request");
        }
        Change::Register { backend, ttl, .. } => {
            let registered = registrations.entry(service.clone()).or_default();
            if registered.len() >= registration::MAX_PER_SERVICE && !registered.contains_key(&backend.id) {
                return Err(ChangeError::TooManyRegistrations(service));
            }
            registered.insert(backend.id.clone(), Registered::new(backend, ttl, now));
        }
        Change::Deregister { id, .. } => {
            let registered = registrations.get_mut(&service);
            if registered.and_then(|registered| registered.remove(&id)).is_none() {
                return Err(ChangeError::NotRegistered { service, id });
            }
        }
    }
    Ok(())
}
