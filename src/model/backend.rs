//! One member of a service, as a frontend needs it.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tags;

/// The largest weight: HAProxy's, the smallest bound among the frontends
/// (HAProxy configuration manual, section 5.2, `weight`).
pub const MAX_WEIGHT: u16 = 256;

/// One member of a service. Its serialised form is what templates see, what the socket answers and what the state
/// file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// The instance's id, in the alphabet of [`selection::valid_id`](super::selection::valid_id).
    pub id: String,
    /// Where to connect to.
    pub address: IpAddr,
    /// The TCP port, 1 to 65535.
    pub port: u16,
    /// The availability zone, where the provider knows it. Any text: it must be escaped.
    pub zone: Option<String>,
    /// The share of traffic relative to the service's other backends: 0 (none) to [`MAX_WEIGHT`].
    pub weight: u16,
    /// Whether new traffic is welcome.
    pub state: BackendState,
    /// The cloud's tags. Any text: they must be escaped.
    pub tags: Tags,
}

/// Whether a backend takes new traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It takes traffic.
    #[default]
    Up,
    /// It is leaving: its weight is 0, and it may finish what it has begun.
    Draining,
}

impl BackendState {
    /// The state as templates and the socket write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
        }
    }
}
