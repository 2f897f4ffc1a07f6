//! Owners and signals, as people write them.

use nix::unistd::{Group, User};
use rustix::process::Signal;

/// The id of a group given by name or number.
///
/// # Errors
///
/// There is no such group.
pub fn gid(group: &str) -> Result<u32, String> {
    id("group", group, |name| Ok(Group::from_name(name)?.map(|found| found.gid.as_raw())))
}

/// The id of a user given by name or number.
///
/// # Errors
///
/// There is no such user.
pub fn uid(user: &str) -> Result<u32, String> {
    id("user", user, |name| Ok(User::from_name(name)?.map(|found| found.uid.as_raw())))
}

fn id(kind: &str, text: &str, look_up: impl FnOnce(&str) -> nix::Result<Option<u32>>) -> Result<u32, String> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    match look_up(text) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(format!("there is no {kind} {text:?} on this machine")),
        Err(error) => Err(format!("cannot look up the {kind} {text:?}: {error}")),
    }
}

/// A signal that servers reload on, with `SIG` before its name or without.
///
/// # Errors
///
/// It is another signal: KILL and STOP, for example, only end or stop a server.
pub fn signal(name: &str) -> Result<Signal, String> {
    Ok(match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Signal::HUP,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "QUIT" => Signal::QUIT,
        "CONT" => Signal::CONT,
        _ => {
            return Err(format!(
                "{name:?} is not a signal that a frontend reloads on: write HUP, USR1, USR2, WINCH, INT, TERM, QUIT or CONT"
            ));
        }
    })
}
