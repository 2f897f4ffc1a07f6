//! A real Apache: what is taken, what is refused, and what would have ended it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::apache::Apache;
use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::load::{Load, Tally};
use crate::harness::until;

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

/// What clients see while the same graceful restarts are asked for by hand, with nothing changed in between.
fn by_hand(apache: &Apache, restarts: u64) -> Tally {
    let load = Load::start(apache.port, 3);
    for _ in 0..restarts {
        let before = apache.generation().expect("a status");
        apache.graceful();
        until("restarted", || (apache.generation()? > before).then_some(()));
    }
    load.stop()
}

#[test]
fn twenty_changes_under_load_fail_no_more_requests_than_restarts_by_hand() {
    for mpm in ["event", "prefork"] {
        let backends = three();
        let apache = Apache::with_mpm(mpm).start();
        let elasticd = elasticd(&apache, "", &backends[..1]).ready();
        apache.await_answers(&["a"]);
        let tally = elasticd.changes_under_load(apache.port, 20, &backends, |some| {
            elasticd.await_proven("apache", "web", &ids(some));
        });
        let reloads = frontend_of(&elasticd)["reloads"].as_u64().expect("a number");
        assert!((20..=21).contains(&reloads), "{reloads} for 20 changes");
        assert_eq!(elasticd.hidden(&apache.conf_d()), Vec::<PathBuf>::new());
        println!("{mpm}: {} of {} failed: {:?}", tally.failures.len(), tally.total(), tally.failures);
        if !tally.failures.is_empty() {
            // Apache itself drops some: twice what it drops by hand is more than chance.
            let hand = by_hand(&apache, reloads);
            println!("{mpm}, by hand: {} of {} failed", hand.failures.len(), hand.total());
            assert!(tally.failures.len() <= 2 * hand.failures.len() + 1, "{:?}; by hand {:?}", tally.failures, hand);
        }
    }
}

#[test]
fn a_drained_backend_serves_nobody_and_a_service_without_any_answers_503() {
    let backends = three();
    let apache = Apache::new().start();
    let config = FILE.replace("guard = {", "guard = { on_empty = 'accept',");
    let elasticd = Elasticd::knowing(&format!("{config}{}", apache.frontend()), &backends).ready();
    apache.await_answers(&["a", "b", "c"]);
    let drained = |some: usize| -> String {
        let entry = |(index, backend): (usize, &Backend)| {
            let weight = if index < some { "weight: 0, tags" } else { "tags" };
            backend.entry().replace("tags", weight)
        };
        backends.iter().enumerate().map(entry).collect()
    };
    elasticd.write("backends.yaml", &drained(2));
    apache.await_answers(&["c"]);
    assert_eq!(apache.balancers().matches("status=+N").count(), 2, "{}", apache.balancers());
    elasticd.write("backends.yaml", &drained(3));
    until("503", || (apache.ask()?.0 == 503).then_some(()));
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    apache.await_answers(&["a"]);
    elasticd.write("backends.yaml", "[]\n");
    until("503", || (apache.ask()?.0 == 503).then_some(()));
    elasticd.await_proven("apache", "web", &[]);
    elasticd.write("backends.yaml", &entries(&backends[1..]));
    apache.await_answers(&["b", "c"]);
}

