//! Files on disk: nothing of elasticd's lies where an include reads it, a file stays whose it was, and what is nobody's any
//! more is named and removed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use inotify::{Inotify, WatchMask};
use nix::sys::signal::Signal;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::harness::apache::Apache;
use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::caddy::{Caddy, Form, in_own_network};
use crate::harness::elasticd::Elasticd;
use crate::harness::haproxy::Haproxy;
use crate::harness::nginx::{Nginx, inode};
use crate::harness::{BoundedCommand as _, until_or};

const LIST: &str = "[frontends.list]\ntype = 'custom'\nescape = 'none'\ntemplate = 'list.tpl'\noutput = 'DIR/out/list'\n\
                    settle = '5ms'\nmin_reload_gap = '0s'\naudit_interval = '200ms'\nretry_min = '100ms'\nretry_max = '200ms'\n";

const RELOAD: &str = "reload = { command = ['sh', '-c', 'echo >> DIR/reloads'] }\n";

/// Not yet started, with an empty directory for its output.
fn list(more: &str) -> Elasticd {
    let elasticd = Elasticd::new(&format!("{FILE}{LIST}{more}"));
    elasticd.write("list.tpl", "{% for s in services %}{% for b in s.backends %}{{ b.id }} {% endfor %}{% endfor %}");
    elasticd.write("backends.yaml", &entries(&three()[..1]));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

/// Every name that appears in a directory, as the kernel tells of each, however short it is there.
struct Names {
    inotify: Inotify,
    names: BTreeSet<String>,
}

impl Names {
    fn of(directory: &Path) -> Self {
        let inotify = Inotify::init().expect("inotify");
        inotify.watches().add(directory, WatchMask::CREATE | WatchMask::MOVED_TO).expect("watched");
        Self { inotify, names: BTreeSet::new() }
    }

    fn seen(&mut self) -> Vec<&str> {
        let mut buffer = [0; 1 << 16];
        while let Ok(events) = self.inotify.read_events(&mut buffer) {
            self.names.extend(events.filter_map(|event| Some(event.name?.to_string_lossy().into_owned())));
        }
        self.names.iter().map(String::as_str).collect()
    }
}

/// Changes the backends of a frontend that reads all of a directory, again and again, and kills elasticd meanwhile. Each
/// change arrives, and no name but the output's is ever there.
fn read_as_a_whole(
    elasticd: Elasticd,
    frontend: &str,
    output: &Path,
    backends: &[Backend; 3],
    answers: impl Fn(&[&str]),
) {
    let directory = output.parent().expect("a directory");
    let mut names = Names::of(directory);
    let mut elasticd = elasticd.ready();
    elasticd.await_effect(frontend, "web", &ids(&backends[..1]));
    // Another name for each, so that an old version that is read as well is found out.
    elasticd.killed_amid_changes(frontend, backends, (12, 300), directory, |some| answers(&ids(some)));
    assert_eq!(names.seen(), [output.file_name().expect("a name").to_str().expect("text")]);
}

#[test]
fn nginx_that_includes_a_whole_directory_reads_nothing_else() {
    let backends = three();
    let nginx = Nginx::new();
    let main = fs::read_to_string(nginx.path("nginx.conf")).expect("written");
    fs::write(nginx.path("nginx.conf"), main.replace("/conf.d/*.conf", "/conf.d/*")).expect("written");
    let nginx = nginx.start();
    let elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]);
    read_as_a_whole(elasticd, "nginx", &nginx.conf_d().join("elasticd.conf"), &backends, |ids| {
        nginx.await_answers(ids)
    });
}

#[test]
fn apache_that_includes_a_directory_reads_nothing_else() {
    let backends = three();
    let apache = Apache::new();
    let main = fs::read_to_string(apache.path("apache2.conf")).expect("written");
    fs::write(apache.path("apache2.conf"), main.replace("IncludeOptional conf.d/*.conf", "Include conf.d/"))
        .expect("written");
    let apache = apache.start();
    let elasticd = Elasticd::knowing(&format!("{FILE}{}", apache.frontend()), &backends[..1]);
    let output = apache.path("conf.d/elasticd.conf");
    read_as_a_whole(elasticd, "apache", &output, &backends, |ids| apache.await_answers(ids));
}

