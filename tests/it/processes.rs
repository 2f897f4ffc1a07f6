//! Processes that elasticd finds and signals, with real ones, of several users.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use elasticd::sys::process::{Error, Executable, Find, Identity, Process};
use elasticd::sys::unconfined::Unconfined;
use rustix::process::Signal;

use crate::harness::{await_end, copy_program, until};

struct Sleeper(std::process::Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().expect("sleep runs"))
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program that a process runs.
fn executable_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The fields of `/proc/PID/stat` from the third on, which is the state.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn pid_file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), content).expect("written");
    file
}

async fn find_by(find: &Find) -> Result<Process, Error> {
    Process::find(&Unconfined::default(), find).await
}

async fn find(file: &tempfile::NamedTempFile, executable: &str) -> Result<Process, Error> {
    find_by(&Find::PidFile { path: file.path().to_owned(), executable: Executable::new(executable) }).await
}

#[tokio::test]
async fn signals_the_process_named_by_a_pid_file() {
    let mut sleeper = Sleeper::start();
    // exec happens after fork: wait until the child is the program it should be.
    until("sleep runs", || executable_of(sleeper.pid()).filter(|exe| exe.ends_with("sleep")));
    let process = find(&pid_file(&format!("{}\n", sleeper.pid())), "sleep").await.expect("found");
    assert_eq!(process.identity.pid, sleeper.pid());
    process.signal(Signal::TERM).expect("signalled");
    assert!(!await_end(&mut sleeper.0).success());
    assert!(process.signal(Signal::TERM).is_err(), "a process that is gone cannot be signalled");
}

#[tokio::test]
async fn each_wrong_pid_file_has_its_own_error() {
    let absent = Find::PidFile { path: "/nonexistent.pid".into(), executable: Executable::new("sleep") };
    assert!(matches!(find_by(&absent).await, Err(Error::NoPidFile(_))));
    assert!(matches!(find(&pid_file(""), "sleep").await, Err(Error::EmptyPidFile(_))));
    assert!(matches!(find(&pid_file("nginx\n"), "sleep").await, Err(Error::BadPidFile { .. })));
    assert!(matches!(find(&pid_file("-1"), "sleep").await, Err(Error::BadPidFile { .. })));
    assert!(matches!(find(&pid_file("0"), "sleep").await, Err(Error::BadPidFile { .. })));
    assert!(matches!(find(&pid_file(&i32::MAX.to_string()), "sleep").await, Err(Error::Stale { .. })));
    let ourselves = std::process::id().to_string();
    assert!(matches!(find(&pid_file(&ourselves), "sleep").await, Err(Error::Ourselves(_))));
    let sleeper = Sleeper::start();
    let error = find(&pid_file(&sleeper.pid().to_string()), "nginx").await.expect_err("another program");
    assert!(matches!(error, Error::OtherProgram { .. }), "{error}");
    assert!(!error.is_not_running());
}

#[tokio::test]
async fn a_zombie_is_not_running() {
    let mut sleeper = Sleeper::start();
    sleeper.0.kill().expect("killed");
    // Not waited for, so it stays a zombie, to which kill(pid, 0) would still answer.
    until("a zombie", || stat(sleeper.pid()).filter(|fields| fields[0] == "Z"));
    let error = find(&pid_file(&sleeper.pid().to_string()), "sleep").await.expect_err("a zombie");
    assert!(matches!(error, Error::Stale { .. }), "{error}");
    assert!(error.is_not_running());
}

#[tokio::test]
async fn a_process_is_found_by_its_program_when_there_is_but_one() {
    // A program that nothing else runs.
    let dir = tempfile::tempdir().expect("a directory");
    let name = format!("sleeper-{}", std::process::id());
    let program = dir.path().join(&name);
    copy_program("/bin/sleep", &program);
    let start = || Sleeper(Command::new(&program).arg("60").spawn().expect("it runs"));
    let find = async |name: &str| find_by(&Find::Match { executable: Executable::new(name) }).await;
    let path = program.to_str().expect("plain").to_owned();
    assert!(matches!(find(&path).await, Err(Error::NoMatch { .. })));
    let only = start();
    assert_eq!(find(&path).await.expect("found").identity.pid, only.pid());
    assert_eq!(find(&name).await.expect("found").identity.pid, only.pid());
    let _another = start();
    let error = find(&path).await.expect_err("two");
    assert!(matches!(&error, Error::Ambiguous { pids, .. } if pids.len() == 2), "{error}");
    assert!(!error.is_not_running());
}

