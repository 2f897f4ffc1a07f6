//! Frontends that somebody else reloads, breaks, stops or kills as well, with real programs.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::apache::Apache;
use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::nginx::Nginx;
use crate::harness::{load, own_socket, require, until};

/// nginx that reads its configuration for as many seconds as the file `slow` in its directory says.
fn slow_nginx() -> Nginx {
    let modules = "/usr/lib/nginx/modules";
    require(&Path::new(modules).join("ngx_http_lua_module.so"));
    let top = format!("load_module {modules}/ndk_http_module.so;\nload_module {modules}/ngx_http_lua_module.so;\n");
    Nginx::configured(
        &top,
        "  lua_package_path '/usr/share/lua/5.1/?.lua;;';\n  init_by_lua_block {\n    local f = io.open('DIR/slow')\n    \
         if f then os.execute('sleep ' .. f:read('*a')) f:close() end\n  }\n  include DIR/conf.d/*.conf;\n  server {\n    \
         listen ADDRESS;\n    location / {\n      set $up web;\n      proxy_pass http://$up;\n    }\n  }\n",
    )
}

/// What elasticd needs to know of it, with another `proof_timeout`.
fn within(nginx: &Nginx, proof_timeout: &str) -> String {
    nginx.frontend().replace("proof_timeout = '10s'", &format!("proof_timeout = '{proof_timeout}'"))
}

fn hup(nginx: &Nginx) {
    kill(Pid::from_raw(nginx.master().cast_signed()), Signal::SIGHUP).expect("it runs");
}

fn elasticd(frontend: &str, more: &str, backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(&format!("{FILE}{frontend}{more}"), backends)
}

fn error_of<'a>(status: &'a Value, frontend: &str) -> &'a str {
    status["frontends"][frontend]["error"].as_str().unwrap_or_default()
}

/// Waits until the frontend reports an error that holds `text`.
fn await_error(elasticd: &Elasticd, frontend: &str, text: &str) -> Value {
    elasticd.await_status(text, |status| error_of(status, frontend).contains(text))
}

/// Whether each of some requests is answered, by one of these.
fn answers_are_of(address: std::net::SocketAddr, ids: &[&str]) -> bool {
    (0..12).all(|_| load::ask(address).is_some_and(|(status, body)| status == 200 && ids.contains(&body.trim())))
}

#[test]
fn workers_of_a_reload_that_somebody_else_asked_for_prove_nothing() {
    let backends = three();
    let nginx = slow_nginx().start();
    let elasticd = elasticd(&nginx.frontend(), "check = []\n", &backends[..2]).ready();
    nginx.await_answers(&["a", "b"]);
    fs::write(nginx.path("slow"), "2").expect("written");
    hup(&nginx);
    sleep(Duration::from_millis(300));
    elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
    elasticd.await_proven("nginx", "web", &["a", "c"]);
    assert!(answers_are_of(nginx.address, &["a", "c"]), "proven, while old workers answer");
    nginx.await_answers(&["a", "c"]);
}

#[test]
fn a_refused_reload_is_not_taken_for_proven_because_another_one_succeeded() {
    let backends = three();
    let nginx = slow_nginx().start();
    let elasticd = elasticd(&within(&nginx, "4s"), "check = []\n", &backends[..2]).ready();
    nginx.await_answers(&["a", "b"]);
    fs::write(nginx.path("slow"), "2").expect("written");
    hup(&nginx);
    sleep(Duration::from_millis(300));
    elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
    until("it is in place", || nginx.upstreams().contains(&backends[2].ip().to_string()).then_some(()));
    // Whoever reloads breaks something at the same time.
    let broken = nginx.conf_d().join("broken.conf");
    fs::write(&broken, "nonsense;\n").expect("written");
    let status = await_error(&elasticd, "nginx", "no new generation of workers");
    assert_eq!(status["frontends"]["nginx"]["applied_revision"], 1, "{status:#}");
    assert!(answers_are_of(nginx.address, &["a", "b"]));
    fs::remove_file(&broken).expect("there");
    elasticd.await_proven("nginx", "web", &["a", "c"]);
    nginx.await_answers(&["a", "c"]);
}

