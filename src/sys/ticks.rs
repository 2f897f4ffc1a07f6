//! The clock by which the kernel says when a process started: ticks since boot.

use std::time::Duration;

/// How many ticks a second has.
pub fn ticks_per_second() -> u64 {
    procfs::ticks_per_second()
}

/// The present time on the scale of [`super::process::Identity::start_ticks`].
pub fn now_ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let hertz = ticks_per_second();
    now.tv_sec.unsigned_abs() * hertz + now.tv_nsec.unsigned_abs() * hertz / 1_000_000_000
}

/// A duration on the same scale, rounded down.
pub fn ticks(duration: Duration) -> u64 {
    let hertz = ticks_per_second();
    duration.as_secs() * hertz + u64::from(duration.subsec_millis()) * hertz / 1000
}

/// The id of this boot of the machine; ticks of different boots cannot be compared. A unit with `ProcSubset=pid` sees
/// nothing of `/proc` but its processes, and passes the id on as `BOOT_ID` (`%b`).
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").or_else(|_| std::env::var("BOOT_ID"));
    text.unwrap_or_default().trim().replace('-', "")
}