#[tokio::test]
async fn children_are_found() {
    let sleeper = Sleeper::start();
    let pid = std::process::id().cast_signed();
    let start_ticks = stat(pid).expect("we run")[19].parse().expect("a number");
    let ourselves = Process::hold(Identity { pid, start_ticks }).expect("we run");
    let children = ourselves.children(&Unconfined::default()).await;
    assert!(children.iter().any(|child| child.identity.pid == sleeper.pid()), "{children:?}");
}

const NOBODY: u32 = 65534;

fn give(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    chown(path, Some(NOBODY), None).expect("tests run as root");
}

/// A name that no process of another test has.
fn own_name(directory: &tempfile::TempDir) -> String {
    let unique = directory.path().file_name().and_then(|name| name.to_str()).expect("a plain name");
    format!("frontend{unique}")
}

/// A copy of `sleep` under a name that no other process has.
fn runs_as(directory: &tempfile::TempDir, user: u32) -> Sleeper {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let program = directory.path().join(own_name(directory));
    if !program.exists() {
        copy_program("/bin/sleep", &program);
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let sleeper = Sleeper(Command::new(&program).arg("60").stdout(Stdio::null()).uid(user).spawn().expect("it runs"));
    until("it runs", || executable_of(sleeper.pid()).filter(|exe| *exe == program));
    sleeper
}

#[tokio::test]
async fn a_user_who_may_write_a_pid_file_can_only_have_his_own_process_signalled() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (runs_as(&directory, 0), runs_as(&directory, NOBODY));
    let name = own_name(&directory);
    let name = name.as_str();
    let (file, mode) = (pid_file(&ours.pid().to_string()), 0o644);
    find(&file, name).await.expect("our file, our process");
    give(file.path(), mode);
    let error = find(&file, name).await.expect_err("their file, our process");
    assert!(matches!(error, Error::Untrusted { .. }) && error.to_string().contains("of user 0"), "{error}");
    std::fs::write(file.path(), theirs.pid().to_string()).expect("written");
    find(&file, name).await.expect("their file, their process");
    give(file.path(), 0o666);
    assert!(matches!(find(&file, name).await, Err(Error::Untrusted { .. })), "anybody's file");
    // A group's members could write another PID, unless they are the process's own group, root's or elasticd's.
    const GROUP: u32 = 64_000;
    let of_group = |group, mode| {
        use std::os::unix::fs::{PermissionsExt, chown};
        std::fs::write(file.path(), ours.pid().to_string()).expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("ours");
        chown(file.path(), Some(0), Some(group)).expect("tests run as root");
    };
    of_group(GROUP, 0o644);
    find(&file, name).await.expect("a group that may read it");
    of_group(0, 0o664);
    find(&file, name).await.expect("root's group");
    of_group(GROUP, 0o664);
    let error = find(&file, name).await.expect_err("a group that may write it").to_string();
    assert!(error.contains("can be written by its group, 64000") && error.contains("`chmod 0644`"), "{error}");
    // A pipe would block, and PID 1 is no frontend.
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let piped = Find::PidFile { path: pipe, executable: Executable::new(name) };
    assert!(matches!(find_by(&piped).await, Err(Error::UnreadablePidFile { .. })));
    assert!(find(&pid_file("1"), name).await.is_err());
}

#[tokio::test]
async fn a_namesake_that_anybody_may_start_neither_hides_ours_nor_is_taken_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let theirs = runs_as(&directory, NOBODY);
    let named = Find::Match { executable: Executable::new(own_name(&directory)) };
    assert_eq!(find_by(&named).await.expect("a frontend may run as any user").identity.pid, theirs.pid());
    let ours = runs_as(&directory, 0);
    assert_eq!(find_by(&named).await.expect("ours").identity.pid, ours.pid());
    let another = runs_as(&directory, 0);
    assert!(
        matches!(find_by(&named).await, Err(Error::Ambiguous { pids, .. }) if pids.len() == 2),
        "{}",
        another.pid()
    );
}
