//! The description of the API is true: a tool that others wrote makes requests of it, good and bad, and holds every
//! answer against it.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::harness::elasticd::Elasticd;

const CONFIG: &str = "[providers.local]\ntype = 'fixed'\n\
    instances = [{ id = 'a', address = '10.0.0.1:80', tags = { Role = 'web' } }, { id = 'b', address = '10.0.0.2:80' }]\n\
    [services.web]\nprovider = 'local'\nselect = { Role = 'web' }\n\
    [services.db]\nprovider = 'local'\nselect = { Role = 'db' }\nguard = { on_empty = 'accept' }\n";

/// A TCP port on loopback that leads to a Unix socket, for a tool that knows no others. It ends with the test process.
fn bridge(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let Ok(unix) = UnixStream::connect(&socket) else { return };
            let (tcp_too, unix_too) = (tcp.try_clone().expect("a handle"), unix.try_clone().expect("a handle"));
            thread::spawn(move || copy_in(&tcp, &unix));
            thread::spawn(move || copy_out(&unix_too, &tcp_too));
        }
    });
    port
}

fn copy_in(mut from: &TcpStream, mut to: &UnixStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn copy_out(mut from: &UnixStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn drive(socket: &str, excluded: &[&str]) {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/schemathesis");
    assert!(tool.exists(), "`tests/run` installs schemathesis");
    let elasticd = Elasticd::new(CONFIG).ready();
    let port = bridge(elasticd.path(socket));
    let description = elasticd.path("openapi.json");
    let text = elasticd.get("/v1/openapi.json").2;
    // Of all the times a request may wait, the tool is to choose short ones.
    let brief =
        text.replace("^[0-9]{1,2}(ms|s)$", "^[0-9]{1,2}ms$").replace("\"example\": \"55s\"", "\"example\": \"5ms\"");
    assert_ne!(brief, text);
    std::fs::write(&description, brief).expect("written");
    // Longer than it takes on a busy machine, so that it ends whatever happens.
    let output = Command::new("timeout")
        .arg("300")
        .arg(tool)
        .arg("run")
        .arg(&description)
        .args(["--url", &format!("http://127.0.0.1:{port}"), "--max-examples", "15", "--seed", "1"])
        .args(["--request-timeout", "10", "--generation-database", "none", "--workers", "1", "--continue-on-failure"])
        // 503 is an answer like others, where it is described; whatever is not described fails.
        .args(["--exclude-checks", "not_a_server_error"])
        .args(excluded.iter().flat_map(|path| ["--exclude-path", path]))
        .current_dir(elasticd.path(""))
        .env("NO_COLOR", "1")
        .output()
        .expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(elasticd.get("/healthz").0, 200);
}

#[test]
fn the_query_socket_is_as_it_is_described() {
    // Its events have no end.
    drive("sock", &["/v1/watch"]);
}

#[test]
fn the_admin_socket_is_as_it_is_described() {
    drive("admin.sock", &["/v1/watch"]);
}
