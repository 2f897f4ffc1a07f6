//! A real varnishd, in a directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::load::{ask, await_answers};
use super::{BoundedCommand as _, cannot_start, end, own_socket, until, until_or};

/// A compiler that takes milliseconds.
pub const TCC: &str = "exec tcc -w -shared -o %o %s";

/// What an operator had before elasticd.
const WITHOUT: &str = "vcl 4.1;\nbackend default none;\n";

/// Varnish, which passes everything to the director `web`.
pub struct Varnish {
    dir: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    management: SocketAddr,
    parameters: Vec<String>,
    child: Option<Child>,
}

impl Drop for Varnish {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Varnish {
    /// Not yet started.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("va").tempdir().expect("a directory");
        let new = Self { dir, address: own_socket(), management: own_socket(), parameters: Vec::new(), child: None };
        fs::write(new.path("secret"), "a secret with a space\n").expect("written");
        new.configure(&new.including());
        new.with("cc_command", TCC).with("vsl_space", "1M").with("thread_pool_min", "20")
    }

    /// Sets one of its parameters.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|set| !set.starts_with(&format!("{name}=")));
        self.parameters.push(format!("{name}={value}"));
        self
    }

    /// Starts it with what an operator had before elasticd, and then configures it as the README says.
    pub fn start(mut self) -> Self {
        self.configure(WITHOUT);
        self.spawn();
        self.configure(&self.including());
        self
    }

    /// A main VCL as the README has it.
    pub fn including(&self) -> String {
        let output = self.output();
        format!(
            "vcl 4.1;\ninclude \"{}\";\nsub vcl_recv {{\n    set req.backend_hint = web.backend();\n    return (pass);\n}}\n",
            output.display()
        )
    }

    /// Writes its main VCL.
    pub fn configure(&self, vcl: &str) {
        fs::write(self.path("main.vcl"), vcl).expect("written");
    }

    /// Starts it, and waits until it answers.
    pub fn spawn(&mut self) {
        let mut command = Command::new("varnishd");
        command.args(["-F", "-j", "none", "-s", "malloc,16m"]).arg("-n").arg(self.path("n"));
        command.arg("-a").arg(self.address.to_string());
        command.arg("-T").arg(self.management.to_string());
        command.arg("-S").arg(self.path("secret")).arg("-f").arg(self.path("main.vcl"));
        for parameter in &self.parameters {
            command.args(["-p", parameter]);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| cannot_start("varnishd", &error));
        self.child = Some(child);
        until_or(|| format!("varnishd answers: {}", self.log()), || ask(self.address));
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGTERM);
            until("its port is free", || ask(self.address).is_none().then_some(()));
        }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where elasticd writes.
    pub fn output(&self) -> PathBuf {
        self.path("elasticd.vcl")
    }

    /// What elasticd has written.
    pub fn backends(&self) -> String {
        fs::read_to_string(self.output()).unwrap_or_default()
    }

    /// What elasticd needs to know of it, as `[frontends.varnish]`.
    pub fn frontend(&self) -> String {
        let at = self.dir.path().display();
        let management = self.management;
        format!(
            "[frontends.varnish]\ntype = 'varnish'\noutput = '{at}/elasticd.vcl'\nconfig = '{at}/main.vcl'\n\
             api = '{management}'\nsecret_file = '{at}/secret'\nproof_timeout = '10s'\nsettle = '20ms'\n\
             audit_interval = '1s'\nretry_min = '200ms'\nretry_max = '1s'\n"
        )
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What its own tool gets for a command.
    pub fn adm(&self, command: &[&str]) -> String {
        let output = Command::new("varnishadm").arg("-n").arg(self.path("n")).args(command).bounded_output();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Its VCLs: status and name, in the order in which they were loaded.
    pub fn vcls(&self) -> Vec<(String, String)> {
        let list: Vec<serde_json::Value> = serde_json::from_str(&self.adm(&["vcl.list", "-j"])).unwrap_or_default();
        let word = |vcl: &serde_json::Value, key: &str| vcl[key].as_str().unwrap_or_default().to_owned();
        list.iter().skip(3).map(|vcl| (word(vcl, "status"), word(vcl, "name"))).collect()
    }

    /// The name of its active VCL.
    pub fn active(&self) -> String {
        let active = self.vcls().into_iter().find(|(status, _)| status == "active");
        active.unwrap_or_else(|| panic!("no active VCL: {}", self.log())).1
    }

    /// The process that serves.
    pub fn worker(&self) -> String {
        self.adm(&["pid"])
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until only these backends answer, and each of them does.
    pub fn await_answers(&self, ids: &[&str]) {
        await_answers(self.address, ids, || format!("backends: {}; log: {}", self.backends(), self.log()));
    }
}
