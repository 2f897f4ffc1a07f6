//! A real nginx: what costs a reload, what is rolled back, and reloads of elasticd's own configuration.

use std::fs;
use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::harness::backend::{Backend, FILE, entries, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::{Nginx, inode};
use crate::harness::until;

/// An elasticd that is not started yet, and knows of these backends.
fn elasticd(nginx: &Nginx, more: &str, backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(&format!("{FILE}{}{more}", nginx.frontend()), backends)
}

#[test]
fn an_unchanged_set_writes_and_reloads_nothing() {
    let backends = three();
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&nginx, "", &backends).ready();
    let output = nginx.conf_d().join("elasticd.conf");
    let (workers, file, state) = (nginx.workers(), inode(&output), inode(&elasticd.path("state/snapshot.json")));
    let polls = || elasticd.status()["providers"]["local"]["polls"].as_u64().expect("a number");
    let before = polls();
    elasticd.write("backends.yaml", &entries(&backends));
    // Another order, and an instance of another service, change no backend of this one.
    let others =
        format!("- {{ id: db, address: 127.0.0.9, tags: {{ Role: db }} }}\n{}", entries(backends.iter().rev()));
    elasticd.write("backends.yaml", &others);
    until("more polls", || (polls() >= before + 4).then_some(()));
    assert_eq!((nginx.workers(), inode(&output)), (workers, file));
    assert_eq!(inode(&elasticd.path("state/snapshot.json")), state, "no write of the state either");
    assert_eq!(elasticd.status()["revision"], 1);
}

#[test]
fn a_storm_of_changes_is_a_few_reloads() {
    let backends = three();
    let nginx = Nginx::new().start();
    let frontend = nginx.frontend().replace("min_reload_gap = '50ms'", "min_reload_gap = '1s'");
    let elasticd = Elasticd::knowing(&format!("{FILE}{frontend}"), &backends[..1]).ready();
    let started = std::time::Instant::now();
    for round in 0..60 {
        elasticd.write("backends.yaml", &entries(&backends[..1 + round % 3]));
        // Each is seen: a writer that is faster than the reader makes no storm.
        let count = 1 + round % 3;
        elasticd.await_status("seen", |status| status["services"]["web"]["backends"] == count);
    }
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    let reloads = elasticd.status()["frontends"]["nginx"]["reloads"].as_u64().expect("a number");
    let bound = started.elapsed().as_secs() + 2;
    assert!(reloads <= bound, "{reloads} reloads in {:?}", started.elapsed());
    nginx.await_old_workers_gone();
    nginx.await_answers(&["a", "b", "c"]);
}

#[test]
fn a_change_that_passes_the_check_and_cannot_be_loaded_is_rolled_back() {
    let backends = three();
    let nginx = Nginx::new().start();
    // `nginx -t` lets an address in use pass; a running nginx cannot bind it, which it tries for 2.5 s.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let frontend = nginx.frontend().replace("proof_timeout = '10s'", "proof_timeout = '5s'");
    let elasticd = Elasticd::knowing(
        &format!("{FILE}{frontend}template = 'listens.conf'\nvars = {{ port = 0 }}\n"),
        &backends[..1],
    );
    elasticd.write(
        "listens.conf",
        &format!(
            "{{% for s in services %}}upstream {{{{ s.name }}}} {{\n{{% for b in s.backends %}}server {{{{ b | hostport }}}};\n\
             {{% if b.id | eq: \"b\" %}}\n}} server {{ listen 127.0.0.1:{port};\n{{% endif %}}{{% endfor %}}\n}}\n{{% endfor %}}\n"
        ),
    );
    let elasticd = elasticd.ready();
    nginx.await_answers(&["a"]);
    let (workers, upstreams) = (nginx.workers(), nginx.upstreams());
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let status = elasticd.await_status("failed", |status| status["frontends"]["nginx"]["phase"] == "failed");
    let error = status["frontends"]["nginx"]["error"].as_str().expect("an error");
    assert!(error.contains("no new generation of workers within 5s"), "{error}");
    assert_eq!(nginx.upstreams(), upstreams, "the previous file is back");
    assert_eq!(nginx.workers(), workers, "{}", nginx.errors());
    nginx.await_answers(&["a"]);
    drop(taken);
    elasticd.await_status("recovered", |status| status["frontends"]["nginx"]["phase"] == "proven");
}

#[test]
fn a_restart_reloads_nothing_and_serves_the_last_known_set() {
    let backends = three();
    let nginx = Nginx::new().start();
    let mut elasticd = elasticd(&nginx, "", &backends).ready();
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    let before = elasticd.get("/v1/services/web");
    let workers = nginx.workers();
    assert!(elasticd.stop().success());
    assert!(!elasticd.path("sock").exists(), "the socket is gone");
    // The provider is away when it comes back.
    fs::remove_file(elasticd.path("backends.yaml")).expect("removed");
    elasticd.restart();
    elasticd.await_ready();
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    let status = elasticd.await_status("failing", |status| !status["providers"]["local"]["error"].is_null());
    assert!(status["providers"]["local"]["error"].as_str().is_some_and(|error| error.contains("backends.yaml")));
    assert_eq!(status["services"]["web"]["restored"], true, "{status:#}");
    assert_eq!(elasticd.get("/v1/services/web").2, before.2);
    assert_eq!((nginx.workers(), &status["frontends"]["nginx"]["reloads"]), (workers, &0.into()));
}

