//! PIDs that come to mean another process, and pid files that come to name one, in the middle of a signal.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use elasticd::sys::process::{Error, Executable, Find, Process};
use rustix::process::Signal;

use crate::Fault;
use crate::harness::SetOnDrop;

pub const REWRITTEN: Fault = Fault {
    name: "pid-rewritten",
    what: "HUP by a pid file that is rewritten all the time: right, a bystander's, PID 1, nonsense, absent",
    rounds: (300, 20_000),
    run: rewritten,
};

pub const REUSED: Fault = Fault {
    name: "pid-reused",
    what: "HUP to a process whose PID is a bystander's by then (in a PID namespace, by `ns_last_pid`)",
    rounds: (50, 2000),
    run: reused,
};

/// What the command line calls [`inside`].
pub const INSIDE: &str = "--inside-a-pid-namespace";

/// Runs until it is killed, and takes no notice of a HUP.
fn frontend() -> Child {
    Command::new("dash")
        .args(["-c", "trap '' HUP; echo up; while :; do read x; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dash runs")
}

/// Ends of a HUP.
fn bystander() -> Child {
    Command::new("sleep").arg("300").stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("sleep runs")
}

fn ended_by(mut child: Child) -> Option<i32> {
    child.kill().expect("ours");
    child.wait().expect("ours").signal()
}

fn await_ready(frontend: &mut Child) {
    use std::io::Read;
    frontend.stdout.take().expect("piped").read_exact(&mut [0; 3]).expect("it has set its trap");
}

fn find(path: &Path) -> Find {
    Find::PidFile { path: path.to_owned(), executable: Executable::new("dash") }
}

fn rewritten(rounds: u32, random: &mut fastrand::Rng) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pid");
    let (mut frontend, mut bystander) = (frontend(), bystander());
    await_ready(&mut frontend);
    fs::write(&path, frontend.id().to_string()).expect("written");
    let words = [
        frontend.id().to_string(),
        bystander.id().to_string(),
        "1".into(),
        "nginx".into(),
        String::new(),
        "99999999999".into(),
    ];
    let stopped = AtomicBool::new(false);
    let mut dice = random.fork();
    let (mut sent, mut refused, mut wrong) = (0, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                match dice.u8(0..8) {
                    0 => drop(fs::remove_file(&path)),
                    // In place, as some daemons do: it is empty for a moment, and half-written for another.
                    1..4 => fs::write(&path, dice.choice(&words).expect("some")).expect("written"),
                    _ => fs::write(&path, &words[0]).expect("written"),
                }
                // As long as it takes to look for a process, about.
                (0..dice.u32(..60_000)).for_each(|_| std::hint::spin_loop());
            }
        });
        let _stop = SetOnDrop(&stopped);
        while sent < rounds && sent + refused < rounds * 1000 {
            thread::yield_now();
            match Process::find_here(&find(&path)) {
                Ok(process) if process.identity.pid != frontend.id().cast_signed() => wrong += 1,
                found => match found.and_then(|process| process.signal(Signal::HUP)) {
                    Ok(()) => sent += 1,
                    Err(_) => refused += 1,
                },
            }
        }
    });
    assert!(sent == rounds && refused > 0, "{sent} signals, {refused} refusals");
    assert_eq!(wrong, 0, "no other process is ever found");
    assert!(bystander.try_wait().expect("a status").is_none(), "the bystander lives");
    assert_eq!((ended_by(bystander), ended_by(frontend)), (Some(9), Some(9)));
    format!("nothing: {sent} signals to the right process, {refused} refusals, no other process signalled")
}

fn reused(rounds: u32, _: &mut fastrand::Rng) -> String {
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().expect("this program"))
        .arg(INSIDE)
        .env("FAULT_ROUNDS", rounds.to_string())
        .output()
        .expect("unshare runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Has the kernel give the next process that PID.
fn next_pid(pid: u32) {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("a kernel that knows it");
}

/// As PID 1 of a namespace, where all PIDs are ours to give.
pub fn inside(_: &str) {
    let rounds: u32 = std::env::var("FAULT_ROUNDS").expect("set").parse().expect("a number");
    assert_eq!(std::process::id(), 1, "in a namespace of our own");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pid");
    let pid = 1000;
    let (mut reused, mut raced) = (0, 0);
    for round in 0..rounds {
        next_pid(pid);
        let mut frontend = frontend();
        await_ready(&mut frontend);
        assert_eq!(frontend.id(), pid);
        fs::write(&path, pid.to_string()).expect("written");
        if round % 2 == 0 {
            // Between the look and the signal: the worst moment there is.
            let process = Process::find_here(&find(&path)).expect("it runs");
            ended_by(frontend);
            next_pid(pid);
            let bystander = bystander();
            assert_eq!(bystander.id(), pid, "reused");
            assert!(matches!(process.signal(Signal::HUP), Err(Error::Ended(1000))), "the process is gone");
            // Looked up again, it is another program.
            assert!(matches!(Process::find_here(&find(&path)), Err(Error::OtherProgram { .. })));
            assert_eq!(ended_by(bystander), Some(9), "not signalled");
            reused += 1;
        } else {
            // At any moment of the look.
            let bystander = thread::scope(|scope| {
                let looking = scope.spawn(|| {
                    for _ in 0..40 {
                        if let Ok(process) = Process::find_here(&find(&path)) {
                            let _ = process.signal(Signal::HUP);
                        }
                    }
                });
                ended_by(frontend);
                next_pid(pid);
                let bystander = bystander();
                looking.join().expect("no panic");
                bystander
            });
            assert_eq!(ended_by(bystander), Some(9), "not signalled");
            raced += 1;
        }
    }
    println!("nothing: {reused} PIDs reused between look and signal, {raced} amid looks; no bystander was signalled");
}
