//! `elasticd doctor`: whatever elasticd needs is looked at, with the code it works with, and nothing is changed.

mod frontends;
mod process;
mod providers;

use std::fmt::Display;
use std::path::Path;

use nix::unistd::{User, getegid, geteuid, getgroups};
use serde::Serialize;

use super::client::{plain, table};
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

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// It works.
    Ok,
    /// It works, in a way that may not be meant.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    /// A key of the configuration, for the most part.
    subject: String,
    /// What is so, and what to do.
    message: String,
}

/// What was found, in the order of looking.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, subject: impl Display, message: impl Display) {
        self.0.push(Finding { level, subject: subject.to_string(), message: message.to_string() });
    }

    /// What works, or what does not and why.
    fn judge<T: Display, E: Display>(&mut self, subject: impl Display, result: Result<T, E>) {
        match result {
            Ok(good) => self.add(Level::Ok, subject, good),
            Err(error) => self.add(Level::Fail, subject, error),
        }
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    fn human(&self, user: &str, file: &Path) -> String {
        let row = |finding: &Finding| {
            // A line each: what a tool printed may have several.
            let message = finding.message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            vec![finding.level.as_str().to_owned(), finding.subject.clone(), message]
        };
        let rows: Vec<_> = self.0.iter().map(row).collect();
        let [fail, warn, ok] = [Level::Fail, Level::Warn, Level::Ok].map(|level| self.count(level));
        let head = plain(&format!("{}, looked at as {user}", file.display()));
        format!("{head}\n\n{}\n{fail} failed, {warn} to be looked at, {ok} ok\n", table(&rows))
    }

    fn json(&self, user: &str, file: &Path) -> String {
        let whole = serde_json::json!({
            "configuration": file,
            "user": user,
            "failed": self.count(Level::Fail),
            "warnings": self.count(Level::Warn),
            "findings": self.0,
        });
        format!("{whole:#}\n")
    }
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

/// Whether we are in a group.
fn is_member(gid: u32) -> bool {
    let others = getgroups().unwrap_or_default();
    others.into_iter().chain([getegid()]).any(|group| group.as_raw() == gid)
}

/// A user as people know it.
fn named(uid: u32) -> String {
    match User::from_uid(uid.into()) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        _ => format!("uid {uid}"),
    }
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
