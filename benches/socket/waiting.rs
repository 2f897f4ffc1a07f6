//! What waiting clients cost, and how soon they get a change.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use tokio::sync::watch;

use super::harness::elasticd::Elasticd;
use super::{Server, harness, median, one, request, serve, snapshot};

const WAITING: usize = 1000;
const CHANGES: u64 = 9;

/// As many as elasticd has for what is asked of it.
const THREADS: usize = 2;

/// A thousand long-polls for what follows this revision.
fn wait(socket: &Path, revision: u64) -> Vec<UnixStream> {
    let wait = request(&format!("/v1/services/web?wait=60s&revision={revision}"));
    let waiting = |_| {
        let mut stream = harness::until("the server listens", || UnixStream::connect(socket).ok());
        stream.write_all(&wait).expect("written");
        stream
    };
    let streams = (0..WAITING).map(waiting).collect();
    thread::sleep(Duration::from_millis(500));
    streams
}

/// From a change until each of many long-polls has its answer. The server has as many threads as elasticd; the clients
/// are one epoll that only looks at the time.
pub fn wake(directory: &Path) {
    let socket = directory.join("wake");
    let (sender, snapshots) = watch::channel(Some(snapshot(1)));
    let (started, threads) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .on_thread_start(move || drop(started.send(Server { thread: nix::unistd::gettid() })))
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.spawn(serve(socket.clone(), snapshots));
    let threads: Vec<_> = threads.iter().take(THREADS).collect();
    let busy = || threads.iter().map(Server::busy).sum::<f64>();
    let mut changes = Vec::new();
    for revision in 1..=CHANGES {
        let streams = wait(&socket, revision);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        for (stream, data) in streams.iter().zip(0..) {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
            epoll::add(&epoll, stream, epoll::EventData::new_u64(data), flags).expect("added");
        }
        let before = busy();
        let changed = Instant::now();
        sender.send_replace(Some(snapshot(revision + 1)));
        let mut took = Vec::with_capacity(WAITING);
        let mut events = Vec::with_capacity(WAITING);
        while took.len() < WAITING {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).expect("events");
            took.resize(took.len() + events.len(), changed.elapsed().as_secs_f64() * 1e3);
        }
        // What the servers still do then is a small part.
        changes.push((took[WAITING / 2], took[WAITING - 1], (busy() - before) / 1e3));
    }
    println!(
        "\n{WAITING} long-polls have their answers {:.1} ms after a change (median), {:.1} ms (the last); the \
         server's {THREADS} threads worked {:.1} ms together; medians of {CHANGES} changes",
        median(changes.iter().map(|change| change.0)),
        median(changes.iter().map(|change| change.1)),
        median(changes.iter().map(|change| change.2)),
    );
    runtime.shutdown_background();
}

/// Resident memory of a process by what it is, in kB.
fn resident(elasticd: &Elasticd) -> BTreeMap<String, u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", elasticd.pid())).expect("readable");
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    let sizes =
        fields.filter_map(|(name, size)| Some((name.to_owned(), size.trim().strip_suffix(" kB")?.parse().ok()?)));
    sizes.collect()
}

/// What memory requests and long-polls take, each by itself.
pub fn memory() {
    let elasticd = Elasticd::new(
        "[providers.p]\ntype = 'fixed'\ninstances = [{ id = 'a', address = '10.0.0.1:80' }]\n[services.web]\nprovider = 'p'\n",
    )
    .ready();
    let socket = elasticd.path("sock");
    let size = || resident(&elasticd)["VmRSS"];
    let mut kept = UnixStream::connect(&socket).expect("a connection");
    let mut ask = |requests: usize| {
        for n in 0..requests {
            // Some keep their connection, some do not.
            if n % 10 == 0 {
                one(&socket, "/v1/services/web");
            }
            kept.write_all(&request("/v1/services/web/pick?key=alice")).expect("written");
            assert!(kept.read(&mut [0; 4096]).expect("an answer") > 0);
        }
        size()
    };
    let (first, then) = (ask(2_000), ask(100_000));
    println!("\nresident after 2,000 requests: {first} kB, after 100,000 more: {then} kB");
    let before = size();
    let streams = wait(&socket, 1);
    let waiting = size();
    drop(streams);
    let after = ask(2_000);
    println!("{WAITING} idle long-polls: {} kB more; {after} kB once they are gone", waiting.saturating_sub(before));
    let streams = wait(&socket, 1);
    println!("{WAITING} once more: {} kB", size());
    drop(streams);
}
