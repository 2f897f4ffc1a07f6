//! Modes, owners and signals as people write them.

use nix::unistd::{Group, User};
use rustix::process::Signal;

/// Reads permission bits as people write them: octal digits, `"0644"`.
///
/// # Errors
///
/// What was expected instead.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| format!("{text:?} is not a mode: write octal digits, such as \"0644\""))
}

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

/// A signal by which servers reload, with `SIG` before its name or without.
///
/// # Errors
///
/// It is none: KILL and STOP would merely end or halt.
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
                "{name:?} is not a signal a frontend reloads by: HUP, USR1, USR2, WINCH, INT, TERM, QUIT or CONT"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_digits() {
        assert_eq!(parse_mode("0640"), Ok(0o640));
        for bad in ["", "0888", "rw", "+644", "1777"] {
            assert!(parse_mode(bad).is_err(), "{bad:?}");
        }
    }
}