#[test]
fn caddy_that_imports_a_whole_directory_reads_nothing_else() {
    in_own_network(|| {
        let backends = three();
        let caddy = Caddy::new(Form::Caddyfile);
        let main = fs::read_to_string(caddy.path("Caddyfile")).expect("written");
        caddy.configure(&main.replace("import out/elasticd.caddyfile", "import out/*"));
        let elasticd = Elasticd::knowing(&format!("{FILE}{}", caddy.frontend()), &backends[..1]).ready();
        let caddy = caddy.start();
        drop(elasticd);
        let elasticd = Elasticd::knowing(&format!("{FILE}{}", caddy.frontend()), &backends[..1]);
        let output = caddy.path("out/elasticd.caddyfile");
        read_as_a_whole(elasticd, "caddy", &output, &backends, |ids| caddy.await_answers(ids));
    });
}

#[test]
fn haproxy_that_reads_a_directory_reads_nothing_else() {
    let backends = three();
    let haproxy = Haproxy::new().reading_directory().start();
    // Without the runtime API, so that each change is a reload.
    let section = haproxy.frontend().replace("api = ", "# ") + "api = ''\n";
    let elasticd = Elasticd::knowing(&format!("{FILE}{section}"), &backends[..1]);
    read_as_a_whole(elasticd, "haproxy", &haproxy.output(), &backends, |ids| haproxy.await_answers(ids));
}

/// Where the new version cannot be moved to its place, it has no name until it is complete and checked.
#[test]
fn with_the_state_in_another_file_system_nothing_lies_there_while_a_change_is_checked_and_loaded() {
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("another file system");
    let seen = "ls -A DIR/out >> DIR/seen";
    let more = format!(
        "check = ['sh', '-c', 'test -s {{candidate}} && {seen}']\nreload = {{ command = ['sh', '-c', '{seen}'] }}\n\
         proof = {{ command = ['sh', '-c', '{seen}; test ! -e DIR/refuse'], timeout = '500ms' }}\n"
    );
    let elasticd = list(&more);
    std::os::unix::fs::symlink(elsewhere.path(), elasticd.path("state")).expect("linked");
    let mut elasticd = elasticd.ready();
    let backends = three();
    for some in [&backends[..2], &backends[..], &backends[..1]] {
        elasticd.write("backends.yaml", &entries(some));
        elasticd.await_proven("list", "web", &ids(some));
    }
    elasticd.write("refuse", "");
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_status("refused", |status| status["frontends"]["list"]["failures"].as_u64() >= Some(3));
    until_or(|| elasticd.read("out/list"), || (elasticd.read("out/list") == "a ").then_some(()));
    fs::remove_file(elasticd.path("refuse")).expect("there");
    elasticd.await_proven("list", "web", &["a", "b", "c"]);
    elasticd.kill();
    let seen = elasticd.read("seen");
    assert!(seen.lines().count() > 10 && seen.lines().all(|name| name == "list"), "{seen}");
    assert_eq!(fs::read_dir(elasticd.path("out")).expect("readable").count(), 1);
}

