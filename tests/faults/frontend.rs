//! A real nginx that is restarted, crashes, is stopped for a while, or is replaced in place, while backends change.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Fault;
use crate::harness::backend::{self, Backend, FILE, entries, ids};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;
use crate::harness::{BoundedCommand as _, load, until, until_or};

pub const AWAY: Fault = Fault {
    name: "frontend-away",
    what: "nginx restarted, crashed (kill -9 of master and workers) or stopped for a while, at a random instant of a change",
    rounds: (6, 300),
    run: away,
};

pub const UPGRADED: Fault = Fault {
    name: "frontend-upgraded",
    what: "nginx upgraded in place (USR2, then QUIT: a new PID) at a random instant of a change",
    rounds: (2, 100),
    run: upgraded,
};

fn started() -> (Nginx, Elasticd, [Backend; 3]) {
    let backends = backend::three();
    let nginx = Nginx::new().start();
    let elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    (nginx, elasticd, backends)
}

/// Changes the backends, and returns a moment later.
fn change<'a>(elasticd: &Elasticd, backends: &'a [Backend; 3], random: &mut fastrand::Rng) -> &'a [Backend] {
    let some = &backends[..random.usize(1..4)];
    elasticd.write("backends.yaml", &entries(some));
    sleep(Duration::from_micros(random.u64(0..150_000)));
    some
}

fn signal(pid: u32, signal: Signal) {
    // It may have gone by itself.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

fn away(rounds: u32, random: &mut fastrand::Rng) -> String {
    let (mut nginx, mut elasticd, backends) = started();
    let mut fatal = 0;
    for round in 0..rounds {
        let some = change(&elasticd, &backends, random);
        match round % 3 {
            0 => nginx.stop(),
            1 => {
                let master = nginx.master();
                // A master at work would have others by now.
                signal(master, Signal::SIGSTOP);
                let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).expect("readable");
                signal(master, Signal::SIGKILL);
                for pid in children.split_whitespace() {
                    signal(pid.parse().expect("a PID"), Signal::SIGKILL);
                }
                until("its port is free", || load::ask(nginx.address).is_none().then_some(()));
                nginx.stop();
            }
            _ => {
                nginx.stop();
                elasticd.write("backends.yaml", &entries(&backends[..2]));
                sleep(Duration::from_micros(random.u64(0..300_000)));
                elasticd.write("backends.yaml", &entries(some));
            }
        }
        nginx.spawn();
        // One that ended of a signal of ours may have ended of the configuration: that is not tried again.
        let what_ended_it = elasticd.logged("ended when it was asked to take");
        if what_ended_it > fatal {
            fatal = what_ended_it;
            elasticd.write("backends.yaml", &entries(&backends[..(some.len() % 3) + 1]));
            elasticd.await_proven("nginx", "web", &ids(&backends[..(some.len() % 3) + 1]));
            elasticd.write("backends.yaml", &entries(some));
        }
        elasticd.await_proven("nginx", "web", &ids(some));
        nginx.await_old_workers_gone();
        nginx.await_answers(&ids(some));
    }
    assert!(elasticd.is_running());
    format!(
        "nothing: nginx answered from the newest backends each time ({fatal} times taken for its answer to the change)"
    )
}

/// Ends whatever master the pid file names last.
struct Daemon(Nginx);

impl Daemon {
    /// In the background: nginx takes no upgrade as long as the process that started it is its parent.
    fn start(nginx: Nginx) -> Self {
        let path = nginx.path("nginx.conf");
        let config = fs::read_to_string(&path).expect("written").replace("daemon off;", "");
        fs::write(&path, config).expect("written");
        let output = Command::new("/usr/sbin/nginx").arg("-c").arg(&path).bounded_output();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let daemon = Self(nginx);
        until("it answers", || load::ask(daemon.0.address));
        daemon
    }

    fn master(&self) -> Option<u32> {
        fs::read_to_string(self.0.path("nginx.pid")).ok()?.trim().parse().ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.master().into_iter().for_each(|master| signal(master, Signal::SIGTERM));
    }
}

fn upgraded(rounds: u32, random: &mut fastrand::Rng) -> String {
    let backends = backend::three();
    let daemon = Daemon::start(Nginx::new());
    let nginx = &daemon.0;
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    let mut master = daemon.master().expect("it runs");
    for _ in 0..rounds {
        let some = change(&elasticd, &backends, random);
        signal(master, Signal::SIGUSR2);
        let new =
            until_or(|| format!("a new master: {}", nginx.errors()), || daemon.master().filter(|pid| *pid != master));
        until("with workers", || {
            let children = fs::read_to_string(format!("/proc/{new}/task/{new}/children")).ok()?;
            (children.split_whitespace().count() >= 2).then_some(())
        });
        signal(master, Signal::SIGQUIT);
        until("the old master has gone", || {
            let stat = fs::read_to_string(format!("/proc/{master}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        master = new;
        elasticd.await_proven("nginx", "web", &ids(some));
        load::await_answers(nginx.address, &ids(some), || nginx.errors());
    }
    assert!(elasticd.is_running());
    format!("nothing: {rounds} new PIDs, each proven to run the newest")
}
