//! `elasticd render`: one discovery, and what would be written after it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Exit, client, complain, diff};
use crate::config::Config;
use crate::frontend::template::Facts;
use crate::frontend::{self, rendering};
use crate::model::{Guard, Instance, Name, OnEmpty, Percent, Snapshot};
use crate::provider::{self, ApiUsage, Observation};
use crate::registry::{self, Registry};
use crate::sys::unconfined::Unconfined;

/// How long our own zone is asked for.
const ZONE_LIMIT: Duration = Duration::from_secs(3);

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
    let (mut differs, mut failed) = (false, false);
    for frontend in wanted {
        match render(frontend, &snapshot, args.diff).await {
            Ok(rendered) => {
                differs |= !rendered.is_empty();
                text.push_str(&rendered);
            }
            Err(error) => {
                complain(&format!("frontends.{}: {error}", frontend.name));
                failed = true;
            }
        }
    }
    if let Err(error) = client::write_out(text.as_bytes()) {
        complain(&error);
        return Exit::FAILURE;
    }
    if failed || (args.diff && differs) { Exit::FAILURE } else { Exit::SUCCESS }
}

async fn render(frontend: &frontend::Config, snapshot: &Snapshot, as_diff: bool) -> Result<String, rendering::Error> {
    let rendering = frontend.render(&frontend.templates()?, snapshot, &facts(frontend).await)?;
    for left_out in &rendering.left_out {
        complain(&format!("frontends.{}: left out: {left_out}", frontend.name));
    }
    let mut text = String::new();
    for (output, new) in frontend.outputs.iter().zip(rendering.contents) {
        if as_diff {
            let old = std::fs::read(&output.path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            text.push_str(&diff::unified(&output.path, old.as_deref(), &new).unwrap_or_default());
        } else {
            text.push_str(&format!("==> {} <==\n{new}\n", output.path.display()));
        }
    }
    Ok(text)
}

/// What the frontend's templates use of the machine and of the frontend's program.
pub(super) async fn facts(frontend: &frontend::Config) -> Facts {
    let unconfined = Unconfined::default();
    let mut facts = frontend.facts();
    if frontend.depends_on_own_zone && facts.own_zone.is_none() {
        let found = tokio::time::timeout(ZONE_LIMIT, provider::own_zone()).await;
        facts.own_zone = found.ok().and_then(Result::ok);
        if facts.own_zone.is_none() {
            complain(&format!("frontends.{}: our own zone is not known: set `zone` above all sections", frontend.name));
        }
    }
    let process = frontend.process(&unconfined).await;
    facts.version = frontend.look_up_version(process, &unconfined).await;
    facts
}

/// Asks every provider once.
async fn discover(config: &Config) -> Result<Snapshot, String> {
    let mut answers = Vec::new();
    for (name, provider) in &config.providers {
        let selectors = config.selectors(name);
        if selectors.is_empty() {
            continue;
        }
        let limit = provider.pace.timeout;
        let mut built = provider
            .config
            .build(&provider::BuildContext { selectors: &selectors, unconfined: &Unconfined::default() });
        built.set_read_only();
        let answer = tokio::time::timeout(limit, built.discover()).await;
        let instances = answer
            .unwrap_or_else(|_| Err(provider::Error::timed_out(limit)))
            .map_err(|error| format!("providers.{name}: {error}"))?;
        answers.push((name.clone(), instances));
    }
    Ok(snapshot(config, answers))
}

/// The snapshot that these answers of providers make, whatever the guard would say.
pub(super) fn snapshot(config: &Config, answers: Vec<(Name, Vec<Instance>)>) -> Snapshot {
    let mut settings = config.settings();
    let bases = settings.patterns.iter_mut().map(|pattern| &mut pattern.base);
    for service in settings.services.iter_mut().chain(bases) {
        service.guard = Guard { on_empty: OnEmpty::Accept, max_drop: Percent(100), ..Guard::default() };
    }
    let mut registry = Registry::trial(settings, &config.state_dir);
    for (provider, instances) in answers {
        registry.handle(registry::Event::Observed(Observation {
            provider,
            at: SystemTime::now(),
            took: Duration::ZERO,
            cost: ApiUsage::default(),
            result: Ok(instances),
        }));
    }
    let snapshot = registry.snapshots().borrow().as_deref().cloned();
    snapshot.unwrap_or_default()
}
