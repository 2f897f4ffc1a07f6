//! A real HAProxy: a master with one worker, in a directory of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::load::await_answers;
use super::{PATIENCE, cannot_start, end, own_socket, until, until_or};

/// HAProxy, which proxies everything to the backend `web`.
pub struct Haproxy {
    dir: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    reads_directory: bool,
    child: Option<Child>,
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Haproxy {
    /// Not yet started, and with an empty second file.
    pub fn new() -> Self {
        Self::with("", "")
    }

    /// The same with more lines in `defaults` and in the frontend. `DIR` stands for the directory.
    pub fn with(defaults: &str, frontend: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ha").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("out")).expect("a directory");
        let address = own_socket();
        let at = dir.path().display().to_string();
        let config = format!(
            "global\n  stats socket {at}/admin.sock mode 600 level admin\n  maxconn 500\n  nbthread 2\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n{defaults}\n\
             frontend front\n  bind {address}\n{frontend}\n  default_backend web\n"
        );
        fs::write(dir.path().join("haproxy.cfg"), config.replace("DIR", &at)).expect("a configuration");
        Self { dir, address, reads_directory: false, child: None }
    }

    /// Has it read the whole directory that elasticd writes to.
    pub fn reading_directory(mut self) -> Self {
        self.reads_directory = true;
        self
    }

    /// Starts it with an empty `web`, and waits until its worker answers.
    pub fn start(mut self) -> Self {
        fs::write(self.path("out/elasticd.cfg"), "backend web\n").expect("written");
        self.spawn();
        self
    }

    /// Starts one that is not running, with the files as they are.
    pub fn spawn(&mut self) {
        // When a process started is known by hundredths of a second: it should have started after what was just written.
        std::thread::sleep(Duration::from_millis(30));
        let mut command = Command::new("haproxy");
        command.arg("-W").arg("-db").arg("-f").arg(self.path("haproxy.cfg")).arg("-f");
        command.arg(if self.reads_directory { self.path("out") } else { self.output() });
        command.arg("-p").arg(self.path("pid")).arg("-S").arg(self.path("master.sock"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| cannot_start("haproxy", &error));
        self.child = Some(child);
        until_or(|| format!("HAProxy answers: {}", self.log()), || self.try_tell("show info"));
        until("HAProxy writes its PID", || self.path("pid").exists().then_some(()));
    }

    /// Ends it at once, its worker too.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGTERM);
        }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file that elasticd writes.
    pub fn output(&self) -> PathBuf {
        self.path("out/elasticd.cfg")
    }

    /// What elasticd needs to know of it, as `[frontends.haproxy]`.
    pub fn frontend(&self) -> String {
        let at = self.dir.path().display();
        format!(
            "[frontends.haproxy]\ntype = 'haproxy'\noutput = '{at}/out/elasticd.cfg'\npid_file = '{at}/pid'\n\
             config = '{at}/haproxy.cfg'\napi = '{at}/admin.sock'\nproof_timeout = '10s'\n\
             settle = '20ms'\nmin_reload_gap = '50ms'\nreload = {{ master = '{at}/master.sock' }}\n\
             audit_interval = '1s'\nretry_min = '200ms'\nretry_max = '1s'\n"
        )
    }

    /// The answer of its runtime API to one line. `None`: no answer.
    pub fn try_tell(&self, line: &str) -> Option<String> {
        ask(&self.path("admin.sock"), line)
    }

    /// The same of a living one, which may be about to start.
    pub fn tell(&self, line: &str) -> String {
        until_or(|| format!("an answer to {line}: {}", self.log()), || self.try_tell(line))
    }

    /// What its master says of its processes.
    pub fn processes(&self) -> String {
        ask(&self.path("master.sock"), "show proc").unwrap_or_default()
    }

    /// Asks its master to reload, as an operator might by hand.
    pub fn reload(&self) {
        let _ = ask(&self.path("master.sock"), "reload");
    }

    /// The PID of the worker that answers.
    pub fn worker(&self) -> String {
        let info = self.tell("show info");
        info.lines().find_map(|line| line.strip_prefix("Pid: ")).unwrap_or_default().to_owned()
    }

    /// The servers of a backend that are not in maintenance: name, address and weight.
    pub fn servers(&self, backend: &str) -> Vec<String> {
        let state = self.tell(&format!("show servers state {backend}"));
        let fields =
            state.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect::<Vec<_>>());
        let in_use = fields.filter(|f| f.len() > 18 && f[6].parse::<u8>().is_ok_and(|admin| admin & 1 == 0));
        let mut servers: Vec<_> = in_use.map(|f| format!("{} {}:{} {}", f[3], f[4], f[18], f[7])).collect();
        servers.sort();
        servers
    }

    /// The backends, as elasticd wrote them.
    pub fn backends(&self) -> String {
        fs::read_to_string(self.output()).unwrap_or_default()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until only these backends answer, and each of them does.
    pub fn await_answers(&self, ids: &[&str]) {
        await_answers(self.address, ids, || format!("file: {}; log: {}", self.backends(), self.log()));
    }
}

fn ask(socket: &std::path::Path, line: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    writeln!(stream, "{line}").ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
