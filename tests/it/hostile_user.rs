//! A local user without rights, who plants what he likes where he may write: elasticd, as root, neither signals, writes,
//! reads nor answers what it should not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::backend::{Backend, FILE};
use crate::harness::elasticd::Elasticd;
use crate::harness::http::{Reply, Server};
use crate::harness::{BoundedCommand as _, until_or};

const LIST: &str = "[frontends.list]\ntype = 'json'\noutput = 'DIR/out/list.json'\nsettle = '5ms'\n";

const BACKENDS: &str = "- { id: a, address: \"10.0.0.1:80\", tags: { Role: web } }\n";

/// Runs a script as that user, and returns whether it succeeded and what it said.
fn as_nobody(directory: &Path, script: &str) -> (bool, String) {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-euc", script])
        .current_dir(directory)
        .bounded_output();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn plants(directory: &Path, script: &str) {
    let (planted, said) = as_nobody(directory, script);
    assert!(planted, "{script}: {said}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

/// With an output directory that everybody may write to.
fn open_to_all(bits: u32) -> Elasticd {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}"));
    elasticd.write("backends.yaml", BACKENDS);
    elasticd.write("precious", "precious");
    mode(&elasticd.path("precious"), 0o600);
    mode(&elasticd.path("."), 0o755);
    fs::create_dir(elasticd.path("out")).expect("a directory");
    mode(&elasticd.path("out"), bits);
    elasticd
}

fn assert_unharmed(elasticd: &Elasticd, script: &str, address: &str) {
    let list = fs::symlink_metadata(elasticd.path("out/list.json")).expect("written");
    assert!(list.is_file() && list.nlink() == 1, "{script}: a file of its own");
    assert_eq!((list.uid(), list.permissions().mode() & 0o777), (0, 0o644), "{script}");
    assert!(elasticd.read("out/list.json").contains(address), "{script}");
    let precious = fs::metadata(elasticd.path("precious")).expect("there");
    assert_eq!((elasticd.read("precious").as_str(), precious.permissions().mode() & 0o777), ("precious", 0o600));
    assert!(!elasticd.path("new").exists(), "{script}: nothing is made through a link");
}

#[test]
fn files_planted_in_an_output_directory_before_the_start_are_not_followed() {
    for script in [
        // Where the output is staged and locked.
        "ln -s ../precious .list.json.elasticd; ln -s ../precious .list.json.elasticd.lock",
        "mkfifo .list.json.elasticd .list.json.elasticd.lock",
        "ln -s ../new .list.json.elasticd; ln -s ../new .list.json.elasticd.lock",
        "echo mine > list.json; ln list.json kept; ln list.json .list.json.elasticd; chmod 666 list.json",
        "mkfifo list.json",
    ] {
        for is_elsewhere in [false, true] {
            let elasticd = open_to_all(0o1777);
            // Where elasticd cannot move the new version to its place, as its state is in another file system.
            let elsewhere = tempfile::tempdir_in("/dev/shm").expect("another file system");
            if is_elsewhere {
                std::os::unix::fs::symlink(elsewhere.path(), elasticd.path("state")).expect("linked");
            }
            plants(&elasticd.path("out"), script);
            let elasticd = elasticd.ready();
            elasticd.await_applied("list", "web", &["a"]);
            assert_unharmed(&elasticd, script, "10.0.0.1");
            if elasticd.path("out/kept").exists() {
                assert_eq!(elasticd.read("out/kept"), "mine\n", "the other link is not ours");
            }
        }
    }
    // A link in the output's own place is refused.
    let elasticd = open_to_all(0o1777);
    plants(&elasticd.path("out"), "ln -s ../precious list.json");
    let (code, _, error) = elasticd.run(&["run"]);
    assert!(code == 78 && error.contains("is a symbolic link"), "{code}: {error}");
    assert_eq!(elasticd.read("precious"), "precious");
}

/// Waits until a frontend's failure names its remedy.
fn await_refusal(elasticd: &Elasticd, expected: &str) {
    elasticd.await_status("refused", |status| {
        let list = &status["frontends"]["list"];
        list["phase"] == "failed" && list["error"].as_str().is_some_and(|error| error.contains(expected))
    });
}

fn owner(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), None).expect("we are root");
}

