//! `elasticd doctor`: checks everything elasticd needs, with the code that it runs with, and changes nothing.

mod findings;
mod frontends;
mod providers;
mod state_and_sockets;

use std::path::Path;

use findings::{Findings, Level, is_member, named};
use nix::unistd::geteuid;

use super::{Exit, complain};
use crate::config::Config;
use crate::model::Snapshot;
use crate::status::OrphanedOutput;

/// Checks the configuration, the providers, the frontends, the state directory and the sockets, and says what to do.
///
/// Each provider is polled once. Nothing is written, signalled or reloaded. Permissions depend on the user: run it as
/// the user that elasticd runs as.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks everything, and prints the results.
pub async fn run(args: &Args, file: &Path) -> Exit {
    let mut findings = Findings::default();
    let is_configured = match Config::load(file) {
        Ok(config) => {
            findings.add(Level::Ok, "configuration", "valid");
            for warning in &config.warnings {
                findings.add(Level::Warn, "configuration", warning);
            }
            state_and_sockets::check(&config, &mut findings).await;
            let answers = providers::check(&config, &mut findings).await;
            let snapshot = snapshot(&config, answers);
            for frontend in &config.frontends {
                frontends::check(frontend, &mut findings).await;
                if let Some(snapshot) = &snapshot {
                    frontends::render(frontend, snapshot, &mut findings).await;
                }
            }
            former_outputs(&config, &mut findings);
            true
        }
        Err(faults) => {
            for fault in faults.0 {
                findings.add(Level::Fail, "configuration", fault);
            }
            false
        }
    };
    let user = this_user();
    let text = if args.json { findings.json(&user, file) } else { findings.human(&user, file) };
    if let Err(error) = super::client::write_out(text.as_bytes()) {
        complain(&error);
        return Exit::FAILURE;
    }
    match (is_configured, findings.count(Level::Fail)) {
        (false, _) => Exit::CONFIG,
        (true, 0) => Exit::SUCCESS,
        (true, _) => Exit::FAILURE,
    }
}

/// Names files that elasticd wrote and that are no outputs any more.
fn former_outputs(config: &Config, findings: &mut Findings) {
    for OrphanedOutput { path, frontend, edited } in super::outputs::former(config) {
        let path = path.display();
        let remedy = match edited {
            true => "and was edited since; remove it by hand if nothing needs it",
            false => "and is still there; `elasticd outputs --prune` removes it",
        };
        findings.add(
            Level::Warn,
            format!("frontends.{frontend}.outputs"),
            format!("{path} is no output any more, {remedy}"),
        );
    }
}

/// What the providers' answers make, if all did answer that services ask.
fn snapshot(config: &Config, answers: providers::Answers) -> Option<Snapshot> {
    let asked = answers.into_iter().filter(|(name, _)| !config.selectors(name).is_empty());
    let answers: Option<Vec<_>> = asked.map(|(name, answer)| Some((name, answer?))).collect();
    answers.map(|answers| super::render::snapshot(config, answers))
}

/// The user that this process runs as.
fn this_user() -> String {
    named(geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_line_for_each_result_without_control_characters() {
        let mut findings = Findings::default();
        findings.add_result("a", Ok::<_, String>("good"));
        findings.add_result("frontends.b", Err::<String, _>("two\n  lines\u{1b}"));
        findings.add(Level::Warn, "c", "hm");
        assert_eq!(
            findings.human("root (uid 0)", Path::new("/x")),
            "/x, checked as root (uid 0)\n\nok    a            good\nFAIL  frontends.b  two; lines\u{fffd}\n\
             warn  c            hm\n\n1 failed, 1 warnings, 1 ok\n"
        );
    }
}
