//! The keys above all sections, and `[api]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::layers::Layers;
use super::section::Section;
use crate::sys::unix_socket;
use crate::{api, frontend};

/// Whether elasticd gives up what it does not need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confine {
    /// As far as the kernel lets it.
    #[default]
    Auto,
    /// Nothing: for what is started and must gain privileges, such as `sudo`.
    Off,
}

/// The keys above all sections, resolved.
#[derive(Debug)]
pub struct Top {
    pub state_dir: PathBuf,
    pub zone: Option<String>,
    pub confine: Confine,
    pub api: api::Config,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTop {
    state_dir: PathBuf,
    zone: Option<String>,
    #[serde(default)]
    confine: Confine,
    api: RawApi,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApi {
    socket: PathBuf,
    admin_socket: Option<PathBuf>,
    mode: Option<String>,
    group: Option<String>,
    max_connections: Option<usize>,
    metrics: Option<SocketAddr>,
}

/// Reads them. `None`: they cannot be read, for reasons that are noted.
pub fn top(layers: &mut Layers) -> Option<Top> {
    let mut section = layers.section(&[]);
    section.forget(&["providers", "services", "frontends", "publish"]);
    let RawTop { state_dir, zone, confine, api } = section.read_rest()?;
    if !state_dir.is_absolute() {
        section.fault("state_dir", format!("{state_dir:?} is not an absolute path"));
    }
    if zone.as_ref().is_some_and(|zone| zone.trim().is_empty()) {
        section.fault("zone", "is empty: name the zone, or leave it out to have the metadata service asked");
    }
    let api = resolve_api(api, &mut layers.section(&["api"]));
    Some(Top { state_dir, zone, confine, api })
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
    let mode = frontend::parse_mode(raw.mode.as_deref().unwrap_or("0660")).unwrap_or_else(|message| {
        section.fault("mode", message);
        0
    });
    let gid = raw.group.as_deref().map(frontend::gid).transpose().unwrap_or_else(|message| {
        section.fault("group", message);
        None
    });
    let max_connections = raw.max_connections.unwrap_or(api::Config::MAX_CONNECTIONS);
    if max_connections == 0 {
        section.fault("max_connections", "must be at least 1");
    }
    api::Config { socket: raw.socket, admin_socket, mode, gid, max_connections, metrics: raw.metrics }
}
