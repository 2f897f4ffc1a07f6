//! The whole configuration, valid.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::providers::Provider;
use super::top::raw::Confine;
use crate::model::{Name, Pattern, Selector, Service};
use crate::registry::Settings;
use crate::{api, frontend};

/// A configuration in which everything is known to fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the last known good and the apply records are kept.
    pub state_dir: PathBuf,
    /// Whether elasticd confines itself.
    pub confine: Confine,
    /// Whether files of frontends that are not configured any more are removed.
    pub prune: bool,
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
    /// What works, but maybe not as intended.
    pub warnings: Vec<Fault>,
}

impl Config {
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
