//! A program that sees files of ours in place of others, which no other program does: it runs in a mount namespace of
//! its own.
//!
//! The namespace is entered by another run of this very program, which then becomes the one asked for: between fork and
//! exec only a process of a single thread may do such things safely.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The first argument of a run that is to [`enter`] a namespace.
pub const WORD: &str = "isolated-check";

/// The exit status of a run in which the program asked for was not started. It may end with that status too, so what
/// counts is that such a run also prints [`Failure`], after [`SAYS`].
pub const NOT_STARTED: u8 = 121;

/// The beginning of all that such a run prints.
pub const SAYS: &str = "elasticd: ";

/// Why the program asked for was not started.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The namespace could not be made, which needs CAP_SYS_ADMIN.
    #[error("not isolated: {0}")]
    NotIsolated(String),
    /// The program could not be started.
    #[error("not started: {0}")]
    NotStarted(io::Error),
}

/// Why the program was not started, from how the run ended. `None`: it was started.
pub fn failure(code: Option<i32>, output: &str) -> Option<Failure> {
    let said = output.strip_prefix(SAYS).filter(|_| code == Some(NOT_STARTED.into()))?;
    let started = said.strip_prefix("not started: ").map(|why| Failure::NotStarted(io::Error::other(why)));
    started.or_else(|| Some(Failure::NotIsolated(said.strip_prefix("not isolated: ")?.to_owned())))
}

/// The arguments by which this program runs `argv` with each `(shown, over)` in `places`: the file `shown` is seen at
/// `over`, which must exist.
pub fn argv(places: &[(PathBuf, PathBuf)], argv: &[String]) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["/proc/self/exe".into(), WORD.into()];
    for (shown, over) in places {
        all.extend([shown.into(), over.into()]);
    }
    all.push("--".into());
    all.extend(argv.iter().map(OsString::from));
    all
}

/// Enters a mount namespace and becomes the program asked for; `arguments` are those after [`WORD`].
///
/// # Errors
///
/// It could not.
pub fn enter(arguments: impl IntoIterator<Item = OsString>) -> Result<Infallible, Failure> {
    let mut arguments = arguments.into_iter();
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Failure::NotIsolated(format!("cannot make a mount namespace: {errno}")))?;
    // Otherwise these mounts would be seen in the namespace we came from, too.
    bind(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    loop {
        match (arguments.next(), arguments.next()) {
            (Some(end), Some(program)) if end == "--" => {
                return Err(Failure::NotStarted(Command::new(program).args(arguments).exec()));
            }
            (Some(shown), Some(over)) => bind(Some(Path::new(&shown)), Path::new(&over), MsFlags::MS_BIND)?,
            _ => return Err(Failure::NotIsolated("no program was named".to_owned())),
        }
    }
}

fn bind(shown: Option<&Path>, over: &Path, flags: MsFlags) -> Result<(), Failure> {
    mount(shown, over, None::<&str>, flags, None::<&str>)
        .map_err(|errno| Failure::NotIsolated(format!("cannot mount over {}: {errno}", over.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_run_itself_says_is_taken_for_its_word() {
        let said = |failure: &Failure| failure_of(121, &format!("{SAYS}{failure}"));
        fn failure_of(code: i32, output: &str) -> Option<String> {
            failure(Some(code), output).map(|failure| failure.to_string())
        }
        let away = Failure::NotStarted(io::ErrorKind::NotFound.into());
        assert_eq!(said(&away), Some(away.to_string()));
        let refused = Failure::NotIsolated("x".to_owned());
        assert_eq!(said(&refused), Some(refused.to_string()));
        assert_eq!(failure_of(121, "the check's own words"), None);
        assert_eq!(failure_of(1, &format!("{SAYS}{refused}")), None);
        assert!(failure(None, "").is_none());
    }
}
