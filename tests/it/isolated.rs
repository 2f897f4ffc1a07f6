//! The check in a mount namespace of its own: what is refused was never in place for anybody else, and where there is no
//! such namespace to be had, the check judges what is in place, and it is put back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::backend::{Backend, FILE, entries, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::{Nginx, inode};
use crate::harness::until;

/// Before it judges, the check copies what it sees at these paths to `DIR/seen.NAME`, and then waits as long as
/// `DIR/hold` is there.
fn recording(nginx: &Nginx, outputs: &[&str]) -> String {
    let copies: String = outputs
        .iter()
        .map(|name| {
            format!(
                "cp {} DIR/seen.{name}.new && mv DIR/seen.{name}.new DIR/seen.{name}; ",
                nginx.conf_d().join(name).display()
            )
        })
        .collect();
    let nginx = nginx.path("nginx.conf");
    format!(
        "check = ['sh', '-c', '{copies}while test -e DIR/hold; do sleep 0.02; done; exec nginx -t -q -c {}']\n\
         isolate_check = true\n",
        nginx.display()
    )
}

fn elasticd(nginx: &Nginx, more: &str, backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(&format!("{FILE}{}{more}", nginx.frontend()), backends)
}

fn await_failed(elasticd: &Elasticd) -> String {
    let status = elasticd.await_status("failed", |status| status["frontends"]["nginx"]["phase"] == "failed");
    status["frontends"]["nginx"]["error"].as_str().expect("an error").to_owned()
}

/// Reads a path again and again, and collects every content that it has.
struct Watcher {
    stopped: Arc<AtomicBool>,
    watching: thread::JoinHandle<Vec<String>>,
}

impl Watcher {
    fn start(path: &Path) -> Self {
        let (stopped, path) = (Arc::new(AtomicBool::new(false)), path.to_owned());
        let stop = Arc::clone(&stopped);
        let watching = thread::spawn(move || {
            let (mut seen, mut last) = (Vec::new(), None);
            while !stop.load(Ordering::Relaxed) {
                // Every swap changes the inode.
                let now = inode(&path);
                if last.replace(now) != Some(now) {
                    seen.push(fs::read_to_string(&path).expect("never absent"));
                }
            }
            seen
        });
        Self { stopped, watching }
    }

    fn stop(self) -> Vec<String> {
        self.stopped.store(true, Ordering::Relaxed);
        self.watching.join().expect("it does not panic")
    }
}

#[test]
fn only_the_check_sees_the_candidate_in_place() {
    let backends = three();
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&nginx, &recording(&nginx, &["elasticd.conf"]), &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    let (before, live) = (nginx.upstreams(), nginx.conf_d().join("elasticd.conf"));
    let was = inode(&live);
    fs::remove_file(elasticd.path("seen.elasticd.conf")).expect("the first one");
    elasticd.write("hold", "");
    elasticd.write("backends.yaml", &entries(&backends));
    let seen = || fs::read_to_string(elasticd.path("seen.elasticd.conf")).ok();
    let inside = until("the check is under way", seen);
    assert_eq!((nginx.upstreams(), inode(&live)), (before.clone(), was), "the old file is still in place");
    assert!(backends.iter().all(|b| inside.contains(&b.address.to_string())), "the new one inside: {inside}");
    // Nor is anything mounted there that others could see.
    let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
    assert!(!mounts.contains(&nginx.conf_d().display().to_string()), "{mounts}");
    fs::remove_file(elasticd.path("hold")).expect("held until now");
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    assert_eq!(nginx.upstreams(), inside);
    nginx.await_answers(&["a", "b", "c"]);
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", elasticd.pid())).expect("readable");
    assert!(!mounts.contains(&nginx.conf_d().display().to_string()), "nothing is left mounted: {mounts}");
}

