//! An nginx that asks elasticd's socket itself, with Lua and without: no file, and no reload.

use std::path::Path;

use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::load::Load;
use crate::harness::nginx::Nginx;
use crate::harness::{require, until};

fn elasticd(backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(FILE, backends)
}

/// nginx with `templates/nginx/elasticd.lua`, which asks this elasticd.
fn with_lua(elasticd: &Elasticd) -> Nginx {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/nginx");
    let modules = "/usr/lib/nginx/modules";
    require(&Path::new(modules).join("ngx_http_lua_module.so"));
    let top = format!(
        "user root;\nload_module {modules}/ndk_http_module.so;\nload_module {modules}/ngx_http_lua_module.so;\n"
    );
    let http = format!(
        "  lua_package_path \"{}/?.lua;;\";\n  lua_shared_dict elasticd 10m;\n  lua_socket_log_errors off;\n  \
         init_worker_by_lua_block {{ require(\"elasticd\").start{{ socket = \"{}\" }} }}\n  \
         upstream web {{\n    server 127.0.0.1:1 down;\n    balancer_by_lua_block {{ require(\"elasticd\").balance(\"web\") }}\n    \
         keepalive 64;\n  }}\n  server {{\n    listen ADDRESS;\n    location / {{\n      proxy_pass http://web;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_connect_timeout 2s;\n    }}\n  }}\n",
        templates.display(),
        elasticd.path("sock").display(),
    );
    Nginx::configured(&top, &http)
}

/// How many connections to elasticd's query socket are open.
fn asking(elasticd: &Elasticd) -> usize {
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("readable");
    // The socket was made in a directory beside its place. State 03 is a connection; the listener itself is in 01.
    let is_connection = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let path = fields.get(7).map_or(Path::new(""), Path::new);
        fields.get(5) == Some(&"03") && path.starts_with(elasticd.path("")) && path.ends_with("s")
    };
    sockets.lines().filter(is_connection).count()
}

#[test]
fn with_lua_twenty_changes_under_load_take_no_reload_and_fail_no_request() {
    let backends = three();
    let elasticd = elasticd(&backends[..1]).ready();
    let nginx = with_lua(&elasticd).start();
    nginx.await_answers(&["a"]);
    let workers = nginx.workers();
    until("one worker asks", || (asking(&elasticd) == 1).then_some(()));
    let tally = elasticd.changes_under_load(nginx.address, 20, &backends, |some| nginx.await_answers(&ids(some)));
    assert_eq!(tally.failures, Vec::<String>::new(), "{}", nginx.errors());
    assert_eq!(nginx.workers(), workers, "no reload");
}

#[test]
fn with_lua_the_last_list_serves_while_elasticd_is_gone() {
    let backends = three();
    let mut elasticd = elasticd(&backends[..2]).ready();
    let nginx = with_lua(&elasticd).start();
    nginx.await_answers(&["a", "b"]);
    let load = Load::start(nginx.address, 3);
    for _ in 0..3 {
        elasticd.kill();
        until("nginx has noticed", || nginx.errors().contains("no answer from elasticd").then_some(()));
        nginx.await_answers(&["a", "b"]);
        elasticd.restart();
        elasticd.await_ready();
    }
    elasticd.write("backends.yaml", &entries(&backends));
    nginx.await_answers(&["a", "b", "c"]);
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new(), "of {}: {}", tally.total(), nginx.errors());
}

#[test]
fn with_lua_a_failed_backend_is_skipped() {
    let mut backends = Vec::from(three());
    let elasticd = elasticd(&backends).ready();
    let nginx = with_lua(&elasticd).start();
    nginx.await_answers(&["a", "b", "c"]);
    let load = Load::start(nginx.address, 3);
    // It is gone, and elasticd does not know yet.
    backends.pop();
    nginx.await_answers(&["a", "b"]);
    let tally = load.stop();
    // What the backend had accepted when it died cannot be asked again: nginx has sent it.
    let lost = tally.failures.len();
    assert!(lost <= 3, "at most one for each client: {:?}", tally.failures);
}

