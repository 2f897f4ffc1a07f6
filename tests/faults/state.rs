//! State files that are not what elasticd wrote.

use std::fs;
use std::os::unix::fs::chown;

use elasticd::registry::state::State;

use crate::Fault;
use crate::harness::backend::FILE;
use crate::harness::elasticd::Elasticd;
use crate::killed::{LIST, proven, some};

pub const DAMAGED: Fault = Fault {
    name: "state-damaged",
    what: "start with state and apply record truncated, flipped by a bit, filled with noise, or from a newer version",
    rounds: (10, 300),
    run: damaged,
};

pub const FOREIGN: Fault = Fault {
    name: "state-foreign",
    what: "start with state and apply record that belong to another user, are a link, a pipe or a device",
    rounds: (4, 40),
    run: foreign,
};

/// Damages a file by lot.
fn damage(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    match random.u8(0..4) {
        0 => bytes.truncate(random.usize(0..bytes.len())),
        1 => {
            let bit = random.usize(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        2 => bytes.iter_mut().for_each(|byte| *byte = random.u8(..)),
        _ => {
            let text = String::from_utf8_lossy(bytes).replacen("\"version\":", "\"version\":9", 1);
            *bytes = text.into_bytes();
        }
    }
}

fn unnumbered(elasticd: &Elasticd) -> String {
    elasticd.read("out/list.json").lines().filter(|line| !line.contains("revision")).collect()
}

fn damaged(rounds: u32, random: &mut fastrand::Rng) -> String {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.write("backends.yaml", &some(random, 40).0);
    let mut elasticd = elasticd.ready();
    let paths = ["state/snapshot.json", "state/frontends/list.json"].map(|name| elasticd.path(name));
    for _ in 0..rounds {
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        proven(&elasticd, &ids);
        // But for its revision, which a damaged state cannot tell.
        let list = unnumbered(&elasticd);
        assert!(elasticd.stop().success());
        for path in &paths {
            let mut bytes = fs::read(path).expect("written");
            damage(random, &mut bytes);
            fs::write(path, bytes).expect("written");
        }
        elasticd.restart();
        elasticd.await_ready();
        proven(&elasticd, &ids);
        assert_eq!(unnumbered(&elasticd), list);
    }
    // The same without a start: a truncation or a flipped bit is never taken for a state.
    let scratch = tempfile::tempdir().expect("a directory");
    let (state, file) = (State::new(scratch.path()), scratch.path().join("snapshot.json"));
    let whole = fs::read(&paths[0]).expect("written");
    let mut tried = 0;
    for _ in 0..rounds * 100 {
        let mut bytes = whole.clone();
        damage(random, &mut bytes);
        fs::write(&file, bytes).expect("written");
        assert!(state.read().is_err(), "{}", file.display());
        tried += 1;
    }
    format!("the count of revisions, which begins anew; no wrong address: {tried} more damages were all found out")
}

fn foreign(rounds: u32, random: &mut fastrand::Rng) -> String {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.write("backends.yaml", &some(random, 40).0);
    let mut elasticd = elasticd.ready();
    for round in 0..rounds {
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        proven(&elasticd, &ids);
        assert!(elasticd.stop().success());
        for path in ["state/snapshot.json", "state/frontends/list.json"].map(|name| elasticd.path(name)) {
            let planted = elasticd.path("planted");
            fs::write(&planted, fs::read_to_string(&path).expect("written").replace("10.0.0.", "10.6.6."))
                .expect("written");
            fs::remove_file(&path).expect("there");
            match round % 4 {
                0 => {
                    fs::rename(&planted, &path).expect("renamed");
                    chown(&path, Some(65534), None).expect("we are root");
                }
                1 => std::os::unix::fs::symlink(&planted, &path).expect("made"),
                2 => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made"),
                _ => std::os::unix::fs::symlink("/dev/zero", &path).expect("made"),
            }
        }
        // Whatever was planted is not served, not even until the first poll.
        elasticd.write("backends.yaml", "damaged");
        elasticd.restart();
        elasticd.await_answer();
        let (_, _, services) = elasticd.get("/v1/services");
        assert!(!services.contains("10.6.6."), "{services}");
        elasticd.write("backends.yaml", &text);
        elasticd.await_ready();
        proven(&elasticd, &ids);
    }
    "nothing: what others planted was neither believed nor waited for".to_owned()
}
