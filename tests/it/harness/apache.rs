//! A real Apache: a parent with its children, in a directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::load::await_answers;
use super::{BoundedCommand as _, cannot_start, end, own_socket, until};

/// Where Debian's modules are.
const MODULES: &str = "/usr/lib/apache2/modules";

/// Apache, which proxies everything to the balancer `web`, but for its status at `/server-status`.
pub struct Apache {
    dir: tempfile::TempDir,
    /// Whether elasticd may ask its mod_status.
    pub has_api: bool,
    /// Where it listens.
    pub address: SocketAddr,
    child: Option<Child>,
}

impl Drop for Apache {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Apache {
    /// Not yet started, of the event MPM, with no balancer: `conf.d` is empty.
    pub fn new() -> Self {
        Self::with_mpm("event")
    }

    /// The same with another multi-processing module, as Debian names it.
    pub fn with_mpm(mpm: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ap").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("conf.d")).expect("a directory");
        let address = own_socket();
        let at = dir.path().display();
        let modules: String = [
            "authz_core",
            "status",
            "alias",
            "slotmem_shm",
            "proxy",
            "proxy_http",
            "proxy_balancer",
            "lbmethod_byrequests",
            "lbmethod_bytraffic",
            "lbmethod_bybusyness",
        ]
        .map(|name| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n"))
        .concat();
        // Few processes, as this machine has others to run.
        let config = format!(
            "ServerRoot {at}\nServerName localhost\nDefaultRuntimeDir {at}\nPidFile {at}/apache2.pid\n\
             ErrorLog {at}/error.log\nLogLevel notice\nListen {address}\n\
             LoadModule mpm_{mpm}_module {MODULES}/mod_mpm_{mpm}.so\n{modules}\
             <IfModule unixd_module>\nUser www-data\nGroup www-data\n</IfModule>\n\
             ProxyStatus On\nExtendedStatus On\n\
             IncludeOptional conf.d/*.conf\n\
             <Location /server-status>\nSetHandler server-status\n</Location>\n\
             ProxyPass /server-status !\nProxyPass / balancer://web/\n"
        );
        fs::write(dir.path().join("apache2.conf"), config).expect("a configuration");
        Self { dir, has_api: false, address, child: None }
    }

    /// Lets elasticd ask its mod_status.
    pub fn with_api(mut self) -> Self {
        self.has_api = true;
        self
    }

    /// Adds to its main configuration.
    pub fn configure(self, more: &str) -> Self {
        let path = self.path("apache2.conf");
        let config = fs::read_to_string(&path).expect("written");
        fs::write(path, config + more).expect("a configuration");
        self
    }

    /// Starts it, and waits until it serves.
    pub fn start(mut self) -> Self {
        self.spawn();
        self
    }

    /// The same of one that was stopped.
    pub fn spawn(&mut self) {
        let mut command = Command::new("apache2");
        command.arg("-f").arg(self.path("apache2.conf")).args(["-D", "FOREGROUND"]);
        // When it ends, it signals the whole of its process group: not ours.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| cannot_start("apache2", &error));
        let pid = child.id().to_string();
        self.child = Some(child);
        until("Apache writes its PID", || (fs::read_to_string(self.pid_file()).ok()?.trim() == pid).then_some(()));
        until("Apache answers", || self.ask());
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGTERM);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("a status").is_none())
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its pid file.
    pub fn pid_file(&self) -> PathBuf {
        self.path("apache2.pid")
    }

    /// What elasticd needs to know of it, as `[frontends.apache]`.
    pub fn frontend(&self) -> String {
        let at = self.dir.path().display();
        let api = if self.has_api { format!("api = '{}'\n", self.address) } else { String::new() };
        format!(
            "[frontends.apache]\ntype = 'apache'\noutput = '{at}/conf.d/elasticd.conf'\npid_file = '{at}/apache2.pid'\n\
             config = '{at}/apache2.conf'\nproof_timeout = '10s'\n\
             settle = '20ms'\nmin_reload_gap = '50ms'\n\
             audit_interval = '1s'\nretry_min = '200ms'\nretry_max = '1s'\n{api}"
        )
    }

    /// The parent's PID.
    pub fn parent(&self) -> u32 {
        self.child.as_ref().expect("started").id()
    }

    /// Asks the parent for a graceful restart, as an operator does by hand.
    pub fn graceful(&self) {
        kill(Pid::from_raw(self.parent().cast_signed()), Signal::SIGUSR1).expect("it runs");
    }

    /// How many graceful restarts the process that answers has seen.
    pub fn generation(&self) -> Option<u64> {
        let status = super::load::get(self.address, "/server-status?auto").filter(|answer| answer.0 == 200)?.1;
        status.lines().find_map(|line| line.strip_prefix("ParentServerMPMGeneration: "))?.trim().parse().ok()
    }

    /// How often it was asked for a graceful restart, in the words of either multi-processing module.
    pub fn restarts(&self) -> usize {
        let errors = self.errors();
        errors.matches("SIGUSR1 received").count() + errors.matches("Graceful restart requested").count()
    }

    /// Its balancers, as elasticd wrote them.
    pub fn balancers(&self) -> String {
        fs::read_to_string(self.path("conf.d/elasticd.conf")).unwrap_or_default()
    }

    /// Where its configuration fragments are.
    pub fn conf_d(&self) -> PathBuf {
        self.path("conf.d")
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
        await_answers(self.address, ids, || format!("balancers: {}; errors: {}", self.balancers(), self.errors()));
    }
}

/// Runs `apache2` with a configuration, and returns whether it was pleased and what it printed.
pub fn apache2(config: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("apache2").arg("-f").arg(config).args(arguments).bounded_output();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