#[test]
fn a_directory_that_others_can_write_is_refused_whenever_it_is_written_to() {
    const NOBODY: u32 = 65534;
    /// What somebody does, how it is repaired, and what elasticd says meanwhile.
    type Spoil<'a> = (&'a dyn Fn(), &'a dyn Fn(), &'a str);
    let elasticd = open_to_all(0o755);
    // Its parent is on the way.
    fs::create_dir(elasticd.path("app")).expect("a directory");
    fs::rename(elasticd.path("out"), elasticd.path("app/out")).expect("moved");
    std::os::unix::fs::symlink("app/out", elasticd.path("out")).expect("linked");
    let elasticd = elasticd.ready();
    elasticd.await_applied("list", "web", &["a"]);
    let [app, out, link] = ["app", "app/out", "out"].map(|name| elasticd.path(name));
    let spoils: [Spoil<'_>; 6] = [
        (
            &|| owner(&app, NOBODY),
            &|| owner(&app, 0),
            "app (owner 65534, mode 0755) can be written by its owner, user 65534",
        ),
        (&|| mode(&app, 0o777), &|| mode(&app, 0o755), "use `chmod o-w "),
        (&|| mode(&out, 0o777), &|| mode(&out, 0o755), "app/out (owner 0, mode 0777) can be written by every user"),
        (&|| owner(&out, NOBODY), &|| owner(&out, 0), "use `chown root "),
        (&|| owner(&link, NOBODY), &|| owner(&link, 0), "out is a symbolic link of user 65534"),
        (
            &|| {
                std::os::unix::fs::chown(&out, None, Some(64_000)).expect("we are root");
                mode(&out, 0o775);
            },
            &|| mode(&out, 0o755),
            "can be written by its group, 64000",
        ),
    ];
    for (n, (spoil, repair, expected)) in (2..).zip(spoils) {
        spoil();
        let before = elasticd.read("app/out/list.json");
        let address = format!("10.0.0.{n}");
        elasticd.write("backends.yaml", &BACKENDS.replace("10.0.0.1", &address));
        await_refusal(&elasticd, expected);
        assert_eq!(elasticd.read("app/out/list.json"), before, "{expected}: not written");
        repair();
        elasticd.await_status("seen", |_| elasticd.get("/v1/services/web?format=text").2.contains(&address));
        elasticd.await_applied("list", "web", &["a"]);
        assert!(elasticd.read("app/out/list.json").contains(&address), "{expected}");
    }
}

#[test]
fn a_user_who_owns_a_directory_above_the_output_cannot_choose_where_root_writes() {
    let elasticd = open_to_all(0o755);
    for name in ["app", "root-only"] {
        fs::create_dir(elasticd.path(name)).expect("a directory");
    }
    fs::rename(elasticd.path("out"), elasticd.path("app/out")).expect("moved");
    let config = elasticd.read("elasticd.toml").replace("/out/list.json", "/app/out/list.json");
    elasticd.write("elasticd.toml", &config);
    let elasticd = elasticd.ready();
    elasticd.await_applied("list", "web", &["a"]);
    owner(&elasticd.path("app"), 65534);
    plants(&elasticd.path("app"), "mv out old; ln -s ../root-only out");
    elasticd.write("backends.yaml", &BACKENDS.replace("10.0.0.1", "10.0.0.2"));
    await_refusal(&elasticd, "app (owner 65534");
    assert_eq!(fs::read_dir(elasticd.path("root-only")).expect("readable").count(), 0);
}

#[test]
fn files_planted_in_a_socket_directory_are_left_alone_and_reported() {
    for (script, expected) in [
        ("ln -s ../precious sock", "a symbolic link is there"),
        ("ln -s ../precious sock.lock", "cannot lock"),
        ("mkfifo sock", "a device or a pipe is there"),
        ("echo mine > sock", "is there"),
        ("echo mine > one; ln one sock", "is there"),
        ("ln -s ../new admin.sock.lock", "cannot lock"),
    ] {
        let elasticd = open_to_all(0o1777);
        let config = elasticd.read("elasticd.toml").replace("/sock'", "/out/sock'");
        elasticd.write("elasticd.toml", &config);
        plants(&elasticd.path("out"), script);
        let (code, _, error) = elasticd.run(&["--log", "info", "run"]);
        assert!(code == 1 && error.contains(expected), "{script}: {code} {error}");
        assert_eq!(elasticd.read("precious"), "precious");
        assert!(!elasticd.path("new").exists(), "{script}");
    }
}

#[test]
fn requests_without_permission_are_refused() {
    let elasticd = open_to_all(0o755).ready();
    for socket in ["sock", "admin.sock"] {
        let ask = format!("curl --silent --show-error --max-time 10 --unix-socket {socket} http://x/v1/services");
        let (answered, said) = as_nobody(&elasticd.path("."), &ask);
        assert!(!answered && !said.contains("10.0.0.1"), "{socket}: {said}");
    }
    // Nor does the state tell, nor the apply records.
    let (read, said) = as_nobody(&elasticd.path("."), "cat state/snapshot.json state/frontends/list.json");
    assert!(!read && !said.contains("10.0.0.1"), "{said}");
}

