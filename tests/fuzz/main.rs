//! Mutated input for whatever reads what others write, each target for `FUZZ_SECONDS` (by default 3) from `FUZZ_SEED`:
//! `FUZZ_SECONDS=600 cargo test --test fuzz -- --nocapture`. Each says how much it has tried.

mod config;
#[cfg(feature = "ec2")]
mod ec2;
#[cfg(feature = "nats")]
mod fleet;
mod payloads;
mod pid_files;
mod requests;
mod state;
mod templates;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// A processor core that one target has for itself while it is tried: with several targets on a core, each would try less
/// in its time.
struct Core;

/// How many are in use.
static IN_USE: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Core {
    fn take() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let in_use = IN_USE.lock().expect("unpoisoned");
        let mut in_use = FREED.wait_while(in_use, |in_use| *in_use >= cores).expect("unpoisoned");
        *in_use += 1;
        Self
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        *IN_USE.lock().expect("unpoisoned") -= 1;
        FREED.notify_one();
    }
}

/// Calls `each` again and again with random numbers. If it panics, the seed of that very call is said: given as
/// `FUZZ_SEED` it comes first.
fn for_a_while(name: &str, mut each: impl FnMut(&mut fastrand::Rng)) {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(3, |text| text.parse().expect("FUZZ_SECONDS is a number"));
    let seed = std::env::var("FUZZ_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a number"));
    let _core = Core::take();
    let (started, mut tried) = (Instant::now(), 0_u64);
    while started.elapsed() < Duration::from_secs(seconds) {
        let own = seed.wrapping_add(tried);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| each(&mut fastrand::Rng::with_seed(own)))) {
            println!("{name}: FUZZ_SEED={own} (try {tried})");
            resume_unwind(panic);
        }
        tried += 1;
    }
    println!("{name}: {tried} tries in {seconds} s from seed {seed}");
}

/// One of the seeds with some of its bytes changed, doubled, dropped, or joined by tokens and parts of other seeds.
fn mutated(random: &mut fastrand::Rng, seeds: &[&str], tokens: &[&str]) -> Vec<u8> {
    let mut bytes = random.choice(seeds).expect("some").as_bytes().to_vec();
    for _ in 0..random.usize(0..6) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..6) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, random.choice(tokens).expect("some").bytes())),
            3 => {
                let end = (at + random.usize(0..40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
            4 => drop(bytes.drain(at..(at + random.usize(0..20)).min(bytes.len()))),
            _ => {
                let other = random.choice(seeds).expect("some").as_bytes();
                bytes.extend_from_slice(&other[random.usize(0..other.len())..]);
            }
        }
    }
    bytes
}

/// A text of what means something to many syntaxes, and of anything.
fn hostile(random: &mut fastrand::Rng) -> String {
    const PARTS: &[&str] = &[
        ";",
        "{",
        "}",
        "\"",
        "'",
        "#",
        "\\",
        "\n",
        "\r",
        "\t",
        " ",
        "$",
        "${",
        "%{",
        "%",
        "(",
        ")",
        "<",
        ">",
        "`",
        "\0",
        "\u{7f}",
        "*/",
        "/*",
        "//",
        "\"\"\"",
        "\"}",
        "{\"",
        "{{",
        "}}",
        "{%",
        "*",
        "=",
        ",",
        ":",
        "[",
        "]",
        "|",
        "&",
        "!",
        "~",
        "é",
        "\u{2028}",
        "\u{feff}",
        "\u{fdd0}",
        "\u{fdd1}",
        "\u{fdd2}",
        "\u{fffe}",
        "\u{85}",
        "a",
        "0",
        "x",
        "-",
        "..",
        "../",
        "include",
        "server",
        "} server { listen 1; }",
        "\n  server evil 6.6.6.6:1",
        "$(touch pwned)",
        "null",
    ];
    let part = |random: &mut fastrand::Rng| match random.u8(0..8) {
        0 => random.char(..).to_string(),
        _ => (*random.choice(PARTS).expect("some")).to_owned(),
    };
    (0..random.usize(0..8)).map(|_| part(random)).collect()
}
