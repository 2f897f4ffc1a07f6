//! From files and environment variables to a valid configuration.

use std::path::Path;

use super::configuration::Config;
use super::cross_check::cross_check;
use super::fault::Faults;
use super::layers::Layers;
use super::top::{Top, top};
use super::{fleet, frontends, providers, service};
use crate::frontend::Guards;
use crate::model::{Pattern, Service};

impl Config {
    /// Reads `file`, the fragments beside it and the environment.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let mut layers = Layers::read(file).map_err(Faults)?;
        let base = file.parent().unwrap_or(Path::new(""));
        let top = top(&mut layers);
        let mut providers = providers::providers(&mut layers, top.as_ref().map(|top| top.state_dir.as_path()));
        fleet::link_fallbacks(&mut layers, &mut providers);
        let (services, patterns) = service::services(&mut layers);
        let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
        let prune = top.as_ref().is_some_and(|top| top.prune);
        let mut frontends = frontends::frontends(&mut layers, &names, base, prune);
        let guards = guards(&services, &patterns);
        for frontend in &mut frontends {
            frontend.follows_all_services &= !patterns.is_empty();
            frontend.guards = guards.clone();
            frontend.guards.services.retain(|name, _| frontend.services.contains(name));
        }
        let publish = fleet::publish(&mut layers, &providers);
        let mut config = top.map(|Top { state_dir, zone, confine, prune, api }| Self {
            state_dir,
            zone,
            confine,
            prune,
            api,
            providers,
            services,
            patterns,
            frontends,
            publish,
            warnings: Vec::new(),
        });
        if let Some(config) = &mut config {
            cross_check(config, &mut layers);
            config.warnings = std::mem::take(&mut layers.warnings);
        }
        match config {
            Some(config) if layers.faults.is_empty() => Ok(config),
            _ => Err(Faults(layers.faults)),
        }
    }
}

/// The guards of these services, and of those that the patterns create.
fn guards(services: &[Service], patterns: &[Pattern]) -> Guards {
    let created = patterns.iter().map(|pattern| &pattern.base.guard).min_by_key(|guard| guard.max_drop.0);
    Guards {
        services: services.iter().map(|service| (service.name.clone(), service.guard.clone())).collect(),
        created: created.cloned().unwrap_or_default(),
    }
}
