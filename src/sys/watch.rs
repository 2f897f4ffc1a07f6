//! Tells when what a path leads to has changed.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::runtime::Handle;

use super::directory::names;

/// Room for some events at once, in bytes.
const BUFFER: usize = 4096;

/// The kernel's own bound on the links in one path (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Watches one path, which need not exist yet.
///
/// Directories are watched, not the file: a file that is replaced by a rename is another file, and a watch on the old
/// one would stay silent. Every symbolic link on the way is watched in its own directory, so that a swapped link
/// (Kubernetes replaces `..data` beside the files of a mounted ConfigMap) is seen too; where the path ends early, the
/// missing name is.
///
/// Nothing here fails: without a watch (the system's inotify limits are reached, a directory cannot be read),
/// [`changed`](Self::changed) waits for ever, and the next call tries again. Callers also look from time to time.
///
/// One inotify instance is kept for as long as the watch lives, and is closed on a blocking thread: the kernel takes 8 to
/// 12 ms for that. The file system is read on such threads, too.
#[derive(Debug)]
pub struct PathWatch {
    path: PathBuf,
    armed: Option<Armed>,
}

struct Armed {
    events: EventStream<[u8; BUFFER]>,
    names: Vec<Name>,
    /// The path's last name was created, and it is not known yet how.
    is_created: bool,
}

impl std::fmt::Debug for Armed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Armed").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A name whose events concern the path.
#[derive(Debug)]
struct Name {
    directory: WatchDescriptor,
    name: OsString,
}

impl PathWatch {
    /// Watches from now on. Outside a tokio runtime, from the first call of [`changed`](Self::changed) on. Blocks for as
    /// long as the file system does.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let armed = Handle::try_current().ok().and_then(|_| Armed::new(&path).ok());
        Self { path, armed }
    }

    /// Returns when what the path leads to may have changed since the last return, or since [`new`](Self::new).
    ///
    /// May be dropped and called again without missing anything. May return for nothing.
    pub async fn changed(&mut self) {
        let was_armed = self.armed.is_some();
        if let Some(armed) = &mut self.armed {
            armed.event(&self.path).await;
        }
        // The path may now lead elsewhere. The watches are renewed before the caller reads the file. If this is dropped
        // meanwhile, the next call renews them, and returns at once.
        let (armed, path) = (self.armed.take(), self.path.clone());
        let renewed = tokio::task::spawn_blocking(move || Armed::renewed(armed, &path).ok()).await;
        self.armed = renewed.ok().flatten();
        if !was_armed && self.armed.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for PathWatch {
    fn drop(&mut self) {
        let armed = self.armed.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(armed));
        }
    }
}

impl Armed {
    fn new(path: &Path) -> std::io::Result<Self> {
        let events = Inotify::init()?.into_event_stream([0; BUFFER])?;
        Self::renewed(Some(Self { events, names: Vec::new(), is_created: false }), path)
    }

    /// Watches what decides where the path leads now, and no more what did so before.
    fn renewed(armed: Option<Self>, path: &Path) -> std::io::Result<Self> {
        let Some(mut armed) = armed else { return Self::new(path) };
        // Events up to here are answered by what the caller reads next.
        while let Some(Some(_)) = armed.events.next().now_or_never() {}
        armed.is_created = false;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut watches = armed.events.watches();
        let mut names = Vec::new();
        for (directory, name) in way(&std::path::absolute(path)?) {
            let directory = watches.add(&directory, mask)?;
            names.push(Name { directory, name });
        }
        let before = std::mem::replace(&mut armed.names, names);
        for old in before.into_iter().filter(|old| !armed.names.iter().any(|new| new.directory == old.directory)) {
            // The kernel has removed the watch of a directory that is gone.
            let _ = watches.remove(old.directory);
        }
        Ok(armed)
    }

    /// Returns at the first event that concerns the path. May be dropped without missing one.
    async fn event(&mut self, path: &Path) {
        loop {
            if self.is_created {
                let is_being_written = being_written(path).await;
                self.is_created = false;
                if !is_being_written {
                    return;
                }
            }
            match self.events.next().await {
                Some(Ok(event)) => match concern(&self.names, &event) {
                    Concern::None => {}
                    Concern::Created => self.is_created = true,
                    Concern::Changed => return,
                },
                // A new watch repairs whatever broke this one.
                Some(Err(_)) => return,
                None => return std::future::pending().await,
            }
        }
    }
}

/// What an event says of the path.
enum Concern {
    None,
    Created,
    Changed,
}

fn concern(names: &[Name], event: &EventOwned) -> Concern {
    // Events may be lost altogether, whichever directory they are of.
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        return Concern::Changed;
    }
    let lost = EventMask::IGNORED | EventMask::UNMOUNT | EventMask::DELETE_SELF | EventMask::MOVE_SELF;
    let mut of_directory = names.iter().filter(|name| name.directory == event.wd).peekable();
    // A directory that is watched no more has its last event, that it is not, still to come.
    if of_directory.peek().is_some() && event.mask.intersects(lost) {
        return Concern::Changed;
    }
    match &event.name {
        Some(changed) if of_directory.any(|name| name.name == *changed) => {
            if event.mask.contains(EventMask::CREATE) {
                Concern::Created
            } else {
                Concern::Changed
            }
        }
        _ => Concern::None,
    }
}

