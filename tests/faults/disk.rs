//! Disks that take nothing more: full after each possible write, or read-only.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Fault;
use crate::harness::backend::FILE;
use crate::harness::elasticd::Elasticd;
use crate::harness::until_or;
use crate::killed::{LIST, Reader, proven, some};

pub const FULL: Fault = Fault {
    name: "disk-full",
    what: "a tmpfs of state and output with 0 to 9 free pages during a change, every other time with a kill -9",
    rounds: (10, 200),
    run: full,
};

pub const READ_ONLY: Fault = Fault {
    name: "read-only",
    what: "the file system of the output, or of the state, read-only at a random instant of a change",
    rounds: (6, 200),
    run: read_only,
};

const PAGE: u64 = 4096;

/// A tmpfs at `DIR/disk`, which holds `DIR/state` and `DIR/out`.
fn elasticd() -> Elasticd {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    let disk = elasticd.path("disk");
    fs::create_dir(&disk).expect("a directory");
    mount(Some("elasticd-test"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).expect("mounted");
    for name in ["state", "out"] {
        fs::DirBuilder::new().mode(0o700).create(disk.join(name)).expect("a directory");
        fs::create_dir(elasticd.path(name)).expect("a directory");
        bind(&disk.join(name), &elasticd.path(name), MsFlags::empty());
    }
    elasticd
}

fn bind(from: &Path, to: &Path, more: MsFlags) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | more, None::<&str>).expect("mounted");
}

/// Leaves that much of the disk free.
fn fill(elasticd: &Elasticd, pages: u64) {
    let disk = elasticd.path("disk");
    let free = nix::sys::statvfs::statvfs(&disk).expect("asked").blocks_available();
    let filler = usize::try_from(free.saturating_sub(pages) * PAGE).expect("small");
    fs::write(disk.join("filler"), vec![b'x'; filler]).expect("as much as there is");
}

fn full(rounds: u32, random: &mut fastrand::Rng) -> String {
    let elasticd = elasticd();
    elasticd.write("backends.yaml", &some(random, 200).0);
    let mut elasticd = elasticd.ready();
    let reader = Reader::start(&elasticd);
    let (mut refused, mut revision) = (0, 0);
    for round in 0..rounds {
        fill(&elasticd, u64::from(round % 10));
        let errors = elasticd.logged("free some space");
        let (text, ids) = some(random, 200);
        elasticd.write("backends.yaml", &text);
        if round % 2 == 1 {
            sleep(Duration::from_micros(random.u64(0..60_000)));
            elasticd.kill();
            elasticd.restart();
            elasticd.await_answer();
        } else {
            // Either it fitted, or it is said.
            until_or(
                || format!("{:#}\n{}", elasticd.status(), elasticd.log()),
                || {
                    let listed = elasticd.get("/v1/services/web?format=text").2.lines().count();
                    let status = elasticd.status();
                    let phase = &status["frontends"]["list"]["phase"];
                    (listed == ids.len()
                        && phase == "written"
                        && status["frontends"]["list"]["applied_revision"] == status["revision"]
                        || phase == "failed"
                        || elasticd.logged("free some space") > errors)
                        .then_some(())
                },
            );
        }
        refused += u32::from(elasticd.logged("free some space") > errors);
        fs::remove_file(elasticd.path("disk/filler")).expect("there");
        // What was refused is tried again with the next change at the latest.
        let (text, ids) = some(random, 200);
        elasticd.write("backends.yaml", &text);
        let now = proven(&elasticd, &ids)["revision"].as_u64().expect("a number");
        assert!(now >= revision, "revision {now} after {revision}");
        revision = now;
    }
    let read = reader.stop();
    assert!(refused > 0 && elasticd.is_running());
    assert_eq!(elasticd.logged("is damaged") + elasticd.logged("panicked"), 0, "{}", elasticd.log());
    format!("nothing: {refused} changes were refused for want of space and said so, {read} reads without a torn one")
}

fn read_only(rounds: u32, random: &mut fastrand::Rng) -> String {
    let elasticd = elasticd();
    elasticd.write("backends.yaml", &some(random, 40).0);
    let mut elasticd = elasticd.ready();
    let reader = Reader::start(&elasticd);
    let mut said = 0;
    for round in 0..rounds {
        let directory = elasticd.path(["out", "state"][round as usize % 2]);
        elasticd.write("backends.yaml", &some(random, 40).0);
        sleep(Duration::from_micros(random.u64(0..30_000)));
        let errors = elasticd.logged("mount it writable");
        // The same directory once more on top of itself: a file system in use would refuse to become read-only.
        bind(&directory, &directory, MsFlags::empty());
        bind(&directory, &directory, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        elasticd.write("backends.yaml", &some(random, 40).0);
        elasticd.await_status("it is said", |status| match round % 2 {
            0 => status["frontends"]["list"]["phase"] == "failed",
            _ => !status["state_error"].is_null(),
        });
        said += usize::from(elasticd.logged("mount it writable") > errors);
        umount2(&directory, MntFlags::MNT_DETACH).expect("writable again");
        let (text, ids) = some(random, 40);
        elasticd.write("backends.yaml", &text);
        proven(&elasticd, &ids);
    }
    let read = reader.stop();
    assert!(said > 0 && elasticd.is_running());
    format!("nothing: said {said} times, {read} reads without a torn one")
}
