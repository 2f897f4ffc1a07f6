//! The outputs on disk: when they were changed, and what was there before.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::api::Wanted;
use super::file::File;
use super::syntax;
use crate::sys::ticks::{now_ticks, ticks};

/// When the outputs were last changed, by elasticd or by others, in ticks since boot; 0: before that.
pub(super) fn outputs_changed_at(wanted: &Wanted<'_>) -> u64 {
    wanted.outputs.iter().filter_map(|(path, _)| changed_at(path)).max().unwrap_or_default().max(wanted.swapped_at)
}

/// What was in place before the outputs were last swapped in, unless it was written after `moment` (in ticks since
/// boot).
pub(super) fn previous(wanted: &Wanted<'_>, moment: u64) -> Option<File> {
    let mut previous = File::default();
    for (path, content) in wanted.outputs.iter().filter(|(_, content)| syntax::is_configuration(content)) {
        let kept = wanted.store.previous(path);
        // Without an earlier version that is kept the output was not changed.
        let (text, written) = match std::fs::read_to_string(&kept) {
            Ok(text) => (text, written_at(&kept)?),
            Err(_) => ((*content).to_owned(), changed_at(path)?),
        };
        // Rounded to ticks, a time may be off by one.
        if written > moment + 1 {
            return None;
        }
        previous.read(&text);
    }
    Some(previous)
}

/// When a file was put in its place or written, in ticks since boot.
fn changed_at(path: &Path) -> Option<u64> {
    let file = std::fs::metadata(path).ok()?;
    ticks_at(Duration::new(file.ctime().try_into().ok()?, file.ctime_nsec().try_into().ok()?))
}

/// When a file was written, in ticks since boot.
fn written_at(path: &Path) -> Option<u64> {
    ticks_at(std::fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?)
}

/// A time since 1970 in ticks since boot; 0: before that. `None`: it lies in the future.
fn ticks_at(time: Duration) -> Option<u64> {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.checked_sub(time)?;
    Some(now_ticks().saturating_sub(ticks(age)))
}