#[test]
fn files_planted_in_the_state_directory_are_not_trusted() {
    let elasticd = open_to_all(0o755);
    fs::create_dir(elasticd.path("state")).expect("a directory");
    mode(&elasticd.path("state"), 0o1777);
    let backend = json!({ "id": "evil", "address": "10.6.6.6", "port": 80, "zone": null, "weight": 1, "state": "up", "tags": {} });
    let services = json!({ "web": { "revision": 7, "backends": [backend] } });
    let planted = json!({ "version": 3, "snapshot": { "revision": 7, "services": services }, "pools": {} });
    let script = format!(
        "printf %s '{planted}' > json; sum=$(sha256sum < json); printf '\\n%s' \"${{sum%% *}}\" | cat json - > snapshot.json; \
         chmod 644 snapshot.json"
    );
    plants(&elasticd.path("state"), &script);
    // A record that has elasticd put `precious` out of the way, as if it had written it itself.
    let precious = elasticd.path("precious");
    let digest = Command::new("sha256sum").arg(&precious).bounded_output().stdout;
    let digest = String::from_utf8(digest).expect("text").split(' ').next().expect("a digest").to_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("readable").trim().to_owned();
    let swap = json!({ "path": precious, "new": digest, "previous": null });
    let record = json!({ "version": 1, "boot": boot, "proven": null, "step": "swapping", "swaps": [swap] });
    plants(
        &elasticd.path("state"),
        &format!("mkdir frontends; echo '{record}' > frontends/list.json; chmod 777 frontends"),
    );
    elasticd.write("backends.yaml", "damaged");
    let elasticd = elasticd.start();
    elasticd.await_answer();
    elasticd.await_status("polled", |status| !status["providers"]["local"]["error"].is_null());
    assert!(!elasticd.get("/v1/services").2.contains("10.6.6.6"));
    elasticd.write("backends.yaml", BACKENDS);
    elasticd.await_applied("list", "web", &["a"]);
    assert_eq!(elasticd.read("precious"), "precious");
    assert_eq!(elasticd.logged("belongs to user 65534"), 2, "{}", elasticd.log());
}

#[test]
fn a_directory_planted_where_new_versions_wait_is_not_used() {
    let elasticd = open_to_all(0o755);
    fs::create_dir(elasticd.path("state")).expect("a directory");
    mode(&elasticd.path("state"), 0o1777);
    plants(&elasticd.path("state"), "mkdir -p staging/list/new staging/list/previous");
    let (code, _, error) = elasticd.run(&["run"]);
    assert!(code == 1 && error.contains("state/staging (owner 65534, mode 0755); remove it"), "{code}: {error}");
}

#[test]
fn names_cannot_leave_their_directory() {
    let elasticd = open_to_all(0o755);
    for name in ["../x", "..", "a/b", "a\\u0000b", "", ".hidden"] {
        for section in ["services", "frontends", "providers"] {
            let config =
                format!("{FILE}{LIST}[{section}.\"{name}\"]\ntype = 'json'\nprovider = 'local'\noutput = 'DIR/x'\n");
            elasticd.configure(&config);
            let (code, _, error) = elasticd.run(&["check"]);
            assert!(code == 78 && error.contains("is not a name"), "{section}.{name:?}: {code} {error}");
        }
    }
    elasticd.configure(&format!("{FILE}{LIST}"));
    let elasticd = elasticd.ready();
    let body = r#"{"address": "10.0.0.9", "port": 80, "ttl": "1h"}"#;
    for path in [
        "/v1/services/../../x/backends/a",
        "/v1/services/%2e%2e%2f%2e%2e%2fx/backends/a",
        "/v1/services/web%00/backends/a",
        "/v1/services/web/backends/%00",
        "/v1/services/web/backends/",
        "/v1/explain/%00",
    ] {
        let url = format!("http://x{path}");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "-d", body]);
        let output = curl.arg("--unix-socket").arg(elasticd.path("admin.sock")).arg(&url).bounded_output();
        let code = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(code.starts_with('4'), "{path}: {code}");
    }
    assert_eq!(elasticd.get("/v1/services/web?format=text").2, "10.0.0.1:80\n");
}