/// As an earlier version of elasticd left it: the previous version and the lock beside the output, in the middle of a
/// change that was not checked yet.
#[test]
fn a_change_that_an_earlier_version_left_half_done_is_undone_with_what_it_kept_beside_the_output() {
    let elasticd = list("check = ['grep', '-q', 'never', 'DIR/out/list']\nisolate_check = false\n");
    let path = elasticd.path("out/list");
    fs::write(&path, "unchecked").expect("written");
    fs::write(elasticd.path("out/.list.elasticd"), "previous").expect("written");
    fs::write(elasticd.path("out/.list.elasticd.lock"), "").expect("written");
    let digest = |text: &str| {
        fs::write(elasticd.path("text"), text).expect("written");
        let said = Command::new("sha256sum").arg(elasticd.path("text")).bounded_output().stdout;
        String::from_utf8(said).expect("text").split(' ').next().expect("a digest").to_owned()
    };
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("readable").replace('-', "");
    let swap = serde_json::json!({ "path": path, "new": digest("unchecked"), "previous": digest("previous") });
    let record =
        serde_json::json!({ "version": 1, "boot": boot.trim(), "proven": null, "step": "swapping", "swaps": [swap] });
    fs::create_dir_all(elasticd.path("state/frontends")).expect("made");
    elasticd.write("state/frontends/list.json", &record.to_string());
    let elasticd = elasticd.start();
    elasticd.await_status("refused", |status| status["frontends"]["list"]["phase"] == "failed");
    assert_eq!(elasticd.logged("interrupted change undone"), 1, "{}", elasticd.log());
    until_or(|| elasticd.read("out/list"), || (elasticd.read("out/list") == "previous").then_some(()));
    assert_eq!(elasticd.hidden(&elasticd.path("out")), Vec::<PathBuf>::new());
}

#[test]
fn a_file_that_was_replaced_or_removed_by_others_is_locked_again() {
    let elasticd = list("").ready();
    let output = format!("output = '{}'", elasticd.path("out/list").display());
    let other = list("");
    let config =
        other.read("elasticd.toml").replace(&format!("output = '{}'", other.path("out/list").display()), &output);
    other.write("elasticd.toml", &config);
    let refused = || {
        let (code, _, error) = other.run(&["--log", "info", "run"]);
        assert!(code == 1 && error.contains("another elasticd writes"), "{code}: {error}");
    };
    refused();
    for spoil in ["cp list copy; mv copy list", "rm list", "echo theirs > list"] {
        let said = Command::new("sh").args(["-ec", spoil]).current_dir(elasticd.path("out")).bounded_output();
        assert!(said.status.success(), "{spoil}");
        // Its next look is at most 0.2 s away.
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert_eq!(elasticd.read("out/list"), "a ", "{spoil}");
        refused();
    }
}

