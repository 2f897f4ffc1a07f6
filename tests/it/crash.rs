//! Killed between two steps of a change, each pair by itself: the next start undoes what was not checked, asks again
//! where it was not yet asked, and never twice where it was.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::backend::{Backend, FILE, entries};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;
use crate::harness::until;

/// A command that says where it is, waits as long as `DIR/hold` is there, and then does `what`.
fn held(what: &str) -> String {
    format!(
        "['sh', '-c', 'test -e DIR/hold && touch DIR/reached; while test -e DIR/hold; do sleep 0.02; done; {what}']"
    )
}

fn pair() -> [Backend; 2] {
    ["a", "b"].map(Backend::start)
}

/// Changes the backends, and kills elasticd where its command holds it.
fn killed_in_between(elasticd: &mut Elasticd, backends: &[Backend]) {
    elasticd.write("hold", "");
    elasticd.write("backends.yaml", &entries(backends));
    until("the step is reached", || elasticd.path("reached").exists().then_some(()));
    elasticd.kill();
    fs::remove_file(elasticd.path("hold")).expect("held until now");
}

fn proven_on_both(elasticd: &mut Elasticd, nginx: &Nginx) {
    restarted(elasticd).await_proven("nginx", "web", &["a", "b"]);
    both_answer(elasticd, nginx);
}

fn restarted(elasticd: &mut Elasticd) -> &Elasticd {
    elasticd.restart();
    elasticd.await_ready();
    elasticd
}

fn both_answer(elasticd: &Elasticd, nginx: &Nginx) {
    nginx.await_old_workers_gone();
    nginx.await_answers(&["a", "b"]);
    assert_eq!(elasticd.hidden(&nginx.conf_d()), Vec::<PathBuf>::new());
    assert_eq!(elasticd.staged("nginx"), Vec::<PathBuf>::new());
}

#[test]
fn killed_between_rendering_and_staging() {
    let backends = pair();
    let nginx = Nginx::new().start();
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    // Nothing can be staged where there is no directory.
    let away = nginx.path("away");
    fs::rename(nginx.conf_d(), &away).expect("moved");
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_status("not staged", |status| status["frontends"]["nginx"]["phase"] == "failed");
    elasticd.kill();
    fs::rename(&away, nginx.conf_d()).expect("moved back");
    proven_on_both(&mut elasticd, &nginx);
    assert_eq!(elasticd.status()["frontends"]["nginx"]["reloads"], 1);
}

#[test]
fn killed_between_staging_and_swap() {
    let backends = pair();
    let nginx = Nginx::new().start();
    // A check that judges the staged file comes before anything is in place.
    let check = held("test -s {candidate}");
    let frontend = nginx.frontend().replace("check = [", "#") + &format!("check = {check}\n");
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{frontend}"), &backends[..1]).ready();
    let before = nginx.upstreams();
    killed_in_between(&mut elasticd, &backends);
    assert_eq!(nginx.upstreams(), before, "nothing is in place");
    assert_eq!(elasticd.hidden(&nginx.conf_d()), Vec::<PathBuf>::new(), "nor beside its place");
    assert_eq!(elasticd.staged("nginx").len(), 2, "but staged, with what is in place");
    proven_on_both(&mut elasticd, &nginx);
}

#[test]
fn killed_between_swap_and_check() {
    let backends = pair();
    let nginx = Nginx::new().start();
    let check =
        held(&format!("test -e DIR/refuse && exit 1; exec nginx -t -q -c {}", nginx.path("nginx.conf").display()));
    let frontend = nginx.frontend().replace("check = [", "#") + &format!("check = {check}\n");
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{frontend}"), &backends[..1]).ready();
    let before = nginx.upstreams();
    killed_in_between(&mut elasticd, &backends);
    assert_ne!(nginx.upstreams(), before, "in place, and not yet checked");
    // Had it been refused, what was there before is what must stay.
    elasticd.write("refuse", "");
    elasticd.restart();
    elasticd.await_status("refused", |status| status["frontends"]["nginx"]["phase"] == "failed");
    assert_eq!(nginx.upstreams(), before);
    assert_eq!(elasticd.logged("interrupted change undone"), 1, "{}", elasticd.log());
    assert!(elasticd.stop().success());
    fs::remove_file(elasticd.path("refuse")).expect("there");
    proven_on_both(&mut elasticd, &nginx);
}

#[test]
fn killed_between_check_and_reload() {
    let backends = pair();
    let nginx = Nginx::new().start();
    // A command instead of the signal: it can be held, so that elasticd is killed while it runs.
    let reload = held(&format!("echo asked >> DIR/asked; kill -HUP $(cat {})", nginx.path("nginx.pid").display()));
    let elasticd =
        Elasticd::knowing(&format!("{FILE}{}reload = {{ command = {reload} }}\n", nginx.frontend()), &backends[..1]);
    let mut elasticd = elasticd.ready();
    assert_eq!(elasticd.read("asked").lines().count(), 1);
    killed_in_between(&mut elasticd, &backends);
    // The command itself was killed with its process group's parent, or ends now: either way it must be asked again.
    restarted(&mut elasticd).await_applied("nginx", "web", &["a", "b"]);
    both_answer(&elasticd, &nginx);
    assert!(elasticd.read("asked").lines().count() >= 2);
}

#[test]
fn killed_between_reload_and_proof() {
    let backends = pair();
    let nginx = Nginx::new().start();
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    // A stopped master takes the signal later.
    let master = Pid::from_raw(nginx.master().cast_signed());
    kill(master, Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends));
    let record = || elasticd.read("state/frontends/nginx.json");
    until("the record says that it was asked", || record().contains("\"asked\":true").then_some(()));
    elasticd.kill();
    kill(master, Signal::SIGCONT).expect("it runs");
    until("nginx has taken it", || nginx.errors().matches("signal 1 (SIGHUP)").count().checked_sub(2));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven("nginx", "web", &["a", "b"]);
    assert_eq!(status["frontends"]["nginx"]["reloads"], 0, "it was asked already: {status:#}");
    nginx.await_old_workers_gone();
    let hups = nginx.errors().matches("signal 1 (SIGHUP)").count();
    assert_eq!(hups, 2, "one for each change: {}", nginx.errors());
    nginx.await_answers(&["a", "b"]);
    assert_eq!(elasticd.hidden(&nginx.conf_d()), Vec::<PathBuf>::new());
}

#[test]
fn killed_after_proof() {
    let backends = pair();
    let nginx = Nginx::new().start();
    let mut elasticd = Elasticd::knowing(&format!("{FILE}{}", nginx.frontend()), &backends).ready();
    nginx.await_old_workers_gone();
    let workers = nginx.workers();
    elasticd.kill();
    proven_on_both(&mut elasticd, &nginx);
    assert_eq!(nginx.workers(), workers, "no needless reload");
}
