//! What elasticd costs: `cargo bench --bench cost [-- size idle ready change]`.
//!
//! The real program, with the file that nginx reads as its one output, which is neither checked nor loaded: what a frontend
//! costs is measured by `cargo bench --bench frontends`. Where a disk has to confirm what is written, that is measured by
//! leaving it out: the same state and output in `/dev/shm`, whose fsync does nothing.

#[cfg(feature = "ec2")]
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/ec2_endpoint.rs"]
mod ec2_endpoint;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use procfs::process::Process;

use harness::elasticd::Elasticd;
use harness::http::{Reply, Server};

/// How often what takes no time is measured, and how often what takes a minute.
const ROUNDS: usize = 21;
const TURNS: usize = 3;

/// How long an elasticd is left alone before it is looked at, so that what its start needed is over.
const CALM: Duration = Duration::from_secs(20);

/// How long it is looked at: four polls and six audits, at what is configured by default.
const WINDOW: Duration = Duration::from_secs(60);

/// Between two looks. A thread that nothing was left to do for lives ten seconds longer (tokio), so none goes unseen.
const LOOK: Duration = Duration::from_secs(1);

const SERVICE: &str = "[services.web]\nprovider = 'p'\nselect = { Role = 'web' }\nguard = { max_drop = '100%' }\n\
                       [frontends.nginx]\ntype = 'nginx'\ncheck = []\nreload = 'none'\nproof = 'none'\n";

