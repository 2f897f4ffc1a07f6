//! An Envoy that asks elasticd's socket in its own protocol: no file, and no control plane.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::backend::{FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::load::{Load, await_answers};
use crate::harness::{own_socket, require};

struct Envoy {
    address: SocketAddr,
    dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    /// It proxies everything to the service `web`, of which it asks this elasticd.
    fn start(elasticd: &Elasticd) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/envoy");
        require(&program);
        let dir = tempfile::Builder::new().prefix("ev").tempdir().expect("a directory");
        let address = own_socket();
        let config = include_str!("envoy_asks.yaml")
            .replace("ADDRESS", &address.ip().to_string())
            .replace("PORT", &address.port().to_string())
            .replace("SOCKET", &elasticd.path("sock").display().to_string());
        std::fs::write(dir.path().join("envoy.yaml"), config).expect("written");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let child = Command::new(program)
            .arg("-c")
            .arg(dir.path().join("envoy.yaml"))
            .args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "info"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Envoy starts");
        Self { address, dir, child }
    }

    fn await_answers(&self, ids: &[&str]) {
        await_answers(self.address, ids, || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
    }
}

#[test]
fn changes_reach_envoy_over_the_socket_and_the_last_set_serves_while_elasticd_is_down() {
    let backends = three();
    let mut elasticd = Elasticd::knowing(FILE, &backends[..1]).ready();
    let envoy = Envoy::start(&elasticd);
    envoy.await_answers(&["a"]);
    let load = Load::start(envoy.address, 3);
    elasticd.changes(20, &backends, |some| envoy.await_answers(&ids(some)));
    elasticd.kill();
    envoy.await_answers(&["a"]);
    elasticd.restart();
    elasticd.await_ready();
    elasticd.write("backends.yaml", &entries(&backends[1..]));
    envoy.await_answers(&["b", "c"]);
    let tally = load.stop();
    tally.assert_none_failed();
}
