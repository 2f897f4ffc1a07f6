//! From files and environment variables to a valid configuration.

use std::path::Path;

use super::configuration::Config;
use super::cross_check::cross_check;
use super::fault::Faults;
use super::layers::Layers;
use super::top::{Top, top};
use super::{fleet, frontends, providers, service};

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
        for frontend in &mut frontends {
            frontend.follows_all_services &= !patterns.is_empty();
        }
        let publish = fleet::publish(&mut layers, &providers);
        let config = top.map(|Top { state_dir, zone, confine, prune, api }| Self {
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
        });
        if let Some(config) = &config {
            cross_check(config, &mut layers);
        }
        match config {
            Some(config) if layers.faults.is_empty() => Ok(config),
            _ => Err(Faults(layers.faults)),
        }
    }
}