#[test]
fn a_busy_master_is_waited_for_and_has_not_refused() {
    let backends = three();
    let nginx = slow_nginx().start();
    let elasticd = elasticd(&within(&nginx, "1s"), "check = []\n", &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    let reloads = |status: &Value| status["frontends"]["nginx"]["reloads"].as_u64().expect("a number");
    let before = reloads(&elasticd.status());
    fs::write(nginx.path("slow"), "4").expect("written");
    hup(&nginx);
    sleep(Duration::from_millis(300));
    fs::write(nginx.path("slow"), "0.1").expect("written");
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    await_error(&elasticd, "nginx", "is still at a reload");
    assert!(nginx.upstreams().contains(&backends[1].ip().to_string()), "it stays in place");
    let status = elasticd.await_proven("nginx", "web", &["b"]);
    assert_eq!(reloads(&status), before + 1, "asked once");
    nginx.await_answers(&["b"]);
}

#[test]
fn a_graceful_restart_that_somebody_else_asked_for_proves_nothing() {
    for has_api in [false, true] {
        let backends = three();
        let apache = Apache::new().configure("IncludeOptional slow*.conf\n");
        let apache = if has_api { apache.with_api() } else { apache };
        let apache = apache.start();
        let elasticd = elasticd(&apache.frontend(), "check = []\n", &backends[..2]).ready();
        apache.await_answers(&["a", "b"]);
        // Apache compares each definition with all before it: this takes it seconds.
        let lines: String = (0..50_000).map(|n| format!("Define X{n} x\n")).collect();
        fs::write(apache.path("slow.conf"), lines).expect("written");
        apache.graceful();
        until("it reads its configuration", || {
            let status = fs::read_to_string(format!("/proc/{}/status", apache.parent())).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).expect("hexadecimal");
            (caught & (1 << (Signal::SIGSEGV as u64 - 1)) == 0).then_some(())
        });
        elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
        until("it is in place", || apache.balancers().contains(&backends[2].ip().to_string()).then_some(()));
        fs::remove_file(apache.path("slow.conf")).expect("there");
        elasticd.await_proven("apache", "web", &["a", "c"]);
        assert!(answers_are_of(apache.address, &["a", "c"]), "proven, while old processes answer");
    }
}

