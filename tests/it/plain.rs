//! The presets for whatever reads hosts files, JSON or variables, read back by the real readers.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::backend::{Backend, FILE, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::pools::{rendered, rendered_output};
use crate::harness::{BoundedCommand as _, until};

#[test]
fn the_templates_match_their_golden_files() {
    for (name, golden) in [
        ("hosts", include_str!("golden/hosts")),
        ("json", include_str!("golden/services.json")),
        ("env", include_str!("golden/services.env")),
    ] {
        assert_eq!(rendered_output(name, "output = '/nonexistent/x'\n"), golden, "{name}");
    }
}

/// What a shell command prints, with `DIR` as its working directory.
fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").arg("-euc").arg(script).current_dir(dir).bounded_output();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn glibc_reads_the_hosts() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = rendered_output("hosts", "output = '/nonexistent/x'\nvars.suffix = '.test'\n");
    fs::write(dir.path().join("hosts"), text).expect("written");
    // In a mount namespace of its own, where this file is /etc/hosts.
    let get = |database: &str, name: &str| {
        let script = format!("mount --bind hosts /etc/hosts; getent {database} {name} || true");
        let output =
            Command::new("unshare").args(["--mount", "sh", "-euc", &script]).current_dir(dir.path()).bounded_output();
        assert!(output.status.success(), "this test wants root: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let mut addresses: Vec<_> =
            text.lines().filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    };
    assert_eq!(get("ahosts", "web.test"), ["10.0.0.1", "10.0.0.2"], "without the one of weight 0");
    assert_eq!(get("ahosts", "i-3.web.test"), ["10.0.0.3"], "which has a name all the same");
    assert_eq!(get("ahosts", "six.test"), ["2001:db8::6"]);
    assert_eq!(get("hosts", "drained.test"), Vec::<String>::new());
}

#[test]
fn a_command_runs_after_each_change_of_the_hosts() {
    let backends = ["a", "b"].map(Backend::start);
    let elasticd = Elasticd::knowing(
        &format!(
            "{FILE}[frontends.hosts]\ntype = 'hosts'\noutput = 'DIR/hosts'\nreload = {{ command = ['sh', '-c', 'cp DIR/hosts DIR/copy'] }}\n"
        ),
        &backends[..1],
    ).ready();
    assert_eq!(elasticd.read("copy"), elasticd.read("hosts"));
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_applied("hosts", "web", &["a", "b"]);
    assert_eq!(elasticd.read("copy"), elasticd.read("hosts"));
    assert!(elasticd.read("copy").contains(&format!("{} b.web web\n", backends[1].ip())), "{}", elasticd.read("copy"));
}

#[test]
fn python_reads_the_json_that_the_socket_answers() {
    let backends = ["a", "b"].map(Backend::start);
    let elasticd =
        Elasticd::knowing(&format!("{FILE}[frontends.json]\ntype = 'json'\noutput = 'DIR/out.json'\n"), &backends);
    let elasticd = elasticd.ready();
    elasticd.await_applied("json", "web", &["a", "b"]);
    let script = "python3 -c 'import json; print(json.dumps(json.load(open(\"out.json\"))))'";
    let read: Value = serde_json::from_str(&sh(&elasticd.path(""), script)).expect("JSON");
    let mut answered: Value = serde_json::from_str(&elasticd.get("/v1/services").2).expect("JSON");
    answered.as_object_mut().expect("a map").remove("revision");
    assert_eq!(read, answered);
}

#[test]
fn shells_and_systemd_and_docker_read_the_variables() {
    let text = rendered_output("env", "output = '/nonexistent/x'\n");
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("env"), &text).expect("written");
    let said = sh(dir.path(), ". ./env; printf '%s|%s|%s' \"$BACKENDS_WEB\" \"$BACKENDS_SIX\" \"$BACKENDS_EMPTY\"");
    assert_eq!(said, "10.0.0.1:8080,10.0.0.2:8080|[2001:db8::6]:8080|");
    // Docker takes a line as it is: there must be no quotes in it.
    assert!(!text.contains(['"', '\'', '\\']), "{text}");
    let text = rendered_output("env", "output = '/nonexistent/x'\nvars = { separator = ' ', prefix = 'X_' }\n");
    fs::write(dir.path().join("env"), &text).expect("written");
    assert_eq!(sh(dir.path(), ". ./env; printf %s \"$X_WEB\""), "10.0.0.1:8080 10.0.0.2:8080");
    assert_eq!(systemd(dir.path(), "env", "X_WEB"), "10.0.0.1:8080 10.0.0.2:8080");
}

#[test]
fn two_services_of_one_name_are_refused_before_anything_starts() {
    let config = "[providers.p]\ntype = 'fixed'\ninstances = []\n[services.a-b]\nprovider = 'p'\n[services.'a.b']\nprovider = 'p'\n\
                  [frontends.env]\ntype = 'env'\noutput = 'DIR/env'\n";
    let (code, _, complaints) = Elasticd::new(config).run(&["check"]);
    assert_eq!(code, 78, "{complaints}");
    let expected = "the services \"a-b\" and \"a.b\" would both be BACKENDS_A_B";
    assert!(complaints.contains(expected), "{complaints}");
    let (code, _, complaints) = Elasticd::new(&format!("{config}services = ['a-b']\n")).run(&["check"]);
    assert_eq!(code, 0, "{complaints}");
}

