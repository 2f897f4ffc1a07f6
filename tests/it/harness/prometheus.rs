//! A real Prometheus, with a job that reads targets from a directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{BoundedCommand as _, cannot_start, end, own_socket, until_or};

/// Prometheus.
pub struct Prometheus {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Prometheus {
    /// Not yet started, with one job, which reads `sd/*.json`.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("pr").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("sd")).expect("a directory");
        let prometheus = Self { dir, address: own_socket(), child: None };
        prometheus.configure("sd/*.json");
        prometheus
    }

    /// Writes its configuration, with a job that reads these files.
    pub fn configure(&self, files: &str) {
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n- job_name: elasticd\n  \
             file_sd_configs: [{{ files: ['{}/{files}'] }}]\n  relabel_configs:\n  \
             - {{ source_labels: [__meta_elasticd_tag_Scrape], regex: 'no', action: drop }}\n  \
             - {{ source_labels: [__meta_elasticd_service], target_label: service }}\n  \
             - {{ source_labels: [__meta_elasticd_id], target_label: instance }}\n",
            self.dir.path().display()
        );
        fs::write(self.path("prometheus.yml"), config).expect("a configuration");
    }

    /// Starts it, and waits until it is ready.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", self.path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", self.path("data").display()))
            .arg(format!("--web.listen-address={}", self.address));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|error| cannot_start("prometheus", &error)));
        until_or(
            || format!("Prometheus is ready:\n{}", fs::read_to_string(self.path("log")).unwrap_or_default()),
            || self.get("/-/ready").filter(|(status, _)| *status == 200),
        );
    }

    /// The same of a new one.
    pub fn start(mut self) -> Self {
        self.spawn();
        self
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

    /// The file of targets.
    pub fn file(&self) -> PathBuf {
        self.path("sd/targets.json")
    }

    /// What elasticd needs to know of it, as `[frontends.prometheus]`.
    pub fn frontend(&self) -> String {
        format!(
            "[frontends.prometheus]\ntype = 'prometheus'\noutput = '{}'\napi = '{}'\nsettle = '20ms'\n\
             audit_interval = '1s'\nretry_max = '1s'\n",
            self.file().display(),
            self.address
        )
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.address);
        let output =
            Command::new("curl").args(["--silent", "--max-time", "10", "-w", "%{http_code}", &url]).bounded_output();
        let text = String::from_utf8(output.stdout).ok()?;
        let (body, status) = text.split_at_checked(text.len().checked_sub(3)?)?;
        Some((status.parse().ok()?, body.to_owned()))
    }

    /// The ids by which the operator's rules call the active targets, in order.
    pub fn ids(&self) -> Vec<String> {
        let id = |target: &Value| target["labels"]["instance"].as_str().expect("a label").to_owned();
        let mut ids: Vec<_> = self.targets().iter().map(id).collect();
        ids.sort();
        ids
    }

    /// Its active targets.
    pub fn targets(&self) -> Vec<Value> {
        let (_, body) = self.get("/api/v1/targets?state=active").expect("an answer");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        answer["data"]["activeTargets"].as_array().cloned().expect("a list")
    }
}
