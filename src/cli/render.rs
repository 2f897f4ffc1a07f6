//! `elasticd render`: one discovery, and what would be written after it.

use std::path::Path;
use std::time::{Instant, SystemTime};

use super::{Exit, client, complain, diff};
use crate::config::Config;
use crate::frontend;
use crate::model::{Guard, Name, OnEmpty, Percent, Snapshot};
use crate::provider::{self, ApiUsage, Observation};
use crate::registry::{self, Registry};
use crate::sys::unconfined::Unconfined;

/// Prints what would be written. Nothing is written, nobody is signalled, and the guard is not asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only this frontend
    frontend: Option<Name>,
    /// Print how the files there are would change; exits with 1 if they would
    #[arg(long)]
    diff: bool,
}

/// Renders every frontend, or the one named.
pub async fn run(args: &Args, file: &Path) -> Exit {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(faults) => {
            complain(&faults);
            return Exit::CONFIG;
        }
    };
    let wanted: Vec<_> =
        config.frontends.iter().filter(|f| args.frontend.as_ref().is_none_or(|name| *name == f.name)).collect();
    if wanted.is_empty() {
        let known: Vec<_> = config.frontends.iter().map(|frontend| frontend.name.as_str()).collect();
        complain(&format!("there is no such frontend; the frontends are {}", known.join(", ")));
        return Exit::FAILURE;
    }
    let snapshot = match discover(&config).await {
        Ok(snapshot) => snapshot,
        Err(message) => {
            complain(&message);
            return Exit::UNAVAILABLE;
        }
    };
    let mut text = String::new();
    let mut differs = false;
    for frontend in wanted {
        match render(frontend, &snapshot, args.diff) {
            Ok(rendered) => {
                differs |= !rendered.is_empty();
                text.push_str(&rendered);
            }
            Err(error) => {
                complain(&format!("frontends.{}: {error}", frontend.name));
                return Exit::FAILURE;
            }
        }
    }
    if let Err(error) = client::write_out(text.as_bytes()) {
        complain(&error);
        return Exit::FAILURE;
    }
    if args.diff && differs { Exit::FAILURE } else { Exit::SUCCESS }
}

fn render(
    frontend: &frontend::Config,
    snapshot: &Snapshot,
    as_diff: bool,
) -> Result<String, frontend::template::Error> {
    let contents = frontend.render(&frontend.templates()?, snapshot)?;
    let mut text = String::new();
    for (output, new) in frontend.outputs.iter().zip(contents) {
        if as_diff {
            let old = std::fs::read(&output.path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            text.push_str(&diff::unified(&output.path, old.as_deref(), &new).unwrap_or_default());
        } else {
            text.push_str(&format!("==> {} <==\n{new}\n", output.path.display()));
        }
    }
    Ok(text)
}

/// Asks every provider once.
async fn discover(config: &Config) -> Result<Snapshot, String> {
    let mut settings = config.settings();
    let bases = settings.patterns.iter_mut().map(|pattern| &mut pattern.base);
    for service in settings.services.iter_mut().chain(bases) {
        service.guard = Guard { on_empty: OnEmpty::Accept, max_drop: Percent(100), ..Guard::default() };
    }
    let mut registry = Registry::trial(settings, &config.state_dir);
    for (name, provider) in &config.providers {
        let selectors = config.selectors(name);
        if selectors.is_empty() {
            continue;
        }
        let started = Instant::now();
        let limit = provider.pace.timeout;
        let mut built = provider
            .config
            .build(&provider::BuildContext { selectors: &selectors, unconfined: &Unconfined::default() });
        built.set_read_only();
        let answer = tokio::time::timeout(limit, built.discover()).await;
        let instances = answer
            .unwrap_or_else(|_| Err(provider::Error::timed_out(limit)))
            .map_err(|error| format!("providers.{name}: {error}"))?;
        registry.handle(registry::Event::Observed(Observation {
            provider: name.clone(),
            at: SystemTime::now(),
            took: started.elapsed(),
            cost: ApiUsage::default(),
            result: Ok(instances),
        }));
    }
    let snapshot = registry.snapshots().borrow().as_deref().cloned();
    Ok(snapshot.unwrap_or_default())
}
