//! `elasticd doctor`: whatever elasticd needs is looked at, with the code it works with, and nothing is changed.

mod findings;
mod frontends;
mod process;
mod providers;

use std::path::Path;

use findings::{Findings, Level, is_member, named};
use nix::unistd::geteuid;

use super::{Exit, complain};
use crate::config::Config;

/// Looks at the configuration, the providers, the frontends and elasticd's own directories, and says what to do.
///
/// Each provider is asked once. Nothing is written, signalled or reloaded. What is allowed depends on the user: run it as
/// the one elasticd runs as.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Looks, and prints what was found.
pub async fn run(args: &Args, file: &Path) -> Exit {
    let mut findings = Findings::default();
    let is_configured = match Config::load(file) {
        Ok(config) => {
            findings.add(Level::Ok, "configuration", "good");
            process::look(&config, &mut findings).await;
            providers::look(&config, &mut findings).await;
            for frontend in &config.frontends {
                frontends::look(frontend, &mut findings).await;
            }
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

/// Whom we run as.
fn this_user() -> String {
    named(geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_line_for_each_thing_and_defuses_it() {
        let mut findings = Findings::default();
        findings.judge("a", Ok::<_, String>("good"));
        findings.judge("frontends.b", Err::<String, _>("two\n  lines\u{1b}"));
        findings.add(Level::Warn, "c", "hm");
        assert_eq!(
            findings.human("root (uid 0)", Path::new("/x")),
            "/x, looked at as root (uid 0)\n\nok    a            good\nFAIL  frontends.b  two; lines\u{fffd}\n\
             warn  c            hm\n\n1 failed, 1 to be looked at, 1 ok\n"
        );
    }
}
