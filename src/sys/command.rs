//! Programs run to their end: an argument vector and no shell, bounded in time and in output.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::fs::{Access, AtFlags, CWD};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::group::TERM_GRACE;
use super::isolated::{self, Failure};
use super::reaper;

/// How much of what a program prints is kept, in bytes; the rest is read and dropped, so that it never blocks.
const MAX_OUTPUT: usize = 16 * 1024;

/// What is passed on of our own environment: what a program needs to be found and to speak plainly, and no secret.
pub const ENVIRONMENT: &[&str] = &["PATH", "HOME", "LANG", "TZ"];

/// Why a program did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("cannot run `{program}`: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an exit status other than 0, or by a signal.
    #[error("`{command}` failed ({status}): {output}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// It was ended because it took too long.
    #[error("`{command}` did not end within {limit:?} and was killed; it printed: {output}")]
    TimedOut {
        /// Program and arguments.
        command: String,
        /// The time it had.
        limit: Duration,
        /// What it printed until then.
        output: String,
    },
}

/// Runs `argv` to its end, in a process group of its own.
///
/// After `limit` the group gets SIGTERM, and SIGKILL two seconds later. If the returned future is dropped the program
/// is killed.
///
/// # Errors
///
/// It could not be started, failed, or took too long.
pub async fn run(argv: &[String], limit: Duration) -> Result<(), Error> {
    start(argv, argv, limit).await
}

/// The same in a mount namespace of its own, in which for each `(shown, over)` the file `shown` stands at `over`.
/// `None`: there is no such namespace to be had here, and nothing was run.
pub async fn run_isolated(
    places: &[(PathBuf, PathBuf)],
    argv: &[String],
    limit: Duration,
) -> Option<Result<(), Error>> {
    let result = start(&isolated::argv(places, argv), argv, limit).await;
    match &result {
        Err(Error::Start { .. }) => None,
        Err(Error::Failed { status, output, .. }) => match isolated::failure(status.code(), output) {
            Some(Failure::NotIsolated(_)) => None,
            Some(Failure::NotStarted(source)) => Some(Err(Error::Start { program: argv[0].clone(), source })),
            // A sandbox may end whoever tries.
            None if status.signal() == Some(Signal::SIGSYS as i32) => None,
            None => Some(result),
        },
        _ => Some(result),
    }
}

/// Where [`run`] finds a program.
///
/// # Errors
///
/// [`Error::Start`]: it does not, or may not run it.
pub fn locate(program: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<_> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        std::env::split_paths(&path).map(|directory| directory.join(program)).collect()
    };
    let may_run = |path: &PathBuf| rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    let mut there = candidates.into_iter().filter(|path| path.is_file()).peekable();
    let kind = if there.peek().is_some() { io::ErrorKind::PermissionDenied } else { io::ErrorKind::NotFound };
    there.find(may_run).ok_or_else(|| Error::Start { program: program.to_owned(), source: kind.into() })
}

/// Runs `argv`, which messages call `known_as`.
async fn start(argv: &[impl AsRef<OsStr>], known_as: &[String], limit: Duration) -> Result<(), Error> {
    let (program, arguments) = argv.split_first().expect("the configuration refuses an empty command");
    let named = || known_as.join(" ");
    let failed_to_start = |source| Error::Start { program: known_as[0].clone(), source };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|key| Some((*key, std::env::var_os(key)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let (mut child, _ours) = reaper::spawn(command).map_err(failed_to_start)?;
    let mut output = Vec::new();
    let finished = tokio::time::timeout(limit, finish(&mut child, &mut output)).await;
    let status = match finished {
        Ok(status) => status.map_err(failed_to_start)?,
        Err(_) => {
            end(&mut child).await;
            return Err(Error::TimedOut { command: named(), limit, output: printable(&output) });
        }
    };
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: named(), status, output: printable(&output) })
}

async fn finish(child: &mut Child, output: &mut Vec<u8>) -> io::Result<ExitStatus> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let kept = std::sync::Mutex::new(output);
    let reading = async { tokio::join!(drain(stdout.as_mut(), &kept), drain(stderr.as_mut(), &kept)) };
    tokio::pin!(reading);
    // A grandchild may hold the pipes open for ever: what counts is that the program itself has ended.
    tokio::select! {
        _ = &mut reading => child.wait().await,
        status = child.wait() => {
            let _ = tokio::time::timeout(Duration::from_millis(100), &mut reading).await;
            status
        }
    }
}

async fn drain(pipe: Option<&mut (impl AsyncRead + Unpin)>, kept: &std::sync::Mutex<&mut Vec<u8>>) {
    let Some(pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        if let Ok(mut kept) = kept.lock() {
            let room = MAX_OUTPUT.saturating_sub(kept.len()).min(n);
            kept.extend_from_slice(&buffer[..room]);
        }
    }
}

async fn end(child: &mut Child) {
    let Some(group) = child.id().map(|pid| Pid::from_raw(pid.cast_signed())) else { return };
    // Either may find the group gone already, which is what is wanted.
    let _ = killpg(group, Signal::SIGTERM);
    if tokio::time::timeout(TERM_GRACE, child.wait()).await.is_err() {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

fn printable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    if text.is_empty() { "it printed nothing".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_failure_carries_the_programs_own_words() {
        run(&sh("exit 0"), LONG).await.expect("succeeds");
        let error = run(&sh("echo out; echo err >&2; exit 3"), LONG).await.expect_err("fails").to_string();
        assert!(error.contains("exit status: 3") && error.contains("out") && error.contains("err"), "{error}");
        let error = run(&["/nonexistent/tool".to_owned()], LONG).await.expect_err("fails").to_string();
        assert!(error.contains("/nonexistent/tool"), "{error}");
    }

    #[test]
    fn a_program_is_found_as_it_would_be_run() {
        assert!(locate("sh").expect("in the path").is_absolute());
        assert_eq!(locate("/bin/sh").expect("there"), PathBuf::from("/bin/sh"));
        for absent in ["no-such-program", "/nonexistent/tool", "/etc"] {
            assert!(matches!(locate(absent), Err(Error::Start { .. })), "{absent}");
        }
        let Err(Error::Start { source, .. }) = locate("/etc/passwd") else { panic!("it cannot be run") };
        assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn output_is_bounded_and_never_blocks_the_program() {
        let error = run(&sh("head -c 1000000 /dev/zero | tr '\\0' x; exit 1"), LONG).await.expect_err("fails");
        let Error::Failed { output, .. } = error else { panic!("{error}") };
        assert_eq!(output.len(), MAX_OUTPUT);
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_what_it_started() {
        let limit = Duration::from_millis(200);
        let error = run(&sh("echo started; trap '' TERM; sleep 60 & wait; sleep 60"), limit).await.expect_err("hangs");
        let Error::TimedOut { output, .. } = error else { panic!("{error}") };
        assert_eq!(output, "started");
    }

    #[tokio::test]
    async fn a_daemon_left_behind_does_not_hold_us_up() {
        let started = std::time::Instant::now();
        run(&sh("sleep 20 & exit 0"), LONG).await.expect("succeeds");
        assert!(started.elapsed() < Duration::from_secs(15));
    }

    #[tokio::test]
    async fn the_environment_is_not_passed_on() {
        run(&sh("test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\""), LONG).await.expect("only what is listed");
    }
}
