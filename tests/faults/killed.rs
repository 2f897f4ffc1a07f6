//! kill -9 at random instants, while backends change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use serde_json::Value;

use crate::Fault;
use crate::harness::backend::{self, FILE};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;

pub const JSON: Fault = Fault {
    name: "killed",
    what: "kill -9 up to 80 ms after a change, and another start; a file as the frontend",
    rounds: (15, 1000),
    run: json,
};

pub const NGINX: Fault = Fault {
    name: "killed-nginx",
    what: "the same with nginx, asked for its backends after each",
    rounds: (4, 1000),
    run: nginx,
};

/// A frontend that is a file of JSON.
pub const LIST: &str = "[frontends.list]\ntype = 'json'\noutput = 'DIR/out/list.json'\nsettle = '5ms'\n";

/// That many backends, as a `file` provider reads them, some of them drawn by lot. At least one.
pub fn some(random: &mut fastrand::Rng, of: usize) -> (String, Vec<String>) {
    let mut ids: Vec<_> = (0..of).filter(|_| random.bool()).map(|n| format!("i-{n:03}")).collect();
    if ids.is_empty() {
        ids.push("i-000".to_owned());
    }
    let mut text = String::new();
    for id in &ids {
        text += &format!("- {{ id: {id}, address: \"10.0.0.{}:80\", tags: {{ Role: web }} }}\n", 1 + text.len() % 250);
    }
    (text, ids)
}

/// Waits until the list is proven to hold these.
pub fn proven(elasticd: &Elasticd, ids: &[String]) -> Value {
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let status = elasticd.await_applied("list", "web", &ids);
    let list: Value = serde_json::from_str(&elasticd.read("out/list.json")).expect("whole");
    let backends =
        list["services"][0]["backends"].as_array().or_else(|| list["services"]["web"]["backends"].as_array());
    let backends = backends.unwrap_or_else(|| panic!("backends in {list:#}"));
    let listed: Vec<_> = backends.iter().map(|backend| backend["id"].as_str().expect("an id")).collect();
    assert_eq!(listed, ids);
    status
}

/// Reads files again and again: none is ever torn, and the state's revision never goes back.
pub struct Reader {
    stopped: Arc<AtomicBool>,
    reading: JoinHandle<u64>,
}

impl Reader {
    /// Of an elasticd with [`LIST`].
    pub fn start(elasticd: &Elasticd) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let state = elasticd.path("state/snapshot.json");
        let others = [elasticd.path("out/list.json"), elasticd.path("state/frontends/list.json")];
        let reading = thread::spawn(move || {
            let (mut revision, mut read) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                if let Some(now) = whole(&state).and_then(|state| state["revision"].as_u64()) {
                    assert!(now >= revision, "revision {now} after {revision}");
                    revision = now;
                }
                read += others.iter().filter_map(|path| whole(path)).count() as u64 + 1;
                sleep(Duration::from_micros(300));
            }
            read
        });
        Self { stopped, reading }
    }

    /// How many files it has read.
    pub fn stop(self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        self.reading.join().expect("nothing was torn")
    }
}

/// What a file holds. `None`: it is not there.
pub fn whole(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    // The state has a checksum on a line of its own.
    let json = text.lines().next().unwrap_or_else(|| panic!("{} is empty", path.display()));
    let json = if json == "{" { &text } else { json };
    Some(serde_json::from_str(json).unwrap_or_else(|error| panic!("{} is torn: {error}: {text}", path.display())))
}

fn json(rounds: u32, random: &mut fastrand::Rng) -> String {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.write("backends.yaml", &some(random, 40).0);
    let mut elasticd = elasticd.ready();
    let reader = Reader::start(&elasticd);
    let (mut revision, mut kills) = (0, 0);
    for _ in 0..rounds {
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        sleep(Duration::from_micros(random.u64(0..80_000)));
        // One time in four the next one is killed as it starts.
        for _ in 0..=u8::from(random.u8(0..4) == 0) {
            elasticd.kill();
            kills += 1;
            elasticd.restart();
            if random.bool() {
                sleep(Duration::from_micros(random.u64(0..30_000)));
            }
        }
        elasticd.await_answer();
        elasticd.await_status("known", |status| !status["revision"].is_null());
        let now = proven(&elasticd, &ids)["revision"].as_u64().expect("a number");
        assert!(now >= revision, "revision {now} after {revision}");
        revision = now;
        assert_eq!(left_behind(&elasticd), Vec::<PathBuf>::new());
    }
    let read = reader.stop();
    assert_eq!(elasticd.logged("is damaged") + elasticd.logged("panicked"), 0, "{}", elasticd.log());
    format!(
        "nothing: {kills} kills, {read} reads of outputs and state without a torn one, revision {revision} at the end"
    )
}

fn left_behind(elasticd: &Elasticd) -> Vec<PathBuf> {
    elasticd.hidden(&elasticd.path("out"))
}

fn nginx(rounds: u32, _: &mut fastrand::Rng) -> String {
    let backends = backend::three();
    let nginx = Nginx::new().start();
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    elasticd.killed_amid_changes("nginx", &backends, (rounds.into(), 97), &nginx.conf_d(), |some| {
        nginx.await_answers(&backend::ids(some));
    });
    format!("nothing: nginx proven on the newest and answering from it {rounds} times")
}
