//! A real Apache: its balancers' members, its proofs, and changes that would end it.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::apache::Apache;
use crate::harness::backend::{Backend, FILE, entries, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::{copy_program, until};

/// An elasticd that is not started yet, and knows of these backends.
fn elasticd(apache: &Apache, more: &str, backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(&format!("{FILE}{}{more}", apache.frontend()), backends)
}

fn frontend_of(elasticd: &Elasticd) -> serde_json::Value {
    elasticd.status()["frontends"]["apache"].clone()
}

fn await_failed(elasticd: &Elasticd) -> String {
    let status = elasticd.await_status("failed", |status| status["frontends"]["apache"]["phase"] == "failed");
    status["frontends"]["apache"]["error"].as_str().expect("an error").to_owned()
}

#[test]
fn a_new_member_inherits_no_state_from_the_one_it_replaces() {
    let backends = three();
    let apache = Apache::new().start();
    // A backend that could not be reached would rest for an hour.
    let elasticd = elasticd(&apache, "vars = { retry = 3600 }\n", &[]);
    let unreachable = "- { id: a, address: \"127.0.0.1:1\", tags: { Role: web } }\n";
    elasticd.write("backends.yaml", unreachable);
    let elasticd = elasticd.ready();
    until("503", || (apache.ask()?.0 == 503).then_some(()));
    let status = || crate::harness::load::get(apache.address, "/server-status?auto").expect("a status").1;
    until("it rests", || status().contains("]Status: Init Err").then_some(()));
    // Another in the first place of the same balancer, and then one in front of it.
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    apache.await_answers(&["b"]);
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    apache.await_answers(&["a", "b"]);
    // The one whose port was dead comes back at its old address.
    elasticd.write("backends.yaml", unreachable);
    elasticd.await_proven("apache", "web", &["a"]);
    assert!(!status().contains("Err"), "{}", status());
}

#[test]
fn names_of_any_length_and_case_are_found() {
    let backends = three();
    let long = "x-Y_z.".repeat(11)[..63].to_owned();
    let apache = Apache::new();
    let apache = apache.configure(&format!("ProxyPassMatch ^/(.*)$ balancer://{long}/$1\n"));
    let config = apache.path("apache2.conf");
    let text = fs::read_to_string(&config).expect("written").replace("ProxyPass / balancer://web/\n", "");
    fs::write(&config, text).expect("written");
    let apache = apache.start();
    let elasticd = Elasticd::new(&format!(
        "{}{}",
        FILE.replace("services.web", &format!("services.\"{long}\"")),
        apache.frontend()
    ));
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let _elasticd = elasticd.ready();
    apache.await_answers(&["a", "b"]);
}

#[test]
fn names_that_differ_in_case_alone_are_refused() {
    let apache = Apache::new();
    let config = format!("{FILE}[services.Web]\nprovider = 'local'\nselect = {{ Role = 'x' }}\n{}", apache.frontend());
    let (code, _, error) = Elasticd::new(&config).run(&["check"]);
    assert!(code == 78 && error.contains("frontends.apache.services: ") && error.contains("Web and web"), "{error}");
}

#[test]
fn a_change_that_ends_apache_is_rolled_back_and_not_repeated_at_once() {
    let backends = three();
    let mut apache = Apache::new().start();
    // `apache2 -t` lets an address in use pass; an Apache that restarts cannot bind it, and ends.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    // It is tried again after eight times `retry_min`, and then ever later.
    let frontend = apache.frontend().replace("'200ms'", "'500ms'").replace("retry_max = '1s'", "retry_max = '2s'");
    let more = "template = 'listens.conf'\nrestart_grace = '500ms'\n";
    let elasticd = Elasticd::knowing(&format!("{FILE}{frontend}{more}"), &backends[..1]);
    elasticd.write(
        "listens.conf",
        &format!(
            "{{% for s in services %}}<Proxy balancer://{{{{ s.name }}}}>\n{{% for b in s.backends %}}\
             BalancerMember http://{{{{ b | hostport }}}}\n{{% endfor %}}</Proxy>\n\
             {{% for b in s.backends | where: \"id\", \"b\" %}}Listen 127.0.0.1:{port}\n{{% endfor %}}{{% endfor %}}\n"
        ),
    );
    let elasticd = elasticd.ready();
    apache.await_answers(&["a"]);
    let (parent, good) = (apache.parent(), apache.balancers());
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let error = await_failed(&elasticd);
    assert!(error.contains(&format!("PID {parent} ended when it was asked")), "{error}");
    assert!(!apache.is_running() && apache.errors().contains("could not bind"), "{}", apache.errors());
    assert_eq!(apache.balancers(), good, "what it last ran is back in place");
    // So it starts with that, and is left alone although elasticd has something newer.
    apache.stop();
    apache.spawn();
    apache.await_answers(&["a"]);
    let polls = |status: &serde_json::Value| status["providers"]["local"]["polls"].as_u64();
    let before = polls(&elasticd.status());
    elasticd.await_status("more polls", |status| polls(status) >= before.map(|before| before + 10));
    assert!(apache.is_running());
    assert_eq!((apache.balancers(), frontend_of(&elasticd)["phase"].as_str()), (good, Some("failed")));
    assert_eq!(elasticd.logged(Elasticd::UPDATE_FAILED), 1, "{}", elasticd.log());
    // Any other change is applied.
    elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
    elasticd.await_proven("apache", "web", &["a", "c"]);
    apache.await_answers(&["a", "c"]);
}

#[test]
fn with_mod_status_the_generation_of_the_process_that_answers_is_the_proof() {
    let backends = three();
    let apache = Apache::new().start();
    let api = format!("api = '{}'\n", apache.address);
    let mut elasticd = elasticd(&apache, &api, &backends[..1]).ready();
    elasticd.await_proven("apache", "web", &["a"]);
    let first = apache.generation().expect("a status");
    assert_eq!(frontend_of(&elasticd)["reloads"], 1, "that it was started long ago proves nothing");
    // A restart by others, such as logrotate, is no proof of what comes after it.
    apache.graceful();
    until("restarted", || (apache.generation()? == first + 1).then_some(()));
    kill(Pid::from_raw(apache.parent().cast_signed()), Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_status("asked", |status| status["frontends"]["apache"]["phase"] == "applying");
    let record = || elasticd.read("state/frontends/apache.json");
    until("the record says that it was asked", || record().contains("\"asked\":true").then_some(()));
    assert!(record().contains(&format!("\"{}, ", first + 1)), "marked before it was asked: {}", record());
    // An elasticd that is restarted in between finds the mark.
    elasticd.kill();
    kill(Pid::from_raw(apache.parent().cast_signed()), Signal::SIGCONT).expect("it runs");
    elasticd.restart();
    elasticd.await_ready();
    elasticd.await_proven("apache", "web", &["a", "b"]);
    assert_eq!((apache.generation(), &frontend_of(&elasticd)["reloads"]), (Some(first + 2), &0.into()));
    apache.await_answers(&["a", "b"]);
    // Nor does it need a reload of our own afterwards.
    assert!(elasticd.stop().success());
    apache.graceful();
    until("restarted", || (apache.generation()? == first + 3).then_some(()));
    elasticd.restart();
    elasticd.await_ready();
    elasticd.await_proven("apache", "web", &["a", "b"]);
    assert_eq!((apache.generation(), &frontend_of(&elasticd)["reloads"]), (Some(first + 3), &0.into()));
}

#[test]
fn an_api_that_is_not_mod_status_is_reported_and_nothing_is_signalled() {
    let backends = three();
    // Apache proxies the status too, to a backend that answers anything.
    let apache = Apache::new();
    let config = apache.path("apache2.conf");
    let text = fs::read_to_string(&config).expect("written").replace("ProxyPass /server-status !\n", "");
    fs::write(&config, text).expect("written");
    fs::write(
        apache.path("conf.d/elasticd.conf"),
        format!("<Proxy balancer://web>\nBalancerMember http://{}\n</Proxy>\n", backends[0].address),
    )
    .expect("written");
    let apache = apache.start();
    let (restarts, balancers) = (apache.restarts(), apache.balancers());
    let api = format!("api = '{}'\n", apache.address);
    let elasticd = elasticd(&apache, &api, &backends[..2]).start();
    let error = await_failed(&elasticd);
    assert!(error.contains("is not that of mod_status") && error.contains("ProxyPass \"/server-status\""), "{error}");
    assert_eq!((apache.restarts(), apache.balancers()), (restarts, balancers));
}

/// A program of its own name that forks at every moment and, like Apache, writes its pid file anew when it restarts: if
/// it is willing to.
struct Spawner(Child);

impl Drop for Spawner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_new_child_alone_is_no_proof() {
    let config = format!(
        "{FILE}[frontends.apache]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/list'\ntemplate = 'list.tpl'\n\
         reload = {{ signal = 'USR1' }}\nexecutable = 'DIR/spawner'\npid_file = 'DIR/pid'\nproof = 'generation'\n\
         proof_timeout = '1s'\n"
    );
    let backends = three();
    let elasticd = Elasticd::new(&config);
    elasticd.write("list.tpl", "{% for s in services %}{% for b in s.backends %}{{ b.id }}\n{% endfor %}{% endfor %}");
    elasticd.write("backends.yaml", &entries(&backends));
    copy_program("/bin/bash", elasticd.path("spawner"));
    let script = "echo $$ > pid; trap 'echo >> asked; test -e willing && { echo $$ > new; mv new pid; }' USR1\n\
                  while :; do sleep 1 & sleep 0.02; done";
    let mut command = Command::new(elasticd.path("spawner"));
    command.args(["-c", script]).current_dir(elasticd.path(".")).stdout(Stdio::null()).stderr(Stdio::null());
    let _spawner = Spawner(command.spawn().expect("bash runs"));
    until("it writes its PID", || fs::read_to_string(elasticd.path("pid")).ok().filter(|pid| !pid.is_empty()));
    let elasticd = elasticd.start();
    let error = await_failed(&elasticd);
    assert!(error.contains("no new generation of workers within 1s"), "{error}");
    assert!(elasticd.path("asked").exists() && !elasticd.path("list").exists(), "asked, and rolled back");
    elasticd.write("willing", "");
    elasticd.await_proven("apache", "web", &["a", "b", "c"]);
}

#[test]
fn a_restart_between_reload_and_proof_does_not_reload_again() {
    let backends = three();
    let apache = Apache::new().start();
    let mut elasticd = elasticd(&apache, "", &backends[..1]).ready();
    apache.await_answers(&["a"]);
    let parent = Pid::from_raw(apache.parent().cast_signed());
    let before = apache.generation().expect("a status");
    kill(parent, Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends));
    let record = || elasticd.read("state/frontends/apache.json");
    until("the record says that it was asked", || record().contains("\"asked\":true").then_some(()));
    elasticd.kill();
    kill(parent, Signal::SIGCONT).expect("it runs");
    until("Apache has taken it", || (apache.generation()? > before).then_some(()));
    elasticd.restart();
    elasticd.await_ready();
    elasticd.await_proven("apache", "web", &["a", "b", "c"]);
    assert_eq!((apache.generation(), &frontend_of(&elasticd)["reloads"]), (Some(before + 1), &0.into()));
    apache.await_answers(&["a", "b", "c"]);
}
