//! A frontend in another container, which shares its PID namespace with elasticd, or does not.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::backend::{Backend, FILE, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::load;
use crate::harness::nginx::Nginx;
use crate::harness::{copy_program, end, until, until_or};

/// nginx under a name that no other program has, in a mount namespace in which its pid file alone lies elsewhere: as in a
/// container that shares a volume and its PID namespace with elasticd's.
struct Contained {
    nginx: Nginx,
    executable: String,
    child: Child,
}

impl Drop for Contained {
    fn drop(&mut self) {
        // The wrapper becomes nginx itself.
        end(&mut self.child, Signal::SIGTERM);
    }
}

impl Contained {
    fn start() -> Self {
        let nginx = Nginx::new();
        let executable = format!("ngx-{}", nginx.id());
        let (program, run) = (nginx.path(&executable), nginx.path("run"));
        copy_program("/usr/sbin/nginx", &program);
        fs::create_dir(&run).expect("a directory");
        let path = nginx.path("nginx.conf");
        let config = fs::read_to_string(&path).expect("written");
        let pid_file = run.join("nginx.pid");
        let config = config.replace(&nginx.path("nginx.pid").display().to_string(), &pid_file.display().to_string());
        fs::write(&path, config).expect("a configuration");
        let script = format!("mount -t tmpfs elasticd-test {} && exec \"$@\"", run.display());
        let child = Command::new("unshare")
            .args(["--mount", "--uts", "--ipc", "sh", "-c", &script, "sh"])
            .args([program.as_os_str(), "-c".as_ref(), path.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("unshare runs");
        let contained = Self { nginx, executable, child };
        let inside = format!("/proc/{}/root{}", contained.child.id(), pid_file.display());
        until_or(
            || format!("it runs: {}", contained.nginx.errors()),
            || fs::read_to_string(&inside).ok().filter(|pid| !pid.is_empty()),
        );
        assert!(!pid_file.exists(), "its pid file is its own");
        contained
    }

    fn hups(&self) -> usize {
        self.nginx.errors().matches("signal 1 (SIGHUP)").count()
    }

    /// What elasticd needs to know of it: its program, and no pid file.
    fn frontend(&self) -> String {
        let pid_file = format!("pid_file = '{}'", self.nginx.path("nginx.pid").display());
        let found = format!("pid_file = ''\nexecutable = '{}'", self.executable);
        self.nginx.frontend().replace(&pid_file, &found)
    }
}

#[test]
fn a_frontend_in_another_container_is_found_by_its_program_signalled_and_proven() {
    let backends = ["a", "b"].map(Backend::start);
    let contained = Contained::start();
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{}", contained.frontend()), &backends[..1]).ready();
    let status = elasticd.await_proven("nginx", "web", &["a"]);
    assert_eq!(status["frontends"]["nginx"]["pid"], contained.child.id());
    let answers = |ids: &[&str]| load::await_answers(contained.nginx.address, ids, || contained.nginx.errors());
    answers(&["a"]);
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    // Old workers may still serve what they had accepted.
    answers(&["a", "b"]);
    assert_eq!(contained.hups(), 2);
    // A restart of elasticd finds it again, and leaves it alone.
    assert!(elasticd.stop().success());
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("nginx", "web", &["a", "b"]);
    assert_eq!((&status["frontends"]["nginx"]["reloads"], contained.hups()), (&0.into(), 2));
}

#[test]
fn without_a_shared_pid_namespace_no_process_is_signalled() {
    let backends = ["a", "b"].map(Backend::start);
    let nginx = Nginx::new().start();
    // On a volume that both see, a frontend that is PID 1 of its own namespace writes "1"; elasticd is PID 1 too.
    let shared = nginx.path("shared.pid");
    fs::write(&shared, "1\n").expect("written");
    let frontend = nginx.frontend().replace("nginx.pid", "shared.pid");
    let elasticd = Elasticd::new(&format!("{FILE}{frontend}")).under(&[
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    elasticd.write("backends.yaml", &entries(&backends));
    let mut elasticd = elasticd.start();
    let status =
        elasticd.await_status("failing", |status| status["frontends"]["nginx"]["failures"].as_u64() >= Some(2));
    let error = status["frontends"]["nginx"]["error"].as_str().expect("an error");
    for words in [
        &format!("the pid file {} names elasticd itself", shared.display()),
        "shareProcessNamespace",
        "pid_file = \"\"",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(elasticd.logged(Elasticd::UPDATE_FAILED), 1, "said once: {}", elasticd.log());
    // A HUP, which is nginx' signal, would have it read its own configuration anew.
    assert!(!elasticd.log().contains("configuration reloaded") && elasticd.is_running(), "{}", elasticd.log());
    assert_eq!(elasticd.get("/v1/services/web").0, 200);
    assert_eq!(
        (nginx.errors().matches("SIGHUP").count(), nginx.upstreams()),
        (0, String::new()),
        "nothing was touched"
    );
    // Nor is a program of that name found that only others see.
    let by_name = frontend.replace(&format!("pid_file = '{}'", shared.display()), "pid_file = ''");
    elasticd.configure(&format!("{FILE}{by_name}"));
    let inner = until("unshare started it", || {
        let outer = elasticd.pid();
        fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?.trim().parse().ok()
    });
    kill(Pid::from_raw(inner), Signal::SIGHUP).expect("it runs");
    let status = elasticd.await_status("absent", |status| status["frontends"]["nginx"]["phase"] == "not_running");
    let error = status["frontends"]["nginx"]["error"].as_str().expect("an error");
    assert!(error.contains("in a PID namespace that elasticd shares"), "{error}");
    assert_eq!(nginx.errors().matches("SIGHUP").count(), 0);
}
