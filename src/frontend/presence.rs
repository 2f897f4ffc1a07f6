//! How a frontend's process is found, and whether there is one.

use super::apply::Error;
use super::config::{Config, Reload};
use crate::sys::process::{self, Find, Identity, Process};
use crate::sys::unconfined::Unconfined;

impl Config {
    /// How its process is found. `None`: it is not known by a process.
    pub fn find(&self) -> Option<&Find> {
        match &self.reload {
            Reload::Signal { find, .. } => Some(find),
            Reload::None | Reload::Command { .. } | Reload::Master { .. } => None,
        }
    }

    /// The process that runs now, as far as it can be seen: that of a frontend which a command reloads may be elsewhere.
    pub(super) async fn seen_process(&self, unconfined: &Unconfined) -> Option<Identity> {
        Process::find(unconfined, self.find_if_seen()?).await.ok().map(|process| process.identity)
    }

    /// How its process is found, if it can be seen at all.
    pub(super) fn find_if_seen(&self) -> Option<&Find> {
        match &self.reload {
            Reload::Command { find, .. } => find.as_ref(),
            _ => self.find(),
        }
    }

    /// The process that runs now. `None`: it is not known by a process.
    pub(super) async fn find_process(&self, unconfined: &Unconfined) -> Option<Result<Process, process::Error>> {
        Some(Process::find(unconfined, self.find()?).await)
    }

    /// Why nothing runs that could take a change; `None` if something does, or nothing can tell.
    ///
    /// # Errors
    ///
    /// That is not known, because something is set up wrongly.
    pub(super) async fn absence(&self, unconfined: &Unconfined) -> Result<Option<String>, Error> {
        if let Some(runtime) = &self.runtime {
            return match runtime.probe().await {
                Ok(()) => Ok(None),
                Err(error) if error.is_not_running() => Ok(Some(error.to_string())),
                Err(error) => Err(error.into()),
            };
        }
        match self.find_process(unconfined).await.transpose() {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_running() => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}
