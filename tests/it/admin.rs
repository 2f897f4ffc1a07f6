//! The admin listener, with the real program: what it changes, whom it refuses, and the commands that ask it.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::harness::elasticd::Elasticd;
use crate::harness::{BoundedCommand as _, PATIENCE, await_end};

const CONFIG: &str = "[providers.local]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '1h'\n\
    [services.web]\nprovider = 'local'\nselect = { Role = 'web' }\n[services.db]\nprovider = 'local'\n\
    select = { Role = 'db' }\nguard = { on_empty = 'accept' }\n";

fn entry(id: &str, address: &str) -> String {
    format!("- {{ id: {id}, address: \"{address}\", tags: {{ Role: web }} }}\n")
}

fn elasticd() -> Elasticd {
    let elasticd = Elasticd::new(CONFIG);
    elasticd.write("backends.yaml", &(entry("a", "10.0.0.1:80") + &entry("b", "10.0.0.2:80")));
    elasticd.ready()
}

/// Status and body of a request to a socket.
fn ask(elasticd: &Elasticd, socket: &str, request: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(elasticd.path(socket)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
    let length = body.len();
    let _ =
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    let mut answer = Vec::new();
    // A client that sends more than is accepted is cut off, after the answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
}

fn text(elasticd: &Elasticd, service: &str) -> String {
    elasticd.get(&format!("/v1/services/{service}?format=text")).2
}

#[test]
fn changes_are_accepted_on_the_admin_listener_only() {
    let elasticd = elasticd();
    let metadata = std::fs::metadata(elasticd.path("admin.sock")).expect("a socket");
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.uid()), (0o600, nix::unistd::geteuid().as_raw()));
    for request in
        ["POST /v1/refresh", "POST /v1/reload", "POST /v1/services/web/accept", "DELETE /v1/services/web/backends/a"]
    {
        let (status, body) = ask(&elasticd, "sock", request, "");
        assert!(status == 403 && body.contains("api.admin_socket"), "{request}: {status} {body}");
    }
    // It reads, too.
    assert_eq!(ask(&elasticd, "admin.sock", "GET /v1/services/web?format=text", "").0, 200);
    for (request, status) in [
        ("GET /v1/refresh", 405),
        ("POST /v1/services/web/backends/a", 405),
        ("POST /v1/services/nobody/accept", 404),
        ("POST /v1/services/web/accept", 409),
        ("POST /v1/refresh?x=1", 400),
        ("DELETE /v1/services/web/backends/a", 409),
        ("PUT /v1/services/web/backends/a", 400),
    ] {
        let (found, body) = ask(&elasticd, "admin.sock", request, "");
        assert_eq!(found, status, "{request}: {body}");
    }
    let long = "x".repeat(100_000);
    assert_eq!(ask(&elasticd, "admin.sock", "PUT /v1/services/web/backends/a", &long).0, 400);
}

#[test]
fn another_user_is_refused_and_logged() {
    let elasticd = elasticd();
    // As a well-meaning operator might.
    for path in [elasticd.path(""), elasticd.path("admin.sock")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("opened to all");
    }
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-s", "--unix-socket"])
        .arg(elasticd.path("admin.sock"))
        .args(["-X", "POST", "http://x/v1/refresh"])
        .bounded_output();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("user 65534 may not use the admin listener"), "{said}");
    elasticd.await_log("only root and elasticd's own user may change anything uid=65534 pid=");
    assert_eq!(elasticd.status()["providers"]["local"]["polls"], 1);
}

#[test]
fn refresh_polls_and_reload_reads_the_configuration() {
    let elasticd = elasticd();
    assert_eq!(elasticd.run(&["refresh"]), (0, "all providers are being polled\n".to_owned(), String::new()));
    elasticd.await_status("polled", |status| status["providers"]["local"]["polls"] == 2);
    assert_eq!(elasticd.run(&["reload"]).0, 0);
    elasticd.configure(&CONFIG.replace("select =", "selekt ="));
    let (code, _, error) = elasticd.run(&["--socket", &elasticd.path("admin.sock").display().to_string(), "reload"]);
    assert!(code == 1 && error.contains("services.web.selekt: unknown key"), "{code} {error}");
    elasticd.configure(&format!("{CONFIG}[services.new]\nprovider = 'local'\nselect = {{ Role = 'web' }}\n"));
    assert_eq!(elasticd.run(&["reload"]), (0, "configuration reloaded\n".to_owned(), String::new()));
    elasticd.await_status("a new service", |status| status["services"]["new"]["backends"] == 2);
}

#[test]
fn a_held_set_can_be_accepted() {
    let elasticd = elasticd();
    elasticd.write("backends.yaml", "[]\n");
    elasticd.await_status("held", |status| !status["services"]["web"]["held"].is_null());
    assert_eq!(text(&elasticd, "web").lines().count(), 2);
    let (code, said, _) = elasticd.run(&["accept", "web"]);
    assert_eq!((code, said.as_str()), (0, "the held set is served now, revision 2\n"));
    assert_eq!(text(&elasticd, "web"), "");
    let status = elasticd.status();
    assert!(status["services"]["web"]["held"].is_null(), "{status:#}");
    let (code, _, error) = elasticd.run(&["accept", "web"]);
    assert_eq!((code, error.as_str()), (1, "elasticd: no set of service web is held, so there is nothing to accept\n"));
    // And stays so at the next poll.
    assert_eq!(elasticd.run(&["refresh"]).0, 0);
    elasticd.await_status("polled", |status| status["providers"]["local"]["polls"].as_u64() >= Some(3));
    assert_eq!(text(&elasticd, "web"), "");
}

