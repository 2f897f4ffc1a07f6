//! What systemd wants to hear. Outside systemd every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells systemd that the service is ready.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Sets the line that `systemctl status` shows.
pub fn status(line: &str) {
    notify(&[NotifyState::Status(line)]);
}

/// Tells systemd that a reload of the configuration has begun; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic time for systemd"),
    }
}

/// Tells systemd that the service ends.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells systemd that the service is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be called: half of what systemd allows between two calls. `None`: it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not reached");
    }
}
