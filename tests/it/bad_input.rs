//! Bad input, each kind once: one clear error that names the thing, the place and the remedy; the frontend untouched;
//! elasticd alive where it was running.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use crate::harness::backend::{Backend, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;
use crate::harness::until;

const FILE: &str = "[providers.local]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '300ms'\n\
                    [services.web]\nprovider = 'local'\nselect = { Role = 'web' }\n";

/// A frontend of which only files are known.
const LIST: &str =
    "[frontends.list]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/out/list'\ntemplate = 'list.tpl'\n";

const TEMPLATE: &str = "{% for s in services %}{% for b in s.backends %}{{ b.id }}\n{% endfor %}{% endfor %}";

/// With a template and two backends that nobody connects to.
fn elasticd(config: &str) -> Elasticd {
    let elasticd = Elasticd::new(config);
    elasticd.write("list.tpl", TEMPLATE);
    elasticd.write("backends.yaml", "- { id: a, address: 10.0.0.1:80, tags: { Role: web } }\n");
    elasticd
}

/// Both `check` and `run` refuse it with this.
fn refused(elasticd: Elasticd, code: i32, expected: &[&str]) -> Elasticd {
    for expected in expected {
        let (exit, _, error) = elasticd.run(&["check"]);
        assert_eq!(exit, code, "{error}");
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
    let mut elasticd = elasticd.start();
    assert_eq!(elasticd.await_exit().code(), Some(code), "{}", elasticd.log());
    for expected in expected {
        assert!(elasticd.log().contains(expected), "{expected:?} is not in {}", elasticd.log());
    }
    elasticd
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_starts() {
    refused(elasticd(&format!("{FILE}prot = 80\n{LIST}")), 78, &["elasticd.toml: services.web.prot: unknown key"]);
    refused(
        elasticd(&format!("{}{LIST}", FILE.replace("'local'\nselect", "'lokal'\nselect"))),
        78,
        &["services.web.provider: there is no provider \"lokal\"; the providers are local"],
    );
    let twice = format!("{FILE}{LIST}{}", LIST.replace("frontends.list", "frontends.other"));
    refused(elasticd(&twice), 78, &["out/list is written by frontends.list as well"]);
    let several = format!("{FILE}prot = 80\n{}", LIST.replace("list.tpl", "none.tpl"));
    let refused = refused(elasticd(&several), 78, &["has 2 faults", "services.web.prot", "none.tpl"]);
    assert!(!refused.path("state").exists() && !refused.path("sock").exists(), "nothing was started");
}

#[test]
fn a_wrong_template_is_refused_with_its_place() {
    for (template, expected) in [
        ("ok\n{% for s in services %}", "list.tpl line 2 column"),
        ("{% for s in services %}\n{% for b in s.backends %}{{ b.adress }}{% endfor %}{% endfor %}", "list.tpl line 2"),
    ] {
        let elasticd = elasticd(&format!("{FILE}{LIST}"));
        elasticd.write("list.tpl", template);
        refused(elasticd, 78, &["frontends.list.outputs.0.template: ", expected]);
    }
}

#[test]
fn a_hostile_tag_is_excluded_as_a_port_and_harmless_as_text() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let nginx = Nginx::new().start();
    let hostile = "1; } server { listen 1;";
    let more = "template = 'hostile.conf'\n";
    let rule = "port = { tag = 'Port', default = 80 }\n";
    let elasticd = Elasticd::new(&format!("{FILE}{rule}{}{more}", nginx.frontend()));
    elasticd.write(
        "hostile.conf",
        "{% for s in services %}upstream {{ s.name }} {\n{% for b in s.backends %}server {{ b | hostport }}; \
         # {{ b.zone }} {{ b.tags | get: \"Note\", \"\" }}\n{% endfor %}\n}\n\
         map $uri $notes {\n{% for b in s.backends %}{{ b.id }} {{ b.tags | get: \"Note\", \"\" }};\n\
         \"q{{ b.id }}\" \"{{ b.zone }}\";\n{% endfor %}\n}\n{% endfor %}",
    );
    let entry = |backend: &Backend, port: &str| {
        format!(
            "- {{ id: {}, address: {}, zone: \"{hostile}\", tags: {{ Role: web, Port: \"{port}\", Note: \"{hostile}\" }} }}\n",
            backend.name,
            backend.ip()
        )
    };
    let good = backends[0].address.port().to_string();
    elasticd.write("backends.yaml", &format!("{}{}", entry(&backends[0], &good), entry(&backends[1], hostile)));
    let elasticd = elasticd.ready();
    let status = elasticd.await_proven("nginx", "web", &["a"]);
    let excluded = &status["services"]["web"]["exclusions"]["first"][0];
    assert_eq!((&excluded["id"], &excluded["reason"]), (&"b".into(), &"bad_port".into()), "{status:#}");
    assert_eq!(
        elasticd.logged("instance excluded service=web instance=\"b\" reason=tag Port is"),
        1,
        "{}",
        elasticd.log()
    );
    nginx.await_answers(&["a"]);
    assert!(nginx.upstreams().contains("server { listen 1;"), "as text: {}", nginx.upstreams());
}

#[test]
fn a_directory_that_cannot_be_written_is_said_and_recovered_from() {
    let elasticd = elasticd(&format!("{FILE}{LIST}")).start();
    let status = elasticd.await_status("failed", |status| status["frontends"]["list"]["phase"] == "failed");
    let error = status["frontends"]["list"]["error"].as_str().expect("an error");
    assert!(error.contains("out/list") && error.contains("create the directory"), "{error}");
    assert_eq!(elasticd.get("/v1/services/web").0, 200, "the socket is not held up");
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.await_status("recovered", |status| status["frontends"]["list"]["phase"] == "written");
    assert_eq!(elasticd.read("out/list"), "a\n");
}

/// Runs elasticd with something mounted at `DIR/out`, in a mount namespace of its own.
fn mounted(options: &str, after: &str) -> Elasticd {
    let elasticd = elasticd(&format!("{FILE}{LIST}"));
    let out = elasticd.path("out");
    fs::create_dir(&out).expect("a directory");
    let script = format!(
        "mount -t tmpfs -o {options} elasticd-test {0} && cd {0} && {{ {after}; }} && exec \"$@\"",
        out.display()
    );
    elasticd.under(&["unshare", "--mount", "sh", "-c", &script, "sh"]).start()
}

#[test]
fn a_full_or_read_only_directory_keeps_what_is_there() {
    for (options, after, expected) in [
        (
            "size=64k",
            "printf old > list; head -c 60000 /dev/zero > filler; cat /dev/zero > filler2 2>/dev/null || true",
            "free some space",
        ),
        ("size=64k", "printf old > list; mount -o remount,ro .", "mount it writable"),
    ] {
        let mut elasticd = mounted(options, after);
        let status = elasticd.await_status("failed", |status| status["frontends"]["list"]["phase"] == "failed");
        let error = status["frontends"]["list"]["error"].as_str().expect("an error");
        assert!(error.contains("out/list") && error.contains(expected), "{error}");
        let inside = format!("/proc/{}/root{}", elasticd.pid(), elasticd.path("out").display());
        assert_eq!(fs::read_to_string(format!("{inside}/list")).expect("there"), "old");
        assert!(elasticd.is_running());
    }
}

#[test]
fn a_path_that_cannot_be_renamed_over_is_refused_at_start() {
    let elasticd = elasticd(&format!("{FILE}{LIST}"));
    let out = elasticd.path("out");
    fs::create_dir_all(&out).expect("a directory");
    fs::write(out.join("list"), "old").expect("written");
    let script = format!("mount --bind {0}/list {0}/list && exec \"$@\"", out.display());
    let elasticd = elasticd.under(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    refused(elasticd, 78, &["frontends.list.outputs.0.path: ", "is a mount point", "mount its directory instead"]);
}

/// A process that must not be signalled.
struct Bystander(Child);

impl Bystander {
    fn start() -> Self {
        Self(Command::new("sleep").arg("300").stdout(Stdio::null()).spawn().expect("sleep runs"))
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wrong_pid_file_signals_nobody() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let nginx = Nginx::new().start();
    let mut bystander = Bystander::start();
    let elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    let (workers, master) = (nginx.workers(), nginx.master());
    let pid_file = nginx.path("nginx.pid");
    let right = fs::read_to_string(&pid_file).expect("readable");
    let error = || {
        let status = elasticd.status();
        status["frontends"]["nginx"]["error"].as_str().unwrap_or_default().to_owned()
    };
    let mut both = false;
    for (content, expected) in [
        (bystander.0.id().to_string(), "and not nginx; nothing was signalled"),
        (elasticd.pid().to_string(), "names elasticd itself: the frontend runs in another PID namespace"),
        // Of what PID 1 runs, some machines tell root nothing.
        ("1\n".to_owned(), "PID 1"),
        ("nginx".to_owned(), "not a PID"),
    ] {
        fs::write(&pid_file, &content).expect("written");
        // A change is tried at once, however long the last failure would still be waited out.
        both = !both;
        let told = if both { &backends[..] } else { &backends[1..] };
        elasticd.write("backends.yaml", &entries(told));
        elasticd.await_status("seen", |status| status["services"]["web"]["backends"] == told.len());
        until(expected, || error().contains(expected).then_some(()));
        assert_eq!(nginx.workers(), workers, "{content:?}");
        assert!(!nginx.upstreams().contains(&backends[1].address.to_string()), "nothing is half-applied");
    }
    // What only says that nginx does not run leaves the new file in place for its start.
    elasticd.write("backends.yaml", &entries(&backends));
    for (content, expected) in [(String::new(), "is empty"), (i32::MAX.to_string(), "no such process runs")] {
        fs::write(&pid_file, &content).expect("written");
        elasticd.await_status("not running", |status| status["frontends"]["nginx"]["phase"] == "not_running");
        until(expected, || error().contains(expected).then_some(()));
        assert_eq!(nginx.workers(), workers, "{content:?}");
    }
    fs::remove_file(&pid_file).expect("removed");
    elasticd.await_status("still not running", |status| status["frontends"]["nginx"]["phase"] == "not_running");
    assert!(bystander.0.try_wait().expect("a status").is_none(), "the bystander lives");
    fs::write(&pid_file, right).expect("written");
    let status = elasticd.await_proven("nginx", "web", &["a", "b"]);
    assert_eq!(status["frontends"]["nginx"]["pid"], master);
    assert_eq!(elasticd.hidden(&nginx.conf_d()), Vec::<std::path::PathBuf>::new());
    nginx.await_old_workers_gone();
    nginx.await_answers(&["a", "b"]);
}

#[test]
fn a_socket_path_that_is_taken_is_left_alone() {
    let elasticd = elasticd(&format!("{FILE}{LIST}"));
    let listener = UnixListener::bind(elasticd.path("sock")).expect("bound");
    let mut elasticd = elasticd.start();
    assert_eq!(elasticd.await_exit().code(), Some(1));
    assert!(elasticd.log().contains("another process answers on"), "{}", elasticd.log());
    // A stale one is replaced.
    drop(listener);
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.restart();
    elasticd.await_ready();
    assert_eq!(fs::metadata(elasticd.path("sock")).expect("there").permissions().mode() & 0o777, 0o660);
    assert!(elasticd.stop().success());
    // Anything else is nobody's to remove.
    fs::write(elasticd.path("sock"), "precious").expect("written");
    elasticd.restart();
    assert_eq!(elasticd.await_exit().code(), Some(1));
    assert_eq!(elasticd.read("sock"), "precious");
    let long = format!("[api]\nsocket = '/tmp/{}'\n", "x".repeat(120));
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    elasticd.write("list.tpl", TEMPLATE);
    fs::create_dir(elasticd.path("conf.d")).expect("a directory");
    fs::write(elasticd.path("conf.d/long.toml"), long).expect("written");
    refused(elasticd, 78, &["api.socket: the path has 125 bytes, and a Unix socket's may have 107"]);
}

#[test]
fn a_second_one_on_the_same_state_is_refused() {
    let elasticd = elasticd(&format!("{FILE}{LIST}"));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    let mut first = elasticd.ready();
    let (code, _, error) = first.run(&["--log", "info", "run"]);
    assert_eq!(code, 1);
    assert!(error.contains("another elasticd uses"), "{error}");
    assert!(first.is_running());
}

#[test]
fn a_damaged_file_of_backends_changes_nothing() {
    let elasticd = elasticd(&format!("{FILE}{LIST}"));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    let elasticd = elasticd.ready();
    let good = elasticd.read("backends.yaml");
    let mut said = BTreeSet::new();
    for (content, expected) in [
        ("", "is empty"),
        ("- { id: a, address: 10.0.0.1:80, tags: { Role: w", "invalid YAML"),
        ("- { id: a, address: web.example.com }\n", "elasticd does no DNS"),
        ("- { id: a, address: 10.0.0.1 }\n- { id: a, address: 10.0.0.2 }\n", "the id \"a\""),
    ] {
        elasticd.write("backends.yaml", content);
        let status = elasticd.await_status(expected, |status| {
            status["providers"]["local"]["error"].as_str().is_some_and(|error| error.contains(expected))
        });
        assert_eq!(status["services"]["web"]["backends"], 1, "{status:#}");
        assert_eq!(elasticd.read("out/list"), "a\n");
        said.insert(status["providers"]["local"]["error"].to_string());
    }
    assert_eq!(said.len(), 4);
    elasticd.write("backends.yaml", &good.replace("id: a", "id: z"));
    until("recovered", || (elasticd.read("out/list") == "z\n").then_some(()));
    assert!(elasticd.status()["providers"]["local"]["error"].is_null());
}
