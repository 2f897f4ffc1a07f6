//! Child processes, run to their end: an argument vector and no shell, bounded in time and in output, in a process
//! group of their own.
//!
//! [`run`] is for commands that do something: checks, reloads, proofs. [`Program`] is for programs that are asked for
//! their output. Both see little of our environment, and no secret of it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use nix::sys::signal::Signal;
use rustix::fs::{Access, AtFlags, CWD};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::group::Group;
use super::isolated;
use super::unconfined::Unconfined;
use crate::units::HumanDuration;

/// What is passed on of our own environment: what a program needs to be found and to speak plainly, and no secret.
pub const ENVIRONMENT: &[&str] = &["PATH", "HOME", "LANG", "TZ"];

/// How many bytes are kept of what a command prints: the first ones. The rest is read and dropped, so that it never
/// blocks.
const MAX_COMMAND_MESSAGES: usize = 16 * 1024;

/// How much of one line is looked at where lines are searched for, in bytes.
const MAX_LINE: u64 = 16 * 1024;

/// How many bytes are kept of a program's standard error, beside its output: the last ones.
const MAX_PROGRAM_MESSAGES: usize = 4096;

/// How long the output of a program that has ended may be held open by something that it started.
const OUTPUT_GRACE: Duration = Duration::from_secs(5);

/// How long the last messages of a program that has ended are waited for.
const MESSAGES_GRACE: Duration = Duration::from_millis(100);

/// Why a program did not succeed. Says nothing of which program it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("cannot be started: {0}")]
    Start(io::Error),
    /// Its output could not be read.
    #[error("cannot be read from: {0}")]
    Read(io::Error),
    /// It ended with an exit status other than 0, or by a signal.
    #[error("failed ({status})")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What was kept of its messages.
        said: String,
    },
    /// It was ended because it took too long.
    #[error("did not end in time, after {read} bytes of output")]
    TimedOut {
        /// How much it had printed, in bytes.
        read: usize,
        /// What was kept of its messages.
        said: String,
    },
    /// It printed more than it may.
    #[error("printed more than {max} bytes")]
    TooMuch {
        /// What it may, in bytes.
        max: usize,
    },
    /// It ended, and something that it started has its standard output open still.
    #[error("has ended, but something that it started still holds its standard output open")]
    HeldOpen,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub struct CommandError {
    /// Program and arguments.
    argv: Vec<String>,
    limit: Duration,
    /// Why it did not succeed.
    pub source: Error,
}

impl std::error::Error for CommandError {}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.argv.join(" ");
        match &self.source {
            Error::Start(source) => write!(f, "cannot run `{}`: {source}", self.argv[0]),
            Error::Failed { status, said } => write!(f, "`{command}` failed ({status}): {}", printed(said)),
            Error::TimedOut { said, .. } => {
                let limit = HumanDuration(self.limit);
                write!(f, "`{command}` did not end within {limit} and was killed; it printed: {}", printed(said))
            }
            other => write!(f, "`{command}` {other}"),
        }
    }
}

/// What a tool printed, with the line first that says why it failed: warnings may come before it by the dozen.
fn printed(text: &str) -> Cow<'_, str> {
    // As nginx, HAProxy, Apache and systemd, and then as everybody marks it.
    const MARKS: &[&str] = &["[emerg]", "[alert]", "syntax error", "fatal", "error", "failed", "invalid"];
    let text = text.trim();
    if text.is_empty() {
        return "it printed nothing".into();
    }
    let holds = |mark: &&str| text.lines().position(|line| line.to_ascii_lowercase().contains(*mark));
    match MARKS.iter().find_map(holds) {
        None | Some(0) => text.into(),
        Some(at) => {
            let (first, others): (Vec<_>, Vec<_>) = text.lines().enumerate().partition(|(index, _)| *index == at);
            first.into_iter().chain(others).map(|(_, line)| line).collect::<Vec<_>>().join("\n").into()
        }
    }
}

/// Runs a command to its end.
///
/// When `limit` is over, its process group gets SIGTERM, and SIGKILL at most two seconds later; this returns when it
/// has ended. If the returned future is dropped, the same is done in the background. What a command that has ended
/// leaves behind runs on: a reload may start a daemon.
///
/// # Errors
///
/// It could not be started, failed, or took too long.
pub async fn run(unconfined: &Unconfined, argv: &[String], limit: Duration) -> Result<(), CommandError> {
    run_for_lines(unconfined, argv, limit, None).await.map(drop)
}

/// The same, and returns the lines of its standard output that hold `marker`, however long the output is.
///
/// # Errors
///
/// As those of [`run`].
pub async fn run_for_lines(
    unconfined: &Unconfined,
    argv: &[String],
    limit: Duration,
    marker: Option<&str>,
) -> Result<Vec<String>, CommandError> {
    let error = |source| CommandError { argv: argv.to_vec(), limit, source };
    run_command(unconfined, argv, limit, marker).await.map(|printed| printed.lines).map_err(error)
}

