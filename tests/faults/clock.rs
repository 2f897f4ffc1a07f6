//! The wall clock stepping back and forth. Time namespaces leave it alone, and it is everybody's: elasticd sees another
//! one, from a library loaded before the C library.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::Fault;
use crate::harness::backend::FILE;
use crate::harness::elasticd::Elasticd;
use crate::harness::{BoundedCommand as _, until_or};
use crate::killed::{LIST, some};

pub const STEPS: Fault = Fault {
    name: "clock",
    what: "the wall clock set by up to a year, forth or back, amid a registration, a slow start and changes",
    rounds: (6, 500),
    run: steps,
};

const YEAR: i64 = 365 * 24 * 60 * 60;

fn steps(rounds: u32, random: &mut fastrand::Rng) -> String {
    let config = format!("{FILE}drain = '1h'\n{LIST}").replace("guard = {", "slow_start = '1h'\nguard = {");
    let elasticd = Elasticd::new(&config);
    let library = elasticd.path("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source).bounded_output();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let offset = elasticd.path("offset");
    fs::write(&offset, "0").expect("written");
    let elasticd =
        elasticd.env("LD_PRELOAD", &library.to_string_lossy()).env("CLOCK_OFFSET", &offset.to_string_lossy());
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.write("backends.yaml", &some(random, 10).0);
    let mut elasticd = elasticd.ready();
    let registered = r#"{"address": "10.9.9.9", "port": 80, "ttl": "1h"}"#;
    let put = |id: &str| {
        let socket = elasticd.path("admin.sock");
        let url = format!("http://x/v1/services/web/backends/{id}");
        let output = Command::new("curl")
            .args(["--silent", "--fail-with-body", "-X", "PUT", "-d", registered, &url, "--unix-socket"])
            .arg(socket)
            .bounded_output();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    put("registered");
    let mut revision = 0;
    for _ in 0..rounds {
        let (text, ids) = some(random, 10);
        elasticd.write("backends.yaml", &text);
        sleep(Duration::from_micros(random.u64(0..40_000)));
        let step = random.i64(-YEAR..YEAR);
        // In one step, as a clock is set.
        elasticd.write("offset", &step.to_string());
        let backends = || {
            let body: Value = serde_json::from_str(&elasticd.get("/v1/services/web").2).expect("JSON");
            body["backends"].as_array().cloned().unwrap_or_default()
        };
        // The known backend stays, the one that left drains for an hour, and the registered one stays for an hour.
        let is_right = || {
            let backends = backends();
            let up: Vec<_> = backends.iter().filter(|b| b["state"] == "up").filter_map(|b| b["id"].as_str()).collect();
            let mut expected: Vec<_> = ids.iter().map(String::as_str).chain(["registered"]).collect();
            expected.sort_unstable();
            (up == expected).then_some(backends.len())
        };
        until_or(|| format!("{ids:?} at {step}: {:?}\n{}", backends(), elasticd.log()), is_right);
        let status = elasticd.await_status("proven", |status| {
            let list = &status["frontends"]["list"];
            list["phase"] == "written" && list["applied_revision"] == status["revision"]
        });
        let now = status["revision"].as_u64().expect("a number");
        assert!(now >= revision, "revision {now} after {revision}");
        revision = now;
    }
    assert!(elasticd.is_running());
    let steps = elasticd.logged("system clock stepped");
    assert!(steps > 0, "{}", elasticd.log());
    format!("nothing: {steps} steps, and whatever was due an hour later still was")
}
