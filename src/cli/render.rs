//! `elasticd render`: one discovery, and what would be written after it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Exit, client, complain, diff};
use crate::config::Config;
use crate::frontend::{self};
use crate::model::{Name, Selection, Service, ServiceSet, Snapshot, select};
use crate::provider::Provider;
use crate::registry::state::State;

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
    let known = State::new(&config.state_dir).read().ok().flatten().unwrap_or_default().snapshot;
    let mut services: BTreeMap<Name, Arc<ServiceSet>> = BTreeMap::new();
    let mut revision = known.revision;
    for (name, provider) in &config.providers {
        let told: Vec<&Service> = config.services.iter().filter(|service| service.provider == *name).collect();
        if told.is_empty() {
            continue;
        }
        let selectors: Vec<_> = told.iter().map(|service| service.select.clone()).collect();
        let mut built = provider.config.build(&selectors);
        let instances = match tokio::time::timeout(provider.pace.timeout, built.discover()).await {
            Ok(Ok(instances)) => instances,
            Ok(Err(error)) => return Err(format!("providers.{name}: {error}")),
            Err(_) => return Err(format!("providers.{name}: no complete answer within {:?}", provider.pace.timeout)),
        };
        for service in told {
            let Selection { backends, .. } = select(service, &instances);
            let set = match known.services.get(&service.name) {
                Some(same) if same.backends == backends => Arc::clone(same),
                _ => {
                    revision = known.revision + 1;
                    Arc::new(ServiceSet { revision, backends })
                }
            };
            services.insert(service.name.clone(), set);
        }
    }
    Ok(Snapshot { revision, services })
}
