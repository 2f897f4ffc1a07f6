//! Why an instance did not become a backend.

use std::time::Duration;

use jiff::fmt::friendly::SpanPrinter;
use serde::Serialize;

use super::backend::MAX_WEIGHT;
use super::condition::{Attribute, Condition, bare};
use super::instance::{AddressKind, InstanceState};
use super::name::Name;

/// The longest instance id, in bytes. EC2's have 19.
pub(super) const MAX_ID_LEN: usize = 128;

/// An instance that did not become a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exclusion {
    /// The instance's id.
    pub id: String,
    /// The first rule that excludes it.
    #[serde(flatten)]
    pub reason: Reason,
}

/// Why an instance did not become a backend of a service. Displayed with what was wanted and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The instance lacks a tag that the selector names.
    #[error("tag {} is missing; the service selects {}", bare(key), wanted.of(key))]
    TagMissing {
        /// The tag's key.
        key: String,
        /// What the selector wants.
        wanted: Condition,
    },
    /// A tag has a value that the selector does not want.
    #[error("tag {} is {value:?}; the service selects {}", bare(key), wanted.of(key))]
    TagDiffers {
        /// The tag's key.
        key: String,
        /// Its value.
        value: String,
        /// What the selector wants.
        wanted: Condition,
    },
    /// The provider does not know an attribute that the selector names.
    #[error("{} is unknown; the service selects where {}", attribute.as_str(), wanted.of(attribute.as_str()))]
    Missing {
        /// The attribute.
        attribute: Attribute,
        /// What the selector wants.
        wanted: Condition,
    },
    /// An attribute has a value that the selector does not want.
    #[error("{} is {value:?}; the service selects where {}", attribute.as_str(), wanted.of(attribute.as_str()))]
    Differs {
        /// The attribute.
        attribute: Attribute,
        /// Its value.
        value: String,
        /// What the selector wants.
        wanted: Condition,
    },
    /// The provider says that the instance is to take no traffic.
    #[error("the instance {why}")]
    Out {
        /// Why, to be read after "the instance".
        why: String,
    },
    /// The instance was launched more recently than `min_age` ago.
    #[error("launched less than {} ago, the service's min_age", SpanPrinter::new().unsigned_duration_to_string(min_age))]
    TooYoung {
        /// The service's `min_age`.
        #[serde(skip)]
        min_age: Duration,
    },
    /// Our own health check of the backend fails.
    #[error("{why}")]
    Unhealthy {
        /// How, as a sentence.
        why: String,
    },
    /// Backends of our own zone are preferred, and there are enough of them.
    #[error("zone is {}; our own zone {own:?} is preferred and has enough backends", zone.as_ref().map_or_else(|| "unknown".to_owned(), |zone| format!("{zone:?}")))]
    OtherZone {
        /// The backend's zone, if it is known.
        zone: Option<String>,
        /// Our own zone.
        own: String,
    },
    /// The set of the instance's provider is not used.
    #[error("provider {provider} {why}")]
    Unused {
        /// The provider.
        provider: Name,
        /// Why, to be read after the provider's name.
        why: &'static str,
    },
    /// Only running instances become backends.
    #[error("state is {}; only running instances become backends", state.as_str())]
    NotRunning {
        /// The instance's state.
        state: InstanceState,
    },
    /// The instance has no address of the kind the service wants.
    #[error("no {} address is known, and the service uses address = {:?}", kind.as_str(), kind.as_str())]
    NoAddress {
        /// The kind wanted.
        kind: AddressKind,
    },
    /// Neither the tag nor a default gives a port.
    #[error("no port is known: set the service's `port`, or a `default` beside its `tag`")]
    NoPort,
    /// The tag that should hold the port holds something else.
    #[error("tag {} is {value:?}; the service expects a port from 1 to 65535", bare(key))]
    BadPort {
        /// The tag's key.
        key: String,
        /// What it holds.
        value: String,
    },
    /// The weight is not in the range that every frontend accepts.
    #[error("weight is {value:?}; a whole number from 0 to {MAX_WEIGHT} is expected")]
    BadWeight {
        /// What was found.
        value: String,
    },
    /// The id has characters that are special in some frontend's syntax.
    #[error("the id has other characters than ASCII letters, digits and ._:-[]@, or more than {MAX_ID_LEN} of them")]
    BadId,
}

impl Reason {
    /// Whether the instance is misconfigured, rather than not meant for the service.
    pub const fn is_fault(&self) -> bool {
        match self {
            Self::TagMissing { .. }
            | Self::TagDiffers { .. }
            | Self::Missing { .. }
            | Self::Differs { .. }
            | Self::Out { .. }
            | Self::TooYoung { .. }
            | Self::Unhealthy { .. }
            | Self::OtherZone { .. }
            | Self::Unused { .. }
            | Self::NotRunning { .. } => false,
            Self::NoAddress { .. } | Self::NoPort | Self::BadPort { .. } | Self::BadWeight { .. } | Self::BadId => true,
        }
    }
}
