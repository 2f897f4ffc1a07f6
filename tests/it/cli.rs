//! The command line: what is printed, and the exit codes that the README promises.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::elasticd::Elasticd;
use crate::harness::{BoundedCommand as _, await_end, until};

const CONFIG: &str = "[providers.local]\ntype = 'fixed'\n\
    instances = [{ id = 'a', address = '10.0.0.1:80' }, { id = 'b', address = '[2001:db8::2]:81' }]\n\
    [services.web]\nprovider = 'local'\n[services.six]\nprovider = 'local'\naddress = 'ipv6'\n\
    [frontends.list]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/list'\ntemplate = 'list.tpl'\n\
    reload = { command = ['sh', '-c', 'echo reloaded >> DIR/reloads'] }\n";

fn elasticd() -> Elasticd {
    let elasticd = Elasticd::new(CONFIG);
    elasticd.write(
        "list.tpl",
        "{% for s in services %}{% for b in s.backends %}{{ s.name }} {{ b | hostport }}\n{% endfor %}{% endfor %}",
    );
    elasticd
}

#[test]
fn check_render_and_diff_write_nothing() {
    let elasticd = elasticd();
    let (code, said, _) = elasticd.run(&["check"]);
    assert_eq!(code, 0);
    assert!(said.ends_with("valid: 1 provider, 2 services, 1 frontend\n"), "{said}");
    let list = elasticd.path("list");
    let wanted = "six [2001:db8::2]:81\nweb 10.0.0.1:80\n";
    let (code, said, _) = elasticd.run(&["render"]);
    assert_eq!((code, said), (0, format!("==> {} <==\n{wanted}\n", list.display())));
    let (code, said, _) = elasticd.run(&["render", "--diff"]);
    assert_eq!(code, 1);
    assert!(said.contains("--- /dev/null") && said.contains("+web 10.0.0.1:80"), "{said}");
    assert!(!list.exists() && !elasticd.path("state").exists(), "nothing was written");
    fs::write(&list, wanted).expect("written");
    assert_eq!(elasticd.run(&["render", "--diff", "list"]), (0, String::new(), String::new()));
    let (code, _, error) = elasticd.run(&["render", "none"]);
    assert_eq!((code, error.as_str()), (1, "elasticd: there is no such frontend; the frontends are list\n"));
}

#[test]
fn get_and_status_ask_the_socket_of_the_configuration() {
    let mut elasticd = elasticd();
    let (code, _, error) = elasticd.run(&["status"]);
    assert_eq!(code, 69, "{error}");
    assert!(error.contains("is elasticd running?"), "{error}");
    elasticd.restart();
    elasticd.await_ready();
    assert_eq!(elasticd.run(&["get", "web"]), (0, "10.0.0.1:80\n".to_owned(), String::new()));
    let (code, said, _) = elasticd.run(&["get", "web", "--json"]);
    assert!(code == 0 && said.contains("\"revision\":1"), "{said}");
    let (code, _, error) = elasticd.run(&["get", "none"]);
    assert!(code == 1 && error.contains("six, web"), "{error}");
    let (code, said, _) = elasticd.run(&["status"]);
    assert!(code == 0 && said.contains(": ready, revision 1"), "{said}");
    // Reloaded by a command, once, and not again by a restart.
    assert_eq!(elasticd.read("reloads"), "reloaded\n");
    assert!(elasticd.stop().success());
    elasticd.restart();
    elasticd.await_ready();
    assert_eq!(elasticd.read("reloads"), "reloaded\n");
}

#[test]
fn a_reload_command_that_fails_is_undone_and_made_again() {
    let elasticd = Elasticd::new(
        &CONFIG.replace("echo reloaded >> DIR/reloads", "test -e DIR/willing || { echo not yet >&2; exit 3; }"),
    );
    elasticd.write("list.tpl", "{{ services.0.name }}");
    let elasticd = elasticd.start();
    let status = elasticd.await_status("failed", |status| status["frontends"]["list"]["phase"] == "failed");
    let error = status["frontends"]["list"]["error"].as_str().expect("an error");
    assert!(error.contains("exit status: 3") && error.ends_with("not yet"), "{error}");
    assert!(!elasticd.path("list").exists(), "there was none before");
    elasticd.write("willing", "");
    elasticd.await_status("proven", |status| status["frontends"]["list"]["phase"] == "reloaded");
    assert_eq!(elasticd.read("list"), "six");
}

