//! Two elasticds where there may be one.

use std::fs;

use crate::Fault;
use crate::harness::backend::FILE;
use crate::harness::elasticd::Elasticd;
use crate::killed::{LIST, proven, some};

pub const AT_ONCE: Fault = Fault {
    name: "two",
    what: "a second elasticd on the same state directory, and one with a state of its own on the same output",
    rounds: (3, 100),
    run: at_once,
};

fn at_once(rounds: u32, random: &mut fastrand::Rng) -> String {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.write("backends.yaml", &some(random, 40).0);
    let mut elasticd = elasticd.ready();
    for round in 0..rounds {
        let (code, _, error) = elasticd.run(&["--log", "info", "run"]);
        assert!(code == 1 && error.contains("another elasticd uses"), "{code}: {error}");
        let output = format!("output = '{}'", elasticd.path("out/list.json").display());
        let other = Elasticd::new(&format!("{FILE}{}", LIST.replace("output = 'DIR/out/list.json'", &output)));
        other.write("backends.yaml", &some(random, 40).0);
        let (code, _, error) = other.run(&["--log", "info", "run"]);
        assert!(code == 1 && error.contains("another elasticd writes"), "{code}: {error}");
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        proven(&elasticd, &ids);
        // However the first one ends, the next one may.
        if round % 2 == 0 {
            elasticd.kill();
        } else {
            assert!(elasticd.stop().success());
            assert_eq!(fs::read_dir(elasticd.path("out")).expect("readable").count(), 1, "the output alone");
        }
        elasticd.restart();
        elasticd.await_ready();
    }
    "nothing: each second one was refused, with exit code 1 and the path in its words".to_owned()
}
