//! `elasticd doctor`, with the real program: what is well, what is not and what to do, and that nothing is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::await_end;
use crate::harness::backend::{Backend, FILE, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;

/// What `doctor` found: its exit code, and level and message of each subject.
pub struct Found {
    pub code: i32,
    findings: Vec<(String, String, String)>,
}

impl Found {
    /// Runs it.
    pub fn of(elasticd: &Elasticd) -> Self {
        let (code, text, errors) = elasticd.run(&["doctor", "--json"]);
        let found: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
        let word = |finding: &Value, key: &str| finding[key].as_str().expect("a text").to_owned();
        let findings: Vec<_> = found["findings"].as_array().expect("an array").iter().collect();
        let findings: Vec<_> =
            findings.into_iter().map(|f| (word(f, "level"), word(f, "subject"), word(f, "message"))).collect();
        let failed = findings.iter().filter(|(level, ..)| level == "fail").count();
        assert_eq!((found["failed"].as_u64(), code != 0), (Some(failed as u64), failed > 0), "{text}");
        Self { code, findings }
    }

    /// Asserts that this is what was found of a subject, with all these words.
    pub fn says(&self, level: &str, subject: &str, words: &[&str]) -> &Self {
        let said = |(l, s, m): &(String, String, String)| {
            l == level && s == subject && words.iter().all(|word| m.contains(word))
        };
        assert!(self.findings.iter().any(said), "{level} {subject} {words:?} is not in {:#?}", self.findings);
        self
    }

    /// The subjects of this level.
    pub fn subjects(&self, level: &str) -> Vec<&str> {
        self.findings.iter().filter(|(l, ..)| l == level).map(|(_, subject, _)| subject.as_str()).collect()
    }
}

/// Everything below a directory: when it was changed, and which file it is.
fn everything(directory: &Path) -> BTreeMap<PathBuf, (i64, i64, u64)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        let found = fs::symlink_metadata(&path).expect("there");
        if found.is_dir() {
            all.extend(everything(&path));
        }
        all.insert(path, (found.ctime(), found.ctime_nsec(), found.ino()));
    }
    all
}

