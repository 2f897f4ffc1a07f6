//! The results of the doctor's checks, and how they are printed.

use std::fmt::Display;
use std::path::Path;

use nix::unistd::{User, getegid, getgroups};
use serde::Serialize;

use super::super::client::{plain, table};

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It works.
    Ok,
    /// It works, but maybe not as intended.
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

/// A result, with what it is about.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    level: Level,
    /// A key of the configuration, for the most part.
    subject: String,
    /// What was found, and what to do.
    message: String,
}

/// The results, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, level: Level, subject: impl Display, message: impl Display) {
        self.0.push(Finding { level, subject: subject.to_string(), message: message.to_string() });
    }

    /// Adds `Ok` with its value, or `Fail` with its error.
    pub(super) fn add_result<T: Display, E: Display>(&mut self, subject: impl Display, result: Result<T, E>) {
        match result {
            Ok(good) => self.add(Level::Ok, subject, good),
            Err(error) => self.add(Level::Fail, subject, error),
        }
    }

    pub(super) fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    pub(super) fn human(&self, user: &str, file: &Path) -> String {
        let row = |finding: &Finding| {
            // A line each: what a tool printed may have several.
            let message = finding.message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            vec![finding.level.as_str().to_owned(), finding.subject.clone(), message]
        };
        let rows: Vec<_> = self.0.iter().map(row).collect();
        let [fail, warn, ok] = [Level::Fail, Level::Warn, Level::Ok].map(|level| self.count(level));
        let head = plain(&format!("{}, checked as {user}", file.display()));
        format!("{head}\n\n{}\n{fail} failed, {warn} warnings, {ok} ok\n", table(&rows))
    }

    pub(super) fn json(&self, user: &str, file: &Path) -> String {
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

/// Whether this process is a member of a group.
pub(super) fn is_member(gid: u32) -> bool {
    let others = getgroups().unwrap_or_default();
    others.into_iter().chain([getegid()]).any(|group| group.as_raw() == gid)
}

/// A user's name and id.
pub(super) fn named(uid: u32) -> String {
    match User::from_uid(uid.into()) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        _ => format!("uid {uid}"),
    }
}
