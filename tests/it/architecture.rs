//! The rules of the house, read from its source, so that they cannot rot: who may know whom.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may name. Any room may name itself.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("model", &[]),
    ("provider", &["model", "sys"]),
    ("fleet", &["model", "provider", "sys"]),
    ("health", &["model", "sys"]),
    ("registry", &["health", "model", "provider", "sys"]),
    ("frontend", &["model", "sys"]),
    ("api", &["frontend", "model", "registry", "sys"]),
    ("config", &["api", "fleet", "frontend", "model", "provider", "registry", "sys"]),
    ("readiness.rs", &["frontend", "model", "registry", "sys"]),
];

/// What the pure rooms and files may not use, for they would wait or look around.
const PURE: &[&str] = &[
    "model",
    "registry/guard.rs",
    "registry/pool.rs",
    "registry/traffic_policy.rs",
    "frontend/plan.rs",
    "provider/ec2/filters.rs",
    "provider/nats/format.rs",
    "provider/nats/set_assembler.rs",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let files: Vec<_> = entries.flat_map(|entry| files(&entry.expect("an entry").path())).collect();
    assert!(!files.is_empty(), "{} is empty", path.display());
    files
}

/// The code, without comments: rustdoc may well speak of other rooms.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("readable");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms named by `crate::room` and `crate::{room, …}`.
fn named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{').and_then(|list| list.split_once('}')) {
            Some((list, _)) => rooms.extend(list.split(',').map(|item| word(item.trim()))),
            None => rooms.push(word(rest)),
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn rooms_know_only_whom_they_may() {
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_KNOW {
        for file in files(&source().join(room)) {
            for named in named(&code(&file)) {
                if named != room.trim_end_matches(".rs") && !allowed.contains(&named.as_str()) {
                    wrong.push(format!("{} names crate::{named}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_has_its_rule() {
    let composed = ["lib.rs", "main.rs", "app", "app.rs", "cli"];
    for entry in fs::read_dir(source()).expect("readable") {
        let name = entry.expect("an entry").file_name().into_string().expect("plain names");
        let ruled = MAY_KNOW.iter().any(|(room, _)| *room == name);
        assert!(ruled || composed.contains(&name.as_str()), "src/{name} has no rule in this test");
    }
}

#[test]
fn pure_code_neither_waits_nor_looks_around() {
    for pure in PURE {
        for file in files(&source().join(pure)) {
            let code = code(&file);
            for word in ["tokio", "std::fs", "std::io", "std::process", "std::env", "SystemTime::now", "Instant::now"] {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

#[test]
fn main_only_starts() {
    let lines = fs::read_to_string(source().join("main.rs")).expect("readable").lines().count();
    assert!(lines < 60, "main.rs has {lines} lines");
}

#[test]
fn the_reader_of_the_source_reads_it_right() {
    assert_eq!(
        named("use crate::model::X; use crate::{api, frontend::Y}; crate::sys::z()"),
        ["model", "api", "frontend", "sys"]
    );
}