#[test]
fn a_refused_candidate_never_stands_in_place() {
    let backends = three();
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&nginx, "", &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    let before = nginx.upstreams();
    let watcher = Watcher::start(&nginx.conf_d().join("elasticd.conf"));
    fs::write(nginx.conf_d().join("broken.conf"), "no such directive;\n").expect("written");
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_status("failing", |status| status["frontends"]["nginx"]["failures"].as_u64() >= Some(3));
    let error = await_failed(&elasticd);
    assert!(error.contains("was broken already") && error.contains("unknown directive"), "{error}");
    assert_eq!(error.matches("unknown directive").count(), 1, "nginx's own words, once: {error}");
    assert_eq!(watcher.stop(), [before], "one file stood there all the time");
    assert_eq!(elasticd.hidden(&nginx.conf_d()), Vec::<PathBuf>::new(), "the candidate is gone");
}

#[test]
fn a_link_in_the_outputs_place_is_replaced_and_covers_nothing_for_the_check() {
    let backends = three();
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&nginx, "", &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    let (live, of_nginx) = (nginx.conf_d().join("elasticd.conf"), nginx.path("nginx.conf"));
    let before = fs::read_to_string(&of_nginx).expect("readable");
    fs::remove_file(&live).expect("written");
    std::os::unix::fs::symlink(&of_nginx, &live).expect("made");
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    nginx.await_answers(&["a", "b", "c"]);
    assert!(fs::symlink_metadata(&live).expect("written").is_file());
    assert_eq!(fs::read_to_string(&of_nginx).expect("readable"), before);
}

#[test]
fn without_the_privilege_it_is_checked_in_place_and_put_back() {
    let backends = three();
    for wrapper in [
        &["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"][..],
        &["capsh", "--drop=cap_sys_admin", "--shell=/usr/bin/env", "--"][..],
    ] {
        let nginx = Nginx::new().start();
        let elasticd = elasticd(&nginx, &recording(&nginx, &["elasticd.conf"]), &backends[..1]).under(wrapper).ready();
        elasticd.await_proven("nginx", "web", &["a"]);
        nginx.await_answers(&["a"]);
        let before = nginx.upstreams();
        let watcher = Watcher::start(&nginx.conf_d().join("elasticd.conf"));
        fs::write(nginx.conf_d().join("broken.conf"), "no such directive;\n").expect("written");
        elasticd.write("backends.yaml", &entries(&backends[..2]));
        let error = await_failed(&elasticd);
        assert!(error.contains("was broken already") && error.contains("unknown directive"), "{error}");
        assert!(!error.contains("namespace"), "how it was judged is no concern here: {error}");
        assert_eq!(nginx.upstreams(), before, "put back");
        let seen = watcher.stop();
        assert!(seen.len() > 1, "it did stand there for the check, so this test tries what it should: {seen:?}");
        fs::remove_file(nginx.conf_d().join("broken.conf")).expect("removed");
        elasticd.await_proven("nginx", "web", &["a", "b"]);
        nginx.await_answers(&["a", "b"]);
    }
}

