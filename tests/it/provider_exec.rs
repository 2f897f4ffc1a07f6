//! The `exec` provider, with the real program and programs that behave and misbehave.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::elasticd::Elasticd;
use crate::harness::{until, until_or, write_script};

/// One service of what `DIR/list` prints, and a file of it.
const EXEC: &str = "[providers.inventory]\ntype = 'exec'\ncommand = ['DIR/list', 'DIR']\ninterval = '100ms'\n\
                    [services.web]\nprovider = 'inventory'\nport = 80\nguard = { max_drop = '100%' }\n\
                    [frontends.json]\ntype = 'json'\noutput = 'DIR/out.json'\n";

/// An elasticd that runs this script, which sees its directory as `$1`.
fn elasticd(more: &str, script: &str) -> Elasticd {
    let elasticd = Elasticd::new(&EXEC.replace("[services", &format!("{more}\n[services")));
    program(&elasticd, script);
    elasticd
}

/// Replaces the program in one step, as a package does.
fn program(elasticd: &Elasticd, script: &str) {
    let next = elasticd.path("next");
    write_script(&next, script);
    fs::rename(&next, elasticd.path("list")).expect("renamed");
}

fn set(addresses: &[&str]) -> String {
    let entries: Vec<_> = addresses.iter().map(|ip| format!(r#"{{"id": "{ip}", "address": "{ip}"}}"#)).collect();
    format!("echo '[{}]'", entries.join(", "))
}

fn error(status: &Value) -> &str {
    status["providers"]["inventory"]["error"].as_str().unwrap_or_default()
}

/// Waits until the provider's error holds these words.
fn await_error(elasticd: &Elasticd, words: &str) {
    elasticd.await_status(words, |status| error(status).contains(words));
}

/// Whether a process has ended, reaped or not.
fn ended(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    !stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// The PID that a program writes into a file.
fn pid(elasticd: &Elasticd, name: &str) -> String {
    until("a PID", || fs::read_to_string(elasticd.path(name)).ok().filter(|text| text.ends_with('\n')))
}

#[test]
fn the_output_of_a_program_is_served_and_kept_while_it_fails() {
    let elasticd = elasticd("", &set(&["10.0.0.1", "10.0.0.2"])).ready();
    elasticd.await_applied("json", "web", &["10.0.0.1", "10.0.0.2"]);
    let (served, revision) = (elasticd.read("out.json"), elasticd.status()["revision"].clone());
    for (script, expected) in [
        ("echo no quota >&2; exit 3", "/list` failed (exit status: 3), saying: no quota; run it by hand"),
        ("true", "is empty, which is not the same as an empty set"),
        ("echo '[{\"id\": \"a\", \"address\": \"10.0.0.1\"}'", "invalid JSON: EOF"),
        ("echo '[{\"address\": \"web-1\"}]'", "entry 0: the address \"web-1\" is not an IP address"),
        ("echo '[{\"id\": \"a\"}, {\"id\": \"a\"}]'", "entry 1: the id \"a\" is that of entry 0 too"),
        ("head -c 100000 /dev/urandom", "the output of `"),
        ("kill -SEGV $$", "(signal: 11"),
    ] {
        program(&elasticd, script);
        await_error(&elasticd, expected);
        assert_eq!(elasticd.read("out.json"), served, "{script}");
        assert_eq!(elasticd.status()["revision"], revision, "{script}");
    }
    program(&elasticd, &set(&["10.0.0.3"]));
    elasticd.await_applied("json", "web", &["10.0.0.3"]);
    elasticd.await_status("no error", |status| error(status).is_empty());
}

#[test]
fn a_program_sees_only_its_arguments_and_its_environment() {
    let script = "[ \"$1\" = \"${0%/list}\" ] && [ \"$PLACE $TOKEN\" = 'a b' ] && [ -z \"$HIDDEN\" ] && [ ! -t 0 ] && \
                  [ \"$(cat)\" = '' ] && echo '[{\"id\": \"seen\", \"address\": \"10.0.0.1\"}]'";
    let elasticd = elasticd("env = { PLACE = 'a' }\npass_env = ['TOKEN']", script);
    let elasticd = elasticd.env("TOKEN", "b").env("HIDDEN", "c").ready();
    elasticd.await_applied("json", "web", &["seen"]);
}

/// A program that, like what it starts, does not care for SIGTERM, and hangs from the second run on.
fn hangs_later() -> String {
    let list = set(&["10.0.0.1"]);
    format!(
        "if [ ! -e $1/hang ]; then {list}; exit; fi\n\
         trap '' TERM; sh -c 'sleep 1000 & echo $! > '$1'/grandchild; wait' & echo $$ > $1/child; wait; sleep 1000"
    )
}

#[test]
fn a_program_that_hangs_is_ended_with_all_it_started_and_the_set_stays() {
    let elasticd = elasticd("timeout = '2s'", &hangs_later()).ready();
    elasticd.write("hang", "");
    let pids = ["child", "grandchild"].map(|name| pid(&elasticd, name));
    await_error(&elasticd, "did not end in time, after 0 bytes of output and said nothing; it was ended");
    for pid in &pids {
        until_or(|| format!("process {pid} ends"), || ended(pid).then_some(()));
    }
    elasticd.await_applied("json", "web", &["10.0.0.1"]);
    fs::remove_file(elasticd.path("hang")).expect("removed");
    elasticd.await_status("no error", |status| error(status).is_empty());
}

#[test]
fn a_running_program_ends_with_elasticd() {
    let mut elasticd = elasticd("", &hangs_later()).ready();
    elasticd.write("hang", "");
    let pids = ["child", "grandchild"].map(|name| pid(&elasticd, name));
    assert!(pids.iter().all(|pid| !ended(pid)), "it hangs");
    assert!(elasticd.stop().success());
    assert!(pids.iter().all(|pid| ended(pid)), "elasticd does not end before them");
}

#[test]
fn a_running_program_ends_with_its_provider() {
    let elasticd = elasticd("", &hangs_later()).ready();
    elasticd.write("hang", "");
    let pids = ["child", "grandchild"].map(|name| pid(&elasticd, name));
    elasticd.configure(&EXEC.replace("'DIR/list', 'DIR'", "'/bin/echo', '[]'"));
    elasticd.signal(nix::sys::signal::Signal::SIGHUP);
    for pid in &pids {
        until_or(|| format!("process {pid} ends"), || ended(pid).then_some(()));
    }
}

#[test]
fn endless_output_is_bounded_and_ends_the_program() {
    let elasticd = elasticd("max_bytes = 1000", &set(&["10.0.0.1"])).ready();
    program(&elasticd, "echo $$ > $1/pid; exec yes");
    await_error(&elasticd, "printed more than 1000 bytes; it was ended: make it print less, or raise the provider's");
    program(&elasticd, "yes error >&2 & sleep 0.2; kill $!; exit 5");
    await_error(&elasticd, "failed (exit status: 5), saying: ");
    let shown = error(&elasticd.status()).len();
    assert!(shown < 2000, "{shown} bytes of an endless error");
    until("the flood ends", || ended(&pid(&elasticd, "pid")).then_some(()));
    elasticd.await_applied("json", "web", &["10.0.0.1"]);
}

#[test]
fn a_wrong_configuration_names_its_keys() {
    let wrong = EXEC.replace("'DIR/list', 'DIR'", "'list'").replace("[services", "max_bytes = 0\nx = 1\n[services");
    let (code, _, said) = Elasticd::new(&wrong).run(&["check"]);
    assert_eq!(code, 78, "{said}");
    for expected in ["x: unknown key", "command: \"list\" is not an absolute path", "max_bytes: 0B is not between"] {
        assert!(said.contains(&format!("providers.inventory.{expected}")), "{expected}: {said}");
    }
}