#[test]
fn several_outputs_are_swapped_together_or_not_at_all() {
    let backends = three();
    let nginx = Nginx::new().start();
    let at = nginx.conf_d().display().to_string();
    let frontend = nginx.frontend().replace(&format!("output = '{at}/elasticd.conf'\n"), "");
    let more = format!(
        "[[frontends.nginx.outputs]]\npath = '{at}/elasticd.conf'\ntemplate = 'nginx/upstreams.conf'\n\
         [[frontends.nginx.outputs]]\npath = '{at}/map.conf'\ntemplate = 'map.conf'\nmode = '0600'\n"
    );
    let elasticd = Elasticd::new(&format!("{FILE}{frontend}{more}"));
    elasticd.write(
        "map.conf",
        "map $uri $known {\n{%- for s in services %}{% for b in s.backends %}\n{{ b.id }} {{ b.tags | get: \"Note\", \"none\" }};\
         {%- endfor %}{% endfor %}\n}\n",
    );
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    let elasticd = elasticd.ready();
    nginx.await_answers(&["a"]);
    let map = || fs::read_to_string(nginx.conf_d().join("map.conf")).expect("written");
    assert!(map().contains("a none;"), "{}", map());
    let (first, second) = (nginx.upstreams(), map());
    // Each file for itself is right, but a name may stand only once.
    fs::write(nginx.conf_d().join("z.conf"), "upstream web { server 127.0.0.1:1; }\n").expect("written");
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_status("failed", |status| status["frontends"]["nginx"]["phase"] == "failed");
    assert_eq!((nginx.upstreams(), map()), (first, second));
    fs::remove_file(nginx.conf_d().join("z.conf")).expect("removed");
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    assert!(map().contains("c none;"), "{}", map());
}

#[test]
fn the_configuration_is_reloaded_whole_or_not_at_all() {
    let backends = three();
    let nginx = Nginx::new().start();
    let mut elasticd = elasticd(&nginx, "", &backends).ready();
    elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    let workers = nginx.workers();
    let good = format!("{FILE}{}", nginx.frontend());

    elasticd.configure(&good.replace("select =", "selekt ="));
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_log("services.web.selekt: unknown key");
    assert!(elasticd.log().contains("configuration refused; the previous one is kept"));
    assert!(elasticd.is_running());
    assert_eq!(elasticd.get("/v1/services/web").0, 200);

    let more = "[services.only-a]\nprovider = 'local'\nselect = { Name = 'a' }\nport = 80\nguard = { on_empty = 'accept' }\n\
                [frontends.list]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/list'\ntemplate = 'list.tpl'\nservices = ['web']\n";
    elasticd.write("list.tpl", "{% for s in services %}{% for b in s.backends %}{{ b.id }}\n{% endfor %}{% endfor %}");
    // The new service must not change nginx's file.
    let good = good.replace("[frontends.nginx]\n", "[frontends.nginx]\nservices = ['web']\n");
    elasticd.configure(&format!("{good}{more}"));
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_log("configuration reloaded");
    elasticd.await_status("the new frontend", |status| status["frontends"]["list"]["phase"] == "written");
    assert_eq!(elasticd.read("list"), "a\nb\nc\n");
    let (status, _, body) = elasticd.get("/v1/services/only-a");
    assert!(status == 200 && body.contains("\"backends\":[]"), "{status} {body}");
    let status = elasticd.await_status("proven", |status| status["frontends"]["nginx"]["phase"] == "proven");
    assert_eq!(status["frontends"]["nginx"]["reloads"], 1, "none since the first: {status:#}");
    assert_eq!(nginx.workers(), workers);

    elasticd.configure(&good);
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_status("gone", |status| status["services"].as_object().is_some_and(|services| services.len() == 1));
    assert_eq!(elasticd.get("/v1/services/only-a").0, 404);
    assert!(elasticd.stop().success());
}

#[test]
fn a_renamed_frontend_takes_over_its_outputs() {
    let list = "[frontends.list]\ntype = 'json'\noutput = 'DIR/list.json'\nsettle = '5ms'\n";
    let backends = three();
    let elasticd = Elasticd::knowing(&format!("{FILE}{list}"), &backends[..1]).ready();
    elasticd.await_applied("list", "web", &["a"]);
    // Its change takes a second, during which the frontend is removed from the configuration.
    let slow = format!("{FILE}{list}check = ['sleep', '1']\n");
    elasticd.configure(&slow);
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_log("configuration reloaded");
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    elasticd.await_status("at it", |status| status["frontends"]["list"]["phase"] == "applying");
    elasticd.configure(&slow.replace("[frontends.list]", "[frontends.other]"));
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_applied("other", "web", &["b"]);
    assert_eq!(elasticd.logged("another elasticd writes"), 0, "{}", elasticd.log());
}

#[test]
fn sigusr1_polls_at_once() {
    let nginx = Nginx::new();
    let config = FILE.replace("interval = '300ms'", "interval = '1h'");
    let elasticd = Elasticd::new(&format!("{config}{}", nginx.frontend()));
    let backends = three();
    elasticd.write("backends.yaml", &entries(&backends));
    let elasticd = elasticd.ready();
    assert_eq!(elasticd.status()["providers"]["local"]["polls"], 1);
    elasticd.signal(Signal::SIGUSR1);
    elasticd.await_status("polled", |status| status["providers"]["local"]["polls"] == 2);
}