#[test]
fn as_another_user_it_is_checked_in_place() {
    const NOBODY: u32 = 65534;
    let backends = three();
    let directory = tempfile::Builder::new().prefix("is").tempdir().expect("a directory");
    let out = directory.path().join("out");
    fs::create_dir(&out).expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let list = "[frontends.list]\ntype = 'custom'\nescape = 'none'\ntemplate = 'list.tpl'\nsettle = '20ms'\n";
    let config = format!(
        "{FILE}{list}output = '{0}/list'\ncheck = ['grep', '-q', 'ok', '{0}/list']\nisolate_check = true\n",
        out.display()
    );
    let elasticd = Elasticd::new(&config).under(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    for path in [out.as_path(), &elasticd.path(".")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("we are root");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    fs::set_permissions(elasticd.path("notify"), fs::Permissions::from_mode(0o777)).expect("ours");
    elasticd.write(
        "list.tpl",
        "{% for s in services %}{% for b in s.backends %}{{ b.id }} {% if b.id | ne: \"b\" %}ok{% endif %}\n{% endfor %}{% endfor %}",
    );
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    let elasticd = elasticd.ready();
    let proven = |status: &serde_json::Value| status["frontends"]["list"]["phase"] == "written";
    elasticd.await_status("proven", proven);
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    elasticd.await_status("failed", |status| status["frontends"]["list"]["phase"] == "failed");
    assert_eq!(fs::read_to_string(out.join("list")).expect("there"), "a ok\n");
    elasticd.write("backends.yaml", &entries(&backends[2..]));
    elasticd.await_status("proven", proven);
    assert_eq!(fs::read_to_string(out.join("list")).expect("there"), "c ok\n");
}

#[test]
fn several_outputs_are_seen_together() {
    let backends = three();
    let nginx = Nginx::new().start();
    let at = nginx.conf_d().display().to_string();
    let frontend = nginx.frontend().replace(&format!("output = '{at}/elasticd.conf'\n"), "");
    let more = format!(
        "{}[[frontends.nginx.outputs]]\npath = '{at}/elasticd.conf'\ntemplate = 'nginx/upstreams.conf'\n\
         [[frontends.nginx.outputs]]\npath = '{at}/map.conf'\ntemplate = 'map.conf'\n\
         [[frontends.nginx.outputs]]\npath = '{at}/same.conf'\ntemplate = 'same.conf'\n",
        recording(&nginx, &["elasticd.conf", "map.conf", "same.conf"]).replace("cp ", "cp -p ")
    );
    let elasticd = Elasticd::new(&format!("{FILE}{frontend}{more}"));
    elasticd.write(
        "map.conf",
        "map $uri $known {\n{%- for s in services %}{% for b in s.backends %}\n{{ b.id }} yes;{% endfor %}{% endfor %}\n}\n",
    );
    elasticd.write("same.conf", "# {{ services | length }}\n");
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    let elasticd = elasticd.ready();
    nginx.await_answers(&["a"]);
    let outside = || {
        ["elasticd.conf", "map.conf", "same.conf"]
            .map(|name| fs::read_to_string(nginx.conf_d().join(name)).expect("there"))
    };
    let before = outside();
    fs::remove_file(elasticd.path("seen.same.conf")).expect("the first one");
    elasticd.write("hold", "");
    elasticd.write("backends.yaml", &entries(&backends));
    until("the check is under way", || elasticd.path("seen.same.conf").exists().then_some(()));
    assert_eq!(outside(), before);
    let seen = ["seen.elasticd.conf", "seen.map.conf", "seen.same.conf"].map(|name| elasticd.read(name));
    fs::remove_file(elasticd.path("hold")).expect("held until now");
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    assert_eq!(outside(), seen);
    assert!(seen[1].contains("c yes;") && seen[2] == before[2], "{seen:?}");
}

#[test]
fn a_check_that_is_missing_or_hangs_is_reported() {
    let backends = three();
    for (check, expected) in [
        ("['/nonexistent/tool', '-t']", "cannot run `/nonexistent/tool`: No such file or directory"),
        (
            "['sh', '-c', 'echo busy; exec sleep 300']",
            "`sh -c echo busy; exec sleep 300` did not end within 1s and was killed; it printed: busy",
        ),
        // What it says and how it ends is its own, whatever the status.
        ("['sh', '-c', 'echo my own words; exit 121']", "my own words"),
    ] {
        let nginx = Nginx::new().start();
        let frontend = nginx.frontend();
        fs::write(nginx.conf_d().join("elasticd.conf"), "# none\n").expect("written");
        let more = format!("check = {check}\ncheck_timeout = '1s'\nisolate_check = true\n");
        let elasticd = Elasticd::knowing(&format!("{FILE}{frontend}{more}"), &backends);
        let watcher = Watcher::start(&nginx.conf_d().join("elasticd.conf"));
        let elasticd = elasticd.start();
        let error = await_failed(&elasticd);
        assert!(error.contains(expected), "{error}");
        assert_eq!(watcher.stop(), ["# none\n"], "{check}: never in place");
    }
}
