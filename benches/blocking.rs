//! Whether anything that blocks keeps the query socket from answering: `cargo bench --profile dev --bench blocking`.
//!
//! Four frontends that are found by their executable (`pid_file = ""`) await the proof of a reload that never comes,
//! among 1,300 processes, while the set changes five times a second and every fsync takes 50 ms. The control is an
//! elasticd without frontends and without changes, among the same processes and on the same disk. They take turns, so
//! that whatever else the machine does hits both alike. It fails if the median of the turns' p99 of
//! `GET /v1/services/web` is more than twice the control's.
//!
//! The slow disk is strace's: it delays the return of fsync and fdatasync, and with `--seccomp-bpf` stops at no other
//! system call.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::elasticd::Elasticd;
use harness::until;

const PROCESSES: usize = 1300;
const FRONTENDS: usize = 4;
const TURNS: usize = 5;
const REQUESTS: usize = 1000;

/// Between two requests, so that they meet whatever goes on at any time.
const PAUSE: Duration = Duration::from_millis(4);

/// Between two changes of the set.
const CHANGE: Duration = Duration::from_millis(200);

const SLOW_DISK: &[&str] = &[
    "strace",
    "-D",
    "-f",
    "-qq",
    "--seccomp-bpf",
    "--output=/dev/null",
    "--trace=fsync,fdatasync",
    "--inject=fsync,fdatasync:delay_exit=50000",
];

const SERVICE: &str = "[providers.p]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '1h'\n[services.web]\n\
                       provider = 'p'\nguard = { max_drop = '100%' }\n";

/// Ended when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start(program: &Path) -> Self {
        // HUP, by which the frontends are told to reload, would end it.
        let script = "trap '' HUP; exec \"$0\" 100000";
        let child = Command::new("sh").args(["-c", script]).arg(program).stdin(Stdio::null()).spawn();
        Self(child.expect("a process"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn processes() -> usize {
    let entries = fs::read_dir("/proc").expect("readable").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())).count()
}

fn set(change: usize) -> String {
    format!("[{{\"id\": \"a\", \"address\": \"10.0.{}.{}:80\"}}]\n", change / 250 % 250, change % 250 + 1)
}

/// One that takes the delay of fsync, or a panic that says why there is none.
fn assert_slow_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    let started = Instant::now();
    let status = Command::new(SLOW_DISK[0])
        .args(SLOW_DISK[1..].iter().filter(|argument| **argument != "-D"))
        .args(["dd", "if=/dev/zero", "count=1", "conv=fsync", "status=none"])
        .arg(format!("of={}", file.display()))
        .status();
    let status = status.unwrap_or_else(|error| panic!("this bench needs strace (apt-get install strace): {error}"));
    assert!(
        status.success() && started.elapsed() >= Duration::from_millis(50),
        "strace does not delay fsync here ({status}): it needs version 5.3 or later, and the right to trace"
    );
}

fn frontend(directory: &Path, number: usize) -> String {
    let program = directory.join(format!("frontend-{number}"));
    format!(
        "[frontends.f{number}]\ntype = 'custom'\nescape = 'none'\ntemplate = 'f.tpl'\noutput = 'DIR/out-{number}'\n\
         executable = '{}'\npid_file = ''\nreload = {{ signal = 'HUP' }}\nproof = 'workers'\nproof_timeout = '1h'\n",
        program.display()
    )
}

/// How long each answer took, in milliseconds.
fn ask(elasticd: &Elasticd) -> Vec<f64> {
    let once = || {
        let started = Instant::now();
        let mut stream = UnixStream::connect(elasticd.path("sock")).expect("it listens");
        let request = "GET /v1/services/web HTTP/1.1\r\nHost: elasticd\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let took = started.elapsed().as_secs_f64() * 1e3;
        thread::sleep(PAUSE);
        took
    };
    (0..REQUESTS).map(|_| once()).collect()
}

fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * share).round() as usize]
}

/// The median and the p99 of one turn.
fn turn(programs: Option<&Path>) -> [f64; 2] {
    let frontends = programs.map(|directory| (0..FRONTENDS).map(|n| frontend(directory, n)).collect::<String>());
    let elasticd = Elasticd::new(&format!("{SERVICE}{}", frontends.as_deref().unwrap_or_default())).under(SLOW_DISK);
    elasticd
        .write("f.tpl", "{% for s in services %}{% for b in s.backends %}{{ b.address }} {% endfor %}{% endfor %}\n");
    elasticd.write("backends.yaml", &set(0));
    let elasticd = elasticd.start();
    until("it knows the set", || elasticd.try_get("/v1/services/web").filter(|(status, ..)| *status == 200));
    if frontends.is_some() {
        let awaits_proof = |n| {
            fs::read_to_string(elasticd.path(&format!("state/frontends/f{n}.json")))
                .is_ok_and(|record| record.contains("\"step\":\"reloading\"") && record.contains("\"asked\":true"))
        };
        until("all frontends await the proof", || (0..FRONTENDS).all(awaits_proof).then_some(()));
    } else {
        thread::sleep(Duration::from_secs(1));
    }
    let is_over = AtomicBool::new(false);
    let mut samples = thread::scope(|scope| {
        if frontends.is_some() {
            scope.spawn(|| {
                for change in 1.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    elasticd.write("backends.yaml", &set(change));
                    thread::sleep(CHANGE);
                }
            });
        }
        let samples = ask(&elasticd);
        is_over.store(true, Ordering::Relaxed);
        samples
    });
    [quantile(&mut samples, 0.5), quantile(&mut samples, 0.99)]
}

fn median(turns: &[[f64; 2]], at: usize) -> f64 {
    quantile(&mut turns.iter().map(|turn| turn[at]).collect::<Vec<_>>(), 0.5)
}

fn main() {
    assert_slow_disk();
    let programs = tempfile::tempdir().expect("a directory");
    let at = |name: &str| programs.path().join(name);
    for number in 0..FRONTENDS {
        fs::copy("/bin/sleep", at(&format!("frontend-{number}"))).expect("copied");
    }
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let mut sleepers: Vec<_> = (0..FRONTENDS).map(|n| Sleeper::start(&at(&format!("frontend-{n}")))).collect();
    let others = PROCESSES.saturating_sub(processes());
    sleepers.extend((0..others).map(|_| Sleeper::start(Path::new("/bin/sleep"))));
    thread::sleep(Duration::from_secs(2));
    println!("{} processes", processes());
    let (mut control, mut busy) = (Vec::new(), Vec::new());
    for number in 1..=TURNS {
        control.push(turn(None));
        busy.push(turn(Some(programs.path())));
        let [idle, waiting] = [&control, &busy].map(|turns| turns[number - 1]);
        println!(
            "turn {number}: control {:.2} ms, p99 {:.2} ms; awaiting proof {:.2} ms, p99 {:.2} ms",
            idle[0], idle[1], waiting[0], waiting[1]
        );
    }
    drop(sleepers);
    let (idle, waiting) = (median(&control, 1), median(&busy, 1));
    println!(
        "p99, median of {TURNS} turns: control {idle:.2} ms, awaiting proof {waiting:.2} ms: {:.2} times",
        waiting / idle
    );
    assert!(waiting <= 2.0 * idle, "it is more than twice the control's");
}
