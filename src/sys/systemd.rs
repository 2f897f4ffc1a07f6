//! Notifications to systemd (`sd_notify(3)`). Without systemd every function does nothing.

use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

/// How many notifications may wait to be sent.
const QUEUE: usize = 64;

type Notification = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

/// Tells systemd that the service is ready.
pub fn ready() {
    notify(|| sd_notify::notify(&[NotifyState::Ready]));
}

/// Sets the line that `systemctl status` shows.
pub fn status(line: &str) {
    let line = line.to_owned();
    notify(move || sd_notify::notify(&[NotifyState::Status(&line)]));
}

/// Tells systemd that a reload of the configuration has begun; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(move || sd_notify::notify(&[NotifyState::Reloading, now])),
        Err(error) => tracing::debug!(%error, "sd_notify failed: no monotonic time"),
    }
}

/// Tells systemd that the service ends.
pub fn stopping() {
    notify(|| sd_notify::notify(&[NotifyState::Stopping]));
}

/// Tells systemd that the service is alive.
pub fn alive() {
    notify(|| sd_notify::notify(&[NotifyState::Watchdog]));
}

/// How often [`alive`] must be called: half of what systemd allows between two calls. `None`: it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Sends from a thread of its own, in order: once the kernel holds as many datagrams as it will
/// (net.unix.max_dgram_qlen), a send waits for systemd to read them, and nothing else may wait with it.
fn notify(notification: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    static SENDER: LazyLock<SyncSender<Notification>> = LazyLock::new(|| {
        let (sender, notifications) = sync_channel::<Notification>(QUEUE);
        std::thread::spawn(move || {
            for send in notifications {
                if let Err(error) = send() {
                    tracing::debug!(%error, "sd_notify failed");
                }
            }
        });
        sender
    });
    if std::env::var_os("NOTIFY_SOCKET").is_some() && SENDER.try_send(Box::new(notification)).is_err() {
        tracing::debug!("sd_notify failed: systemd does not read its socket");
    }
}
