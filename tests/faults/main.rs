//! Faults, each in a loop: what was tried, how often, and what was lost, as a table.
//!
//! `cargo test --test faults` runs each a few times. `FAULT_ROUNDS=full cargo test --test faults` runs each as often as
//! the README says, `FAULT_ROUNDS=1000 cargo test --test faults killed` those whose name holds a word that often. What
//! is random begins from `FAULT_SEED`. Root is needed: file systems are mounted, and users changed.

#[expect(dead_code, reason = "the harness has more than is needed here")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod clock;
mod disk;
mod exhaustion;
mod frontend;
mod killed;
mod permission;
mod pid;
mod registry;
mod state;
mod two;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// One fault.
struct Fault {
    /// What the command line calls it.
    name: &'static str,
    /// What is tried.
    what: &'static str,
    /// How often: unless it is said otherwise, and for the README's table.
    rounds: (u32, u32),
    /// Tries it that often, and says how it went. Panics if anything was lost.
    run: fn(u32, &mut fastrand::Rng) -> String,
}

const FAULTS: &[Fault] = &[
    killed::JSON,
    killed::NGINX,
    disk::FULL,
    disk::READ_ONLY,
    permission::LOST,
    state::DAMAGED,
    state::FOREIGN,
    clock::STEPS,
    exhaustion::DESCRIPTORS,
    exhaustion::MEMORY,
    frontend::AWAY,
    frontend::UPGRADED,
    pid::REWRITTEN,
    pid::REUSED,
    registry::FLAPPING,
    two::AT_ONCE,
];

fn main() -> ExitCode {
    // Others run this program as something else.
    if let Some(inside) = std::env::args().nth(1).filter(|argument| argument == pid::INSIDE) {
        pid::inside(&inside);
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let rounds = std::env::var("FAULT_ROUNDS").ok();
    let seed = std::env::var("FAULT_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a number"));
    // Mounts made here are not seen by other processes, and go when this process ends.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("these tests want root");
    let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("a mount namespace");
    println!("seed {seed}\n\n| fault | tried | lost | took |\n| --- | --- | --- | --- |");
    let mut failed = Vec::new();
    for fault in FAULTS {
        if !wanted.is_empty() && !wanted.iter().any(|word| fault.name.contains(word.as_str())) {
            continue;
        }
        let rounds = match rounds.as_deref() {
            None => fault.rounds.0,
            Some("full") => fault.rounds.1,
            Some(number) => number.parse().expect("FAULT_ROUNDS is a number, or `full`"),
        };
        let mut random = fastrand::Rng::with_seed(seed);
        let started = Instant::now();
        let lost = catch_unwind(AssertUnwindSafe(|| (fault.run)(rounds, &mut random)));
        let lost = lost.unwrap_or_else(|_| {
            failed.push(fault.name);
            "FAILED: see above".to_owned()
        });
        println!("| {} | {rounds} × {} | {lost} | {:.0?} |", fault.name, fault.what, started.elapsed());
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
