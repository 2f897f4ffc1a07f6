//! Mutated states: refused, or taken and served without harm.

use std::path::Path;
use std::time::{Duration, SystemTime};

use elasticd::config::Config;
use elasticd::registry::state::State;
use elasticd::registry::{Registry, Settings};
use sha2::{Digest, Sha256};

use crate::{for_a_while, mutated};

const SEEDS: &[&str] = &[
    r#"{"version":3,"snapshot":{"revision":7,"services":{"web":{"revision":7,"backends":[{"id":"i-1","address":"10.0.0.1","port":80,"zone":null,"weight":1,"state":"up","tags":{"Role":"web"}}]}}},"registered":{"web":{"r":{"backend":{"id":"r","address":"10.0.0.9","port":80,"zone":null,"weight":1,"state":"up","tags":{}},"ttl":{"secs":30,"nanos":0},"expires":{"secs_since_epoch":1700000000,"nanos_since_epoch":0}}}},"pools":{"web":{"sources":{"p":{"observed":1700000000,"members":[{"backend":{"id":"i-1","address":"10.0.0.1","port":80,"zone":null,"weight":1,"state":"up","tags":{}},"launched":"2024-01-01T00:00:00Z"}]}},"shape":{"taking":{"i-1":{"id":"i-1","address":"10.0.0.1","port":80,"zone":null,"weight":1,"state":"up","tags":{}}},"rising":{"i-1":1700000000},"leaving":{"i-2":{"backend":{"id":"i-2","address":"10.0.0.2","port":80,"zone":null,"weight":0,"state":"draining","tags":{}},"until":9700000000}}},"failing":["i-1"]}}}"#,
    r#"{"version":3,"snapshot":{"revision":0,"services":{}},"pools":{}}"#,
];

const TOKENS: &[&str] = &[
    "18446744073709551615",
    "9223372036854775807",
    "9223372036854775808",
    "253402300799",
    "253402300800",
    "-1",
    "1e30",
    "0",
    "null",
    "\"\"",
    "{}",
    "[]",
    "\"..\"",
    "\"a/b\"",
    "99",
    "000",
    "\"version\":1,",
    "\n",
    "\\u0000",
];

/// The same text with some of its numbers changed.
fn renumbered(random: &mut fastrand::Rng, text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[at..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |length| at + length);
        out += &rest[..at];
        out += if random.u8(0..12) == 0 { random.choice(&TOKENS[..8]).expect("some") } else { &rest[at..end] };
        rest = &rest[end..];
    }
    out + rest
}

/// As the registry writes it.
fn sealed(json: &[u8]) -> Vec<u8> {
    let sum: String = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
    [json, b"\n", sum.as_bytes()].concat()
}

fn settings(dir: &Path) -> Settings {
    let at = dir.display();
    let text = format!(
        "state_dir = '{at}'\n[providers.p]\ntype = 'fixed'\ninstances = []\n[services.web]\nprovider = 'p'\n\
         slow_start = '1m'\ndrain = '1m'\nmin_age = '1s'\n"
    );
    let file = dir.join("elasticd.toml");
    std::fs::write(&file, text).expect("written");
    Config::load(&file).unwrap_or_else(|faults| panic!("{faults}")).settings()
}

#[test]
fn whatever_a_state_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(dir.path());
    let (state, path) = (State::new(dir.path()), dir.path().join("snapshot.json"));
    let (mut taken, mut refused) = (0_u64, 0_u64);
    for_a_while("states", |random| {
        let bytes = match random.bool() {
            true => renumbered(random, SEEDS[0]).into_bytes(),
            false => mutated(random, SEEDS, TOKENS),
        };
        // With a checksum, which is another one now and then.
        let mut content = sealed(&bytes);
        if random.u8(0..20) == 0 {
            content.pop();
        }
        std::fs::write(&path, content).expect("written");
        match state.read() {
            Ok(_) => taken += 1,
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("snapshot.json"), "{error}");
            }
        }
        // All that a start makes of it.
        let mut registry = Registry::trial(settings.clone(), dir.path());
        let now = SystemTime::now();
        for later in [0, 1, 61, 1 << 30] {
            registry.settle(now + Duration::from_secs(later));
        }
    });
    assert!(taken > 0 && refused > 0);
    println!("states: {taken} taken, {refused} refused");
}

/// Found by fuzzing: a state may list as leaving a backend that has the id of one that stays.
#[test]
fn an_id_that_a_state_has_twice_ends_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let twice = SEEDS[0].replacen(r#""taking":{"i-1":"#, r#""taking":{"i-9":"#, 1);
    assert_ne!(twice, SEEDS[0]);
    let path = dir.path().join("snapshot.json");
    std::fs::write(&path, sealed(twice.as_bytes())).expect("written");
    assert!(State::new(dir.path()).read().expect("whole").is_some());
    let mut registry = Registry::trial(settings(dir.path()), dir.path());
    registry.settle(SystemTime::now());
}