#[test]
fn secrets_are_never_shown() {
    const SECRETS: [&str; 7] = [
        "canary-key",
        "canary-exec",
        "canary-bearer",
        "canary-header",
        "canary-query",
        "canary-environment",
        "canary-nkey",
    ];
    let server = Server::start(None);
    server.answer(Reply::json("[]"));
    let backends = [Backend::start("a")];
    let config = format!(
        "{FILE}[providers.e]\ntype = 'exec'\ncommand = ['/bin/sh', '-c', 'env > DIR/exec; exit 3']\nenv = {{ TOKEN = '{}' }}\n\
         [providers.h]\ntype = 'http'\nurl = 'http://{}/x?token={}'\nbearer_file = 'DIR/bearer'\nheaders = {{ X-Scope = '{}' }}\n\
         [services.e]\nprovider = 'e'\n[services.h]\nprovider = 'h'\n\
         [frontends.list]\ntype = 'json'\noutput = 'DIR/list.json'\nservices = ['web']\n\
         check = ['sh', '-c', 'env > DIR/check']\nreload = {{ command = ['sh', '-c', 'env > DIR/reload; exit 1'] }}\n",
        SECRETS[1],
        server.address(),
        SECRETS[4],
        SECRETS[3],
    );
    let nats = "[providers.n]\ntype = 'nats'\nurl = 'nats://127.0.0.1:1'\nbucket = 'b'\nfleet = 'f'\nnkey_file = 'DIR/nkey'\n\
                [services.n]\nprovider = 'n'\n";
    let config = if cfg!(feature = "nats") { config + nats } else { config };
    let elasticd = Elasticd::knowing(&config, &backends)
        .env("AWS_SECRET_ACCESS_KEY", SECRETS[0])
        .env("ELASTICD__PROVIDERS__H__HEADERS__X-OTHER", SECRETS[5])
        .env("ELASTICD_LOG", "trace");
    elasticd.write("bearer", SECRETS[2]);
    elasticd.write("nkey", SECRETS[6]);
    let elasticd = elasticd.start();
    let status = elasticd.await_status("all is tried", |status| {
        let providers = &status["providers"];
        status["frontends"]["list"]["phase"] == "failed"
            && !providers["e"]["error"].is_null()
            && !providers["h"]["age_seconds"].is_null()
            && (!cfg!(feature = "nats") || !providers["n"]["error"].is_null())
    });
    // What is wrong with a configuration is said without what it holds.
    let good = elasticd.read("elasticd.toml");
    for wrong in [good.replace("env = {", "env = '{"), good.replace("headers = {", "headers = [")] {
        let refused = elasticd.logged("configuration refused");
        elasticd.write("elasticd.toml", &wrong);
        elasticd.signal(nix::sys::signal::Signal::SIGHUP);
        let is_refused = || (elasticd.logged("configuration refused") > refused).then_some(());
        until_or(|| elasticd.log(), is_refused);
    }
    elasticd.write("elasticd.toml", &good);
    let [exec, check, reload] = ["exec", "check", "reload"].map(|name| elasticd.read(name));
    let mut shown = vec![elasticd.log(), status.to_string(), check, reload, exec.replacen(SECRETS[1], "", 1)];
    shown.extend(["/metrics", "/v1/services", "/v1/explain/a"].map(|path| elasticd.get(path).2));
    shown.extend(["check", "doctor"].map(|command| {
        let (_, out, error) = elasticd.run(&["--log", "trace", command]);
        out + &error
    }));
    for secret in SECRETS {
        for text in &shown {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    assert!(exec.contains(SECRETS[1]), "its own: {exec}");
    assert!(shown[2..5].iter().all(|seen| seen.contains("PATH=")), "the commands ran: {shown:?}");
    let asked = &server.requests()[0];
    for sent in &SECRETS[2..6] {
        assert!(asked.contains(sent), "the server receives {sent}: {asked}");
    }
}

#[test]
fn its_memory_is_in_no_core_dump_and_closed_to_others_of_its_user() {
    // Without confinement there is a dump: that none is there otherwise is elasticd's doing.
    for (confine, is_dumped) in [("auto", false), ("off", true)] {
        let config = format!("confine = '{confine}'\n{FILE}{LIST}");
        let elasticd = Elasticd::new(&config).env("AWS_SECRET_ACCESS_KEY", "canary-key");
        let at = elasticd.path(".").display().to_string();
        let script =
            format!("cd {at}; ulimit -c unlimited; exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"");
        let mut elasticd = elasticd.under(&["sh", "-c", &script, "sh"]);
        for name in [".", "out"] {
            fs::create_dir_all(elasticd.path(name)).expect("a directory");
            std::os::unix::fs::chown(elasticd.path(name), Some(65534), Some(65534)).expect("we are root");
        }
        mode(&elasticd.path("notify"), 0o777);
        elasticd.write("backends.yaml", BACKENDS);
        elasticd = elasticd.ready();
        let pid = elasticd.pid();
        let (read, said) = as_nobody(Path::new("/"), &format!("cat /proc/{pid}/environ; head -c 0 /proc/{pid}/mem"));
        assert_eq!((read, said.contains("canary-key")), (is_dumped, is_dumped), "{confine}: {said}");
        elasticd.signal(nix::sys::signal::Signal::SIGABRT);
        let ended = elasticd.await_exit();
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), is_dumped), "{confine}");
    }
}