#[test]
fn owner_group_mode_list_and_attributes_of_a_file_stay() {
    // user::rw-, user:33:r--, group::r--, mask::r--, other::---
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let all = [(1, 6, u32::MAX), (2, 4, 33), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
    let acl = [2u32.to_le_bytes().to_vec()].into_iter().chain(all.map(entry)).flatten().collect::<Vec<_>>();
    for state in ["/tmp", "/dev/shm"] {
        let elsewhere = tempfile::tempdir_in(state).expect("a directory");
        let elasticd = list(&format!("{RELOAD}check = ['test', '!', '-e', 'DIR/refuse']\nisolate_check = false\n"));
        std::os::unix::fs::symlink(elsewhere.path(), elasticd.path("state")).expect("linked");
        let path = elasticd.path("out/list");
        fs::write(&path, "old").expect("written");
        chown(&path, Some(64_000), Some(64_001)).expect("we are root");
        setxattr(&path, "user.note", b"keep me", XattrFlags::empty()).expect("set");
        setxattr(&path, "system.posix_acl_access", &acl, XattrFlags::empty()).expect("set");
        let has = || {
            let metadata = fs::metadata(&path).expect("there");
            let attribute = |name| {
                let mut value = vec![0; 256];
                getxattr(&path, name, &mut value[..]).ok().map(|length| value[..length].to_vec())
            };
            (
                metadata.uid(),
                metadata.gid(),
                metadata.mode(),
                attribute("user.note"),
                attribute("system.posix_acl_access"),
            )
        };
        let before = has();
        let elasticd = elasticd.ready();
        elasticd.await_applied("list", "web", &["a"]);
        assert_eq!((elasticd.read("out/list").as_str(), has()), ("a ", before.clone()));
        // A version that is refused is undone with all that the file had.
        elasticd.write("refuse", "");
        elasticd.write("backends.yaml", &entries(&three()));
        elasticd.await_status("refused", |status| status["frontends"]["list"]["failures"].as_u64() >= Some(2));
        until_or(|| elasticd.read("out/list"), || (elasticd.read("out/list") == "a ").then_some(()));
        assert_eq!(has(), before, "{state}");
    }
}

#[test]
fn a_new_file_has_what_its_directory_gives_to_any() {
    let elasticd = list("");
    let out = elasticd.path("out");
    chown(&out, None, Some(64_001)).expect("we are root");
    set_mode(&out, 0o2755);
    let elasticd = elasticd.ready();
    elasticd.await_applied("list", "web", &["a"]);
    let list = fs::metadata(elasticd.path("out/list")).expect("written");
    assert_eq!((list.gid(), list.mode() & 0o777), (64_001, 0o644));
}

#[test]
fn a_configured_mode_or_owner_is_put_right_without_a_reload() {
    let elasticd = list(&format!("{RELOAD}mode = '0600'\ngroup = '64001'\n"));
    let path = elasticd.path("out/list");
    // Left by somebody with the right content.
    fs::write(&path, "a ").expect("written");
    set_mode(&path, 0o666);
    let elasticd = elasticd.ready();
    let await_mode = |wanted, group| {
        let now = || (mode(&path), fs::metadata(&path).expect("there").gid());
        until_or(
            || format!("{:o} {}\n{}", now().0, now().1, elasticd.log()),
            || (now() == (wanted, group)).then_some(()),
        );
    };
    elasticd.await_applied("list", "web", &["a"]);
    await_mode(0o600, 64_001);
    let (reloads, file) = (elasticd.read("reloads"), inode(&path));
    set_mode(&path, 0o666);
    await_mode(0o600, 64_001);
    chown(&path, None, Some(64_002)).expect("we are root");
    await_mode(0o600, 64_001);
    assert_eq!(elasticd.logged("the output's mode or owner was not as configured"), 3, "{}", elasticd.log());
    // Nor does a change of the configuration cost one.
    let config = elasticd.read("elasticd.toml").replace("mode = '0600'", "mode = '0640'");
    elasticd.write("elasticd.toml", &config);
    elasticd.signal(Signal::SIGHUP);
    await_mode(0o640, 64_001);
    elasticd.await_applied("list", "web", &["a"]);
    assert_eq!((elasticd.read("reloads"), inode(&path)), (reloads, file), "{}", elasticd.log());
}

/// As a user who may not give files away.
#[test]
fn what_cannot_be_put_right_is_an_error_with_its_remedy() {
    const USER: u32 = 64_003;
    let elasticd = list("group = '64001'\n").under(&["setpriv", "--reuid=64003", "--regid=64003", "--clear-groups"]);
    for name in [".", "out"] {
        chown(elasticd.path(name), Some(USER), Some(USER)).expect("we are root");
    }
    set_mode(&elasticd.path("notify"), 0o777);
    set_mode(&elasticd.path("."), 0o755);
    let path = elasticd.path("out/list");
    fs::write(&path, "a ").expect("written");
    chown(&path, Some(USER), Some(USER)).expect("we are root");
    let elasticd = elasticd.start();
    elasticd.await_status("refused", |status| {
        let list = &status["frontends"]["list"];
        list["phase"] == "failed"
            && list["error"].as_str().is_some_and(|error| error.contains("give elasticd CAP_CHOWN"))
    });
    assert_eq!(elasticd.logged(Elasticd::UPDATE_FAILED), 1, "said once: {}", elasticd.log());
}

#[test]
fn an_immutable_file_or_directory_is_named_with_its_remedy() {
    struct Mutable<'a>(&'a Path);
    impl Drop for Mutable<'_> {
        fn drop(&mut self) {
            let _ = Command::new("chattr").arg("-ai").arg(self.0).bounded_output();
        }
    }
    let elasticd = list("").ready();
    elasticd.await_applied("list", "web", &["a"]);
    let backends = three();
    for (n, (name, flag)) in [("out/list", "i"), ("out/list", "a"), ("out", "i"), ("out", "a")].into_iter().enumerate()
    {
        let path = elasticd.path(name);
        let before = elasticd.read("out/list");
        let guard = Mutable(&path);
        let set = Command::new("chattr").arg(format!("+{flag}")).arg(&path).bounded_output();
        assert!(
            set.status.success(),
            "this test wants a file system that has it: {}",
            String::from_utf8_lossy(&set.stderr)
        );
        let some = &backends[..2 + n % 2];
        elasticd.write("backends.yaml", &entries(some));
        let expected = format!("use `chattr -{flag} {}`", path.display());
        elasticd.await_status(&expected, |status| {
            status["frontends"]["list"]["error"].as_str().is_some_and(|error| error.contains(&expected))
        });
        assert_eq!(elasticd.read("out/list"), before);
        drop(guard);
        elasticd.await_applied("list", "web", &ids(some));
    }
}

