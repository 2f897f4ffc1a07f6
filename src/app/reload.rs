//! Reloading the configuration.

use super::daemon::Daemon;
use super::error::Error;
use super::tasks::build_worker;
use crate::config::{Config, Fault, Faults};
use crate::model::Name;
use crate::registry;
use crate::sys::systemd;

impl Daemon {
    /// Applies the configuration file as it is now. If it has any fault, nothing changes.
    pub(super) async fn reload(&mut self) -> Result<(), Error> {
        if *self.api_state.ready.borrow() {
            systemd::reloading();
        }
        let reloaded = self.try_reload().await;
        match &reloaded {
            Ok(()) => {
                tracing::info!("configuration reloaded");
                log_warnings(&self.config);
            }
            Err(error) => tracing::error!(%error, "configuration refused; the previous one is kept"),
        }
        // systemd must be told that the reload has ended, but not that elasticd is ready while it is still starting.
        if *self.api_state.ready.borrow() {
            systemd::ready();
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<(), Error> {
        let file = self.file.clone();
        let new = tokio::task::spawn_blocking(move || Config::load(&file)).await.expect("loading does not panic")?;
        let fixed = [
            ("state_dir", new.state_dir != self.config.state_dir),
            ("confine", new.confine != self.config.confine),
            ("api", new.api != self.config.api),
        ];
        let fault = |key: &str| Fault {
            place: Some(self.file.display().to_string()),
            key: key.to_owned(),
            message: "cannot change while elasticd runs: restart it".to_owned(),
        };
        let faults: Vec<_> = fixed.iter().filter(|(_, changed)| *changed).map(|(key, _)| fault(key)).collect();
        if !faults.is_empty() {
            return Err(Faults(faults).into());
        }
        let changed: Vec<_> =
            new.frontends.iter().filter(|f| self.workers.get(&f.name).is_none_or(|w| w.config != **f)).collect();
        let workers: Vec<_> =
            changed.into_iter().map(|f| build_worker(f, &new, &self.links)).collect::<Result<_, _>>()?;
        // From here on nothing can fail.
        self.unconfined.allow_directories(new.output_directories());
        self.config = new;
        let reconfigured = registry::Event::Reconfigured(self.config.settings());
        // The registry only ends by being stopped or by a panic, of which the supervisor knows.
        let _ = self.events.send(reconfigured).await;
        let is_gone = |name: &Name| self.config.frontends.iter().all(|frontend| frontend.name != *name);
        let gone: Vec<_> =
            self.workers.extract_if(.., |name, _| is_gone(name)).map(|(_, worker)| worker.stop()).collect();
        self.links.outputs.retain(|name| !is_gone(name));
        for worker in &workers {
            self.index_outputs(worker.name());
        }
        for worker in workers {
            self.start_worker(worker, &gone);
        }
        self.publish_frontends();
        self.find_orphans(self.config.prune).await;
        self.start_pollers();
        self.find_zone();
        self.start_publisher();
        // A changed service shows at once, rather than at its provider's next poll.
        self.refresh.send_modify(|requests| *requests += 1);
        Ok(())
    }
}

/// Logs what works, but maybe not as intended.
pub(super) fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(%warning, "the configuration may not be as intended");
    }
}