#[test]
fn a_member_inherits_nothing_from_the_one_whose_place_it_takes() {
    let backends = three();
    let apache = Apache::new().start();
    // A backend that could not be reached would rest for an hour.
    let elasticd = elasticd(&apache, "vars = { retry = 3600 }\n", &[]);
    let nobody = "- { id: a, address: \"127.0.0.1:1\", tags: { Role: web } }\n";
    elasticd.write("backends.yaml", nobody);
    let elasticd = elasticd.ready();
    until("503", || (apache.ask()?.0 == 503).then_some(()));
    let status = || crate::harness::load::get(apache.port, "/server-status?auto").expect("a status").1;
    until("it rests", || status().contains("]Status: Init Err").then_some(()));
    // Another in the first place of the same balancer, and then one in front of it.
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    apache.await_answers(&["b"]);
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    apache.await_answers(&["a", "b"]);
    // The one whose port was dead comes back at its old address.
    elasticd.write("backends.yaml", nobody);
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
fn names_that_apache_takes_for_one_are_refused() {
    let apache = Apache::new();
    let config = format!("{FILE}[services.Web]\nprovider = 'local'\nselect = {{ Role = 'x' }}\n{}", apache.frontend());
    let (code, _, error) = Elasticd::new(&config).run(&["check"]);
    assert!(code == 78 && error.contains("frontends.apache.services: ") && error.contains("Web and web"), "{error}");
}

#[test]
fn what_the_check_refuses_is_never_signalled() {
    let backends = three();
    let mut apache = Apache::new().start();
    let elasticd = elasticd(&apache, "", &backends[..1]).ready();
    apache.await_answers(&["a"]);
    let (restarts, balancers, reloads) =
        (apache.restarts(), apache.balancers(), frontend_of(&elasticd)["reloads"].clone());
    // Somebody else's mistake: Apache would end if it were told to restart.
    fs::write(apache.path("conf.d/broken.conf"), "NoSuchDirective\n").expect("written");
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_status("failing", |status| status["frontends"]["apache"]["failures"].as_u64() >= Some(2));
    let error = await_failed(&elasticd);
    assert!(error.contains("the check refuses") && error.contains("Invalid command 'NoSuchDirective'"), "{error}");
    assert_eq!(error.matches("NoSuchDirective").count(), 1, "Apache's own words, once: {error}");
    assert_eq!(elasticd.logged("the old configuration stays"), 1, "said once: {}", elasticd.log());
    assert!(apache.is_running(), "{}", apache.errors());
    assert_eq!((apache.restarts(), apache.balancers()), (restarts, balancers), "nothing changed");
    assert_eq!(frontend_of(&elasticd)["reloads"], reloads);
    fs::remove_file(apache.path("conf.d/broken.conf")).expect("removed");
    elasticd.await_proven("apache", "web", &["a", "b", "c"]);
    apache.await_answers(&["a", "b", "c"]);
    assert_eq!(elasticd.logged("recovered"), 1, "{}", elasticd.log());
}

#[test]
fn what_passes_the_check_and_ends_apache_is_rolled_back_and_not_tried_again() {
    let backends = three();
    let mut apache = Apache::new().start();
    // `apache2 -t` lets an address in use pass; an Apache that restarts cannot bind it, and ends.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let elasticd = elasticd(&apache, "template = 'listens.conf'\n", &backends[..1]);
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
    // So it comes up with that, and is left in peace although elasticd would have something newer.
    apache.stop();
    apache.spawn();
    apache.await_answers(&["a"]);
    let polls = |status: &serde_json::Value| status["providers"]["local"]["polls"].as_u64();
    let before = polls(&elasticd.status());
    elasticd.await_status("more polls", |status| polls(status) >= before.map(|before| before + 10));
    assert!(apache.is_running());
    assert_eq!((apache.balancers(), frontend_of(&elasticd)["phase"].as_str()), (good, Some("failed")));
    assert_eq!(elasticd.logged("the old configuration stays"), 1, "{}", elasticd.log());
    // Anything else is.
    elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
    elasticd.await_proven("apache", "web", &["a", "c"]);
    apache.await_answers(&["a", "c"]);
}

#[test]
fn an_apache_that_comes_later_or_comes_back_is_adopted_without_a_reload() {
    for api in [false, true] {
        let backends = three();
        let mut apache = Apache::new();
        let more = if api { format!("api = '127.0.0.1:{}'\n", apache.port) } else { String::new() };
        let elasticd = elasticd(&apache, &more, &backends[..1]).ready();
        assert_eq!(frontend_of(&elasticd)["phase"], "not_running", "{:#}", elasticd.status());
        assert!(apache.balancers().contains("balancer://web"), "in place for its start");
        apache.spawn();
        elasticd.await_proven("apache", "web", &["a"]);
        apache.await_answers(&["a"]);
        elasticd.write("backends.yaml", &entries(&backends[..2]));
        elasticd.await_proven("apache", "web", &["a", "b"]);
        apache.await_answers(&["a", "b"]);
        let reloads = frontend_of(&elasticd)["reloads"].clone();
        apache.stop();
        apache.spawn();
        let parent = apache.parent();
        elasticd.await_status("adopted", |status| {
            let apache = &status["frontends"]["apache"];
            apache["pid"] == parent && apache["phase"] == "proven"
        });
        assert_eq!(frontend_of(&elasticd)["reloads"], reloads);
        apache.await_answers(&["a", "b"]);
    }
}

#[test]
fn with_mod_status_the_generation_of_the_process_that_answers_is_the_proof() {
    let backends = three();
    let apache = Apache::new().start();
    let api = format!("api = '127.0.0.1:{}'\n", apache.port);
    let mut elasticd = elasticd(&apache, &api, &backends[..1]).ready();
    elasticd.await_proven("apache", "web", &["a"]);
    let first = apache.generation().expect("a status");
    assert_eq!(frontend_of(&elasticd)["reloads"], 1, "that it was started long ago proves nothing");
    // Somebody else's restart, as by logrotate, is no proof of what comes after it.
    apache.graceful();
    until("restarted", || (apache.generation()? == first + 1).then_some(()));
    kill(Pid::from_raw(apache.parent().cast_signed()), Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    elasticd.await_status("asked", |status| status["frontends"]["apache"]["phase"] == "applying");
    let record = || elasticd.read("state/frontends/apache.json");
    until("the record says that it was asked", || record().contains("\"asked\":true").then_some(()));
    assert!(record().contains(&format!("\"{}, ", first + 1)), "marked before it was asked: {}", record());
    // Whoever restarts in between finds the mark.
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
fn an_api_that_is_no_mod_status_is_named_and_nothing_is_signalled() {
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
    let api = format!("api = '127.0.0.1:{}'\n", apache.port);
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
fn a_spare_child_is_no_proof() {
    let config = format!(
        "{FILE}[frontends.apache]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/list'\ntemplate = 'list.tpl'\n\
         reload = {{ signal = 'USR1' }}\nexecutable = 'DIR/spawner'\npid_file = 'DIR/pid'\nproof = 'generation'\n\
         proof_timeout = '1s'\n"
    );
    let backends = three();
    let elasticd = Elasticd::new(&config);
    elasticd.write("list.tpl", "{% for s in services %}{% for b in s.backends %}{{ b.id }}\n{% endfor %}{% endfor %}");
    elasticd.write("backends.yaml", &entries(&backends));
    fs::copy("/bin/bash", elasticd.path("spawner")).expect("copied");
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
fn killed_at_any_moment_it_ends_proven_on_the_newest() {
    let backends = three();
    let apache = Apache::new().start();
    let mut elasticd = elasticd(&apache, "", &backends[..1]).ready();
    elasticd.killed_amid_changes("apache", &backends, (15, 200), &apache.conf_d(), |some| {
        for backend in some {
            assert!(apache.balancers().contains(&backend.address.to_string()), "{}", apache.balancers());
        }
    });
}

#[test]
fn asked_and_not_yet_proven_it_is_not_asked_again() {
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
