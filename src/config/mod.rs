//! The configuration: figment layers, read raw, then valid. All faults at once, each with its file and key.

mod cross_check;
mod fault;
mod fleet;
mod frontends;
mod health;
mod layers;
mod providers;
mod section;
mod service;
mod top;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use fault::{Fault, Faults};
use layers::Layers;
pub use providers::Provider;
pub use top::Confine;
use top::Top;

use crate::model::{Name, Pattern, Selector, Service};
use crate::registry::Settings;
use crate::{api, frontend};

/// The configuration file, where none is named.
pub const DEFAULT_PATH: &str = "/etc/elasticd/elasticd.toml";

/// The query socket, where none is configured.
pub const DEFAULT_SOCKET: &str = "/run/elasticd/elasticd.sock";

/// The admin socket, where none is configured.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/elasticd/admin.sock";

/// A configuration in which everything is known to fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the last known good and the apply records are kept.
    pub state_dir: PathBuf,
    /// Whether elasticd confines itself.
    pub confine: Confine,
    /// The sockets.
    pub api: api::Config,
    /// By name.
    pub providers: BTreeMap<Name, Provider>,
    /// Our own zone, if it is configured.
    pub zone: Option<String>,
    /// Ordered by name.
    pub services: Vec<Service>,
    /// What creates more of them, ordered by name.
    pub patterns: Vec<Pattern>,
    /// Ordered by name.
    pub frontends: Vec<frontend::Config>,
    /// What is published to a fleet.
    pub publish: Option<crate::fleet::Config>,
}

impl Config {
    /// Reads `file`, the fragments beside it and the environment.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let mut layers = Layers::read(file).map_err(Faults)?;
        let base = file.parent().unwrap_or(Path::new(""));
        let top = top::top(&mut layers);
        let mut providers = providers::providers(&mut layers, top.as_ref().map(|top| top.state_dir.as_path()));
        fleet::link_fallbacks(&mut layers, &mut providers);
        let (services, patterns) = service::services(&mut layers);
        let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
        let mut frontends = frontends::frontends(&mut layers, &names, base);
        for frontend in &mut frontends {
            frontend.follows_all_services &= !patterns.is_empty();
        }
        let publish = fleet::publish(&mut layers, &providers);
        let config = top.map(|Top { state_dir, zone, confine, api }| Self {
            state_dir,
            zone,
            confine,
            api,
            providers,
            services,
            patterns,
            frontends,
            publish,
        });
        if let Some(config) = &config {
            config.cross_check(&mut layers);
        }
        match config {
            Some(config) if layers.faults.is_empty() => Ok(config),
            _ => Err(Faults(layers.faults)),
        }
    }

    /// The services that are configured, and what those have in common that tags will create.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().chain(self.patterns.iter().map(|pattern| &pattern.base))
    }

    /// The directories that outputs are written to.
    pub fn output_directories(&self) -> BTreeSet<PathBuf> {
        let outputs = self.frontends.iter().flat_map(|frontend| &frontend.outputs);
        outputs.filter_map(|output| output.path.parent()).map(Path::to_owned).collect()
    }

    /// What the registry is to know.
    pub fn settings(&self) -> Settings {
        Settings {
            services: self.services.clone(),
            patterns: self.patterns.clone(),
            providers: self.providers.iter().map(|(name, p)| (name.clone(), p.settings())).collect(),
            zone: self.zone.clone(),
        }
    }

    /// What a provider's instances are selected by for other purposes than its services: for a fleet, or as a fallback.
    pub fn extra_selectors(&self, provider: &Name) -> Vec<Selector> {
        let fallback_of = self.providers.iter().filter(|(_, other)| other.config.fallback() == Some(provider));
        let publish = self.publish.iter().filter(|publish| publish.providers().contains_key(provider));
        fallback_of
            .flat_map(|(other, _)| self.selectors(other))
            .chain(publish.map(|publish| publish.select().clone()))
            .collect()
    }

    /// Providers that are published, and that our own services ask as well.
    pub fn polled_twice(&self) -> impl Iterator<Item = &Name> {
        let published = self.publish.iter().flat_map(|publish| publish.providers().keys());
        published.filter(|name| !self.selectors(name).is_empty())
    }

    /// What a provider's instances are selected by.
    pub fn selectors(&self, provider: &Name) -> Vec<Selector> {
        let configured = self.services.iter().map(|service| (service, service.select.clone()));
        let created = self.patterns.iter().map(|pattern| (&pattern.base, pattern.selector()));
        let all = configured.chain(created).filter(|(service, _)| service.providers.contains(provider));
        all.map(|(_, selector)| selector).collect()
    }
}

#[cfg(test)]
mod tests;