fn orphans(elasticd: &Elasticd) -> Vec<String> {
    let status = elasticd.status();
    let lists = [&status["orphaned_outputs"], &status["frontends"]["nginx"]["orphaned_outputs"]];
    let path = |orphan: &serde_json::Value| orphan["path"].as_str().expect("a path").to_owned();
    lists.iter().filter_map(|list| list.as_array()).flatten().map(path).collect()
}

#[test]
fn an_output_that_was_moved_is_named_and_removed_on_request_with_a_check_and_a_reload() {
    let backends = three();
    let nginx = Nginx::new().start();
    let elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    elasticd.await_proven("nginx", "web", &["a"]);
    let former = nginx.conf_d().join("elasticd.conf");
    let config = elasticd.read("elasticd.toml").replace("/conf.d/elasticd.conf", "/conf.d/upstreams.conf");
    elasticd.write("elasticd.toml", &config);
    elasticd.signal(Signal::SIGHUP);
    // Both would define `web`: the new file is refused, and the reason is named.
    let status = elasticd.await_status("refused", |status| status["frontends"]["nginx"]["phase"] == "failed");
    let error = status["frontends"]["nginx"]["error"].as_str().expect("an error");
    assert!(error.contains("a former output, is still there") && error.contains("elasticd outputs --prune"), "{error}");
    assert_eq!(orphans(&elasticd), [former.display().to_string()]);
    let (code, out, error) = elasticd.run(&["outputs"]);
    let row = out.lines().find(|line| line.starts_with(&former.display().to_string())).unwrap_or_default();
    assert!(code == 0 && row.ends_with("former"), "{code}: {out} {error}");
    assert_eq!(elasticd.logged("is no output any more, and is still there"), 1, "{}", elasticd.log());
    let named = format!("{} is no output any more", former.display());
    for command in ["status", "doctor"] {
        let (_, out, _) = elasticd.run(&[command]);
        assert!(out.contains(&named), "{command}: {out}");
    }
    let (code, _, error) = elasticd.run(&["outputs", "--prune"]);
    assert_eq!(code, 0, "{error}\n{}", elasticd.log());
    assert!(!former.exists());
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    nginx.await_answers(&["a", "b"]);
    assert_eq!(orphans(&elasticd), Vec::<String>::new());
}

