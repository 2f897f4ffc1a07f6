//! A program asked for its output: all of it, bounded in time and in size, or an error.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::command::ENVIRONMENT;
use super::group::Group;

/// How much of the end of its standard error is kept, in bytes.
const MAX_WORDS: usize = 4096;

/// How long its standard output may stay open after it has ended, by the thread of something that it started.
const HELD: Duration = Duration::from_secs(5);

/// How long the last of its standard error is waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Why there is no output.
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
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// It took too long.
    #[error("did not end in time, after {read} bytes of output")]
    TimedOut {
        /// How much it had printed, in bytes.
        read: usize,
        /// The end of what it wrote to its standard error.
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

/// A program, and the environment it runs in. Only one of it runs at a time.
pub struct Program {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    pass_env: Vec<String>,
    turns: Arc<Semaphore>,
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
    pub fn new(argv: Vec<String>, env: Vec<(String, String)>, pass_env: Vec<String>) -> Self {
        Self { argv, env, pass_env, turns: Arc::new(Semaphore::new(1)) }
    }

    /// Runs it to its end, in `/`, and returns what it printed: at most `max` bytes, within `limit`.
    ///
    /// It has a process group of its own. When `limit` is over, when it prints too much, and when the returned future
    /// is dropped, the whole group gets SIGTERM, and SIGKILL at most two seconds later; the next run waits until then.
    /// What it started is killed when it has ended by itself, too.
    ///
    /// # Errors
    ///
    /// It could not be started, failed, took too long, or printed too much.
    pub async fn output(&self, max: usize, limit: Duration) -> Result<Vec<u8>, Error> {
        let (mut output, mut said) = (Vec::new(), Vec::new());
        let run = tokio::time::timeout(limit, self.run(max, &mut output, &mut said)).await;
        let said = || String::from_utf8_lossy(&said).into_owned();
        match run {
            Err(_) => Err(Error::TimedOut { read: output.len(), said: said() }),
            Ok(Err(error)) => Err(error),
            Ok(Ok(status)) if !status.success() => Err(Error::Failed { status, said: said() }),
            Ok(Ok(_)) => Ok(output),
        }
    }

    async fn run(&self, max: usize, output: &mut Vec<u8>, said: &mut Vec<u8>) -> Result<ExitStatus, Error> {
        let turn = self.turns.clone().acquire_owned().await.expect("it is never closed");
        let mut group = Group::start(self.command(), turn).map_err(Error::Start)?;
        let (mut stdout, mut stderr) = group.outputs().expect("they have not been taken before");
        let mut listening = std::pin::pin!(keep_last(&mut stderr, said).fuse());
        let whole = async {
            let mut reading = std::pin::pin!(read(&mut stdout, max, output));
            tokio::select! {
                result = &mut reading => {
                    result?;
                    group.ended().await.map_err(Error::Read)?;
                    Ok(true)
                }
                ended = group.ended() => {
                    ended.map_err(Error::Read)?;
                    // What still writes may belong to it, as in `tee >(jq ...)`: the end of the output is its end.
                    tokio::time::timeout(HELD, reading).await.map_or(Ok(false), |result| result.map(|()| true))
                }
            }
        };
        let whole = tokio::select! {
            whole = whole => whole?,
            never = async { (&mut listening).await; std::future::pending().await } => never,
        };
        let status = group.finish().await.map_err(Error::Read)?;
        if !listening.is_terminated() {
            let _ = tokio::time::timeout(LAST_WORDS, listening).await;
        }
        if whole || !status.success() { Ok(status) } else { Err(Error::HeldOpen) }
    }

    fn command(&self) -> Command {
        let (program, arguments) = self.argv.split_first().expect("the configuration refuses an empty command");
        let passed = ENVIRONMENT.iter().copied().chain(self.pass_env.iter().map(String::as_str));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(passed.filter_map(|key| Some((key, std::env::var_os(key)?))))
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir("/");
        command
    }
}

async fn read(pipe: &mut (impl AsyncRead + Unpin), max: usize, output: &mut Vec<u8>) -> Result<(), Error> {
    // One byte more than it may be, which tells.
    pipe.take(max as u64 + 1).read_to_end(output).await.map_err(Error::Read)?;
    if output.len() > max { Err(Error::TooMuch { max }) } else { Ok(()) }
}

async fn keep_last(pipe: &mut (impl AsyncRead + Unpin), said: &mut Vec<u8>) {
    let mut buffer = [0; MAX_WORDS];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..n]);
        said.drain(..said.len().saturating_sub(MAX_WORDS));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn sh(script: &str) -> Program {
        Program::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec(), Vec::new(), Vec::new())
    }

    async fn printed(program: &Program) -> String {
        String::from_utf8(program.output(1 << 20, LONG).await.expect("an output")).expect("UTF-8")
    }

    /// Waits until a process has ended; nobody may reap it.
    async fn ends(pid: &str) {
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        let started = Instant::now();
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(started.elapsed() < LONG, "process {pid} lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a file with a line in it, and reads it.
    async fn line(path: &Path) -> String {
        let started = Instant::now();
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => assert!(started.elapsed() < LONG, "there is no {}", path.display()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn it_sees_nothing_that_it_was_not_given() {
        let ours = tempfile::NamedTempFile::new().expect("an open file");
        let files = printed(&sh("ls -l /proc/$$/fd")).await;
        assert!(files.contains("/dev/null") && !files.contains(&ours.path().display().to_string()), "{files}");
        let seen = printed(&sh("pwd; cat; env | cut -d= -f1 | sort; echo \"$X\"")).await;
        let known = |line: &&str| !["HOME", "LANG", "TZ", "PATH", "PWD", "OLDPWD", "_", "SHLVL"].contains(line);
        assert_eq!(seen.lines().filter(known).collect::<Vec<_>>(), ["/", ""]);
        let mut program = sh("echo \"$X $CARGO_PKG_NAME\"");
        program.env = vec![("X".to_owned(), "a b".to_owned())];
        program.pass_env = vec!["CARGO_PKG_NAME".to_owned(), "NOT_THERE".to_owned()];
        assert_eq!(printed(&program).await, "a b elasticd\n");
    }

    #[tokio::test]
    async fn the_end_of_its_output_is_its_end() {
        assert_eq!(printed(&sh("printf a; exec >&-; sleep 0.1")).await, "a");
        assert_eq!(printed(&sh("printf a; (sleep 0.1; printf b) & exit 0")).await, "ab");
        assert_eq!(printed(&sh("head -c 1000000 /dev/zero | tr '\\0' x")).await.len(), 1_000_000);
    }

    #[tokio::test]
    async fn a_failure_carries_its_last_words() {
        let failure = async |script| sh(script).output(100, LONG).await.expect_err("fails");
        let Error::Failed { status, said } = failure("echo out; echo one >&2; echo two >&2; exit 3").await else {
            panic!("it failed")
        };
        assert_eq!((status.code(), said.as_str()), (Some(3), "one\ntwo\n"));
        let flood = "head -c 9999999 /dev/zero | tr '\\0' x >&2; echo end >&2; kill -9 $$";
        let Error::Failed { said, .. } = failure(flood).await else { panic!("it failed") };
        assert!(said.len() == MAX_WORDS && said.ends_with("xend\n"), "{said}");
        let absent = Program::new(vec!["/nonexistent/tool".to_owned()], Vec::new(), Vec::new());
        assert!(matches!(absent.output(1, LONG).await, Err(Error::Start(_))));
    }

    #[tokio::test]
    async fn a_flood_ends_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        let program = sh(&format!("echo $$ > {}; exec yes", pid.display()));
        assert!(matches!(program.output(100, LONG).await, Err(Error::TooMuch { max: 100 })));
        ends(&line(&pid).await).await;
        assert_eq!(sh("printf 1234").output(4, LONG).await.expect("as much as it may"), b"1234");
        assert!(matches!(sh("printf 12345").output(4, LONG).await, Err(Error::TooMuch { .. })));
    }

    /// What ignores SIGTERM, and so does what it starts, whose PID it writes.
    fn stubborn(pid: &Path) -> Program {
        sh(&format!("trap '' TERM; echo said >&2; sleep 1000 & echo $! > {}; wait; sleep 1000", pid.display()))
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_all_it_started_before_the_next_begins() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        let mut program = stubborn(&pid);
        let run = program.output(100, Duration::from_secs(1)).await;
        assert!(matches!(&run, Err(Error::TimedOut { read: 0, said }) if said == "said\n"), "{run:?}");
        let pid = line(&pid).await;
        program.argv[2] = format!("kill -0 {pid} 2>/dev/null && cut -d' ' -f3 /proc/{}/stat || echo gone", pid.trim());
        let state = printed(&program).await;
        assert!(["gone\n", "Z\n"].contains(&state.as_str()), "{state}");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_ended_with_all_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        let program = stubborn(&pid);
        let run = async { program.output(100, LONG).await };
        let pid = tokio::select! {
            _ = run => panic!("it does not end"),
            pid = line(&pid) => pid,
        };
        ends(&pid).await;
    }

    #[tokio::test]
    async fn what_it_leaves_behind_is_ended_too() {
        let pid = printed(&sh("sleep 1000 >/dev/null 2>&1 & echo $!")).await;
        ends(&pid).await;
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        let held = sh(&format!("sleep 1000 & echo $! > {}", pid.display())).output(100, LONG).await;
        assert!(matches!(held, Err(Error::HeldOpen)), "{held:?}");
        ends(&line(&pid).await).await;
    }
}
