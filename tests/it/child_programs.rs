//! Programs that elasticd starts, with real ones: what they see, what is read of them, and how they end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use elasticd::sys::child::{CommandError, Error, Program, locate};
use elasticd::sys::unconfined::Unconfined;

/// How many bytes of a program's messages are kept: of a command's, and of a provider's program.
const COMMAND_MESSAGES: usize = 16 * 1024;
const PROGRAM_MESSAGES: usize = 4096;

const LONG: Duration = Duration::from_secs(30);

fn sh(script: &str) -> Program {
    Program::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec(), Vec::new(), Vec::new(), &Unconfined::default())
}

async fn printed(program: &Program) -> String {
    String::from_utf8(program.output(1 << 20, LONG).await.expect("an output")).expect("UTF-8")
}

/// Waits until a process has ended, reaped or not.
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
async fn a_program_sees_only_what_it_is_given() {
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
async fn a_program_ends_with_its_output() {
    assert_eq!(printed(&sh("printf a; exec >&-; sleep 0.1")).await, "a");
    assert_eq!(printed(&sh("printf a; (sleep 0.1; printf b) & exit 0")).await, "ab");
    assert_eq!(printed(&sh("head -c 1000000 /dev/zero | tr '\\0' x")).await.len(), 1_000_000);
}

#[tokio::test]
async fn a_failure_carries_the_last_messages() {
    let failure = async |script| sh(script).output(100, LONG).await.expect_err("fails");
    let Error::Failed { status, said } = failure("echo out; echo one >&2; echo two >&2; exit 3").await else {
        panic!("it failed")
    };
    assert_eq!((status.code(), said.as_str()), (Some(3), "one\ntwo\n"));
    let flood = "head -c 9999999 /dev/zero | tr '\\0' x >&2; echo end >&2; kill -9 $$";
    let Error::Failed { said, .. } = failure(flood).await else { panic!("it failed") };
    assert!(said.len() == PROGRAM_MESSAGES && said.ends_with("xend\n"), "{said}");
    let absent = Program::new(vec!["/nonexistent/tool".to_owned()], Vec::new(), Vec::new(), &Unconfined::default());
    assert!(matches!(absent.output(1, LONG).await, Err(Error::Start(_))));
}

#[tokio::test]
async fn too_much_output_ends_a_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let pid = dir.path().join("pid");
    let program = sh(&format!("echo $$ > {}; exec yes", pid.display()));
    assert!(matches!(program.output(100, LONG).await, Err(Error::TooMuch { max: 100 })));
    ends(&line(&pid).await).await;
    assert_eq!(sh("printf 1234").output(4, LONG).await.expect("as much as it may"), b"1234");
    assert!(matches!(sh("printf 12345").output(4, LONG).await, Err(Error::TooMuch { .. })));
}

/// A program that ignores SIGTERM, as does its child, whose PID it writes.
fn stubborn(pid: &Path) -> Program {
    sh(&format!("trap '' TERM; echo said >&2; sleep 1000 & echo $! > {}; wait; sleep 1000", pid.display()))
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_ended_with_its_children_before_the_next_begins() {
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
async fn a_program_that_is_no_longer_waited_for_is_ended_with_its_children() {
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
async fn children_that_a_program_leaves_behind_are_ended() {
    let pid = printed(&sh("sleep 1000 >/dev/null 2>&1 & echo $!")).await;
    ends(&pid).await;
    let dir = tempfile::tempdir().expect("a directory");
    let pid = dir.path().join("pid");
    let held = sh(&format!("sleep 1000 & echo $! > {}", pid.display())).output(100, LONG).await;
    assert!(matches!(held, Err(Error::HeldOpen)), "{held:?}");
    ends(&line(&pid).await).await;
}

fn command(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

async fn run(argv: &[String], limit: Duration) -> Result<(), CommandError> {
    elasticd::sys::child::run(&Unconfined::default(), argv, limit).await
}

#[tokio::test]
async fn a_failed_command_is_reported_with_its_output() {
    run(&command("exit 0"), LONG).await.expect("succeeds");
    let error = run(&command("echo out; echo err >&2; exit 3"), LONG).await.expect_err("fails").to_string();
    assert!(error.contains("exit status: 3") && error.contains("out") && error.contains("err"), "{error}");
    let error = run(&["/nonexistent/tool".to_owned()], LONG).await.expect_err("fails").to_string();
    assert!(error.contains("/nonexistent/tool"), "{error}");
}

#[test]
fn a_program_is_found_as_it_would_be_run() {
    assert!(locate("sh").expect("in the path").is_absolute());
    assert_eq!(locate("/bin/sh").expect("there"), PathBuf::from("/bin/sh"));
    for absent in ["no-such-program", "/nonexistent/tool", "/etc"] {
        assert!(matches!(locate(absent), Err(CommandError { source: Error::Start(_), .. })), "{absent}");
    }
    let Err(CommandError { source: Error::Start(source), .. }) = locate("/etc/passwd") else {
        panic!("it cannot be run")
    };
    assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn output_is_bounded_and_never_blocks_the_program() {
    let error = run(&command("head -c 1000000 /dev/zero | tr '\\0' x; exit 1"), LONG).await.expect_err("fails");
    let Error::Failed { said, .. } = error.source else { panic!("{error}") };
    assert_eq!(said.len(), COMMAND_MESSAGES);
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let limit = Duration::from_millis(200);
    let error = run(&command("echo started; trap '' TERM; sleep 60 & wait; sleep 60"), limit).await.expect_err("hangs");
    let Error::TimedOut { said, .. } = error.source else { panic!("{error}") };
    assert_eq!(said.trim(), "started");
}

#[tokio::test]
async fn a_daemon_that_a_command_leaves_behind_delays_nothing() {
    let started = std::time::Instant::now();
    run(&command("sleep 20 & exit 0"), LONG).await.expect("succeeds");
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn the_environment_is_not_passed_on() {
    run(&command("test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\""), LONG).await.expect("only what is listed");
}
