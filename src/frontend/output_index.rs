//! Which frontend writes which file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::{Config, SERVICE};
use crate::model::Name;

/// The outputs of all frontends as they are configured now. A handle, cheap to clone: a frontend's old output may be
/// another frontend's new one, and is then not to be removed.
#[derive(Debug, Clone, Default)]
pub struct OutputIndex(Arc<Mutex<BTreeMap<Name, BTreeSet<PathBuf>>>>);

impl OutputIndex {
    /// Sets the outputs of a frontend. Paths with `{service}` in them stand for those of all services that tags may
    /// create.
    pub fn set(&self, frontend: &Name, outputs: impl IntoIterator<Item = PathBuf>) {
        self.locked().insert(frontend.clone(), outputs.into_iter().collect());
    }

    /// Forgets the frontends that are not among these.
    pub fn retain(&self, is_configured: impl Fn(&Name) -> bool) {
        self.locked().retain(|name, _| is_configured(name));
    }

    /// Whether a frontend other than `frontend` writes a file.
    pub fn is_of_another(&self, frontend: &Name, path: &Path) -> bool {
        let is_among =
            |outputs: &BTreeSet<PathBuf>| outputs.contains(path) || outputs.iter().any(|of| stands_for(of, path));
        self.locked().iter().any(|(name, outputs)| name != frontend && is_among(outputs))
    }

    /// Sets them as they are configured.
    pub fn set_configured(&self, frontend: &Config) {
        let created = frontend.per_service.iter().filter(|_| frontend.follows_all_services);
        self.set(&frontend.name, frontend.outputs.iter().chain(created).map(|output| output.path.clone()));
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Name, BTreeSet<PathBuf>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a path with `{service}` in it may be this one.
fn stands_for(pattern: &Path, path: &Path) -> bool {
    let (Some(pattern), Some(path)) = (pattern.to_str(), path.to_str()) else { return false };
    let Some((before, after)) = pattern.split_once(SERVICE) else { return false };
    let after = after.rsplit(SERVICE).next().unwrap_or(after);
    path.len() > before.len() + after.len() && path.starts_with(before) && path.ends_with(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_path_and_by_what_stands_for_it() {
        let index = OutputIndex::default();
        let [one, other]: [Name; 2] = ["one", "other"].map(|name| name.parse().expect("a name"));
        index.set(&one, ["/a/list".into(), "/a/{service}.conf".into()]);
        let is_known =
            |path: &str| (index.is_of_another(&other, path.as_ref()), index.is_of_another(&one, path.as_ref()));
        assert_eq!((is_known("/a/list"), is_known("/a/web.conf")), ((true, false), (true, false)));
        assert_eq!((is_known("/a/.conf"), is_known("/b/web.conf")), ((false, false), (false, false)));
        index.retain(|name| *name == other);
        assert_eq!(is_known("/a/list"), (false, false));
    }
}
