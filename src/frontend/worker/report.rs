//! What a worker says of its frontend: its status, and the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Running;
use crate::frontend::apply::Rendered;
use crate::frontend::journal::Proven;
use crate::frontend::rendering::LeftOut;
use crate::frontend::runtime::Evidence;
use crate::status::{self, Phase, Unrendered, UnrenderedBackend};
use crate::sys::process::Identity;
use crate::sys::text::without_digits;

impl Running {
    /// Says which backends are left out because they cannot be rendered, each once for each reason.
    pub(super) fn report_left_out(&self, left_out: Vec<LeftOut>) {
        /// The rest are counted: a template may fail for every backend of a large service.
        const MAX_LOGGED: usize = 10;
        let before = Arc::clone(&self.report.borrow().excluded.all);
        if left_out.is_empty() && before.is_empty() {
            return;
        }
        let named = |out: LeftOut| UnrenderedBackend { service: out.service, id: out.id, message: out.reason };
        let now: Vec<_> = left_out.into_iter().map(named).collect();
        let frontend = &self.config.name;
        let new: Vec<_> = now.iter().filter(|out| !before.contains(out)).collect();
        for UnrenderedBackend { service, id, message } in new.iter().take(MAX_LOGGED) {
            tracing::warn!(%frontend, %service, backend = id, reason = message, "backend left out of the frontend, as it cannot be rendered");
        }
        if let Some(count) = new.len().checked_sub(MAX_LOGGED).filter(|count| *count > 0) {
            tracing::warn!(%frontend, count, "more backends left out of the frontend, as they cannot be rendered");
        }
        if now.is_empty() {
            tracing::info!(%frontend, "every backend can be rendered again");
        }
        self.say(|report| report.excluded = Unrendered::of(now));
    }

    /// Records what others have changed, if that is news, so that it is not taken for elasticd's own changes after a restart.
    pub(super) fn record_overrides(&mut self, evidence: Option<Evidence>) {
        let (Some(evidence), Some(proven)) = (evidence, self.journal.proven().cloned()) else { return };
        self.show_overrides(Some(&evidence));
        if proven.evidence.as_ref().is_none_or(|recorded| recorded.overrides != evidence.overrides) {
            self.journal.end(Some(Proven { evidence: Some(evidence), ..proven }));
        }
    }

    /// Reports what others have changed over the runtime API, and logs it when it changes.
    pub(super) fn show_overrides(&self, evidence: Option<&Evidence>) {
        let overrides = evidence.map(|evidence| evidence.overrides.clone()).unwrap_or_default();
        if self.report.borrow().overrides == overrides {
            return;
        }
        if overrides.is_empty() {
            tracing::info!(frontend = %self.config.name, "nothing is left of what others had changed over the runtime API");
            return self.say(|report| report.overrides = overrides);
        }
        let all: Vec<_> = overrides.iter().map(|(name, what)| format!("{name}: {what}")).collect();
        tracing::warn!(frontend = %self.config.name, overrides = all.join("; "),
            "others have changed servers over the runtime API; that is left as it is");
        self.say(|report| report.overrides = overrides);
    }

    pub(super) fn proven(&mut self, rendered: &Rendered, process: Option<Identity>) -> Duration {
        let revision = rendered.revision;
        let (frontend, pid) = (&self.config.name, process.map(|process| process.pid));
        match self.config.applied_phase() {
            Phase::Written => tracing::info!(%frontend, revision, "outputs written"),
            Phase::Reloaded => tracing::info!(%frontend, revision, pid, "frontend reloaded with the new configuration"),
            _ => tracing::info!(%frontend, revision, pid, "frontend runs the new configuration"),
        }
        self.fatal = None;
        self.say(|report| {
            report.applied_age_seconds = Some(SystemTime::now().into());
            report.proven_age_seconds = None;
        });
        self.settled(revision, process)
    }

    pub(super) fn settled(&mut self, revision: u64, process: Option<Identity>) -> Duration {
        if self.retry.failures() > 0 {
            tracing::info!(frontend = %self.config.name, failures = self.retry.failures(), "recovered");
        }
        self.retry.reset();
        let phase = self.config.applied_phase();
        self.say(|report| {
            report.phase = phase;
            report.applied_revision = Some(revision);
            let applied = *report.applied_age_seconds.get_or_insert_with(|| SystemTime::now().into());
            if phase == Phase::Proven {
                report.proven_revision = Some(revision);
                report.proven_age_seconds.get_or_insert(applied);
            }
            report.pid = process.map(|process| process.pid);
            report.error = None;
            report.attempted = true;
        });
        self.config.pacing.audit_interval
    }

    pub(super) fn not_running(&mut self, why: &str) -> Duration {
        let is_new = self.report.borrow().phase != Phase::NotRunning && !self.is_known(why);
        if is_new {
            tracing::warn!(frontend = %self.config.name, why, "the frontend is not running; its configuration is in place");
        }
        self.say(|report| {
            report.phase = Phase::NotRunning;
            report.error = Some(why.to_owned());
            report.pid = None;
            report.attempted = true;
        });
        self.config.pacing.retry_min
    }

    /// Logs a failure, unless it is the same as the last one, and returns how long to wait before another attempt.
    pub(super) fn failed(&mut self, message: &str) -> Duration {
        if !self.is_known(message) {
            tracing::error!(frontend = %self.config.name, error = message, "frontend update failed; previous configuration kept");
        }
        self.count_failure(message)
    }

    /// The same for a change that is in place, and that the frontend has yet to take.
    pub(super) fn unfinished(&mut self, message: &str) -> Duration {
        if !self.is_known(message) {
            tracing::warn!(frontend = %self.config.name, error = message,
                "the new configuration is in place; the frontend has yet to take it");
        }
        self.count_failure(message)
    }

    /// Whether the last failure was the same.
    pub(super) fn is_known(&self, message: &str) -> bool {
        let report = self.report.borrow();
        report.error.as_deref().is_some_and(|before| without_digits(before) == without_digits(message))
    }

    pub(super) fn count_failure(&mut self, message: &str) -> Duration {
        self.say(|report| {
            report.phase = Phase::Failed;
            report.failures += 1;
            report.error = Some(message.to_owned());
            report.attempted = true;
        });
        self.retry.next_delay()
    }

    pub(super) fn say(&self, change: impl FnOnce(&mut status::Frontend)) {
        self.report.send_modify(|report| change(Arc::make_mut(report)));
    }
}
