//! What a provider knows of one machine.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Tags;

/// One machine as its provider describes it, before any service has selected from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Unique within its provider, and stable for the life of the machine.
    pub id: String,
    /// The address inside the cloud's network.
    pub private_ipv4: Option<Ipv4Addr>,
    /// The address on the internet.
    pub public_ipv4: Option<Ipv4Addr>,
    /// The first IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The port, where the provider itself knows one (`fixed`, `file`); a cloud does not.
    pub port: Option<u16>,
    /// The weight, where the provider itself knows one.
    pub weight: Option<u16>,
    /// The availability zone.
    pub zone: Option<String>,
    /// The network, such as a VPC.
    pub vpc: Option<String>,
    /// The part of the network.
    pub subnet: Option<String>,
    /// The group that scales it, such as an Auto Scaling group.
    pub group: Option<String>,
    /// The kind of machine, such as `m7g.large`.
    pub instance_type: Option<String>,
    /// How much of a machine it is compared to others, from 1, as far as its provider knows. Not stored: it follows
    /// from the kind of machine.
    #[serde(skip)]
    pub size: Option<u16>,
    /// The lifecycle state.
    #[serde(default)]
    pub state: InstanceState,
    /// Whether it is meant to take traffic.
    #[serde(default)]
    pub availability: Availability,
    /// When the machine was last started.
    pub launched: Option<Timestamp>,
    /// The cloud's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl Instance {
    /// A running instance of which only the id is known.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            private_ipv4: None,
            public_ipv4: None,
            ipv6: None,
            port: None,
            weight: None,
            zone: None,
            vpc: None,
            subnet: None,
            group: None,
            instance_type: None,
            size: None,
            state: InstanceState::Running,
            availability: Availability::Ready,
            launched: None,
            tags: Tags::default(),
        }
    }
}

/// An instance's lifecycle state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Being started.
    Pending,
    /// Started. The only state that may take traffic, and what is assumed where a provider has no states.
    #[default]
    Running,
    /// Being stopped; it may start again.
    Stopping,
    /// Stopped; it may start again.
    Stopped,
    /// Being terminated.
    ShuttingDown,
    /// Gone for good, though still listed for a while.
    Terminated,
}

impl InstanceState {
    /// The state as the cloud writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }
}

/// Whether whoever runs a machine means it to take traffic, beyond its being started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// It may take traffic.
    #[default]
    Ready,
    /// It is about to go: what it has begun it may finish, and nothing new is to come.
    Leaving {
        /// What is known of the reason, to be read after "it": `is in the lifecycle state Terminating:Wait`.
        why: String,
    },
    /// It is to take no traffic.
    Out {
        /// What is known of the reason, to be read after "it": `fails its status checks`.
        why: String,
    },
}

/// Which of an instance's addresses a service uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressKind {
    /// The IPv4 address inside the cloud's network.
    #[default]
    PrivateIpv4,
    /// The IPv4 address on the internet.
    PublicIpv4,
    /// The first IPv6 address.
    Ipv6,
}

impl AddressKind {
    /// The kind as the configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrivateIpv4 => "private_ipv4",
            Self::PublicIpv4 => "public_ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}
