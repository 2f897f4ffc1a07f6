//! What a fleet on one publisher's polls costs, and how fast it is: `cargo bench --bench fleet`.
//!
//! A real NATS server, a leader and a standby of the real program, and an EC2 of our own that counts what it is asked,
//! all on the loopback and on this machine, whose processors they share with the sidecars. Sidecars are the real program
//! as far as that goes, and the `nats` provider in this process beyond. It takes about five minutes.

mod bytes;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/it/ec2_endpoint.rs"]
mod ec2_endpoint;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod machine;
mod model;
mod publisher;
mod sidecars;

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use bytes::{Bytes, bytes};
use harness::until;
use model::Server;
use publisher::Publishers;
use sidecars::{Processes, Sidecars, Tasks};

/// As many files as 1,000 sidecars in this process need, with some left.
const FILES: u64 = 4_000;

/// Polls counted in each row.
const POLLS: usize = 10;

/// Changes in each row.
const CHANGES: usize = 9;

/// Between changes: more than `min_reload_gap`.
const PAUSE: Duration = Duration::from_millis(1300);

/// Polls an hour at the default interval of 15 s.
const POLLED: usize = 240;

fn main() {
    let limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most >= FILES), "{FILES} open files are needed: raise `ulimit -Hn`");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    let mut server = calls();
    speed(&mut server);
    let measured = all_bytes();
    model::print(&server, &measured);
}

/// What EC2 is asked, and what the server needs.
fn calls() -> Server {
    println!(
        "EC2's calls, counted at its endpoint while one of two publishers polls every second: {POLLS} polls a row. Each \
         poll is one call, with 100 machines. Memory is the NATS server's resident set.\n"
    );
    println!(
        "| sidecars | within | calls an hour, at 1 s | at the default of 15 s | if each polled, at 15 s | attached \
         within | server's memory |\n|---:|---:|---:|---:|---:|---:|---:|"
    );
    let publishers = Publishers::start(100, "1s");
    let mut tasks = Tasks::new();
    let idle = publishers.memory();
    let mut server = Server { idle, each: 0, change: Duration::ZERO, attached: 0.0 };
    for count in [0, 1, 10, 100, 1_000] {
        let (started, before) = (Instant::now(), tasks.count());
        tasks.grow(&publishers.nats.url(), count);
        let took = started.elapsed();
        publishers.await_readers(count);
        let since = publishers.endpoint.arrivals().len();
        let calls = until("polls", || publishers.endpoint.arrivals().get(since..=since + POLLS).map(<[_]>::to_vec));
        let within = calls[POLLS] - calls[0];
        let hourly = POLLS as f64 * 3600.0 / within.as_secs_f64();
        let memory = publishers.memory();
        server.each = memory.saturating_sub(idle) / (count as u64).max(1);
        server.attached = (count - before) as f64 / took.as_secs_f64();
        println!(
            "| {count} | {within:.1?} | {hourly:.0} | {:.0} | {} | {took:.1?} | {:.1} MB |",
            hourly / 15.0,
            count * POLLED,
            memory as f64 / 1e6
        );
    }
    server
}

/// From the change to the swapped file.
fn speed(server: &mut Server) {
    println!(
        "\nFrom a change in EC2, of which the publisher is told by SIGUSR1, to the swapped file; {CHANGES} changes a row. \
         The sidecars of the last row are in one process, and write no file: it is to their provider's answer. EC2 is \
         asked, and the set is in the store, so long after the change (medians); p50 and p99 are over all sidecars and \
         changes, first and last are medians over the changes. Processor time is for each sidecar and change.\n"
    );
    println!(
        "| sidecars | instances | EC2 is asked | in the store | first | p50 | p99 | last | slowest of all | sidecar's \
         processor time | server's |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    let mut publishers = Publishers::start(1_000, "1h");
    let mut processes = Processes::default();
    for count in [10, 50, 100, 200] {
        processes.grow(&publishers.nats.url(), count);
        row(&mut publishers, &mut processes, "processes");
    }
    drop(processes);
    let mut publishers = Publishers::start(100, "1h");
    let mut tasks = Tasks::new();
    tasks.grow(&publishers.nats.url(), 1_000);
    server.change = row(&mut publishers, &mut tasks, "in one process");
}

/// Returns the server's processor time for a change and sidecar.
fn row(publishers: &mut Publishers, sidecars: &mut impl Sidecars, what: &str) -> Duration {
    let count = sidecars.count();
    publishers.await_readers(count);
    thread::sleep(PAUSE);
    let (busy, server) = (sidecars.processor(), publishers.processor());
    let (mut all, mut ends, mut stages) = (Vec::new(), [const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..CHANGES {
        let change = publishers.plan();
        sidecars.expect(&change);
        let made = publishers.make(&change);
        let since = |at: SystemTime| at.duration_since(made.clock).unwrap_or_default();
        let mut times: Vec<_> = sidecars.reached(&change, made).into_iter().map(since).collect();
        times.sort_unstable();
        ends[0].push(times[0]);
        ends[1].push(times[count - 1]);
        all.extend(times);
        for (stage, took) in stages.iter_mut().zip(publishers.stages(made)) {
            stage.push(took);
        }
        thread::sleep(PAUSE);
    }
    let each = |busy: Duration| busy / u32::try_from(CHANGES * count).expect("few enough");
    let (busy, server) = (each(sidecars.processor() - busy), each(publishers.processor() - server));
    let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
    let [asked, stored] = stages.map(|stage| ms(quantile(stage, 50)));
    let [first, last] = ends.map(|end| ms(quantile(end, 50)));
    let [p50, p99, most] = [50, 99, 100].map(|percent| ms(quantile(all.clone(), percent)));
    println!(
        "| {count} {what} | {} | {asked} | {stored} | {first} | {p50} | {p99} | {last} | {most} | {busy:.1?} | {server:.1?} |",
        publishers.machines
    );
    server
}

fn quantile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// What sidecars receive and send. The fleets are measured at the same time, as most of it is waiting.
fn all_bytes() -> Vec<Bytes> {
    println!(
        "\nWhat one sidecar receives and sends, of TCP's payload, counted on a line between it and the server; EC2 is \
         polled every 15 s, and one instance comes or goes with a change.\n"
    );
    println!("| instances | start | a change | a quiet hour | signs of life in it | sidecar's memory |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let measured: Vec<_> = thread::scope(|scope| {
        let each = [100, 1_000, 10_000].map(|instances| scope.spawn(move || bytes(instances)));
        each.into_iter().map(|each| each.join().expect("no panic")).collect()
    });
    let kb = |bytes: u64| format!("{:.1} kB", bytes as f64 / 1000.0);
    for Bytes { instances, start, change, quiet, memory, heartbeats } in &measured {
        println!(
            "| {instances} | {} | {} | {} | {heartbeats} | {:.1} MB |",
            kb(*start),
            kb(*change),
            kb(*quiet),
            *memory as f64 / 1e6
        );
    }
    measured
}