#[test]
fn with_lua_a_reload_of_nginx_and_the_death_of_the_worker_that_asks_change_nothing() {
    let backends = three();
    let elasticd = elasticd(&backends[..1]).ready();
    let nginx = with_lua(&elasticd).start();
    nginx.await_answers(&["a"]);
    until("one worker asks", || (asking(&elasticd) == 1).then_some(()));
    let hup = || {
        let master = nix::unistd::Pid::from_raw(nginx.master().cast_signed());
        nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGHUP).expect("it runs");
    };
    let workers = nginx.workers();
    hup();
    until("new workers", || nginx.workers().is_disjoint(&workers).then_some(()));
    // The old ones do not wait for their long-poll.
    nginx.await_old_workers_gone();
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    nginx.await_answers(&["b"]);
    for worker in nginx.workers() {
        let worker = nix::unistd::Pid::from_raw(worker.cast_signed());
        nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    }
    elasticd.write("backends.yaml", &entries(&backends[2..]));
    nginx.await_answers(&["c"]);
    until("one worker asks", || (asking(&elasticd) == 1).then_some(()));
}

#[test]
fn with_lua_weights_are_kept_and_an_empty_service_answers_502() {
    let backends = three();
    let elasticd = Elasticd::new(&FILE.replace("guard =", "weight = { tag = 'W', default = 1 }\nguard ="));
    let weighted =
        |backend: &Backend, weight: u16| backend.entry().replace("Role: web", &format!("Role: web, W: {weight}"));
    let text: String = backends.iter().zip([1, 0, 9]).map(|(backend, weight)| weighted(backend, weight)).collect();
    elasticd.write("backends.yaml", &text);
    let elasticd = elasticd.ready();
    let nginx = with_lua(&elasticd).start();
    nginx.await_answers(&["a", "c"]);
    let answers: Vec<_> = (0..1000).filter_map(|_| nginx.ask()).map(|(_, body)| body).collect();
    let to_a = answers.iter().filter(|body| *body == "a").count();
    // Of a mean of 100, with a standard deviation below 10.
    assert!((40..160).contains(&to_a) && !answers.iter().any(|body| body == "b"), "{to_a}");
    let other = Elasticd::new(&FILE.replace("max_drop", "on_empty = 'accept', max_drop"));
    other.write("backends.yaml", "[]\n");
    let other = other.ready();
    let nginx = with_lua(&other).start();
    until("502", || nginx.ask().filter(|(status, _)| *status == 502));
    assert!(nginx.errors().contains("service web has no backends"), "{}", nginx.errors());
}

#[test]
fn without_lua_each_request_has_its_backend_picked() {
    let backends = three();
    let elasticd = elasticd(&backends[..1]).ready();
    let http = format!(
        "  server {{\n    listen ADDRESS;\n    location = /_pick {{\n      internal;\n      \
         proxy_pass http://unix:{}:/v1/services/web/pick;\n      proxy_pass_request_body off;\n      \
         proxy_set_header Content-Length \"\";\n    }}\n    location / {{\n      auth_request /_pick;\n      \
         auth_request_set $backend $upstream_http_x_elasticd_backend;\n      proxy_pass http://$backend;\n    }}\n  }}\n",
        elasticd.path("sock").display()
    );
    let nginx = Nginx::configured("user root;\n", &http).start();
    nginx.await_answers(&["a"]);
    let (workers, load) = (nginx.workers(), Load::start(nginx.address, 3));
    elasticd.write("backends.yaml", &entries(&backends));
    nginx.await_answers(&["a", "b", "c"]);
    elasticd.write("backends.yaml", &entries(&backends[1..]));
    nginx.await_answers(&["b", "c"]);
    let tally = load.stop();
    assert_eq!((tally.failures, nginx.workers()), (Vec::<String>::new(), workers));
}
