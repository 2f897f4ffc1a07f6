//! Exit codes, and what goes to standard output and standard error.

use std::fmt::Display;

use super::client;

/// An exit code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit(pub(super) u8);

impl Exit {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const FAILURE: Self = Self(1);
    pub(super) const UNAVAILABLE: Self = Self(69);
    pub(super) const CONFIG: Self = Self(78);
}

pub(super) fn print(text: &[u8]) -> Exit {
    match client::write_out(text) {
        Ok(()) => Exit::SUCCESS,
        Err(error) => {
            complain(&error);
            Exit::FAILURE
        }
    }
}

pub(super) fn complain(error: &impl Display) {
    eprintln!("elasticd: {error}");
}
