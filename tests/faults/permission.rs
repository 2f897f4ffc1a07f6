//! Permissions that are taken away while elasticd, as an ordinary user, runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::Fault;
use crate::harness::backend::FILE;
use crate::harness::elasticd::Elasticd;
use crate::harness::until_or;
use crate::killed::{LIST, Reader, proven, some};

pub const LOST: Fault = Fault {
    name: "permission",
    what: "write permission lost on the directory of the output, of the state, or of the apply records",
    rounds: (6, 300),
    run: lost,
};

const NOBODY: u32 = 65534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("we are root");
}

fn lost(rounds: u32, random: &mut fastrand::Rng) -> String {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    let elasticd = elasticd.under(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    for name in ["out", "state"] {
        fs::create_dir(elasticd.path(name)).expect("a directory");
        chown(elasticd.path(name), Some(NOBODY), Some(NOBODY)).expect("we are root");
    }
    mode(&elasticd.path("."), 0o755);
    // The socket is its own, too.
    chown(elasticd.path("."), Some(NOBODY), Some(NOBODY)).expect("we are root");
    mode(&elasticd.path("notify"), 0o777);
    elasticd.write("backends.yaml", &some(random, 40).0);
    let mut elasticd = elasticd.ready();
    let reader = Reader::start(&elasticd);
    let mut said = 0;
    for round in 0..rounds {
        let directory = elasticd.path(["out", "state", "state/frontends"][round as usize % 3]);
        let log = elasticd.logged("give elasticd's user write access");
        mode(&directory, 0o555);
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        until_or(
            || format!("it is said: {}", elasticd.log()),
            || {
                let listed = elasticd.get("/v1/services/web?format=text").2.lines().count();
                let status = elasticd.status();
                let list = &status["frontends"]["list"];
                let settled =
                    listed == ids.len() && list["phase"] == "written" && list["applied_revision"] == status["revision"];
                (elasticd.logged("give elasticd's user write access") > log
                    || list["phase"] == "failed"
                    || settled && round % 3 != 0)
                    .then_some(())
            },
        );
        said += usize::from(elasticd.logged("give elasticd's user write access") > log);
        mode(&directory, 0o755);
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        proven(&elasticd, &ids);
    }
    let read = reader.stop();
    assert!(said > 0 && elasticd.is_running());
    // What could be written was written, whatever could not.
    assert!(elasticd.stop().success());
    format!("nothing: said {said} times, {read} reads without a torn one")
}
