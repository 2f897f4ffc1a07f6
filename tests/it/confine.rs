//! What elasticd gives up at its start, and that nothing it has to do needs it.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::backend::{Backend, FILE, entries, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;
use crate::harness::until_or;

/// A list of backends, written to `directory`, whose check and reload leave files where elasticd itself may not write.
fn list(name: &str, directory: &str) -> String {
    format!(
        "[frontends.{name}]\ntype = 'custom'\nescape = 'none'\ntemplate = 'list.tpl'\nsettle = '20ms'\n\
         min_reload_gap = '0s'\noutput = '{directory}/list'\ncheck = ['touch', 'DIR/elsewhere/checked']\n\
         reload = {{ command = ['touch', 'DIR/elsewhere/reloaded'] }}\n"
    )
}

fn elasticd(config: &str, backends: &[Backend]) -> Elasticd {
    let elasticd = Elasticd::knowing(config, backends);
    elasticd.write("list.tpl", "{% for s in services %}{% for b in s.backends %}{{ b.id }} {% endfor %}{% endfor %}\n");
    for directory in ["out", "elsewhere"] {
        fs::create_dir(elasticd.path(directory)).expect("a directory");
    }
    elasticd
}

fn await_list(elasticd: &Elasticd, path: &str, list: &str) {
    until_or(
        || format!("{path} holds {list:?}:\n{}", elasticd.log()),
        || (fs::read_to_string(elasticd.path(path)).ok()?.trim() == list).then_some(()),
    );
}

/// A line of `/proc/PID/task/TID/status`, of each thread, with the thread's name.
fn threads(elasticd: &Elasticd, field: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", elasticd.pid())).expect("it runs");
    let of = |task: &Path| {
        let status = fs::read_to_string(task.join("status")).ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned();
        Some((fs::read_to_string(task.join("comm")).ok()?.trim().to_owned(), value))
    };
    tasks.filter_map(|task| of(&task.expect("a thread").path())).collect()
}

fn is_confined(status: &Value) -> bool {
    status["confinement"]["landlock"].is_u64()
}

#[test]
fn privileges_that_are_not_needed_are_dropped_and_reported() {
    let elasticd = elasticd(&format!("{FILE}{}", list("list", "DIR/out")), &three()[..1]).ready();
    let status = elasticd.status();
    let confinement = &status["confinement"];
    assert!(is_confined(&status), "{confinement}");
    assert_eq!((&confinement["no_new_privileges"], &confinement["no_core_dumps"]), (&true.into(), &true.into()));
    assert_eq!(confinement["missing"], serde_json::json!([]));
    let said = elasticd.run(&["--socket", &elasticd.path("sock").to_string_lossy(), "status"]).1;
    assert!(said.contains("\nconfined: writes by Landlock "), "{said}");
    assert!(elasticd.log().contains("no new privileges"), "{}", elasticd.log());
    await_list(&elasticd, "out/list", "a");
    assert!(threads(&elasticd, "NoNewPrivs:").iter().all(|(_, value)| value == "1"));
    // The user's own processes cannot look into it: what is not dumpable belongs to root.
    let capabilities = threads(&elasticd, "CapPrm:");
    let of = |value: &str| u64::from_str_radix(value, 16).expect("hexadecimal");
    let sys_admin = 1 << 21;
    let strong: Vec<_> = capabilities.iter().filter(|(_, caps)| of(caps) & sys_admin != 0).collect();
    assert!(strong.iter().all(|(name, _)| name == "unconfined"), "{capabilities:?}");
    assert!(!strong.is_empty() && capabilities.iter().any(|(name, _)| name == "writer"), "{capabilities:?}");
}

#[test]
fn child_programs_are_not_confined() {
    // Not in elasticd's own directory, for the socket is there.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let at = |name: &str| elsewhere.path().join(name);
    let list = list("list", "DIR/out").replace("DIR/elsewhere", &elsewhere.path().display().to_string());
    let elasticd = elasticd(&format!("{FILE}{list}"), &three()[..1]);
    // A directory that is replaced like this must not have the apply record written elsewhere.
    fs::create_dir(elasticd.path("state")).expect("a directory");
    std::os::unix::fs::symlink(elsewhere.path(), elasticd.path("state/frontends")).expect("linked");
    let elasticd = elasticd.ready();
    await_list(&elasticd, "out/list", "a");
    elasticd.await_log("cannot save the apply record");
    until_or(|| elasticd.log(), || at("reloaded").exists().then_some(()));
    assert!(at("checked").exists() && !at("list.json").exists(), "elasticd itself wrote nothing there");
}

#[test]
fn nothing_is_dropped_when_confinement_is_switched_off() {
    let elasticd = elasticd(&format!("confine = 'off'\n{FILE}{}", list("list", "DIR/out")), &three()[..1]);
    fs::create_dir(elasticd.path("state")).expect("a directory");
    std::os::unix::fs::symlink(elasticd.path("elsewhere"), elasticd.path("state/frontends")).expect("linked");
    let elasticd = elasticd.ready();
    assert!(!is_confined(&elasticd.status()));
    assert!(threads(&elasticd, "NoNewPrivs:").iter().all(|(_, value)| value == "0"));
    until_or(|| elasticd.log(), || elasticd.path("elsewhere/list.json").exists().then_some(()));
    elasticd.configure(&format!("{FILE}{}", list("list", "DIR/out")));
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_log("confine: cannot change while elasticd runs: restart it");
}