#[test]
fn what_was_broken_before_is_said_to_be() {
    let backends = three();
    let nginx = Nginx::new().start();
    let elasticd = elasticd(&nginx.frontend(), "", &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    let broken = nginx.conf_d().join("theirs.conf");
    fs::write(&broken, "server { listen 127.0.0.1:1; server_nam x; }\n").expect("written");
    let (code, found, _) = elasticd.run(&["doctor"]);
    assert!(code != 0 && found.contains("refuses what is in place") && found.contains("theirs.conf:1"), "{found}");
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    let status = await_error(&elasticd, "nginx", "was broken already, without this change");
    assert!(error_of(&status, "nginx").contains("theirs.conf:1"), "{status:#}");
    nginx.await_answers(&["a"]);
    fs::remove_file(&broken).expect("there");
    elasticd.await_proven("nginx", "web", &["b"]);
    // The candidate itself is blamed if it is to blame.
    let config =
        elasticd.read("elasticd.toml").replace("type = 'nginx'", "type = 'nginx'\nvars = { method = \"nonsense\" }");
    elasticd.write("elasticd.toml", &config);
    elasticd.signal(Signal::SIGHUP);
    await_error(&elasticd, "nginx", "the check refuses the new configuration");
}

#[test]
fn what_was_broken_before_the_first_start_is_said_to_be() {
    let backends = three();
    let nginx = Nginx::new();
    fs::write(nginx.conf_d().join("theirs.conf"), "nonsense;\n").expect("written");
    let elasticd = elasticd(&nginx.frontend(), "", &backends[..1]).ready();
    await_error(&elasticd, "nginx", "was broken already, without this change");
}

#[test]
fn a_reload_command_before_the_frontend_runs_leaves_the_file_it_needs_to_start() {
    let backends = three();
    let mut nginx = Nginx::new();
    let at = nginx.path("nginx.conf");
    let command = format!("reload = {{ command = ['nginx', '-c', '{}', '-s', 'reload'] }}\n", at.display());
    let elasticd = elasticd(&nginx.frontend(), &command, &backends[..1]).ready();
    let phase = |phase: &'static str| move |status: &Value| status["frontends"]["nginx"]["phase"] == phase;
    let status = elasticd.await_status("it is known to be absent", phase("not_running"));
    assert!(error_of(&status, "nginx").contains("and so the reload failed"), "{status:#}");
    assert!(nginx.upstreams().contains(&backends[0].ip().to_string()), "{}", nginx.upstreams());
    nginx.spawn();
    nginx.await_answers(&["a"]);
    elasticd.await_applied("nginx", "web", &["a"]);
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    let status = elasticd.await_applied("nginx", "web", &["b"]);
    assert!(phase("reloaded")(&status), "nothing proves it: {status:#}");
    assert_eq!(status["frontends"]["nginx"]["proven_revision"], Value::Null);
    nginx.await_answers(&["b"]);
    // A command that fails although the frontend runs is a refusal, and undone.
    elasticd.write("elasticd.toml", &elasticd.read("elasticd.toml").replace("'reload']", "'nonsense']"));
    elasticd.signal(Signal::SIGHUP);
    elasticd.await_log("configuration reloaded");
    elasticd.write("backends.yaml", &entries(&backends[2..]));
    await_error(&elasticd, "nginx", "the reload failed");
    until("undone", || nginx.upstreams().contains(&backends[1].ip().to_string()).then_some(()));
}

#[test]
fn a_command_of_which_nothing_is_known_leaves_what_has_passed_its_check() {
    let backends = three();
    let custom = |check: &str| {
        format!(
            "[frontends.list]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/list'\ntemplate = 'list.tpl'\n\
             retry_min = '200ms'\nretry_max = '1s'\nsettle = '20ms'\nreload = {{ command = ['test', '-e', 'DIR/runs'] }}\n{check}"
        )
    };
    let start = |check: &str| {
        let elasticd = elasticd("", &custom(check), &backends[..1]);
        elasticd
            .write("list.tpl", "{% for s in services %}{% for b in s.backends %}{{ b.id }}\n{% endfor %}{% endfor %}");
        elasticd.ready()
    };
    let checked = start("check = ['true']\n");
    await_error(&checked, "list", "stays in place, and the reload is repeated");
    assert_eq!(checked.read("list"), "a\n");
    checked.write("runs", "");
    checked.await_applied("list", "web", &["a"]);
    let unchecked = start("");
    await_error(&unchecked, "list", "the reload failed");
    assert!(!unchecked.path("list").exists());
}

#[test]
fn a_check_leaves_no_pid_file() {
    let backends = three();
    let mut nginx = Nginx::new();
    let elasticd = elasticd(&nginx.frontend(), "", &backends[..1]).ready();
    elasticd.await_status("it waits", |status| status["frontends"]["nginx"]["phase"] == "not_running");
    assert!(nginx.upstreams().contains(&backends[0].ip().to_string()));
    assert!(!nginx.path("nginx.pid").exists(), "an empty file would stay as it is when nginx writes its PID");
    nginx.spawn();
    elasticd.await_proven("nginx", "web", &["a"]);
}

#[test]
fn an_output_that_nothing_reads_is_not_said_to_be_proven() {
    let backends = three();
    let nginx = Nginx::new().start();
    fs::create_dir(nginx.path("elsewhere")).expect("made");
    let frontend = nginx.frontend().replace("/conf.d/elasticd.conf", "/elsewhere/elasticd.conf");
    let elasticd = elasticd(&frontend, "", &backends[..1]).ready();
    let unread = "is not among the files that the frontend's configuration reads";
    let status = await_error(&elasticd, "nginx", unread);
    assert_eq!((&status["frontends"]["nginx"]["reloads"], nginx.hups()), (&0.into(), 0), "{status:#}");
    assert!(nginx.path("elsewhere/elasticd.conf").exists());
    let (code, found, _) = elasticd.run(&["doctor"]);
    assert!(code != 0 && found.contains(unread), "{found}");
    // Included by another name of the same directory.
    std::os::unix::fs::symlink(nginx.path("elsewhere"), nginx.path("link")).expect("linked");
    let include = format!("include {}/*.conf;\n", nginx.path("link").display());
    fs::write(nginx.conf_d().join("ours.conf"), include).expect("written");
    elasticd.await_proven("nginx", "web", &["a"]);
    nginx.await_answers(&["a"]);
}

#[test]
fn an_output_that_apache_does_not_read_is_not_said_to_be_proven() {
    let backends = three();
    let apache = Apache::new().start();
    fs::create_dir(apache.path("elsewhere")).expect("made");
    let frontend = apache.frontend().replace("/conf.d/elasticd.conf", "/elsewhere/elasticd.conf");
    let check = format!(
        "check = ['apache2', '-t', '-D', 'DUMP_INCLUDES', '-f', '{}']\n",
        apache.path("apache2.conf").display()
    );
    let files = "check_files = ') {output}'\n";
    let elasticd = elasticd(&frontend, &format!("{check}{files}"), &backends[..1]).ready();
    await_error(&elasticd, "apache", "is not among the files that the frontend's configuration reads");
    assert_eq!(apache.restarts(), 0);
    let include = format!("Include {}\n", apache.path("elsewhere/elasticd.conf").display());
    fs::write(apache.conf_d().join("ours.conf"), include).expect("written");
    elasticd.await_proven("apache", "web", &["a"]);
}

#[test]
fn a_frontend_that_was_killed_amid_a_reload_is_not_blamed_for_good() {
    let backends = three();
    let mut nginx = Nginx::new().start();
    let elasticd = elasticd(&nginx.frontend(), "restart_grace = '500ms'\n", &backends[..1]).ready();
    nginx.await_answers(&["a"]);
    let master = Pid::from_raw(nginx.master().cast_signed());
    let workers = nginx.workers();
    kill(master, Signal::SIGSTOP).expect("it runs");
    elasticd.write("backends.yaml", &entries(&backends[1..2]));
    until("it was asked", || elasticd.read("state/frontends/nginx.json").contains("\"asked\":true").then_some(()));
    kill(master, Signal::SIGKILL).expect("it is there");
    for worker in workers {
        let _ = kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL);
    }
    nginx.stop();
    await_error(&elasticd, "nginx", "ended when it was asked");
    assert!(nginx.upstreams().contains(&backends[0].ip().to_string()), "the previous configuration is back");
    nginx.spawn();
    elasticd.await_proven("nginx", "web", &["b"]);
    nginx.await_answers(&["b"]);
}