/// The same, and returns what the command printed, on either output: the first 16 KiB.
///
/// # Errors
///
/// As those of [`run`].
pub async fn run_and_read(unconfined: &Unconfined, argv: &[String], limit: Duration) -> Result<String, CommandError> {
    let error = |source| CommandError { argv: argv.to_vec(), limit, source };
    run_command(unconfined, argv, limit, None).await.map(|printed| printed.messages).map_err(error)
}

/// [`run`] in a mount namespace of its own, in which for each `(shown, over)` the file `shown` is seen at `over`.
/// `None`: such a namespace is not available here, and nothing was run.
pub async fn run_isolated(
    unconfined: &Unconfined,
    places: &[(PathBuf, PathBuf)],
    argv: &[String],
    limit: Duration,
    marker: Option<&str>,
) -> Option<Result<Vec<String>, CommandError>> {
    let error = |source| CommandError { argv: argv.to_vec(), limit, source };
    match run_command(unconfined, &isolated::argv(places, argv), limit, marker).await {
        Err(Error::Start(_)) => None,
        Err(Error::Failed { status, said }) => match isolated::failure(status.code(), said.trim()) {
            Some(isolated::Failure::NotIsolated(_)) => None,
            Some(isolated::Failure::NotStarted(source)) => Some(Err(error(Error::Start(source)))),
            // A sandbox may end a program for the attempt.
            None if status.signal() == Some(Signal::SIGSYS as i32) => None,
            None => Some(Err(error(Error::Failed { status, said }))),
        },
        result => Some(result.map(|printed| printed.lines).map_err(error)),
    }
}

/// Where [`run`] finds a program.
///
/// # Errors
///
/// It does not, or may not run it.
pub fn locate(program: &str) -> Result<PathBuf, CommandError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<_> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        std::env::split_paths(&path).map(|directory| directory.join(program)).collect()
    };
    let may_run = |path: &PathBuf| rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    let mut there = candidates.into_iter().filter(|path| path.is_file()).peekable();
    let kind = if there.peek().is_some() { io::ErrorKind::PermissionDenied } else { io::ErrorKind::NotFound };
    let error =
        || CommandError { argv: vec![program.to_owned()], limit: Duration::ZERO, source: Error::Start(kind.into()) };
    there.find(may_run).ok_or_else(error)
}

/// What a command printed.
struct Printed {
    /// The lines of its standard output that hold what was looked for.
    lines: Vec<String>,
    /// What was kept of the rest.
    messages: String,
}

async fn run_command(
    unconfined: &Unconfined,
    argv: &[impl AsRef<OsStr>],
    limit: Duration,
    marker: Option<&str>,
) -> Result<Printed, Error> {
    let mut group = Group::start(unconfined, command(argv), None).await.map_err(Error::Start)?;
    let (stdout, stderr) = group.outputs().expect("they have not been taken before");
    let messages = Messages { kept: Mutex::default(), keep: Keep::First(MAX_COMMAND_MESSAGES) };
    let mut lines = Vec::new();
    let reading = async {
        match marker {
            None => tokio::join!(messages.read(stdout), messages.read(stderr)),
            // What is searched may be a whole configuration, with its secrets: no error repeats it.
            Some(marker) => tokio::join!(read_lines(stdout, marker, &mut lines), messages.read(stderr)),
        };
    };
    match timeout(limit, wait(&group, std::future::ready(Ok(())), reading, Leftovers::Leave)).await {
        Ok(waited) => waited.map(drop)?,
        Err(_) => {
            group.terminate().await;
            return Err(Error::TimedOut { read: messages.len(), said: messages.text() });
        }
    }
    let status = group.reap().await.map_err(Error::Read)?;
    let messages = messages.text();
    if status.success() { Ok(Printed { lines, messages }) } else { Err(Error::Failed { status, said: messages }) }
}

/// A program that is asked for its output, and the environment it runs in. Only one of it runs at a time.
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables to set, beside [`ENVIRONMENT`].
    pub env: Vec<(String, String)>,
    /// Names of variables of our own environment to pass on, if they are set.
    pub pass_env: Vec<String>,
    turns: Arc<Semaphore>,
    unconfined: Unconfined,
}

impl fmt::Debug for Program {
    /// Arguments and environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("program", &self.argv.first()).finish_non_exhaustive()
    }
}

impl Program {
    /// `argv` is not empty. Of our own environment it sees [`ENVIRONMENT`] and what `pass_env` names; `env` comes on
    /// top.
    pub fn new(argv: Vec<String>, env: Vec<(String, String)>, pass_env: Vec<String>, unconfined: &Unconfined) -> Self {
        Self { argv, env, pass_env, turns: Arc::new(Semaphore::new(1)), unconfined: unconfined.clone() }
    }