#[test]
fn a_working_setup_passes_and_is_not_changed() {
    let backends = ["a", "b"].map(Backend::start);
    let nginx = Nginx::new().start();
    let elasticd = Elasticd::new(&format!("{FILE}{}", nginx.frontend()));
    elasticd.write("backends.yaml", &entries(&backends));
    let (here, there) = (elasticd.path(""), nginx.path(""));
    let before = (everything(&here), everything(&there), nginx.workers());

    let found = Found::of(&elasticd);
    assert_eq!((found.code, found.subjects("fail"), found.subjects("warn")), (0, vec![], vec![]));
    let master = format!("PID {} runs nginx", nginx.master());
    found
        .says("ok", "services.web", &["2 of 2 instances selected"])
        .says("ok", "state_dir", &["will be created"])
        .says("ok", "api.socket", &["elasticd can listen on"])
        .says("ok", "frontends.nginx.outputs.0", &["can be replaced"])
        .says("ok", "frontends.nginx.check", &["/nginx exists"])
        .says("ok", "frontends.nginx.isolate_check", &["checked before"])
        .says("ok", "frontends.nginx.reload", &[&master]);
    let (code, text, _) = elasticd.run(&["doctor"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.lines().next().is_some_and(|line| line.ends_with("checked as root (uid 0)")), "{text}");
    assert!(text.contains("\nok  services.web ") && text.contains("\n0 failed, 0 warnings, "), "{text}");

    assert_eq!((everything(&here), everything(&there), nginx.workers()), before);
    assert!(!nginx.errors().contains("SIGHUP"), "{}", nginx.errors());

    // The same beside an elasticd that runs, which is not disturbed.
    let mut elasticd = elasticd.ready();
    let status = elasticd.await_proven("nginx", "web", &["a", "b"]);
    let before = (everything(&there), nginx.workers());
    let found = Found::of(&elasticd);
    assert_eq!((found.code, found.subjects("warn")), (0, vec![]));
    found.says("ok", "elasticd", &["runs as root"]).says("ok", "state_dir", &["in use by the running elasticd"]).says(
        "ok",
        "api.admin_socket",
        &["the running elasticd listens on"],
    );
    assert_eq!((everything(&there), nginx.workers()), before);
    assert_eq!(elasticd.status()["revision"], status["revision"]);
    assert!(elasticd.is_running());
}

#[test]
fn each_fault_of_a_frontend_is_found_with_what_to_do() {
    let nginx = Nginx::new().start();
    let mut gone = std::process::Command::new("true").spawn().expect("true runs");
    await_end(&mut gone);
    let at = nginx.path("");
    fs::write(at.join("gone.pid"), gone.id().to_string()).expect("written");
    fs::write(at.join("other.pid"), std::process::id().to_string()).expect("written");
    let own = nginx.frontend();
    let pid_file = |name: &str| own.replace("nginx.pid", name);
    let cases: [(String, &str, &[&str]); 8] = [
        (pid_file("gone.pid"), "reload", &["no such process runs; is the frontend stopped?"]),
        (pid_file("other.pid"), "reload", &["and not nginx", "Correct `pid_file` or `executable`"]),
        (pid_file("none.pid"), "reload", &["does not exist; is the frontend running"]),
        (own.replace("conf.d/", "none.d/"), "outputs.0", &["none.d/elasticd.conf", "create the directory"]),
        (format!("{own}check = ['no-such-check']\n"), "check", &["cannot run `no-such-check`", "install it"]),
        (format!("{own}reload = {{ command = ['/none/x'] }}\nproof = 'none'\n"), "reload", &["cannot run `/none/x`"]),
        (format!("{own}proof = {{ command = ['/etc/passwd'] }}\n"), "proof", &["permission denied"]),
        (
            format!("{own}reload = {{ master = '{}/none.sock' }}\nproof = 'none'\n", at.display()),
            "reload",
            &["HAProxy's master", "run with -S"],
        ),
    ];
    for (frontend, subject, words) in cases {
        let elasticd = Elasticd::new(&format!("{FILE}{frontend}"));
        elasticd.write("backends.yaml", "- { id: a, address: 10.0.0.1, tags: { Role: web } }\n");
        let found = Found::of(&elasticd);
        let subject = format!("frontends.nginx.{subject}");
        assert_eq!((found.code, found.subjects("fail")), (1, vec![&*subject]), "{words:?}");
        found.says("fail", &subject, words);
    }
}

#[test]
fn an_unreachable_runtime_api_is_reported() {
    let config = "[frontends.proxy]\ntype = 'haproxy'\noutput = 'DIR/elasticd.cfg'\nconfig = 'DIR/none.cfg'\n\
                  api = 'DIR/none.sock'\nreload = { master = 'DIR/master.sock' }\n";
    let elasticd = Elasticd::new(&format!("{FILE}{config}"));
    let found = Found::of(&elasticd);
    found
        .says("fail", "frontends.proxy.api", &["nothing listens at", "does `api` name its runtime API?"])
        .says("fail", "frontends.proxy.reload", &["HAProxy's master"])
        .says("fail", "providers.local", &["backends.yaml"]);
    assert_eq!(found.code, 1);
}

#[test]
fn missing_privileges_are_reported() {
    let nginx = Nginx::new().start();
    let elasticd = Elasticd::new(&format!("{FILE}{}", nginx.frontend())).under(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
    elasticd.write("backends.yaml", "- { id: a, address: 10.0.0.1, tags: { Role: web } }\n");
    for directory in [elasticd.path(""), nginx.path("")] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let found = Found::of(&elasticd);
    assert_eq!(found.code, 1);
    found
        .says("fail", "state_dir", &["cannot create `state_dir`", "writable for elasticd's user"])
        .says("fail", "api.socket", &["cannot write to the directory", "make it writable"])
        .says("fail", "frontends.nginx.outputs.0", &["give elasticd's user write access"])
        .says(
            "fail",
            "frontends.nginx.reload",
            &["may not see what that runs", "run elasticd with the frontend's user and group"],
        )
        .says("warn", "frontends.nginx.isolate_check", &["CAP_SYS_ADMIN"]);
    let (_, text, _) = elasticd.run(&["doctor"]);
    assert!(text.contains("checked as nobody (uid 65534)"), "{text}");
}

#[test]
fn services_without_backends_are_reported() {
    let more = "[services.db]\nprovider = 'local'\nselect = { Role = 'db' }\nport = 1\n\
                [frontends.json]\ntype = 'json'\noutput = 'DIR/x.json'\nservices = ['web']\n\
                [providers.idle]\ntype = 'file'\npath = 'DIR/idle.yaml'\n";
    let elasticd = Elasticd::new(&format!("{FILE}{more}"));
    elasticd.write(
        "backends.yaml",
        "- { id: a, address: \"10.0.0.1:80\", tags: { Role: web } }\n- { id: b, address: \"10.0.0.2:80\", tags: { Role: web } }\n\
         - { id: c, address: \"10.0.0.3:80\" }\n",
    );
    let found = Found::of(&elasticd);
    assert_eq!((found.code, found.subjects("warn")), (0, vec!["providers.idle", "services.db"]));
    found
        .says("ok", "providers.local", &["3 instances"])
        .says("ok", "services.web", &["2 of 3 instances selected. Excluded: 1 (tag Role is missing"])
        .says("warn", "services.db", &["0 of 3", "2 (tag Role is \"web\"", "1 (tag Role is missing", "`select`"])
        .says("warn", "providers.idle", &["no service uses it"]);
}

#[test]
fn a_wrong_configuration_has_its_own_exit_code() {
    let elasticd = Elasticd::new("[services.web]\nprovider = 'none'\nprot = 1\n");
    let found = Found::of(&elasticd);
    assert_eq!(found.code, 78);
    found.says("fail", "configuration", &["elasticd.toml", "services.web", "prot"]);
}
