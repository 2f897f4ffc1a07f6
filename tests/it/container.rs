//! The container, made by hand: what the `Dockerfile` puts into its image, read-only, under a user without any power, with
//! volumes for the socket, the state and the frontend's directory, and a PID namespace shared with an nginx of that user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::backend::{Backend, FILE, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::load;
use crate::harness::nginx::Nginx;
use crate::harness::{copy_program, end, until_or};

/// What follows a word of the `Dockerfile`'s last stage.
fn image(word: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
    let text = fs::read_to_string(path).expect("readable");
    text.lines().rev().find_map(|line| line.strip_prefix(word)).expect("it says so").trim().to_owned()
}

/// nginx under a name that no other program has, in a mount namespace of its own, as a user without any power.
struct Beside {
    nginx: Nginx,
    child: Child,
}

impl Drop for Beside {
    fn drop(&mut self) {
        end(&mut self.child, Signal::SIGTERM);
    }
}

impl Beside {
    fn start(user: u32) -> Self {
        let nginx = Nginx::new();
        copy_program("/usr/sbin/nginx", nginx.path(&Self::name(&nginx)));
        for path in [nginx.path("."), nginx.conf_d()] {
            chown(path, Some(user), Some(user)).expect("we are root");
        }
        let child = Command::new("unshare")
            .args(["--mount", "setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"])
            .arg(nginx.path(&Self::name(&nginx)))
            .arg("-c")
            .arg(nginx.path("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare runs");
        let pid = child.id().to_string();
        let beside = Self { nginx, child };
        let written = || fs::read_to_string(beside.nginx.path("nginx.pid")).ok();
        until_or(|| beside.nginx.errors(), || (written()?.trim() == pid).then_some(()));
        beside
    }

    fn name(nginx: &Nginx) -> String {
        format!("ngc-{}", nginx.id())
    }

    /// As the README has it: found by its program, and not checked, for that program is not in elasticd's image.
    fn frontend(&self) -> String {
        let pid_file = format!("pid_file = '{}'", self.nginx.path("nginx.pid").display());
        let found = format!("pid_file = ''\nexecutable = '{}'\ncheck = []", Self::name(&self.nginx));
        self.nginx.frontend().replace(&pid_file, &found)
    }
}

/// Has elasticd run in a root of its own: the program, the libraries it names, and the volumes.
fn contained(elasticd: Elasticd, volume: &Path, user: u32) -> Elasticd {
    let script = format!(
        r#"set -e
root=$1 own=$2 volume=$3; shift 3
mount -t tmpfs -o mode=755 elasticd-test "$root"
for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do install -D "$file" "$root$file"; done
mkdir -p "$root/proc" "$root/dev" "$root$own" "$root$volume"
: > "$root/dev/null"
mount -t proc proc "$root/proc"
mount --bind /dev/null "$root/dev/null"
mount --bind "$own" "$root$own"
mount --bind "$volume" "$root$volume"
mount -o remount,ro,bind "$root"
exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --inh-caps=-all \
    chroot --userspec={user}:{user} "$root" "$@"
"#
    );
    let root = elasticd.path("root");
    fs::create_dir(&root).expect("a directory");
    chown(elasticd.path("."), Some(user), Some(user)).expect("we are root");
    fs::set_permissions(elasticd.path("notify"), fs::Permissions::from_mode(0o777)).expect("ours");
    let (root, own) = (root.display().to_string(), elasticd.path("").display().to_string());
    let volume = volume.display().to_string();
    elasticd.under(&["unshare", "--mount", "sh", "-c", &script, "sh", &root, own.trim_end_matches('/'), &volume])
}

#[test]
fn a_container_with_a_read_only_root_and_no_capabilities_serves_nginx() {
    let user: u32 = image("USER ").split(':').next().and_then(|uid| uid.parse().ok()).expect("a user by its number");
    assert!(user != 0);
    let backends = ["a", "b"].map(Backend::start);
    let beside = Beside::start(user);
    let elasticd = Elasticd::knowing(&format!("{FILE}{}", beside.frontend()), &backends[..1]);
    let elasticd = contained(elasticd, &beside.nginx.conf_d(), user).ready();
    let status = elasticd.await_proven("nginx", "web", &["a"]);
    assert_eq!(status["frontends"]["nginx"]["pid"], beside.child.id());
    assert_eq!(status["confinement"]["capabilities"], serde_json::json!([]));
    let answers = |ids: &[&str]| load::await_answers(beside.nginx.address, ids, || beside.nginx.errors());
    answers(&["a"]);
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    answers(&["a", "b"]);
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", elasticd.pid())).expect("readable");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
    assert!(root.split(' ').nth(5).is_some_and(|options| options.split(',').any(|option| option == "ro")), "{root}");
    // The image's health check, run as it is there.
    let check: Vec<String> = serde_json::from_str(image("HEALTHCHECK ").split_once("CMD ").expect("a command").1)
        .expect("a list of arguments");
    let [_, arguments @ ..] = check.as_slice() else { panic!("a program") };
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (code, said, complaint) = elasticd.run(&arguments);
    assert!(code == 0 && said.contains(": ready, "), "{said}{complaint}");
}