/// A set of backends, which is YAML, too.
fn set(count: usize, port: u16) -> String {
    let entry = |n: usize| {
        let (high, low) = (n / 250, n % 250 + 1);
        format!(
            "{{\"id\": \"i-{n:017x}\", \"address\": \"10.9.{high}.{low}:{port}\", \"zone\": \"eu-west-1a\", \
             \"tags\": {{\"Role\": \"web\", \"Name\": \"web {n}\", \"Env\": \"prod\"}}}}"
        )
    };
    format!("[{}]\n", (0..count).map(entry).collect::<Vec<_>>().join(",\n"))
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The medians of each measure.
fn medians<const N: usize>(turns: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|at| median(turns.iter().map(|turn| turn[at]).collect()))
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn size() {
    let program = env!("CARGO_BIN_EXE_elasticd");
    let bytes = fs::metadata(program).expect("it was built").len();
    println!("\n`elasticd` as it was built: {:.1} MB", megabytes(bytes));
}

/// One that reads so many backends from a file, and is ready.
fn of_file(count: usize) -> Elasticd {
    let provider = "[providers.p]\ntype = 'file'\npath = 'DIR/backends.yaml'\n";
    let elasticd = Elasticd::new(&format!("{provider}{SERVICE}output = 'DIR/elasticd.conf'\n"));
    elasticd.write("backends.yaml", &set(count, 8080));
    elasticd.ready()
}

/// What one thread has done so far.
#[derive(Default, Clone, Copy)]
struct Done {
    /// In nanoseconds of processor time.
    busy: u64,
    /// How often it has waited for something, and was woken up.
    woken: u64,
}

fn done(process: &Process) -> HashMap<i32, Done> {
    let tasks = process.tasks().expect("it runs").flatten();
    let done = tasks.filter_map(|task| {
        let woken = task.status().ok()?.voluntary_ctxt_switches?;
        Some((task.tid, Done { busy: task.schedstat().ok()?.sum_exec_runtime, woken }))
    });
    done.collect()
}

/// Resident and peak memory in MB, descriptors, threads, seconds of processor time an hour, wake-ups a minute.
fn idle(elasticd: &Elasticd) -> [f64; 6] {
    thread::sleep(CALM);
    let process = Process::new(elasticd.pid().as_raw()).expect("it runs");
    let mut seen = done(&process);
    let (mut busy, mut woken) = (0, 0);
    let started = Instant::now();
    while started.elapsed() < WINDOW {
        thread::sleep(LOOK);
        for (thread, now) in done(&process) {
            let before = seen.insert(thread, now).unwrap_or_default();
            busy += now.busy.saturating_sub(before.busy);
            woken += now.woken.saturating_sub(before.woken);
        }
    }
    let took = started.elapsed().as_secs_f64();
    let status = process.status().expect("it runs");
    let memory = |kib: Option<u64>| megabytes(kib.expect("a process of its own") * 1024);
    [
        memory(status.vmrss),
        memory(status.vmhwm),
        process.fd_count().expect("its own descriptors") as f64,
        status.threads as f64,
        busy as f64 / 1e9 / took * 3600.0,
        woken as f64 / took * 60.0,
    ]
}

fn idle_row(what: &str, start: impl Fn() -> Elasticd) -> String {
    let turns: Vec<_> = (0..TURNS).map(|_| idle(&start())).collect();
    let [resident, peak, descriptors, threads, busy, woken] = medians(&turns);
    let share = busy / 36.0;
    format!(
        "| {what} | {resident:.1} MB | {peak:.1} MB | {busy:.2} s | {share:.4} % | {woken:.0} | {descriptors:.0} | {threads:.0} |"
    )
}

fn idle_table() {
    println!("\nIdle, medians of {TURNS} windows of {WINDOW:?}:\n");
    println!(
        "| backends | resident | peak | processor time an hour | of a core | wake-ups a minute | descriptors | threads |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    // All at once: none of them takes anything from the others.
    thread::scope(|scope| {
        let of_file = |count: usize| scope.spawn(move || idle_row(&format!("{count} in a file"), || of_file(count)));
        #[cfg_attr(not(feature = "ec2"), expect(unused_mut, reason = "there is no EC2 to add"))]
        let mut rows: Vec<_> = [10, 1_000, 10_000].map(of_file).into();
        #[cfg(feature = "ec2")]
        rows.extend([10, 1_000].map(|count| {
            scope.spawn(move || {
                let role = [("Role", "web"), ("Name", "web"), ("Env", "prod")];
                let machines = (0..count).map(|n| ec2_endpoint::Machine::numbered(n, &role));
                let endpoint = ec2_endpoint::Endpoint::start(machines.collect());
                idle_row(&format!("{count} in EC2"), || of_ec2(&endpoint.url()))
            })
        }));
        for row in rows {
            println!("{}", row.join().expect("no thread panics"));
        }
    });
}

#[cfg(feature = "ec2")]
fn of_ec2(url: &str) -> Elasticd {
    let provider = format!("[providers.p]\ntype = 'ec2'\nregion = 'eu-west-1'\nendpoint_url = '{url}'\n");
    let config =
        format!("{provider}{SERVICE}output = 'DIR/elasticd.conf'\n").replacen("select", "port = 80\nselect", 1);
    let elasticd = Elasticd::new(&config).env("AWS_ACCESS_KEY_ID", "bench").env("AWS_SECRET_ACCESS_KEY", "bench");
    elasticd.ready()
}

fn ready_table() {
    println!("\nFrom the start to `READY=1`, with nothing but the restored state to go by, medians of {ROUNDS}:\n");
    println!("| backends | ready |\n| ---: | ---: |");
    for count in [10, 1_000, 10_000] {
        let mut elasticd = of_file(count);
        fs::remove_file(elasticd.path("backends.yaml")).expect("it was there");
        let samples = (0..ROUNDS).map(|_| {
            elasticd.stop();
            let started = Instant::now();
            elasticd.restart();
            elasticd.await_ready();
            started.elapsed().as_secs_f64() * 1e3
        });
        let samples = samples.collect();
        let backends = elasticd.status()["services"]["web"]["backends"].as_u64();
        assert_eq!(backends, u64::try_from(count).ok(), "restored");
        println!("| {count} | {:.1} ms |", median(samples));
    }
}

/// From the moment in which a provider begins to answer with so many other backends to the swapped file, with
/// everything that is written in `place`; what of that were rendering, staging and swapping; all in ms. And how many MB
/// were rendered.
fn change(count: usize, place: &Path) -> [f64; 5] {
    let server = Server::start(None);
    let round = Arc::new(AtomicUsize::new(0));
    let answered = Arc::new(Mutex::new(Instant::now()));
    let sets = [8080, 8081].map(|port| Reply::json(&set(count, port)));
    let (of_round, at) = (Arc::clone(&round), Arc::clone(&answered));
    server.script(move |_| {
        *at.lock().expect("a time") = Instant::now();
        sets[of_round.load(Ordering::SeqCst) % 2].clone()
    });
    let dir = tempfile::Builder::new().prefix("ed").tempdir_in(place).expect("a directory");
    let (output, state) = (dir.path().join("elasticd.conf"), dir.path().join("state"));
    let elasticd = Elasticd::new(&format!(
        "[providers.p]\ntype = 'http'\nurl = 'http://{}/'\ninterval = '1h'\n\
         {SERVICE}output = '{}'\nsettle = '0s'\nmin_reload_gap = '0s'\n",
        server.address(),
        output.display()
    ));
    let elasticd = elasticd.env("ELASTICD_STATE_DIR", &state.display().to_string()).ready();
    assert!(state.exists(), "the state is in the same place");
    let inode = || fs::metadata(&output).expect("an output").ino();
    let turns = (1..=ROUNDS).map(|n| {
        round.store(n, Ordering::SeqCst);
        let before = inode();
        elasticd.signal(Signal::SIGUSR1);
        let deadline = Instant::now() + harness::PATIENCE;
        while inode() == before {
            assert!(Instant::now() < deadline, "{}", elasticd.log());
            thread::sleep(Duration::from_micros(50));
        }
        let took = answered.lock().expect("a time").elapsed().as_secs_f64();
        let revision = u64::try_from(n).expect("small") + 1;
        let status = elasticd.await_status("proven", |status| {
            status["frontends"]["nginx"]["proven_revision"].as_u64() == Some(revision)
        });
        let step = |name: &str| status["frontends"]["nginx"]["last_attempt_seconds"][name].as_f64().expect("a number");
        let bytes = fs::metadata(&output).expect("an output").len();
        [took * 1e3, step("render") * 1e3, step("stage") * 1e3, step("swap") * 1e3, megabytes(bytes)]
    });
    medians(&turns.collect::<Vec<_>>())
}

fn change_table() {
    println!("\nFrom a provider's answer with all N backends changed to the swapped file, medians of {ROUNDS}:\n");
    println!("| backends | without fsync | of which rendering | rendered | with fsync | of which staging | swapping |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for count in [10, 100, 1_000, 10_000] {
        let [without, render, _, _, rendered] = change(count, Path::new("/dev/shm"));
        let [with, _, stage, swap, _] = change(count, &std::env::temp_dir());
        let (backends, text) = (count as f64 / render, rendered / render * 1e3);
        println!(
            "| {count} | {without:.1} ms | {render:.2} ms | {backends:.0} backends/ms, {text:.0} MB/s | {with:.1} ms | \
             {stage:.1} ms | {swap:.1} ms |"
        );
    }
}

fn main() {
    // Cargo adds arguments of its own.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let tables: [(&str, fn()); 4] =
        [("size", size), ("idle", idle_table), ("ready", ready_table), ("change", change_table)];
    for (_, table) in tables.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name))
    {
        table();
    }
}