#[test]
fn registered_backends_are_served_until_they_expire() {
    let mut elasticd = elasticd();
    let (code, said, _) = elasticd.run(&["register", "web", "c", "10.0.0.3:81", "--ttl", "1h", "--weight", "5"]);
    assert_eq!((code, said.as_str()), (0, "registered, revision 2\n"));
    let all = "10.0.0.1:80\n10.0.0.2:80\n10.0.0.3:81\n";
    assert_eq!(text(&elasticd, "web"), all);
    assert!(elasticd.get("/v1/services/web").2.contains("\"weight\":5"));
    // A poll, a reload and a crash leave it.
    assert_eq!(elasticd.run(&["refresh"]).0, 0);
    elasticd.await_status("polled", |status| status["providers"]["local"]["polls"] == 2);
    assert_eq!(elasticd.run(&["reload"]).0, 0);
    elasticd.kill();
    elasticd.restart();
    elasticd.await_ready();
    assert_eq!(text(&elasticd, "web"), all);
    // Its namesake at the provider is back once it is deregistered.
    assert_eq!(elasticd.run(&["register", "web", "a", "10.0.0.9:80", "--ttl", "1h"]).0, 0);
    assert_eq!(text(&elasticd, "web"), all.replace("10.0.0.1", "10.0.0.9"));
    assert_eq!(elasticd.run(&["deregister", "web", "a"]).0, 0);
    assert_eq!(text(&elasticd, "web"), all);
    let (code, _, error) = elasticd.run(&["deregister", "web", "a"]);
    assert!(code == 1 && error.contains("backends that a provider reports cannot be deregistered"), "{error}");
    // To a service without any, for a second.
    assert_eq!(elasticd.run(&["register", "db", "d", "[2001:db8::4]:5432", "--ttl", "1s"]).0, 0);
    assert_eq!(text(&elasticd, "db"), "[2001:db8::4]:5432\n");
    elasticd.await_status("expired", |status| status["services"]["db"]["backends"] == 0);
    let (code, _, error) = elasticd.run(&["register", "web", "e", "10.0.0.5:80", "--ttl", "soon"]);
    assert!(code == 1 && error.contains("invalid body"), "{error}");
}

#[test]
fn watch_pick_and_explain_ask_the_query_socket() {
    let elasticd = elasticd();
    let (code, said, _) = elasticd.run(&["pick", "web", "--key", "alice"]);
    assert!(code == 0 && ["10.0.0.1:80\n", "10.0.0.2:80\n"].contains(&said.as_str()), "{said}");
    assert!(elasticd.run(&["pick", "web", "--json", "--zone", "x y"]).1.contains("\"address\""));
    let (code, said, _) = elasticd.run(&["explain", "a"]);
    assert_eq!(
        (code, said.as_str()),
        (
            0,
            "SERVICE  BACKEND  WHY\ndb       no       tag Role is \"web\"; the service selects Role = \"db\"\nweb      yes      a backend\n"
        )
    );
    assert_eq!(elasticd.run(&["explain", "nobody/else"]).0, 1);
    // It ends when elasticd does.
    let (code, said) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| elasticd.run(&["watch", "web"]));
        elasticd.await_status("watched", |_| !watching.is_finished());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(elasticd.run(&["register", "web", "c", "10.0.0.3:81", "--ttl", "1h"]).0, 0);
        std::thread::sleep(Duration::from_millis(300));
        elasticd.signal(nix::sys::signal::Signal::SIGTERM);
        let (code, said, _) = watching.join().expect("no panic");
        (code, said)
    });
    let expected = "web: 2 backends, revision 1\n  + a 10.0.0.1:80 weight 1\n  + b 10.0.0.2:80 weight 1\n\
                    web: 3 backends, revision 2\n  + c 10.0.0.3:81 weight 1\n";
    assert_eq!((code, said.as_str()), (0, expected));
}

/// Opens connections until none more is taken, and holds them until its standard input ends.
const CROWD: &str = r#"
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
held = []
for _ in range(10000):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(0.05)
    try:
        one.connect(sys.argv[1])
    except (BlockingIOError, TimeoutError, ConnectionRefusedError):
        continue
    held.append(one)
print(len(held), flush=True)
sys.stdin.read()
"#;

#[test]
fn ten_thousand_connections_do_not_keep_another_client_out() {
    use std::process::{Command, Stdio};
    let elasticd = elasticd();
    let mut crowd = Command::new("python3")
        .args(["-c", CROWD])
        .arg(elasticd.path("sock"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    // While they come, and after.
    let mut held = String::new();
    let mut out = std::io::BufReader::new(crowd.stdout.take().expect("piped"));
    let ended = std::thread::scope(|scope| {
        let counting = scope.spawn(|| std::io::BufRead::read_line(&mut out, &mut held).expect("a count"));
        let started = Instant::now();
        while !counting.is_finished() {
            if started.elapsed() > PATIENCE {
                // This ends the reading, too.
                let _ = crowd.kill();
            }
            let answer = crate::harness::until("an answer", || elasticd.try_get("/v1/services/web?format=text"));
            assert_eq!(answer.0, 200);
        }
        crate::harness::until("an answer", || elasticd.try_get("/healthz")).0
    });
    assert_eq!(ended, 200);
    assert!(held.trim().parse::<u32>().expect("a count") > 1024, "{held}");
    drop(crowd.stdin.take());
    assert!(await_end(&mut crowd).success());
    assert_eq!(elasticd.get("/healthz").0, 200);
}