#[test]
fn a_value_of_the_environment_wins() {
    let elasticd = elasticd().env("ELASTICD__SERVICES__WEB__PORT", "8080");
    let (_, said, _) = elasticd.run(&["render"]);
    assert!(said.contains("web 10.0.0.1:8080"), "{said}");
    let elasticd = elasticd.env("ELASTICD__SERVICES__WEB__PROT", "1");
    let (code, _, error) = elasticd.run(&["check"]);
    assert!(code == 78 && error.contains("ELASTICD__SERVICES__WEB__PROT: services.web.prot: unknown key"), "{error}");
}

/// What Kubernetes sets in every pod beside a Service named `elasticd` with the port 9464, named `metrics`.
const KUBERNETES: &[(&str, &str)] = &[
    ("ELASTICD_SERVICE_HOST", "10.96.12.7"),
    ("ELASTICD_SERVICE_PORT", "9464"),
    ("ELASTICD_SERVICE_PORT_METRICS", "9464"),
    ("ELASTICD_PORT", "tcp://10.96.12.7:9464"),
    ("ELASTICD_PORT_9464_TCP", "tcp://10.96.12.7:9464"),
    ("ELASTICD_PORT_9464_TCP_PROTO", "tcp"),
    ("ELASTICD_PORT_9464_TCP_PORT", "9464"),
    ("ELASTICD_PORT_9464_TCP_ADDR", "10.96.12.7"),
];

#[test]
fn variables_of_a_kubernetes_service_are_ignored() {
    let elasticd = KUBERNETES.iter().fold(elasticd(), |elasticd, (name, value)| elasticd.env(name, value));
    let (code, said, error) = elasticd.run(&["check"]);
    assert!(code == 0 && error.is_empty(), "{said}{error}");
    let elasticd = elasticd.start();
    elasticd.await_ready();
    assert!(!elasticd.log().contains("environment variable"), "{}", elasticd.log());
}

#[test]
fn a_variable_in_its_former_spelling_is_reported_with_the_new_one() {
    let elasticd = elasticd().env("ELASTICD_SERVICES__WEB__PORT", "8080").env("ELASTICD_ZONE", "eu-west-1a");
    let (code, _, error) = elasticd.run(&["check"]);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("ELASTICD_SERVICES__WEB__PORT is ignored: write ELASTICD__SERVICES__WEB__PORT"), "{error}");
    assert!(error.contains("ELASTICD_ZONE is ignored: write ELASTICD__ZONE"), "{error}");
    let (_, said, _) = elasticd.run(&["render"]);
    assert!(!said.contains("10.0.0.1:8080"), "{said}");
    let elasticd = elasticd.start();
    elasticd.await_ready();
    let log = elasticd.log();
    assert!(log.contains("ELASTICD_ZONE") && log.contains("ELASTICD__ZONE"), "{log}");
}

#[test]
fn pages_and_completions_are_printed() {
    let elasticd = elasticd();
    for (arguments, expected) in [
        (&["man"][..], ".TH elasticd 1"),
        (&["man", "render"], "\\-\\-diff"),
        (&["completions", "bash"], "complete -F"),
        (&["completions", "fish"], "complete -c elasticd"),
        (&["--help"], "Exit codes:"),
    ] {
        let (code, said, error) = elasticd.run(arguments);
        assert!(code == 0 && said.contains(expected), "{arguments:?}: {said}{error}");
    }
    assert_eq!(elasticd.run(&["man", "none"]).0, 1);
    assert_eq!(elasticd.run(&["none"]).0, 2);
}

#[test]
fn a_service_manager_that_does_not_read_blocks_nothing() {
    let config = CONFIG.replace("type = 'fixed'", "type = 'file'\npath = 'DIR/backends.yaml'");
    let config = config.replace(
        "instances = [{ id = 'a', address = '10.0.0.1:80' }, { id = 'b', address = '[2001:db8::2]:81' }]\n",
        "",
    );
    let config = config.replace("[services.six]\nprovider = 'local'\naddress = 'ipv6'\n", "");
    let elasticd = Elasticd::new(&config);
    elasticd.write("list.tpl", "x");
    elasticd.write("backends.yaml", "[{ address: \"10.0.0.1:80\" }]");
    // Nothing reads what is told from here on: the kernel keeps some datagrams (net.unix.max_dgram_qlen) and no more.
    let mut elasticd = elasticd.start();
    elasticd.await_status("known", |status| status["revision"] == 1);
    for revision in 2..40 {
        elasticd.write("backends.yaml", &format!("[{{ address: \"10.0.0.{revision}:80\" }}]"));
        elasticd.await_status("seen", |status| status["revision"] == revision);
    }
    assert!(elasticd.stop().success());
}

