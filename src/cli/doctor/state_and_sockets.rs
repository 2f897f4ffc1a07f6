//! `elasticd doctor`: the state directory and the sockets.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

use super::super::client;
use super::{Findings, Level, is_member, named};
use crate::app;
use crate::config::Config;
use crate::registry::state::State;
use crate::sys::unix_socket::{self, Error};
use crate::sys::{atomic_file, lock};

/// Checks the state directory and the sockets.
pub async fn check(config: &Config, findings: &mut Findings) {
    let is_running = client::get(&config.api.socket, "/healthz").await.is_ok();
    if is_running {
        running(&config.api.socket, findings);
    }
    state_dir(&config.state_dir, is_running, findings);
    let query = &config.api.socket;
    socket("api.socket", query, config.api.mode, (query, is_running), findings);
    if let Some(gid) = config.api.gid {
        group(gid, findings);
    }
    if let Some(path) = &config.api.admin_socket {
        socket("api.admin_socket", path, 0o600, (query, is_running), findings);
    }
    if let Some(address) = config.api.metrics {
        match TcpListener::bind(address) {
            Ok(_) => findings.add(Level::Ok, "api.metrics", format!("{address} is free")),
            Err(error) if is_running && error.kind() == io::ErrorKind::AddrInUse => {
                findings.add(Level::Ok, "api.metrics", format!("{address} is in use, as expected while elasticd runs"));
            }
            Err(error) => findings.add(
                Level::Fail,
                "api.metrics",
                format!("cannot listen on {address}: {error}; set a free address of this host, or leave it out"),
            ),
        }
    }
}

/// Permissions are checked for the user that runs this command, which may be another one than elasticd's.
fn running(socket: &Path, findings: &mut Findings) {
    let Ok(uid) = std::fs::metadata(socket).map(|found| found.uid()) else { return };
    let (its_user, own_uid) = (named(uid), geteuid().as_raw());
    if uid == own_uid {
        findings.add(Level::Ok, "elasticd", format!("runs as {its_user}"));
    } else {
        let own_user = named(own_uid);
        let message = format!(
            "runs as {its_user}, but doctor as {own_user}, whose permissions may differ: run doctor as {its_user}"
        );
        findings.add(Level::Warn, "elasticd", message);
    }
}

fn state_dir(directory: &Path, is_running: bool, findings: &mut Findings) {
    let subject = "state_dir";
    let existing = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(directory);
    if let Err(source) = atomic_file::writable(existing) {
        let path = directory.to_owned();
        if existing == directory {
            findings.add(Level::Fail, subject, lock::Error::Unusable { path, source });
        } else {
            findings.add(Level::Fail, subject, app::Error::StateDir { path, source });
        }
        return;
    }
    let path = directory.display();
    match lock::is_held(directory) {
        Ok(true) if is_running => findings.add(Level::Ok, subject, format!("{path} is in use by the running elasticd")),
        Ok(true) => findings.add(Level::Warn, subject, lock::Error::Held(directory.to_owned())),
        Ok(false) if existing == directory => findings.add(Level::Ok, subject, format!("{path} can be written")),
        Ok(false) => findings.add(Level::Ok, subject, format!("{path} will be created")),
        Err(error) => findings.add(Level::Fail, subject, error),
    }
    if let Err(error) = State::new(directory).read() {
        findings.add(Level::Warn, subject, error);
    }
}

fn socket(subject: &str, path: &Path, mode: u32, (query, is_running): (&Path, bool), findings: &mut Findings) {
    let shown = path.display();
    match unix_socket::examine(path, mode) {
        Ok(()) => findings.add(Level::Ok, subject, format!("elasticd can listen on {shown}")),
        Err(Error::Live { .. }) if is_running => {
            findings.add(Level::Ok, subject, format!("the running elasticd listens on {shown}"));
        }
        // The query socket's last directory is made at start.
        Err(Error::NoDirectory { parent, .. })
            if query.parent() == Some(&parent)
                && !parent.exists()
                && parent.parent().is_some_and(|above| atomic_file::writable(above).is_ok()) =>
        {
            findings.add(Level::Ok, subject, format!("elasticd can listen on {shown}, and creates its directory"));
        }
        Err(error) => findings.add(Level::Fail, subject, error),
    }
}

/// The socket's group must be one that this user can give to a file.
fn group(gid: u32, findings: &mut Findings) {
    if geteuid().is_root() || is_member(gid) {
        findings.add(Level::Ok, "api.group", format!("the socket's group can be set to {gid}"));
    } else {
        let message =
            "the socket's group cannot be set: make elasticd's user a member of the group, or give it CAP_CHOWN";
        findings.add(Level::Warn, "api.group", message);
    }
}