/// An output for each service, by its path.
#[test]
fn a_service_placeholder_in_a_path_makes_a_file_for_each_service() {
    let text = rendered("json", "output = '/nonexistent/{service}.json'\nservices = ['web', 'six']\n");
    let files: Vec<_> = text.lines().filter(|line| line.starts_with("==>")).collect();
    assert_eq!(files, ["==> /nonexistent/web.json <==", "==> /nonexistent/six.json <=="]);
    assert_eq!(text.matches("\"name\": \"web\"").count(), 1);
    let config = format!("{FILE}[frontends.json]\ntype = 'json'\noutput = 'DIR/{{service}}.json'\nservices = []\n");
    let (code, _, complaints) = Elasticd::new(&config).run(&["check"]);
    assert!(
        code == 78 && complaints.contains("frontends.json.services: there are none to stand for {service}"),
        "{complaints}"
    );
}

/// Each value at each kind of place, read by a real shell, and by systemd.
#[test]
fn sh_and_systemd_read_every_hostile_value_back() {
    const COUNT: usize = 150;
    let strategy =
        proptest::prop_oneof!["[ \\t\\r\\n;{}\"'#\\\\$%()ntr0aé`~*&|<>!-]{0,12}", proptest::prelude::any::<String>()];
    let mut runner = TestRunner::deterministic();
    let mut value = || {
        let value = strategy.new_tree(&mut runner).expect("a value").current();
        // The characters with which elasticd marks values are not theirs to hold.
        value.replace(['\u{FDD0}', '\u{FDD1}', '\u{FDD2}'], "")
    };
    let mut values: Vec<String> = (0..COUNT).map(|_| value()).collect();
    values.extend(["$(touch pwned)", "`touch pwned`", "'; touch pwned; '", "a\\", "~", "x\ny", ""].map(str::to_owned));
    let elasticd = Elasticd::new(&format!(
        "{}[frontends.env]\ntype = 'env'\noutput = 'DIR/out.env'\ntemplate = 'env.tpl'\n",
        FILE.replace("backends.yaml", "backends.json")
    ));
    elasticd.write(
        "env.tpl",
        "{% for s in services %}{% for b in s.backends %}# {{ b.tags.V }}\n\
         A{{ b.port }}={{ b.tags.V }}\nB{{ b.port }}=x{{ b.tags.V }}y\nC{{ b.port }}=\"x{{ b.tags.V }}y\"\n\
         D{{ b.port }}='x{{ b.tags.V }}y'\nE{{ b.port }}='x'{{ b.tags.V }}\n{% endfor %}{% endfor %}",
    );
    let instance = |(i, value): (usize, &String)| json!({ "id": format!("i-{i:03}"), "address": format!("127.0.0.1:{}", 1000 + i), "tags": { "Role": "web", "V": value } });
    let instances: Vec<_> = values.iter().enumerate().map(instance).collect();
    elasticd.write("backends.json", &json!(instances).to_string());
    let elasticd = elasticd.ready();
    elasticd.await_status("proven", |status| status["frontends"]["env"]["phase"] == "written");
    let dir = elasticd.path("");
    let expected: Vec<_> = values
        .iter()
        .flat_map(|value| {
            let value = readable(value);
            [value.clone(), format!("x{value}y"), format!("x{value}y"), format!("x{value}y"), format!("x{value}")]
        })
        .collect();
    let names: Vec<_> =
        (0..values.len()).flat_map(|i| ["A", "B", "C", "D", "E"].map(|place| format!("{place}{}", 1000 + i))).collect();
    let printf: String = names.iter().map(|name| format!("printf '%s\\0' \"${name}\"\n")).collect();
    fs::write(dir.join("print.sh"), format!(". ./out.env\n{printf}")).expect("written");
    let said = sh(&dir, "sh -eu ./print.sh");
    let said: Vec<_> = said.split_terminator('\0').collect();
    for ((name, said), expected) in names.iter().zip(&said).zip(&expected) {
        assert_eq!(said, expected, "{name}");
    }
    assert_eq!(said.len(), expected.len());
    assert!(!dir.join("pwned").exists());
    // systemd's reader is slow to ask: some of each kind.
    for (name, expected) in names.iter().zip(&expected).rev().take(60) {
        assert_eq!(systemd(&dir, "out.env", name), *expected, "{name}");
    }
    until("nothing is left behind", || elasticd.hidden(&dir).is_empty().then_some(()));
}

/// What systemd cannot take is written as `%XX`.
fn readable(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        let control = c.is_ascii_control() && c != '\t' && c != '\n';
        if control || u32::from(c) & 0xFFFE == 0xFFFE || ('\u{FDD0}'..='\u{FDEF}').contains(&c) {
            c.to_string().bytes().for_each(|b| out += &format!("%{b:02X}"));
        } else {
            out.push(c);
        }
    }
    out
}

/// What systemd reads of a variable. `systemd-tmpfiles` reads `/etc/os-release` by the same function as a unit's
/// `EnvironmentFile=` is read by (`parse_env_file_internal`), and writes what it finds there as `%B`.
fn systemd(dir: &Path, file: &str, name: &str) -> String {
    let text = fs::read_to_string(dir.join(file)).expect("readable");
    let text = text.replace(&format!("\n{name}="), "\nBUILD_ID=");
    assert_eq!(text.matches("\nBUILD_ID=").count(), 1, "{name}");
    fs::write(dir.join("os-release"), text).expect("written");
    fs::write(dir.join("tmpfiles.conf"), format!("f+ {}/read 0644 - - - %B\n", dir.display())).expect("written");
    let script =
        "rm -f read; mount --bind os-release /etc/os-release; systemd-tmpfiles --create \"$PWD/tmpfiles.conf\"";
    let output = Command::new("unshare").args(["--mount", "sh", "-euc", script]).current_dir(dir).bounded_output();
    assert!(output.status.success(), "this test wants root: {}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(dir.join("read")).unwrap_or_default()
}