/// The living and the dead whose parent is this process.
fn children(parent: i32) -> Vec<(i32, String)> {
    let stat = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let entries =
        fs::read_dir("/proc").expect("readable").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let child = |pid: i32| {
        let stat = stat(pid)?;
        let (name, rest) = stat.split_once(") ")?;
        (rest.split(' ').nth(1)?.parse() == Ok(parent)).then(|| (pid, name.to_owned()))
    };
    entries.filter_map(child).collect()
}

#[test]
fn as_pid_1_it_reaps_orphans() {
    // The command ends at once, and leaves a process behind.
    let config = CONFIG.replace("echo reloaded >> DIR/reloads", "sleep 1 & exit 0");
    let elasticd = Elasticd::new(&config).under(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    elasticd.write("list.tpl", "x");
    let elasticd = elasticd.ready();
    let (pid, _) = children(elasticd.pid().as_raw()).into_iter().next().expect("unshare started elasticd");
    let orphans = children(pid);
    assert!(orphans.iter().any(|(_, name)| name.ends_with("(sleep")), "the orphan was handed to PID 1: {orphans:?}");
    until("nobody is left, dead or alive", || children(pid).is_empty().then_some(()));
    assert_eq!(elasticd.get("/healthz").0, 200);
}

/// The demo, and its directory.
struct Demo(tempfile::TempDir, std::process::Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

#[test]
fn the_demo_is_the_real_thing() {
    let dir = tempfile::Builder::new().prefix("ed").tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_elasticd"));
    command.arg("demo").current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let demo = command.spawn().expect("elasticd runs");
    let mut demo = Demo(dir, demo);
    let at = |name: &str| demo.0.path().join("elasticd-demo").join(name);
    let upstreams = || fs::read_to_string(at("upstreams.conf")).unwrap_or_default();
    until("rendered", || upstreams().contains("server 10.0.0.2:9090 ").then_some(()));
    let curl = || {
        let output = Command::new("curl")
            .args(["-sS", "--unix-socket"])
            .arg(at("elasticd.sock"))
            .arg("http://localhost/v1/services/web")
            .bounded_output();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(curl().contains("\"id\":\"web-2\""), "{}", curl());
    // An editor's change is seen at once, on both sides.
    let edited = fs::read_to_string(at("backends.yaml")).expect("readable").replace("10.0.0.2", "10.0.0.77");
    fs::write(at("backends.yaml"), &edited).expect("written");
    until("rendered anew", || upstreams().contains("server 10.0.0.77:9090 ").then_some(()));
    assert!(curl().contains("10.0.0.77"), "{}", curl());
    kill(Pid::from_raw(demo.1.id().cast_signed()), Signal::SIGINT).expect("it runs");
    assert!(await_end(&mut demo.1).success());
    assert_eq!(fs::read_to_string(at("backends.yaml")).expect("kept"), edited);
}

#[test]
fn the_units_are_ones_that_systemd_takes() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    // The verifier insists on the programs' being there: it is shown the one just built.
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["elasticd.service", "elasticd@.service"] {
        let unit = fs::read_to_string(units.join(name)).expect("readable");
        let shown = unit.replace("/usr/bin/elasticd", env!("CARGO_BIN_EXE_elasticd"));
        fs::write(dir.path().join(name), shown).expect("written");
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(dir.path().join("elasticd.service"))
        .arg(dir.path().join("elasticd@.service"))
        .bounded_output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// `systemd-analyze` sums up, from 0 to 10, what a service could do: below 2.0 there are few.
#[test]
fn the_units_leave_elasticd_little_to_do_harm_with() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for name in ["elasticd.service", "elasticd@.service"] {
        let output = Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=yes", "--threshold=19"])
            .arg(units.join(name))
            .bounded_output();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("Overall exposure level"), "{said}");
    }
}

#[test]
fn every_frontend_has_a_configuration_to_start_from_that_passes_the_check() {
    let elasticd = elasticd();
    let (code, list, _) = elasticd.run(&["frontends"]);
    assert_eq!(code, 0);
    let names: Vec<_> = list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let known = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("templates")).expect("readable").count();
    assert_eq!(names.len(), known, "{list}");
    for name in names {
        let (code, defaults, _) = elasticd.run(&["frontends", name]);
        assert!(code == 0 && defaults.contains("description = "), "{name}: {defaults}");
        let (code, starter, error) = elasticd.run(&["init", name]);
        assert_eq!((code, error.as_str()), (0, ""), "{name}");
        fs::write(elasticd.path("elasticd.toml"), &starter).expect("written");
        let (code, said, error) = elasticd.run(&["check"]);
        assert!(code == 0 && said.contains("1 provider, 1 service, 1 frontend"), "{name}: {error}\n{starter}");
    }
    let (code, _, error) = elasticd.run(&["init", "iis"]);
    assert!(code == 1 && error.contains("there is no frontend \"iis\"; there are "), "{error}");
}
