//! The frontend's own check of a candidate: before it is in place, where that can be done, or else right after the swap.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::{Check, Config};
use super::journal::FileChange;
use super::staging::Staging;
use crate::sys::child::{self, CommandError};
use crate::sys::process::Find;
use crate::sys::text;
use crate::sys::unconfined::Unconfined;

/// Why a candidate is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The check passes without the candidate, or there is nothing to tell by.
    #[error("the check refuses the new configuration: {0}")]
    Candidate(#[source] CommandError),
    /// The check fails without the candidate as well.
    #[error(
        "the frontend's configuration was broken already, without this change: {0}; correct that, and the change is made"
    )]
    BrokenBefore(#[source] CommandError),
}

/// An output that is not among the files that the frontend's configuration reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not among the files that the frontend's configuration reads, as its check lists them: include it there, at the \
     place that its template is for (for nginx in the `http` or the `stream` block), or correct `output`", .0.display()
)]
pub struct Unread(pub PathBuf);

/// What a check that passed says of the outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// The outputs that are not among the files that the frontend's configuration reads, if the check lists those.
    pub unread: Vec<PathBuf>,
}

/// What became of a check of what is staged, and is not in place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staged {
    /// It passed.
    Passed(Passed),
    /// It is not possible here, and must follow the swap.
    NotPossible,
    /// There is no room for the file that it is to judge.
    NoCandidate,
}

/// The check of one frontend.
#[derive(Debug, Clone, Copy)]
pub struct Checking<'a> {
    /// The frontend.
    pub config: &'a Config,
    /// Starts the command.
    pub unconfined: &'a Unconfined,
}

impl Checking<'_> {
    /// Checks what is staged before the frontend can load it, and says whether that was possible.
    pub async fn staged(self, staging: &Staging, staged: &[FileChange]) -> Result<Staged, CommandError> {
        let nothing_to_say = Ok(Staged::Passed(Passed::default()));
        let Some(check) = &self.config.check else { return nothing_to_say };
        if check.is_staged() {
            let Some(output) = self.config.outputs.first() else { return nothing_to_say };
            let candidate = match staged.iter().find(|change| change.path == output.path) {
                Some(change) => staging.candidate(change),
                None => Some(output.path.clone()),
            };
            let Some(candidate) = candidate else { return Ok(Staged::NoCandidate) };
            child::run(self.unconfined, &check.argv_for(&candidate), check.limit).await?;
            return nothing_to_say;
        }
        // Only a file that exists can be covered by a mount.
        if !check.isolate || staged.is_empty() || staged.iter().any(|change| change.previous.is_none()) {
            return Ok(Staged::NotPossible);
        }
        let place = |change: &FileChange| Some((staging.candidate(change)?, change.path.clone()));
        let Some(places) = staged.iter().map(place).collect::<Option<Vec<_>>>() else { return Ok(Staged::NotPossible) };
        let marker = check.files.as_ref().map(|files| files.before.as_str());
        let before = self.absent_pid_file();
        let checked = child::run_isolated(self.unconfined, &places, &check.argv, check.limit, marker).await;
        self.remove_pid_file(before).await;
        match checked {
            Some(checked) => checked.map(|lines| Staged::Passed(self.passed(check, &lines))),
            None => Ok(Staged::NotPossible),
        }
    }

    /// Checks what is in place.
    pub async fn in_place(self) -> Result<Passed, CommandError> {
        let Some(check) = &self.config.check else { return Ok(Passed::default()) };
        let Some(output) = self.config.outputs.first() else { return Ok(Passed::default()) };
        let argv = check.argv_for(&output.path);
        let marker = check.files.as_ref().map(|files| files.before.as_str());
        let before = self.absent_pid_file();
        let checked = child::run_for_lines(self.unconfined, &argv, check.limit, marker).await;
        self.remove_pid_file(before).await;
        checked.map(|lines| self.passed(check, &lines))
    }

    /// Says whether the candidate is to blame for `error`. To be called with the previous configuration in place again:
    /// `changes` are those that were undone, or not made.
    pub async fn explain(self, error: CommandError, changes: &[FileChange]) -> Refusal {
        let was_whole = changes.iter().all(|change| change.previous.is_some());
        // A check of the candidate alone has nothing to look at.
        if self.config.check.as_ref().is_some_and(|check| check.is_staged() && !was_whole) {
            return Refusal::Candidate(error);
        }
        match self.in_place().await {
            // Without an output that was not there before, another file that needs it is at fault as well.
            Err(before)
                if was_whole
                    || text::without_digits(&before.to_string()) == text::without_digits(&error.to_string()) =>
            {
                Refusal::BrokenBefore(before)
            }
            _ => Refusal::Candidate(error),
        }
    }

    fn passed(self, check: &Check, lines: &[String]) -> Passed {
        let Some(files) = &check.files else { return Passed::default() };
        let read: Vec<_> = lines.iter().filter_map(|line| files.path_in(line)).collect();
        // A check of the operator's own may list none.
        if read.is_empty() {
            return Passed::default();
        }
        // The same file may be named by another path, through a link.
        let resolved = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let read: Vec<_> = read.into_iter().map(|path| resolved(Path::new(path))).collect();
        let outputs = self.config.outputs.iter().map(|output| &output.path);
        Passed { unread: outputs.filter(|path| !read.contains(&resolved(path))).cloned().collect() }
    }

    /// The frontend's pid file, if there is none before a check: nginx makes an empty one when it checks, with the user and
    /// the mode of whoever checks, and would later write its PID into that.
    fn absent_pid_file(self) -> Option<PathBuf> {
        let path = self.config.find_if_seen().and_then(Find::pid_file)?;
        std::fs::symlink_metadata(path).is_err().then(|| path.to_owned())
    }

    /// Removes the pid file that a check made. A frontend that starts just now writes its PID as soon as it has opened it.
    async fn remove_pid_file(self, absent_before: Option<PathBuf>) {
        const PAUSE: Duration = Duration::from_millis(50);
        let is_empty =
            |path: &PathBuf| std::fs::symlink_metadata(path).is_ok_and(|made| made.is_file() && made.len() == 0);
        let Some(path) = absent_before.filter(is_empty) else { return };
        tokio::time::sleep(PAUSE).await;
        if is_empty(&path) {
            self.unconfined.run(move || drop(std::fs::remove_file(path))).await;
        }
    }
}
