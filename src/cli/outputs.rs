//! `elasticd outputs`: the files that elasticd has written, and those that are no outputs any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Exit, client, complain, status};
use crate::config::Config;
use crate::frontend::orphans::{self, Written};
use crate::model::Name;
use crate::status::{OrphanedOutput, Status};
use crate::sys::lock;
use crate::sys::unconfined::Unconfined;

/// How long a running elasticd may take to remove files, with a check and a reload for each frontend.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lists the files that elasticd has written, by frontend, as its apply records tell. `former` are those that are no
/// outputs any more: an output was moved, its frontend removed, or its service is gone.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Remove former outputs that were not edited since. A running elasticd does it, with a check and a reload of the
    /// frontend; without one the files are removed, and nothing else is done
    #[arg(long)]
    prune: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A file that elasticd has written.
#[derive(Debug, serde::Serialize)]
struct Entry {
    path: PathBuf,
    frontend: Name,
    state: State,
    edited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Output,
    Former,
    Missing,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Former => "former",
            Self::Missing => "missing",
        }
    }
}

/// Lists them, and removes the former ones if asked to.
pub async fn run(args: &Args, file: &Path, socket: &Path) -> Exit {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(faults) => {
            complain(&faults);
            return Exit::CONFIG;
        }
    };
    if let Err(error) = std::fs::read_dir(orphans::records(&config.state_dir))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        let path = config.state_dir.display();
        complain(&format!("cannot read the apply records in {path}: {error}; run this as root or as elasticd's user"));
        return Exit::FAILURE;
    }
    let known = status::get(socket).await.ok();
    let entries = entries(&config, known.as_ref());
    let text = if args.json { json(&entries) } else { human(&entries) };
    if let Err(error) = client::write_out(text.as_bytes()) {
        complain(&error);
        return Exit::FAILURE;
    }
    if args.prune { prune(&config, entries).await } else { Exit::SUCCESS }
}

/// What a running elasticd knows comes first: it knows which services there are.
fn entries(config: &Config, known: Option<&Status>) -> Vec<Entry> {
    let is_former = |path: &Path| known.map(|status| orphans_of(status).any(|orphan| orphan.path == path));
    let all: BTreeSet<_> = config.frontends.iter().flat_map(|f| &f.outputs).map(|output| &*output.path).collect();
    let of_services = |name: &Name| {
        config.frontends.iter().any(|f| f.name == *name && f.follows_all_services && !f.per_service.is_empty())
    };
    let entry = |frontend: &Name, path: PathBuf, digests: &BTreeSet<_>| {
        let written = orphans::written(&path, digests);
        let is_output =
            all.contains(&*path) || is_former(&path).map_or_else(|| of_services(frontend), |former| !former);
        let state = match written {
            Written::Gone => State::Missing,
            _ if is_output => State::Output,
            _ => State::Former,
        };
        Entry { path, frontend: frontend.clone(), state, edited: written == Written::Edited }
    };
    let mut entries: Vec<_> = orphans::on_record(&config.state_dir, |_| true)
        .into_iter()
        .flat_map(|(name, files)| {
            let entries = files.into_iter().map(|(path, digests)| entry(&name, path, &digests));
            entries.collect::<Vec<_>>()
        })
        .collect();
    // A former output of one frontend may be another's by now.
    let current: BTreeSet<_> = entries.iter().map(|entry| (entry.frontend.clone(), entry.path.clone())).collect();
    let is_configured = |entry: &Entry| config.frontends.iter().any(|frontend| frontend.name == entry.frontend);
    entries.retain(|entry| {
        is_configured(entry) || !current.iter().any(|(name, path)| *name != entry.frontend && *path == entry.path)
    });
    entries
}

/// The files that are no outputs any more, as far as the apply records tell.
pub fn former(config: &Config) -> Vec<OrphanedOutput> {
    let former = entries(config, None).into_iter().filter(|entry| entry.state == State::Former);
    former.map(|Entry { path, frontend, edited, .. }| OrphanedOutput { path, frontend, edited }).collect()
}

fn orphans_of(status: &Status) -> impl Iterator<Item = &OrphanedOutput> {
    status.orphaned_outputs.iter().chain(status.frontends.values().flat_map(|frontend| &frontend.orphaned_outputs))
}

fn human(entries: &[Entry]) -> String {
    let mut rows = vec![["PATH", "FRONTEND", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        let edited = if entry.edited { ", edited" } else { "" };
        let state = format!("{}{edited}", entry.state.word());
        vec![entry.path.display().to_string(), entry.frontend.to_string(), state]
    }));
    client::table(&rows)
}

fn json(entries: &[Entry]) -> String {
    serde_json::to_string(entries).expect("plain data always serialises") + "\n"
}

async fn prune(config: &Config, entries: Vec<Entry>) -> Exit {
    let former: Vec<_> = entries.into_iter().filter(|entry| entry.state == State::Former).collect();
    let (kept, removable): (Vec<_>, Vec<_>) = former.into_iter().partition(|entry| entry.edited);
    for entry in &kept {
        let path = entry.path.display();
        complain(&format!("{path} was edited since elasticd wrote it, and is not removed; remove it by hand"));
    }
    let mut removable: Vec<_> = removable
        .into_iter()
        .map(|entry| OrphanedOutput { path: entry.path, frontend: entry.frontend, edited: false })
        .collect();
    if removable.is_empty() {
        return Exit::SUCCESS;
    }
    let left = match lock::is_held(&config.state_dir) {
        Ok(true) => match ask(config, &removable).await {
            Ok(left) => left,
            Err(exit) => return exit,
        },
        _ => {
            removable = orphans::remove(&config.state_dir, &Unconfined::default(), removable);
            removable.into_iter().map(|orphan| orphan.path).collect()
        }
    };
    for path in &left {
        complain(&format!("{} was not removed; see `elasticd status` and elasticd's log for why", path.display()));
    }
    if left.is_empty() { Exit::SUCCESS } else { Exit::FAILURE }
}

/// Has the running elasticd remove them. Returns those that are still there in the end.
async fn ask(config: &Config, removable: &[OrphanedOutput]) -> Result<Vec<PathBuf>, Exit> {
    let Some(socket) = &config.api.admin_socket else {
        complain(
            &"elasticd runs, and cannot be asked, because the configuration switches api.admin_socket off; stop it, \
                   or set `prune`",
        );
        return Err(Exit::CONFIG);
    };
    if let Err(error) = super::admin::Change::Prune.run(socket).await {
        complain(&error);
        return Err(if error.is_unavailable() { Exit::UNAVAILABLE } else { Exit::FAILURE });
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<_> = removable.iter().map(|orphan| orphan.path.clone()).filter(|path| path.exists()).collect();
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
