//! The outputs on disk: when they were changed, and what was there before.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::api::{Access, Error, Wanted};
use super::cli::Session;
use super::file::File;
use super::inherited::Inherited;
use super::syntax;
use super::worker::Worker;
use crate::sys::ticks::{now_ticks, ticks};

/// When the outputs were last changed, by elasticd or by others, in ticks since boot; 0: before that.
pub(super) fn outputs_changed_at(wanted: &Wanted<'_>) -> u64 {
    wanted.outputs.iter().filter_map(|(path, _)| changed_at(path)).max().unwrap_or_default().max(wanted.swapped_at)
}

/// What was in place before the outputs were last swapped in, unless it was written after `moment` (in ticks since
/// boot).
pub(super) fn previous(wanted: &Wanted<'_>, moment: u64) -> Option<File> {
    let mut texts = Vec::new();
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
        texts.push(text);
    }
    Some(File::of(texts.iter().map(String::as_str), Inherited::default()))
}

/// The options that servers inherit from the files that the worker has read before the outputs; or why they are not known.
pub(super) async fn inherited(
    session: &mut Session<'_>,
    access: &Access,
    wanted: &Wanted<'_>,
    worker: &Worker,
) -> Result<Result<Inherited, String>, Error> {
    let answer = session.ask("show env HAPROXY_CFGFILES").await?;
    let started_with = answer.lines().find_map(|line| line.strip_prefix("HAPROXY_CFGFILES="));
    let started_with: Vec<_> = started_with.unwrap_or_default().split(';').map(PathBuf::from).collect();
    let outputs: Vec<_> = wanted.outputs.iter().map(|(path, _)| *path).collect();
    // Relative paths are of HAProxy's working directory, and a path may be of its own root.
    let can_be_read = |path: &PathBuf| path.is_absolute() && path.exists();
    let files =
        if started_with.iter().all(can_be_read) { started_with } else { access.config.iter().cloned().collect() };
    let is_edited = |file: &&PathBuf| changed_at(file).is_some_and(|changed_at| !worker.has_started_after(changed_at));
    let mut of_others = files.iter().filter(|file| !outputs.contains(&file.as_path()));
    if let Some(file) = of_others.find(is_edited) {
        let file = file.display();
        return Ok(Err(format!(
            "{file} was changed after HAProxy read it, so that the options of a new server are not known"
        )));
    }
    let mut inherited = Inherited::default();
    for file in files.iter().take_while(|file| !outputs.contains(&file.as_path())) {
        // HAProxy may read a file that elasticd cannot. A server that is added is compared with its siblings, too.
        if let Ok(text) = std::fs::read_to_string(file) {
            inherited.read_text(&text);
        }
    }
    Ok(Ok(inherited))
}

/// When a file was put in its place or written, in ticks since boot.
pub(super) fn changed_at(path: &Path) -> Option<u64> {
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
