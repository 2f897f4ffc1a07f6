//! What end-to-end tests are made of: the real program, real frontends, backends that answer with their names, and clients.

pub mod apache;
pub mod backend;
pub mod caddy;
pub mod changes;
pub mod elasticd;
pub mod envoy;
#[cfg(feature = "nats")]
pub mod fleet;
pub mod haproxy;
pub mod http;
pub mod load;
#[cfg(feature = "nats")]
pub mod nats;
pub mod nginx;
pub mod pools;
pub mod prometheus;
pub mod schema;
pub mod varnish;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Once, OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Copies a program. By another process: a child that a thread of this one is just starting would hold a file open that
/// this process writes, and what is open for writing cannot be executed (`ETXTBSY`).
///
/// # Panics
///
/// It cannot be copied.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let mut install = Command::new("install");
    install.args(["-m", "755"]).args([from.as_ref(), to.as_ref()]);
    assert!(install.status().expect("install is part of coreutils").success(), "{install:?}");
}

/// Writes a program that `sh` runs, for the same reason by another process.
///
/// # Panics
///
/// It cannot be written.
pub fn write_script(path: impl AsRef<Path>, script: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path.as_ref()).stdin(Stdio::piped());
    let mut child = install.spawn().expect("install is part of coreutils");
    let written = write!(child.stdin.take().expect("piped"), "#!/bin/sh\n{script}\n");
    assert!(child.wait().expect("it ends").success() && written.is_ok(), "{install:?}");
}

/// How long anything that should happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` returns something, and returns that.
///
/// # Panics
///
/// If it returns nothing within [`PATIENCE`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_or(|| what.to_owned(), look)
}

/// The same, with a message that is made only when it is needed.
///
/// # Panics
///
/// If it returns nothing within [`PATIENCE`].
pub fn until_or<T>(what: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The port at which programs that tests start listen, each at an address of its own.
const PORT: u16 = 8080;

/// A loopback address that nothing else on this machine uses as long as this run lasts, so that its ports cannot be taken:
/// no port is picked, released and hoped to be free later.
///
/// A run reserves 127.N.0.0/16, for some N, by a socket that it keeps bound there.
pub fn own_address() -> Ipv4Addr {
    const BLOCKS: std::ops::RangeInclusive<u8> = 100..=250;
    static BLOCK: OnceLock<(u8, TcpListener)> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let reserve = || {
        let listener = |block| TcpListener::bind((Ipv4Addr::new(127, block, 255, 254), u16::MAX)).ok();
        BLOCKS.into_iter().find_map(|block| Some((block, listener(block)?))).expect("fewer than 150 runs at once")
    };
    let (block, _reservation) = BLOCK.get_or_init(reserve);
    let [_, _, high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    assert!(high < 255, "fewer than 65,000 addresses in one run");
    Ipv4Addr::new(127, *block, high, low)
}

/// Where a program may listen that a test starts: an address of its own.
pub fn own_socket() -> SocketAddr {
    (own_address(), PORT).into()
}

/// Where nothing listens, and nothing ever will.
pub fn closed_socket() -> SocketAddr {
    (own_address(), 1).into()
}

/// Runs commands with a bound.
pub trait BoundedCommand {
    /// Runs it to its end, and returns what it printed.
    ///
    /// # Panics
    ///
    /// If it cannot be started, or does not end within [`PATIENCE`]; then it is killed.
    fn bounded_output(&mut self) -> Output;
}

impl BoundedCommand for Command {
    fn bounded_output(&mut self) -> Output {
        let program = self.get_program().to_string_lossy().into_owned();
        self.stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        end_of(self.spawn().unwrap_or_else(|error| cannot_start(&program, &error)))
    }
}

/// What a child has printed once it has ended by itself.
///
/// # Panics
///
/// If it does not end within [`PATIENCE`]; then it is killed.
pub fn end_of(child: Child) -> Output {
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, receiver) = mpsc::channel();
    // Until the thread has waited for the child, no other process can have its PID.
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("PID {pid} did not end within {PATIENCE:?}")
    });
    output.expect("its output is read")
}

/// Says why a program cannot be started. Where it is missing, that ends the whole run, with one line: hundreds of tests
/// would say the same.
///
/// # Panics
///
/// If the program is there.
pub fn cannot_start(program: &str, error: &io::Error) -> ! {
    static FIRST: Once = Once::new();
    if error.kind() == io::ErrorKind::NotFound {
        FIRST.call_once(|| {
            // What `eprintln!` prints would be kept with the test's output, which is never shown.
            let _ = writeln!(
                io::stderr(),
                "\n{program} is missing: use `tests/run`, which installs what the tests need and then runs them"
            );
            end_children();
            #[expect(clippy::exit, reason = "the other tests cannot pass either")]
            std::process::exit(1);
        });
    }
    panic!("cannot start {program}: {error}");
}

/// Ends the whole run, with one line, where a file is missing that `tests/run` installs.
pub fn require(path: &Path) {
    if !path.exists() {
        cannot_start(&path.display().to_string(), &io::ErrorKind::NotFound.into());
    }
}

/// Asks everything to end that this process has started.
fn end_children() {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for children in tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()) {
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGTERM);
        }
    }
}

/// The child's exit status, once it has ended by itself.
///
/// # Panics
///
/// If it does not end within [`PATIENCE`]; then it is killed.
pub fn await_end(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("a status") {
            return status;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("PID {} did not end within {PATIENCE:?}", child.id());
}

/// Asks a child to end with this signal, and kills it if it has not within [`PATIENCE`]: for destructors, which must not
/// panic.
pub fn end(child: &mut Child, signal: Signal) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
    let deadline = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sets a flag when it is dropped, so that the threads of a scope that wait for the flag end even if the test panics.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Accepts one connection.
///
/// # Panics
///
/// If none comes within [`PATIENCE`].
pub fn accept_one(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).expect("set");
    let (stream, _) = until("a client connects", || listener.accept().ok());
    stream.set_nonblocking(false).expect("set");
    stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
    stream.set_write_timeout(Some(PATIENCE)).expect("a bound");
    stream
}
