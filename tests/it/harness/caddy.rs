//! A real Caddy: one process, in a directory of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::load::await_answers;
use super::{BoundedCommand as _, cannot_start, end, own_address, own_socket, until_or};

/// Runs a test in a network of its own, where connections that wait at a listener are handed to the next one.
///
/// Caddy 2.6 opens a TCP listener anew with every change, and closes the old one: what has been connected to that and
/// not yet accepted is reset, elasticd or not, unless the kernel hands it over (Linux 5.14, `tcp_migrate_req`).
pub fn in_own_network(test: impl FnOnce() + Send) {
    const MIGRATE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";
    let enter = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("the tests run as root");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).bounded_output();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        fs::write(MIGRATE, "1").expect("a kernel that knows it");
        test();
    };
    // What reserves the run's addresses is bound outside.
    let _ = own_address();
    // Threads and processes start in the network of the thread that starts them.
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(enter).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// How Caddy is configured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By JSON, with a handler `elasticd_web` that has no upstreams.
    Json,
    /// By a Caddyfile that imports what elasticd writes.
    Caddyfile,
}

/// Caddy, which proxies everything to the service `web`, with its admin API on a Unix socket.
pub struct Caddy {
    dir: tempfile::TempDir,
    /// How it is configured.
    pub form: Form,
    /// Where it listens.
    pub address: SocketAddr,
    child: Option<Child>,
}

impl Drop for Caddy {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Caddy {
    /// Not yet started.
    pub fn new(form: Form) -> Self {
        let dir = tempfile::Builder::new().prefix("cd").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("out")).expect("a directory");
        let new = Self { dir, form, address: own_socket(), child: None };
        let text = match form {
            Form::Json => new.json(&["elasticd_web"]).to_string(),
            Form::Caddyfile => new.caddyfile(""),
        };
        new.configure(&text);
        new
    }

    /// A JSON configuration with a route for each handler: the first takes what the others, by their names, do not.
    pub fn json(&self, ids: &[&str]) -> Value {
        let route = |(i, id): (usize, &&str)| {
            let mut route = json!({"handle": [{"@id": id, "handler": "reverse_proxy"}]});
            if i > 0 {
                route["match"] = json!([{"path": [format!("/{id}")]}]);
            }
            route
        };
        let routes: Vec<_> = ids.iter().enumerate().rev().map(route).collect();
        json!({
            "admin": {"listen": format!("unix/{}", self.path("admin.sock").display())},
            "apps": {"http": {"servers": {"front": {
                "listen": [self.address.to_string()],
                "automatic_https": {"disable": true},
                "routes": routes,
            }}}},
        })
    }

    /// A Caddyfile, with these lines beside `import web` in its reverse_proxy.
    pub fn caddyfile(&self, more: &str) -> String {
        let (at, ip, port) = (self.dir.path().display(), self.address.ip(), self.address.port());
        format!(
            "{{\n\tadmin unix/{at}/admin.sock\n\tauto_https off\n}}\nimport out/elasticd.caddyfile\n\
             http://:{port} {{\n\tbind {ip}\n\treverse_proxy {{\n\t\timport web\n{more}\n\t}}\n}}\n"
        )
    }

    fn main(&self) -> PathBuf {
        self.path(if self.form == Form::Json { "caddy.json" } else { "Caddyfile" })
    }

    /// Replaces its configuration file, which Caddy does not read by itself.
    pub fn configure(&self, text: &str) {
        fs::write(self.main(), text).expect("a configuration");
    }

    /// Starts it, and waits until its admin API answers.
    pub fn start(mut self) -> Self {
        self.spawn(&[]);
        self
    }

    /// The same of one that was stopped, with more arguments.
    pub fn spawn(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = Command::new("caddy");
        command.arg("run").arg("--config").arg(self.main()).args(arguments);
        if self.form == Form::Caddyfile {
            command.args(["--adapter", "caddyfile"]);
        }
        for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(variable, self.dir.path());
        }
        command.env("UPSTREAM_POLICY", "round_robin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir(self.dir.path());
        self.child = Some(command.spawn().unwrap_or_else(|error| cannot_start("caddy", &error)));
        until_or(
            || format!("Caddy's admin API answers: {}", self.log()),
            || self.admin("GET", "/config/", "").filter(|(status, _)| *status == 200),
        );
    }

    /// Ends it as systemd does.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGTERM);
        }
    }

    /// Its PID.
    pub fn child_pid(&self) -> u32 {
        self.child.as_ref().expect("started").id()
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What elasticd needs to know of it, as `[frontends.caddy]`.
    pub fn frontend(&self) -> String {
        let at = self.dir.path().display();
        let (kind, output, config) = match self.form {
            Form::Json => ("caddy", "out/upstreams.json", String::new()),
            Form::Caddyfile => ("caddyfile", "out/elasticd.caddyfile", format!("config = '{at}/Caddyfile'\n")),
        };
        format!(
            "[frontends.caddy]\ntype = '{kind}'\noutput = '{at}/{output}'\n{config}api = '{at}/admin.sock'\n\
             proof_timeout = '5s'\nsettle = '20ms'\nmin_reload_gap = '50ms'\n\
             audit_interval = '1s'\nretry_min = '200ms'\nretry_max = '1s'\n"
        )
    }

    /// The file that elasticd writes.
    pub fn output_path(&self) -> PathBuf {
        self.path(if self.form == Form::Json { "out/upstreams.json" } else { "out/elasticd.caddyfile" })
    }

    /// What elasticd wrote.
    pub fn output(&self) -> String {
        fs::read_to_string(self.output_path()).unwrap_or_default()
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Status and body of a request to its admin API. `None`: it does not answer.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.path("admin.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: \r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Everything it runs.
    pub fn running(&self) -> Value {
        let (status, body) = self.admin("GET", "/config/", "").expect("it answers");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// The addresses of a handler's upstreams, as it runs them.
    pub fn upstreams(&self, id: &str) -> Vec<String> {
        let (status, body) = self.admin("GET", &format!("/id/{id}/upstreams"), "").expect("it answers");
        assert_eq!(status, 200, "{body}");
        let upstreams: Value = serde_json::from_str(&body).expect("JSON");
        let upstreams = upstreams.as_array().cloned().unwrap_or_default();
        upstreams.iter().map(|upstream| upstream["dial"].as_str().expect("an address").to_owned()).collect()
    }

    /// Whether this very process listens on that TCP port, on whatever interface.
    pub fn listens_on(&self, port: u16) -> bool {
        let at = format!("/proc/{}", self.child_pid());
        let sockets: Vec<_> = fs::read_dir(format!("{at}/fd"))
            .expect("ours to read")
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        ["tcp", "tcp6"].iter().any(|table| {
            let table = fs::read_to_string(format!("{at}/net/{table}")).expect("a table");
            table.lines().skip(1).any(|line| {
                let field: Vec<_> = line.split_whitespace().collect();
                field[1].ends_with(&format!(":{port:04X}"))
                    && field[3] == "0A"
                    && sockets.iter().any(|inode| inode == field[9])
            })
        })
    }

    /// Waits until only these backends answer, and each of them does.
    pub fn await_answers(&self, ids: &[&str]) {
        await_answers(self.address, ids, || format!("output: {}; log: {}", self.output(), self.log()));
    }
}
