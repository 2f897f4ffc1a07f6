//! nginx's stream context: TCP connections proxied to backends that come and go.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;
use crate::harness::until;

/// The module is a package of its own.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// An nginx that proxies TCP alone.
fn nginx() -> Nginx {
    assert!(fs::exists(MODULE).is_ok_and(|there| there), "{MODULE} is missing; `tests/run` installs it");
    let nginx = Nginx::new();
    let path = nginx.path("nginx.conf");
    let config = fs::read_to_string(&path).expect("written");
    let (main, _) = config.split_once("http {").expect("an http block");
    let stream = format!(
        "load_module {MODULE};\n{main}stream {{\n  include {}/*.conf;\n  server {{\n    listen 127.0.0.1:{};\n    \
         proxy_connect_timeout 2s;\n    proxy_pass web;\n  }}\n}}\n",
        nginx.conf_d().display(),
        nginx.port
    );
    fs::write(path, stream).expect("a configuration");
    // Unlike in the http context, the name must be known when nginx starts.
    fs::write(nginx.conf_d().join("elasticd.conf"), "upstream web { server 127.0.0.1:1 down; }\n").expect("written");
    nginx
}

fn elasticd(nginx: &Nginx, backends: &[Backend]) -> Elasticd {
    let file = FILE.replace("guard = {", "guard = { on_empty = 'accept',");
    let frontend = nginx.frontend().replace("type = 'nginx'", "type = 'nginx-stream'");
    Elasticd::knowing(&format!("{file}{frontend}"), backends)
}

#[test]
fn connections_reach_the_backends_of_the_moment_and_none_fails() {
    let backends = three();
    let nginx = nginx().start();
    let elasticd = elasticd(&nginx, &backends[..1]).ready();
    elasticd.await_proven("nginx", "web", &["a"]);
    nginx.await_old_workers_gone();
    nginx.await_answers(&["a"]);
    let tally = elasticd.changes_under_load(nginx.port, 20, &backends, |some| {
        elasticd.await_proven("nginx", "web", &ids(some));
    });
    tally.assert_none_failed();
}

#[test]
fn an_empty_service_closes_connections() {
    let backends = ["a", "b"].map(Backend::start);
    let nginx = nginx().start();
    let elasticd = elasticd(&nginx, &backends).ready();
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    nginx.await_old_workers_gone();
    nginx.await_answers(&["a", "b"]);
    elasticd.write("backends.yaml", "[]\n");
    elasticd.await_proven("nginx", "web", &[]);
    nginx.await_old_workers_gone();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, nginx.port)).expect("nginx listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
    let closed = stream.read(&mut [0]);
    assert!(matches!(&closed, Ok(0)) || closed.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    // Drained backends alone are none either.
    let drained: String = backends.iter().map(|b| b.entry().replace("tags", "weight: 0, tags")).collect();
    elasticd.write("backends.yaml", &drained);
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    nginx.await_old_workers_gone();
    assert_eq!(nginx.ask(), None);
    elasticd.write("backends.yaml", &entries(&backends[1..]));
    elasticd.await_proven("nginx", "web", &["b"]);
    until("b answers", || (nginx.ask()?.1 == "b").then_some(()));
}