    /// Runs it to its end, in `/`, and returns what it printed: at most `max` bytes, within `limit`.
    ///
    /// When `limit` is over, when it prints too much, and when the returned future is dropped, its process group gets
    /// SIGTERM, and SIGKILL at most two seconds later, in the background; the next run waits until then. When it has
    /// ended by itself, what it started is killed too.
    ///
    /// # Errors
    ///
    /// It could not be started, failed, took too long, or printed too much.
    pub async fn output(&self, max: usize, limit: Duration) -> Result<Vec<u8>, Error> {
        let mut output = Vec::new();
        let messages = Messages { kept: Mutex::default(), keep: Keep::Last(MAX_PROGRAM_MESSAGES) };
        match timeout(limit, self.run(max, &mut output, &messages)).await {
            Err(_) => Err(Error::TimedOut { read: output.len(), said: messages.text() }),
            Ok(Err(error)) => Err(error),
            Ok(Ok(status)) if !status.success() => Err(Error::Failed { status, said: messages.text() }),
            Ok(Ok(_)) => Ok(output),
        }
    }

    async fn run(&self, max: usize, output: &mut Vec<u8>, messages: &Messages) -> Result<ExitStatus, Error> {
        let turn = self.turns.clone().acquire_owned().await.expect("it is never closed");
        let mut command = command(&self.argv);
        command
            .envs(self.pass_env.iter().filter_map(|key| Some((key, std::env::var_os(key)?))))
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir("/");
        let mut group = Group::start(&self.unconfined, command, Some(turn)).await.map_err(Error::Start)?;
        let (stdout, stderr) = group.outputs().expect("they have not been taken before");
        let whole = wait(&group, read(stdout, max, output), messages.read(stderr), Leftovers::Kill).await?;
        let status = group.reap().await.map_err(Error::Read)?;
        if whole || !status.success() { Ok(status) } else { Err(Error::HeldOpen) }
    }
}

fn command(argv: &[impl AsRef<OsStr>]) -> Command {
    let (program, arguments) = argv.split_first().expect("the configuration refuses an empty command");
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(ENVIRONMENT.iter().filter_map(|key| Some((key, std::env::var_os(key)?))));
    command
}

/// What becomes of processes that the program started and left behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    Leave,
    Kill,
}

/// Waits until the program has ended and `output` has been read, and reads `messages` meanwhile. Returns whether the
/// output was read to its end.
async fn wait(
    group: &Group,
    output: impl Future<Output = Result<(), Error>>,
    messages: impl Future<Output = ()>,
    leftovers: Leftovers,
) -> Result<bool, Error> {
    let mut messages = std::pin::pin!(messages.fuse());
    let whole = async {
        let mut output = std::pin::pin!(output);
        tokio::select! {
            result = &mut output => {
                result?;
                group.ended().await.map_err(Error::Read)?;
                Ok(true)
            }
            ended = group.ended() => {
                ended.map_err(Error::Read)?;
                // A process that still writes may belong to it, as in `tee >(jq ...)`: the end of the output is its end.
                timeout(OUTPUT_GRACE, output).await.map_or(Ok(false), |result| result.map(|()| true))
            }
        }
    };
    let whole = tokio::select! {
        whole = whole => whole?,
        never = async { (&mut messages).await; std::future::pending().await } => never,
    };
    if leftovers == Leftovers::Kill {
        group.kill();
    }
    if !messages.is_terminated() {
        // A process that was left behind may hold them open for ever.
        let _ = timeout(MESSAGES_GRACE, messages).await;
    }
    Ok(whole)
}

async fn read(pipe: impl AsyncRead + Unpin, max: usize, output: &mut Vec<u8>) -> Result<(), Error> {
    // One byte more than it may be shows that there is more.
    pipe.take(max as u64 + 1).read_to_end(output).await.map_err(Error::Read)?;
    if output.len() > max { Err(Error::TooMuch { max }) } else { Ok(()) }
}

/// Reads to the end, and adds each line that holds `marker` to `lines`.
async fn read_lines(pipe: impl AsyncRead + Unpin, marker: &str, lines: &mut Vec<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut pipe).take(MAX_LINE).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line);
        if text.contains(marker) {
            lines.push(text.trim_end().to_owned());
        }
        line.clear();
    }
}

/// Which bytes of a program's messages are kept.
#[derive(Clone, Copy)]
enum Keep {
    First(usize),
    Last(usize),
}

/// What is kept of a program's messages.
struct Messages {
    kept: Mutex<Vec<u8>>,
    keep: Keep,
}

impl Messages {
    async fn read(&self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
            self.keep(&buffer[..n]);
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match self.keep {
            Keep::First(max) => {
                let room = max.saturating_sub(kept.len()).min(bytes.len());
                kept.extend_from_slice(&bytes[..room]);
            }
            Keep::Last(max) => {
                kept.extend_from_slice(bytes);
                let surplus = kept.len().saturating_sub(max);
                kept.drain(..surplus);
            }
        }
    }

    fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