/// Whether the path leads to a file that was just created the ordinary way: empty or half-written, and to be closed by
/// its writer, which is the event to wait for. A new hard link is never closed, and has more links than one.
async fn being_written(path: &Path) -> bool {
    tokio::fs::symlink_metadata(path).await.is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}

/// Every directory and name in it that decides what the path leads to: its links, and its end, or the first name that
/// is missing. Ordinary directories on the way are left out.
fn way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut decisive = Vec::new();
    let mut at = PathBuf::from("/");
    let mut rest = names(path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        let link = std::fs::read_link(&here).ok();
        if link.is_some() || rest.is_empty() || !here.exists() {
            decisive.push((at.clone(), name));
        }
        match link {
            Some(target) => {
                links += 1;
                if links > MAX_LINKS {
                    break;
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let mut target = names(&target);
                target.append(&mut rest);
                rest = target;
            }
            None if here.exists() => at = here,
            None => break,
        }
    }
    decisive
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    async fn seen(watch: &mut PathWatch, what: &str) {
        tokio::time::timeout(BOUND, watch.changed()).await.unwrap_or_else(|_| panic!("{what} was not seen"));
    }

    /// Whether an event is already waiting: what was done before this call has queued its events synchronously.
    async fn silent(watch: &mut PathWatch) -> bool {
        tokio::select! {
            biased;
            () = watch.changed() => false,
            () = async { for _ in 0..50 { tokio::task::yield_now().await } } => true,
        }
    }

    #[tokio::test]
    async fn sees_each_way_of_saving() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends.json");
        let other = dir.path().join("new");
        let mut watch = PathWatch::new(&path);
        fs::write(&path, "1").unwrap();
        seen(&mut watch, "a new file").await;
        fs::write(&path, "2").unwrap();
        seen(&mut watch, "a write").await;
        fs::write(&other, "3").unwrap();
        fs::rename(&other, &path).unwrap();
        seen(&mut watch, "a rename over it").await;
        fs::rename(&path, dir.path().join("backup~")).unwrap();
        fs::write(&path, "4").unwrap();
        seen(&mut watch, "a save that keeps a backup").await;
        fs::remove_file(&path).unwrap();
        seen(&mut watch, "a removal").await;
        fs::write(&other, "5").unwrap();
        fs::hard_link(&other, &path).unwrap();
        seen(&mut watch, "a hard link").await;
    }

    #[tokio::test]
    async fn waits_for_the_writer_and_ignores_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends.json");
        let mut watch = PathWatch::new(&path);
        fs::write(dir.path().join("neighbour"), "1").unwrap();
        assert!(silent(&mut watch).await);
        let file = fs::File::create(&path).unwrap();
        assert!(silent(&mut watch).await, "a file still being written");
        drop(file);
        seen(&mut watch, "its close").await;
        assert!(silent(&mut watch).await);
    }

    #[tokio::test]
    async fn sees_a_config_map_swapped() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["..1", "..2", "..3"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("backends.json"), version).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/backends.json", at("backends.json")).unwrap();
        let mut watch = PathWatch::new(at("backends.json"));
        for version in ["..2", "..3"] {
            symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
            seen(&mut watch, version).await;
            assert_eq!(fs::read_to_string(at("backends.json")).unwrap(), version);
        }
    }

    #[tokio::test]
    async fn follows_a_link_into_another_directory() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, target) = (dir.path().join("link"), elsewhere.path().join("file"));
        fs::write(&target, "1").unwrap();
        symlink(&target, &path).unwrap();
        let mut watch = PathWatch::new(&path);
        fs::write(&target, "2").unwrap();
        seen(&mut watch, "a write behind the link").await;
        fs::remove_file(&path).unwrap();
        seen(&mut watch, "the link's removal").await;
        fs::write(dir.path().join("3"), "3").unwrap();
        symlink("3", &path).unwrap();
        seen(&mut watch, "the link's new target").await;
    }

    #[tokio::test]
    async fn waits_for_directories_that_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("a/b");
        let mut watch = PathWatch::new(parent.join("file"));
        for round in ["created", "created anew"] {
            fs::create_dir_all(&parent).unwrap();
            seen(&mut watch, round).await;
            fs::write(parent.join("file"), "1").unwrap();
            seen(&mut watch, round).await;
            fs::remove_dir_all(dir.path().join("a")).unwrap();
            seen(&mut watch, "a removed directory").await;
        }
    }

    #[tokio::test]
    async fn misses_nothing_when_dropped_and_never_ends_in_a_loop_of_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut watch = PathWatch::new(&path);
        assert!(silent(&mut watch).await);
        fs::write(&path, "1").unwrap();
        seen(&mut watch, "a write between two calls").await;
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(silent(&mut PathWatch::new(dir.path().join("loop"))).await);
    }
}
