//! Descriptors and memory that run out.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::Fault;
use crate::harness::BoundedCommand as _;
use crate::harness::backend::FILE;
use crate::harness::elasticd::Elasticd;
use crate::killed::{LIST, Reader, proven, some, whole};

pub const DESCRIPTORS: Fault = Fault {
    name: "descriptors",
    what: "RLIMIT_NOFILE lowered to 0 to 15 more than are open, while backends change and clients connect",
    rounds: (8, 300),
    run: descriptors,
};

pub const MEMORY: Fault = Fault {
    name: "memory",
    what: "RLIMIT_DATA lowered to at most 2 MiB more than is in use, while up to 5,000 backends come",
    rounds: (5, 100),
    run: memory,
};

fn limit(elasticd: &Elasticd, resource: &str, soft: &str) {
    let pid = elasticd.pid().to_string();
    let output = Command::new("prlimit").args(["--pid", &pid, &format!("--{resource}={soft}:")]).bounded_output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn elasticd(random: &mut fastrand::Rng) -> Elasticd {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.write("backends.yaml", &some(random, 40).0);
    elasticd.ready()
}

fn descriptors(rounds: u32, random: &mut fastrand::Rng) -> String {
    let mut elasticd = elasticd(random);
    let reader = Reader::start(&elasticd);
    for round in 0..rounds {
        let open = fs::read_dir(format!("/proc/{}/fd", elasticd.pid())).expect("readable").count();
        limit(&elasticd, "nofile", &(open + round as usize % 16).to_string());
        elasticd.write("backends.yaml", &some(random, 40).0);
        let clients: Vec<_> =
            (0..8).map(|_| std::os::unix::net::UnixStream::connect(elasticd.path("sock")).expect("queued")).collect();
        // As long as the shortage lasts.
        sleep(Duration::from_millis(random.u64(0..150)));
        assert!(elasticd.is_running(), "{}", elasticd.log());
        drop(clients);
        limit(&elasticd, "nofile", "1024");
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        proven(&elasticd, &ids);
    }
    let read = reader.stop();
    assert_eq!(elasticd.logged("panicked"), 0, "{}", elasticd.log());
    let said = elasticd.logged("Too many open files");
    assert!(said > 0, "{}", elasticd.log());
    format!("nothing: elasticd lived on, said {said} times what it lacked, {read} reads without a torn one")
}

fn memory(rounds: u32, random: &mut fastrand::Rng) -> String {
    let mut elasticd = elasticd(random);
    let (mut ended, mut revision) = (0, 0);
    for _ in 0..rounds {
        let statm = fs::read_to_string(format!("/proc/{}/statm", elasticd.pid())).expect("readable");
        let pages: u64 = statm.split(' ').nth(5).and_then(|word| word.parse().ok()).expect("a number");
        limit(&elasticd, "data", &(pages * 4096 + random.u64(0..2 << 20)).to_string());
        let many: String = (0..random.u32(1000..5000))
            .map(|n| {
                format!("- {{ id: m-{n}, address: \"10.1.{}.{}:80\", tags: {{ Role: web }} }}\n", n / 250, n % 250)
            })
            .collect();
        elasticd.write("backends.yaml", &many);
        sleep(Duration::from_millis(random.u64(0..400)));
        let (text, ids) = some(random, 40);
        if elasticd.is_running() {
            limit(&elasticd, "data", "unlimited");
        }
        // It may end of what it had been refused until then.
        sleep(Duration::from_millis(20));
        if !elasticd.is_running() {
            elasticd.await_exit();
            ended += 1;
            for name in ["out/list.json", "state/snapshot.json", "state/frontends/list.json"] {
                whole(&elasticd.path(name)).expect("it was there before");
            }
            elasticd.write("backends.yaml", &text);
            elasticd.restart();
            elasticd.await_ready();
        }
        elasticd.write("backends.yaml", &text);
        let now = proven(&elasticd, &ids)["revision"].as_u64().expect("a number");
        assert!(now >= revision, "revision {now} after {revision}");
        revision = now;
        // One that has had much before has enough for a while.
        assert!(elasticd.stop().success());
        elasticd.restart();
        elasticd.await_ready();
    }
    // Of a few rounds, all may be survived.
    assert!(ended > 0 || rounds < 50);
    format!(
        "nothing but {ended} processes, which ended at once for want of memory: the next start went on from whole files"
    )
}