#[test]
fn with_prune_a_move_is_one_change_and_what_was_edited_stays() {
    let backends = three();
    let nginx = Nginx::new().start();
    let elasticd = Elasticd::knowing(&format!("prune = true\n{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    elasticd.await_proven("nginx", "web", &["a"]);
    let moved = |from: &str, to: &str| {
        let config = elasticd.read("elasticd.toml").replace(from, to);
        elasticd.write("elasticd.toml", &config);
        elasticd.signal(Signal::SIGHUP);
    };
    let at = |name: &str| nginx.conf_d().join(name);
    moved("elasticd.conf", "two.conf");
    until_or(|| elasticd.log(), || (at("two.conf").exists() && !at("elasticd.conf").exists()).then_some(()));
    elasticd.await_proven("nginx", "web", &["a"]);
    nginx.await_answers(&["a"]);
    let status = elasticd.status();
    assert_eq!(status["frontends"]["nginx"]["failures"], 0, "{status:#}\n{}", elasticd.log());
    // An edited file is not elasticd's any more.
    let mine = "# mine\n";
    moved("two.conf", "three.conf");
    until_or(|| elasticd.log(), || (!at("two.conf").exists()).then_some(()));
    fs::write(at("three.conf"), mine).expect("written");
    moved("three.conf", "four.conf");
    until_or(|| elasticd.log(), || at("four.conf").exists().then_some(()));
    elasticd.await_log("was edited since");
    let (code, _, error) = elasticd.run(&["outputs", "--prune"]);
    assert!(code == 0 && error.contains("three.conf was edited since"), "{code}: {error}");
    assert_eq!(fs::read_to_string(at("three.conf")).expect("there"), mine);
    // A frontend that is gone.
    let config = elasticd.read("elasticd.toml");
    let (before, _) = config.split_once("[frontends.nginx]").expect("a frontend");
    elasticd.write("elasticd.toml", before);
    elasticd.signal(Signal::SIGHUP);
    until_or(|| elasticd.log(), || (!at("four.conf").exists()).then_some(()));
}

#[test]
fn files_of_a_removed_frontend_are_listed_and_removed_without_a_running_elasticd() {
    let mut elasticd = list("").ready();
    elasticd.await_applied("list", "web", &["a"]);
    let config = elasticd.read("elasticd.toml");
    let (before, _) = config.split_once("[frontends.list]").expect("a frontend");
    elasticd.write("elasticd.toml", before);
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_log("is no output any more, and is still there");
    assert_eq!(orphans(&elasticd), [elasticd.path("out/list").display().to_string()]);
    assert!(elasticd.stop().success());
    let (code, out, _) = elasticd.run(&["outputs", "--json"]);
    assert!(code == 0 && out.contains(r#""state":"former""#), "{out}");
    let (code, _, error) = elasticd.run(&["outputs", "--prune"]);
    assert_eq!((code, elasticd.path("out/list").exists()), (0, false), "{error}");
    assert!(!elasticd.path("state/frontends/list.json").exists());
}

#[test]
fn each_service_that_tags_create_has_a_file_which_goes_with_it() {
    let entry = |id: &str, name: &str| format!("- {{ id: {id}, address: 10.0.0.1, tags: {{ Name: {name} }} }}\n");
    let config = "[providers.local]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '200ms'\n\
                  [services.all]\nprovider = 'local'\neach = { tag = 'Name' }\nport = 80\n\
                  guard = { on_empty = 'accept', max_drop = '100%' }\n";
    let list = LIST.replace("DIR/out/list", "DIR/out/{service}.list");
    let elasticd = Elasticd::new(&format!("{config}{list}prune = true\n"));
    elasticd.write(
        "list.tpl",
        "{% for s in services %}{{ s.name }}:{% for b in s.backends %} {{ b.id }}{% endfor %}{% endfor %}",
    );
    elasticd.write("backends.yaml", &(entry("a", "web") + &entry("b", "db")));
    fs::create_dir(elasticd.path("out")).expect("a directory");
    let elasticd = elasticd.ready();
    let await_files = |wanted: &[(&str, &str)]| {
        let found = || {
            let entries =
                fs::read_dir(elasticd.path("out")).expect("readable").map(|entry| entry.expect("an entry").path());
            let mut found: Vec<_> = entries
                .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), fs::read_to_string(&path).ok()?)))
                .collect();
            found.sort();
            found
        };
        let wanted: Vec<_> = wanted.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        until_or(|| format!("{:?}: {}", found(), elasticd.log()), || (found() == wanted).then_some(()));
    };
    await_files(&[("db.list", "db: b"), ("web.list", "web: a")]);
    elasticd.write("backends.yaml", &(entry("a", "web") + &entry("c", "api")));
    await_files(&[("api.list", "api: c"), ("web.list", "web: a")]);
    let (code, out, error) = elasticd.run(&["outputs"]);
    assert!(code == 0 && out.contains("api.list"), "{out} {error}");
}