#[test]
fn a_recreated_or_added_output_directory_can_be_written_to() {
    let backends = three();
    let elasticd = elasticd(&format!("{FILE}{}", list("list", "DIR/out")), &backends[..1]).ready();
    assert!(is_confined(&elasticd.status()));
    await_list(&elasticd, "out/list", "a");
    // As when a frontend's RuntimeDirectory= goes and comes with it, or a package is installed again.
    fs::rename(elasticd.path("out"), elasticd.path("was")).expect("renamed");
    fs::create_dir(elasticd.path("out")).expect("a directory");
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    await_list(&elasticd, "out/list", "a b");
    fs::create_dir(elasticd.path("new")).expect("a directory");
    elasticd.configure(&format!("{FILE}{}{}", list("list", "DIR/out"), list("more", "DIR/new")));
    elasticd.signal(Signal::SIGHUP);
    await_list(&elasticd, "new/list", "a b");
    elasticd.await_applied("more", "web", &["a", "b"]);
}

#[cfg(feature = "ec2")]
#[test]
fn credential_programs_can_still_be_started() {
    use crate::ec2_endpoint::{Endpoint, Machine};
    use crate::harness::write_script;

    let endpoint = Endpoint::start(vec![Machine::numbered(1, &[("Role", "web")])]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (script, config) = (elsewhere.path().join("credentials"), elsewhere.path().join("aws"));
    let said = r#"{"Version": 1, "AccessKeyId": "by-program", "SecretAccessKey": "x"}"#;
    write_script(&script, &format!("touch {}/asked\necho '{said}'", elsewhere.path().display()));
    fs::write(&config, format!("[default]\ncredential_process = {}\n", script.display())).expect("written");
    let provider = format!("[providers.p]\ntype = 'ec2'\nregion = 'eu-west-1'\nendpoint_url = '{}'\n", endpoint.url());
    let elasticd =
        Elasticd::new(&format!("{provider}[services.web]\nprovider = 'p'\nselect = {{ Role = 'web' }}\nport = 80\n"))
            .env("AWS_CONFIG_FILE", &config.display().to_string())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .ready();
    assert!(is_confined(&elasticd.status()));
    assert_eq!(elasticd.status()["services"]["web"]["backends"], 1);
    assert!(elsewhere.path().join("asked").exists());
    assert!(endpoint.signers().iter().all(|key| key.starts_with("by-program ")), "{:?}", endpoint.signers());
}

/// Has the kernel answer as one without Landlock: system calls 444 to 446 are unknown (x86-64 and ARM alike).
const WITHOUT_LANDLOCK: &str = "
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x35, 0, 2, 444), (0x35, 1, 0, 447), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7fff0000)]
filter = b''.join(struct.pack('HBBI', *line) for line in code)
held = ctypes.create_string_buffer(filter)
program = struct.pack('HxxxxxxP', len(code), ctypes.addressof(held))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn without_landlock_the_other_restrictions_apply_and_the_gap_is_reported() {
    let config = format!("{FILE}{}", list("list", "DIR/out"));
    let elasticd = elasticd(&config, &three()[..1]).under(&["python3", "-c", WITHOUT_LANDLOCK]).ready();
    await_list(&elasticd, "out/list", "a");
    let status = elasticd.status();
    assert!(!is_confined(&status), "{status}");
    let gaps = status["confinement"]["missing"].as_array().expect("a list");
    assert!(gaps.len() == 1 && gaps[0].as_str().is_some_and(|gap| gap.contains("no Landlock")), "{gaps:?}");
    assert_eq!(status["confinement"]["no_new_privileges"], true);
    elasticd.await_log("NOT confined in what it writes: the kernel has no Landlock");
}

/// A value of the shipped unit.
fn unit(key: &str) -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/elasticd.service");
    let text = fs::read_to_string(unit).expect("readable");
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned)).expect("it is set")
}

/// The unit's user and capabilities, and its `/proc`: an nginx of root's is checked, signalled and proven.
#[test]
fn an_nginx_of_root_is_served_with_the_privileges_of_the_unit() {
    const USER: u32 = 64_999;
    let backends = three();
    let nginx = Nginx::new().start();
    let powers: String = unit("AmbientCapabilities")
        .to_lowercase()
        .split(' ')
        .fold("-all".to_owned(), |all, cap| format!("{all},+{}", cap.trim_start_matches("cap_")));
    assert_eq!(unit("AmbientCapabilities"), unit("CapabilityBoundingSet"));
    assert_eq!((unit("ProtectProc"), unit("ProcSubset")), ("invisible".to_owned(), "pid".to_owned()));
    let script = format!(
        "mount -t proc -o hidepid=invisible,subset=pid proc /proc && exec setpriv --reuid={USER} --regid={USER} \
         --clear-groups --no-new-privs --inh-caps={powers} --ambient-caps={powers} --bounding-set={powers} \"$@\""
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1])
        .under(&wrapper)
        .env("BOOT_ID", "00000000000000000000000000000000");
    std::os::unix::fs::chown(elasticd.path("."), Some(USER), Some(USER)).expect("we are root");
    let elasticd = elasticd.ready();
    nginx.await_answers(&["a"]);
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    nginx.await_answers(&["a", "b"]);
    assert!(threads(&elasticd, "Uid:").iter().all(|(_, uids)| uids.starts_with(&USER.to_string())));
    assert!(elasticd.read("state/frontends/nginx.json").contains(r#""boot":"00000000000000000000000000000000""#));
}
