//! The keys above all sections, and `[api]`.

pub mod raw;

use std::path::PathBuf;

use raw::{Confine, RawApi, RawTop};

use super::keys::SECTIONS;
use super::layers::Layers;
use super::section::Section;
use crate::sys::unix_socket;
use crate::{api, frontend};

/// The keys above all sections, resolved.
#[derive(Debug)]
pub struct Top {
    pub state_dir: PathBuf,
    pub zone: Option<String>,
    pub confine: Confine,
    pub prune: bool,
    pub api: api::Config,
}

/// Reads the keys above all sections, and `[api]`. `None`: they cannot be read, for reasons that are noted.
pub fn top(layers: &mut Layers) -> Option<Top> {
    let mut section = Section::at(layers, &[]);
    section.forget(SECTIONS);
    let RawTop { state_dir, zone, confine, prune, api } = section.read_rest()?;
    if !state_dir.is_absolute() {
        section.fault("state_dir", format!("{state_dir:?} is not an absolute path"));
    }
    if zone.as_ref().is_some_and(|zone| zone.trim().is_empty()) {
        section.fault("zone", "is empty: name the zone, or leave it out to have the metadata service asked");
    }
    let api = resolve_api(api, &mut Section::at(layers, &["api"]));
    Some(Top { state_dir, zone, confine, prune, api })
}

fn resolve_api(raw: RawApi, section: &mut Section) -> api::Config {
    let admin_socket = raw.admin_socket.unwrap_or_else(|| raw.socket.with_file_name("admin.sock"));
    // An empty path is how it is switched off.
    let admin_socket = Some(admin_socket).filter(|path| !path.as_os_str().is_empty());
    for (key, path) in [("socket", Some(&raw.socket)), ("admin_socket", admin_socket.as_ref())] {
        let Some(path) = path else { continue };
        if !path.is_absolute() {
            section.fault(key, format!("{} is not an absolute path", path.display()));
        }
        let (length, most) = (path.as_os_str().len(), unix_socket::MAX_PATH);
        if length > most {
            let message =
                format!("the path has {length} bytes, and a Unix socket's may have {most}: use a shorter one");
            section.fault(key, message);
        }
    }
    if admin_socket.as_ref() == Some(&raw.socket) {
        section.fault("admin_socket", "is the query socket: name another path");
    }
    let gid = raw.group.as_deref().map(frontend::gid).transpose().unwrap_or_else(|message| {
        section.fault("group", message);
        None
    });
    if raw.max_connections == 0 {
        section.fault("max_connections", "must be at least 1");
    }
    api::Config {
        socket: raw.socket,
        admin_socket,
        mode: raw.mode.0,
        gid,
        max_connections: raw.max_connections,
        metrics: raw.metrics,
    }
}
