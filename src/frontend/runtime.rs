//! The runtime APIs of frontends: over them a frontend is asked what it runs, and most apply changes without a reload.
//!
//! The outputs on disk stay authoritative: a change is written there first, and the running process is then made to agree
//! with them. So a frontend that is restarted comes up with the same configuration.
//!
//! Each API is a file or folder here that implements [`RuntimeApi`], and a line in [`Protocol::api`].

mod apache;
mod api;
mod caddy;
mod caddyfile;
mod difference;
mod envoy;
pub(super) mod haproxy;
mod http;
mod prometheus;
mod traefik;
mod varnish;

use api::RuntimeApi;
pub use api::{Access, Comparison, Error, Evidence, LiveUpdate, Wanted};
pub use haproxy::reload_by_master;
use serde::Deserialize;

/// The protocol of a frontend's runtime API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Apache's `mod_status`: for the proof alone.
    Apache,
    /// Caddy's admin API, over which the upstreams of its JSON configuration are replaced.
    Caddy,
    /// Caddy's admin API, over which Caddy is asked to load its Caddyfile again.
    Caddyfile,
    /// Envoy's admin interface: for the proof alone.
    Envoy,
    /// HAProxy's runtime API, on a `stats socket` of level admin.
    Haproxy,
    /// Prometheus' HTTP API: for the proof alone.
    Prometheus,
    /// Traefik's API: for the proof alone.
    Traefik,
    /// Varnish's management interface (`varnishd -T`).
    Varnish,
}

impl Protocol {
    const fn api(self) -> &'static dyn RuntimeApi {
        match self {
            Self::Apache => &apache::Apache,
            Self::Caddy => &caddy::Caddy,
            Self::Caddyfile => &caddyfile::Caddyfile,
            Self::Envoy => &envoy::Envoy,
            Self::Haproxy => &haproxy::Haproxy,
            Self::Prometheus => &prometheus::Prometheus,
            Self::Traefik => &traefik::Traefik,
            Self::Varnish => &varnish::Varnish,
        }
    }

    /// Whether the API can change what the frontend runs; otherwise it only shows that.
    pub fn takes_changes(self) -> bool {
        self.api().takes_changes()
    }

    /// Whether a part of a change can be applied without the outputs being in place.
    pub fn applies_in_part(self) -> bool {
        self.api().applies_in_part()
    }
}

/// The runtime API of one frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    pub protocol: Protocol,
    pub access: Access,
}

impl Runtime {
    /// Compares what the frontend runs with what it should run. `last` is the evidence of its last proof.
    pub async fn compare(&self, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<Comparison, Error> {
        self.protocol.api().compare(&self.access, wanted, last).await
    }

    /// Makes the frontend run what it should, as far as its API can do that. What it runs already is left alone.
    pub async fn apply(&self, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<LiveUpdate, Error> {
        self.protocol.api().apply(&self.access, wanted, last).await
    }

    /// What the frontend shows before a reload, for APIs that can only tell by comparison that one has happened.
    pub async fn state_before_reload(&self) -> Result<Option<Evidence>, Error> {
        self.protocol.api().state_before_reload(&self.access).await
    }

    /// Checks that the API can be connected to.
    pub async fn probe(&self) -> Result<(), Error> {
        self.access.connect().await.map(drop)
    }
}