/// nginx with an http context, and a stream context that proxies to the same upstream; and where the latter listens.
fn nginx_of_both_contexts() -> (Nginx, std::net::SocketAddr) {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    require(Path::new(MODULE));
    let nginx = Nginx::new();
    let (path, address) = (nginx.path("nginx.conf"), own_socket());
    fs::create_dir(nginx.path("stream.d")).expect("a directory");
    let config = fs::read_to_string(&path).expect("written");
    let stream = format!(
        "stream {{ include {}/*.conf; server {{ listen {address}; proxy_pass web; }} }}\n",
        nginx.path("stream.d").display()
    );
    fs::write(path, format!("load_module {MODULE};\n{config}{stream}")).expect("written");
    (nginx, address)
}

#[test]
fn nginx_with_both_contexts_is_configured_by_one_frontend_and_by_two() {
    let backends = three();
    for is_one in [true, false] {
        let (nginx, stream) = nginx_of_both_contexts();
        let (http, tcp) = (nginx.path("conf.d/elasticd.conf"), nginx.path("stream.d/elasticd.conf"));
        let single = nginx.frontend();
        let config = if is_one {
            let keys = single.lines().filter(|line| !line.starts_with("output")).collect::<Vec<_>>().join("\n");
            let output = |path: &Path| {
                format!("[[frontends.nginx.outputs]]\npath = '{}'\ntemplate = 'nginx/upstreams.conf'\n", path.display())
            };
            format!("{keys}\nvars = {{ keepalive = 0 }}\n{}{}", output(&http), output(&tcp))
        } else {
            let second = single.replace("[frontends.nginx]", "[frontends.tcp]").replace("'nginx'", "'nginx-stream'");
            let second = second.replace(&*http.to_string_lossy(), &tcp.to_string_lossy());
            format!("{single}{second}")
        };
        let elasticd = elasticd(&config, "", &backends[..1]).ready();
        let nginx = nginx.start();
        let names: &[&str] = if is_one { &["nginx"] } else { &["nginx", "tcp"] };
        for some in [&backends[..1], &backends[..], &backends[1..2]] {
            elasticd.write("backends.yaml", &entries(some));
            for name in names {
                elasticd.await_proven(name, "web", &ids(some));
            }
            nginx.await_answers(&ids(some));
            load::await_answers(stream, &ids(some), || fs::read_to_string(&tcp).unwrap_or_default());
        }
    }
}
