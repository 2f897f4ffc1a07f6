//! Instructions and allocations of one request, as valgrind counts them: figures that no other load on the machine
//! changes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::sync::watch;

use super::{ASKED, constant, constants, harness, request, runtime, serve, snapshot, whole};

/// The argument with which this program only serves, in a process of its own, until its input ends.
const SERVE: &str = "--serve";

/// Requests by which two runs differ: what remains is what they cost, without start and end.
const REQUESTS: u32 = 1000;

/// Serves, if that is what this process was started for.
pub fn serves() -> bool {
    let arguments: Vec<_> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == SERVE) else { return false };
    let [socket, ours, path] = &arguments[at + 1..] else { unreachable!("started by ourselves") };
    let input = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let end = async {
        while !input.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let (sender, snapshots) = watch::channel(Some(snapshot(1)));
    runtime().block_on(async {
        if ours.is_empty() {
            tokio::select! { () = serve(socket.into(), snapshots) => {}, () = end => {} }
        } else {
            let (_, headers, body) = constants(Path::new(ours), path);
            tokio::select! { () = constant(socket.into(), headers, body.into()) => {}, () = end => {} }
        }
    });
    drop(sender);
    true
}

/// What valgrind says of a server that answers so many requests.
fn run(tool: &[&str], directory: &Path, ours: &Path, path: &str, requests: u32) -> String {
    let socket = directory.join("counted");
    let _ = std::fs::remove_file(&socket);
    let mut child = Command::new("valgrind")
        .args(tool)
        .arg(std::env::current_exe().expect("a path"))
        .arg(SERVE)
        .args([&socket, ours, Path::new(path)])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind, from the package of that name");
    let mut stream = harness::until("the server listens", || UnixStream::connect(&socket).ok());
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..requests {
        stream.write_all(&request(path)).expect("written");
        let mut read = 0;
        while whole(&buffer[..read]).is_none_or(|length| read < length) {
            read += stream.read(&mut buffer[read..]).expect("an answer");
        }
    }
    drop((stream, child.stdin.take()));
    let output = harness::end_of(child);
    String::from_utf8(output.stderr).expect("text")
}

/// The number after `mark`.
fn number(text: &str, mark: &str) -> f64 {
    let after = text.split_once(mark).unwrap_or_else(|| panic!("{mark}: {text}")).1;
    let digits: String = after.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
    digits.replace(',', "").parse().expect("a number")
}

pub fn count(directory: &Path, ours: &Path) {
    println!("\n| for each request | instructions | of constant | allocations | of constant | bytes | of constant |");
    println!("|---|---|---|---|---|---|---|");
    for (name, path) in ASKED {
        let counted = [Path::new(""), ours].map(|ours| {
            let per_request = |tool: &[&str], mark: &str| {
                let [less, more] = [REQUESTS, 2 * REQUESTS].map(|n| number(&run(tool, directory, ours, path, n), mark));
                (more - less) / f64::from(REQUESTS)
            };
            let dump = format!("--callgrind-out-file={}", directory.join("callgrind").display());
            let memory = ["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"];
            [
                per_request(&["--tool=callgrind", &dump], "Collected :"),
                per_request(&memory, "total heap usage:"),
                per_request(&memory, "frees,"),
            ]
        });
        let [ours, constant] = counted;
        println!(
            "| {name} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} |",
            ours[0], constant[0], ours[1], constant[1], ours[2], constant[2]
        );
    }
}
