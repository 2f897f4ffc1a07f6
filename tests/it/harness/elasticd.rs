//! The real program, in a directory of its own.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::backend::{Backend, entries};
use super::schema::refusal;
use super::{BoundedCommand as _, PATIENCE, await_end, end, until_or};

/// The program, and a directory for its configuration, state, socket and log.
pub struct Elasticd {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    notify: UnixDatagram,
    child: Option<Child>,
}

impl Drop for Elasticd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGKILL);
        }
    }
}

impl Elasticd {
    /// How a failed update of a frontend is logged.
    pub const UPDATE_FAILED: &str = "frontend update failed; previous configuration kept";

    /// How the first success after failures is logged.
    pub const RECOVERED: &str = "recovered";

    /// Not yet started. In `config`, `DIR` stands for the directory; `state_dir` and `api.socket` are set already.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ed").tempdir().expect("a directory");
        let notify = UnixDatagram::bind(dir.path().join("notify")).expect("a notification socket");
        notify.set_read_timeout(Some(Duration::from_millis(200))).expect("a bound");
        let new = Self { dir, env: Vec::new(), wrapper: Vec::new(), notify, child: None };
        new.configure(config);
        new
    }

    /// The same with a file of these backends, where `config` has a provider that reads it.
    pub fn knowing<'a>(config: &str, backends: impl IntoIterator<Item = &'a Backend>) -> Self {
        let new = Self::new(config);
        new.write("backends.yaml", &entries(backends));
        new
    }

    /// Adds to the environment, which is otherwise empty but for PATH.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs it under another program, such as `unshare`.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Replaces the configuration.
    pub fn configure(&self, config: &str) {
        let dir = self.dir.path().display();
        let own = format!("state_dir = '{dir}/state'\napi.socket = '{dir}/sock'\n");
        let config = config.replace("DIR", &dir.to_string());
        fs::write(self.path("elasticd.toml"), own + &config).expect("a configuration");
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in the directory, in one step as a careful writer does.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path("written"), text).expect("written");
        fs::rename(self.path("written"), self.path(name)).expect("renamed");
    }

    /// Reads a file in the directory.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut argv = self.wrapper.clone();
        argv.push(env!("CARGO_BIN_EXE_elasticd").to_owned());
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).arg("--config").arg(self.path("elasticd.toml")).args(arguments);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Runs a subcommand to its end; returns its exit code, standard output and standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).bounded_output();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Starts it, and waits for nothing.
    pub fn start(mut self) -> Self {
        self.spawn();
        self
    }

    /// Starts it, and waits until it says that it is ready. Its configuration must then be right by the JSON Schema too.
    pub fn ready(self) -> Self {
        let started = self.start();
        started.await_ready();
        let config = fs::read_to_string(started.path("elasticd.toml")).expect("a configuration");
        assert_eq!(refusal(&config), None, "{config}");
        started
    }

    fn spawn(&mut self) {
        // Notifications of an earlier process must not be taken for those of the new one.
        self.notify.set_nonblocking(true).expect("a socket");
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        self.notify.set_nonblocking(false).expect("a socket");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let child = self
            .command(&["run"])
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("elasticd starts");
        self.child = Some(child);
    }

    /// Waits for the next `READY=1`.
    pub fn await_ready(&self) {
        self.await_notice("READY=1");
    }

    /// Waits for a message to systemd that holds this line.
    pub fn await_notice(&self, line: &str) {
        let mut buffer = [0; 4096];
        let deadline = Instant::now() + PATIENCE;
        loop {
            let n = match self.notify.recv(&mut buffer) {
                Ok(n) => n,
                Err(_) if self.has_ended() => panic!("it ended before {line}:\n{}", self.log()),
                Err(error) if Instant::now() >= deadline => panic!("no {line}: {error}\n{}", self.log()),
                Err(_) => continue,
            };
            if String::from_utf8_lossy(&buffer[..n]).lines().any(|received| received == line) {
                return;
            }
        }
    }

    /// Whether the process has ended, and has not been waited for yet.
    fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How often a text occurs in the log.
    pub fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Waits until a text occurs in the log.
    pub fn await_log(&self, text: &str) {
        until_or(|| format!("{text:?} in the log:\n{}", self.log()), || self.log().contains(text).then_some(()));
    }

    /// Status, headers and body of a `GET` on the socket. `None`: it does not answer.
    pub fn try_get(&self, path: &str) -> Option<(u16, String, String)> {
        let mut stream = UnixStream::connect(self.path("sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: elasticd\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, head.to_owned(), body.to_owned()))
    }

    /// The same, of a living elasticd.
    pub fn get(&self, path: &str) -> (u16, String, String) {
        self.try_get(path).unwrap_or_else(|| panic!("no answer to {path}:\n{}", self.log()))
    }

    /// Waits until it answers at all.
    pub fn await_answer(&self) {
        until_or(|| format!("it answers:\n{}", self.log()), || self.try_get("/healthz"));
    }

    /// The status.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/v1/status").2).expect("JSON")
    }

    /// Waits until the status is as it should be.
    pub fn await_status(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let last = RefCell::new(Value::Null);
        until_or(
            || format!("{what}: {:#}\n{}", last.borrow(), self.log()),
            || {
                let status: Value = serde_json::from_str(&self.try_get("/v1/status")?.2).expect("JSON");
                last.replace(status.clone());
                good(&status).then_some(status)
            },
        )
    }

    /// Waits until a frontend is proven to run the newest revision of exactly these backends.
    pub fn await_proven(&self, frontend: &str, service: &str, ids: &[&str]) -> Value {
        let status = self.await_phase(&["proven"], frontend, service, ids);
        assert_eq!(status["frontends"][frontend]["proven_revision"], status["revision"]);
        status
    }

    /// Waits until the newest revision of exactly these backends is in effect, as far as that can be known of a frontend.
    pub fn await_applied(&self, frontend: &str, service: &str, ids: &[&str]) -> Value {
        self.await_phase(&["written", "reloaded"], frontend, service, ids)
    }

    /// Waits for either of the two.
    pub fn await_effect(&self, frontend: &str, service: &str, ids: &[&str]) -> Value {
        self.await_phase(&["proven", "written", "reloaded"], frontend, service, ids)
    }

    fn await_phase(&self, phases: &[&str], frontend: &str, service: &str, ids: &[&str]) -> Value {
        let mut wanted: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        wanted.sort();
        let known = || {
            let body: Value = serde_json::from_str(&self.try_get(&format!("/v1/services/{service}"))?.2).ok()?;
            let backends = body["backends"].as_array()?;
            Some(backends.iter().filter_map(|b| b["id"].as_str().map(str::to_owned)).collect::<Vec<_>>())
        };
        until_or(|| format!("{service} has {wanted:?}:\n{}", self.log()), || (known()? == wanted).then_some(()));
        self.await_status("applied", |status| {
            let frontend = &status["frontends"][frontend];
            phases.iter().any(|phase| frontend["phase"] == *phase) && frontend["applied_revision"] == status["revision"]
        })
    }

    /// Its PID.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("started").id().cast_signed())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("a status").is_none())
    }

    /// Waits until it ends by itself.
    pub fn await_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("started");
        let status = await_end(child);
        self.child = None;
        status
    }

    /// Stops it as systemd does.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.await_exit()
    }

    /// Kills it in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.await_exit().signal(), Some(9));
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "stop it first");
        self.spawn();
    }

    /// What lies hidden in a directory, as elasticd may never leave anything.
    pub fn hidden(&self, directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))).collect()
    }

    /// What is staged, and kept to go back to, of a frontend's outputs.
    pub fn staged(&self, frontend: &str) -> Vec<PathBuf> {
        let kinds = ["new", "previous"].map(|kind| self.path(&format!("state/staging/{frontend}/{kind}")));
        let entries = kinds.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}
