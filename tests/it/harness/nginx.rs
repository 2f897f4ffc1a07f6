//! A real nginx: a master with two workers, in a directory of its own.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::load::await_answers;
use super::{cannot_start, end, own_socket, require, until};

/// nginx, which proxies everything to the upstream `web`.
pub struct Nginx {
    dir: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    child: Option<Child>,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Nginx {
    /// Not yet started, with no upstream: `conf.d` is empty.
    pub fn new() -> Self {
        Self::configured(
            "",
            "  include DIR/conf.d/*.conf;\n  server {\n    listen ADDRESS;\n    location / {\n      \
             set $up web;\n      proxy_pass http://$up;\n      proxy_http_version 1.1;\n      \
             proxy_set_header Connection \"\";\n      proxy_connect_timeout 2s;\n    }\n  }\n",
        )
    }

    /// Not yet started, with these lines at the top and in the http block, in which `DIR` stands for its directory and
    /// `ADDRESS` for where it listens.
    pub fn configured(top: &str, http: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ng").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("conf.d")).expect("a directory");
        let address = own_socket();
        let at = dir.path().display();
        let config = format!(
            "{top}worker_processes 2;\npid {at}/nginx.pid;\nerror_log {at}/error.log notice;\ndaemon off;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path {at}/t1;\n  proxy_temp_path {at}/t2;\n  \
             fastcgi_temp_path {at}/t3;\n  uwsgi_temp_path {at}/t4;\n  scgi_temp_path {at}/t5;\n{http}}}\n"
        );
        let config = config.replace("DIR", &at.to_string()).replace("ADDRESS", &address.to_string());
        fs::write(dir.path().join("nginx.conf"), config).expect("a configuration");
        Self { dir, address, child: None }
    }

    /// Not yet started, proxying TCP to the upstream `web` instead of HTTP.
    pub fn stream() -> Self {
        // The module is a package of its own.
        const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
        require(Path::new(MODULE));
        let nginx = Self::new();
        let path = nginx.path("nginx.conf");
        let config = fs::read_to_string(&path).expect("written");
        let (main, _) = config.split_once("http {").expect("an http block");
        let stream = format!(
            "load_module {MODULE};\n{main}stream {{\n  include {}/*.conf;\n  server {{\n    listen {};\n    \
             proxy_connect_timeout 2s;\n    proxy_pass web;\n  }}\n}}\n",
            nginx.conf_d().display(),
            nginx.address
        );
        fs::write(path, stream).expect("a configuration");
        nginx
    }

    /// Starts it, and waits until its master has written its PID.
    pub fn start(mut self) -> Self {
        self.spawn();
        self
    }

    /// The same of one that was stopped.
    pub fn spawn(&mut self) {
        let mut command = Command::new("nginx");
        command.arg("-c").arg(self.path("nginx.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| cannot_start("nginx", &error));
        let pid = child.id().to_string();
        self.child = Some(child);
        until("nginx writes its PID", || {
            (fs::read_to_string(self.path("nginx.pid")).ok()?.trim() == pid).then_some(())
        });
        until("nginx has workers", || (self.workers().len() >= 2).then_some(()));
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGTERM);
        }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What elasticd needs to know of it, as `[frontends.nginx]`.
    pub fn frontend(&self) -> String {
        let at = self.dir.path().display();
        format!(
            "[frontends.nginx]\ntype = 'nginx'\noutput = '{at}/conf.d/elasticd.conf'\npid_file = '{at}/nginx.pid'\n\
             config = '{at}/nginx.conf'\nproof_timeout = '10s'\n\
             settle = '20ms'\nmin_reload_gap = '50ms'\n\
             audit_interval = '1s'\nretry_min = '200ms'\nretry_max = '1s'\n"
        )
    }

    /// A name that no other nginx has: its directory's.
    pub fn id(&self) -> String {
        self.dir.path().file_name().expect("a name").to_string_lossy().into_owned()
    }

    /// The master's PID.
    pub fn master(&self) -> u32 {
        self.child.as_ref().expect("started").id()
    }

    /// The PIDs of the workers that take connections.
    pub fn workers(&self) -> BTreeSet<u32> {
        self.children().into_iter().filter(|(_, title)| !title.contains("shutting down")).map(|(pid, _)| pid).collect()
    }

    /// Waits until the workers of earlier configurations have served what they had accepted.
    pub fn await_old_workers_gone(&self) {
        until("old workers are gone", || {
            self.children().iter().all(|(_, title)| !title.contains("shutting down")).then_some(())
        });
    }

    fn children(&self) -> Vec<(u32, String)> {
        let master = self.master();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        let titled = |pid: u32| Some((pid, fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?));
        let children = children.split_whitespace().filter_map(|pid| titled(pid.parse().ok()?));
        children.filter(|(_, title)| title.contains("worker process")).collect()
    }

    /// Its upstreams, as elasticd wrote them.
    pub fn upstreams(&self) -> String {
        fs::read_to_string(self.path("conf.d/elasticd.conf")).unwrap_or_default()
    }

    /// Where its configuration fragments are.
    pub fn conf_d(&self) -> PathBuf {
        self.path("conf.d")
    }

    /// How often its master was asked to reload.
    pub fn hups(&self) -> usize {
        self.errors().matches("signal 1 (SIGHUP)").count()
    }

    /// Its error log.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }

    /// The answer to one request on a new connection: status and body.
    pub fn ask(&self) -> Option<(u16, String)> {
        super::load::ask(self.address)
    }

    /// Waits until only these backends answer, and each of them does.
    pub fn await_answers(&self, ids: &[&str]) {
        await_answers(self.address, ids, || format!("upstreams: {}; errors: {}", self.upstreams(), self.errors()));
    }
}

/// The inode of a file: it changes with every swap.
pub fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
}
