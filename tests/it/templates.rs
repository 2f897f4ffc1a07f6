//! Templates with real frontends: a backend that cannot be rendered, variables and parameters of one service, other zones as
//! backups, and what depends on the version that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::apache::Apache;
use crate::harness::backend::Backend;
use crate::harness::elasticd::Elasticd;
use crate::harness::haproxy::Haproxy;
use crate::harness::nginx::Nginx;
use crate::harness::varnish::Varnish;

const FILE: &str = "[providers.local]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '300ms'\n\
                    [services.web]\nprovider = 'local'\nselect = { Role = 'web' }\n";

/// The entry of a backend with more tags.
fn tagged(backend: &Backend, tags: &str) -> String {
    backend.entry().replace("Role: web", &format!("Role: web, {tags}"))
}

#[test]
fn one_backend_that_cannot_be_rendered_costs_nothing_else() {
    let backends = [Backend::start("a"), Backend::start("b"), Backend::start("c")];
    let nginx = Nginx::new().start();
    let list = "[frontends.list]\ntype = 'json'\noutput = 'DIR/list.json'\n";
    let mut elasticd = Elasticd::new(&format!("{FILE}{}template = 'owners.conf'\n{list}", nginx.frontend()));
    elasticd.write(
        "owners.conf",
        "{% for s in services %}upstream {{ s.name }} {\n{% for b in s.backends %}server {{ b | hostport }}; \
         # {{ b.tags.Owner }}\n{% endfor %}\n}\n{% endfor %}",
    );
    let [a, b, c] = &backends;
    let good = [tagged(a, "Owner: x"), tagged(b, "Owner: x")].concat();
    elasticd.write("backends.yaml", &good);
    let (code, _, warned) = elasticd.run(&["check"]);
    assert_eq!(code, 0, "{warned}");
    assert!(warned.contains("warning: ") && warned.contains("owners.conf line 2 column "), "{warned}");
    assert!(warned.contains("no selector of service web guarantees the tag Owner"), "{warned}");
    elasticd = elasticd.ready();
    elasticd.await_proven("nginx", "web", &["a", "b"]);

    elasticd.write("backends.yaml", &format!("{good}{}", c.entry()));
    let status = elasticd.await_status("left out", |status| status["frontends"]["nginx"]["excluded"]["count"] == 1);
    let out = &status["frontends"]["nginx"]["excluded"]["first"][0];
    assert_eq!((&out["service"], &out["id"]), (&"web".into(), &"c".into()), "{status:#}");
    let reason = "owners.conf line 2 column 64: there is no `b.tags.Owner`";
    assert!(out["message"].as_str().is_some_and(|message| message.starts_with(reason)), "{status:#}");
    elasticd.await_applied("list", "web", &["a", "b", "c"]);
    nginx.await_answers(&["a", "b"]);
    assert!(elasticd.read("list.json").contains("\"id\":\"c\""), "the other frontend has it");
    let (_, explained, _) = elasticd.run(&["explain", "c"]);
    assert!(explained.contains("left out of frontend nginx, as backend of web: owners.conf line 2"), "{explained}");
    let (code, rendered, said) = elasticd.run(&["render", "nginx"]);
    assert!(code == 0 && said.contains("frontends.nginx: left out: c of web: owners.conf line 2"), "{code} {said}");
    assert!(rendered.contains(&a.address.to_string()) && !rendered.contains(&c.address.to_string()), "{rendered}");
    let (_, examined, _) = elasticd.run(&["doctor"]);
    assert!(examined.contains("left out, as it cannot be rendered: c of web: owners.conf line 2"), "{examined}");

    // Too many: the previous configuration is kept, and said to be.
    let bad = [a.entry(), b.entry(), tagged(c, "Owner: x")].concat();
    elasticd.write("backends.yaml", &bad);
    let status = elasticd.await_status("refused", |status| status["frontends"]["nginx"]["phase"] == "failed");
    let error = status["frontends"]["nginx"]["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("at least 2 of the 3 backends of service web cannot be rendered"), "{error}");
    nginx.await_answers(&["a", "b"]);

    // And back.
    let all: String = backends.iter().map(|backend| tagged(backend, "Owner: x")).collect();
    elasticd.write("backends.yaml", &all);
    let status = elasticd.await_proven("nginx", "web", &["a", "b", "c"]);
    assert_eq!(status["frontends"]["nginx"]["excluded"]["count"], 0, "{status:#}");
    nginx.await_answers(&["a", "b", "c"]);
    assert_eq!(elasticd.logged("backend left out of the frontend"), 1, "{}", elasticd.log());
}

#[test]
fn nginx_takes_parameters_of_one_service_and_those_of_tags() {
    let backends = [Backend::start("a"), Backend::start("b"), Backend::start("c")];
    let nginx = Nginx::new().start();
    let more = "[frontends.nginx.service.web]\nlines = ['keepalive_timeout 30s']\nmax_fails = 7\n\
                server = { max_conns = { tag = 'MaxConns', default = 90 }, backup = { tag = 'Spare' } }\n";
    let elasticd = Elasticd::new(&format!("{FILE}{}{more}", nginx.frontend()));
    let [a, b, c] = &backends;
    let entries =
        [a.entry(), tagged(b, "MaxConns: '12', Spare: 'yes'"), tagged(c, "MaxConns: '1; } server { listen 1'")];
    elasticd.write("backends.yaml", &entries.concat());
    let elasticd = elasticd.ready();
    let status = elasticd.await_status("left out", |status| status["frontends"]["nginx"]["excluded"]["count"] == 1);
    let message = status["frontends"]["nginx"]["excluded"]["first"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("parameter max_conns (tag MaxConns) is \"1; } server"), "{message}");
    nginx.await_answers(&["a"]);
    let written = nginx.upstreams();
    assert!(written.contains("    keepalive_timeout 30s;\n"), "{written}");
    assert!(
        written.contains(&format!("server {} weight=1 max_fails=7 fail_timeout=10s max_conns=90;", a.address)),
        "{written}"
    );
    assert!(
        written.contains(&format!("server {} weight=1 max_fails=7 fail_timeout=10s backup max_conns=12;", b.address)),
        "{written}"
    );
}

#[test]
fn other_frontends_take_parameters_of_tags_too() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let (haproxy, apache, varnish) = (Haproxy::new().start(), Apache::new().start(), Varnish::new().start());
    let more = "[frontends.haproxy.service.web]\nserver = { maxconn = { tag = 'Max', default = 90 }, check = true, inter = '3s' }\n\
                [frontends.apache.service.web]\nmember = { timeout = { tag = 'Max', default = 90 }, keepalive = 'On' }\n\
                [frontends.varnish.service.web]\nbackend = { max_connections = { tag = 'Max', default = 90 }, connect_timeout = '2s' }\n";
    let config = [haproxy.frontend(), apache.frontend(), varnish.frontend()].concat();
    let elasticd = Elasticd::new(&format!("{FILE}{config}{more}"));
    elasticd.write("backends.yaml", &[backends[0].entry(), tagged(&backends[1], "Max: '12'")].concat());
    let elasticd = elasticd.ready();
    for frontend in ["haproxy", "apache", "varnish"] {
        elasticd.await_proven(frontend, "web", &["a", "b"]);
    }
    haproxy.await_answers(&["a", "b"]);
    apache.await_answers(&["a", "b"]);
    varnish.await_answers(&["a", "b"]);
    for (written, expected) in [
        (haproxy.backends(), [" check inter 3s maxconn 90", " check inter 3s maxconn 12"]),
        (apache.balancers(), [" keepalive=On timeout=90", " keepalive=On timeout=12"]),
        (varnish.backends(), [".max_connections = 90;", ".max_connections = 12;"]),
    ] {
        assert!(expected.iter().all(|expected| written.contains(expected)), "{expected:?} is not in {written}");
    }
}

#[test]
fn backends_of_other_zones_are_backups_while_ours_has_any() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let nginx = Nginx::new().start();
    let config = |zone: &str| format!("zone = '{zone}'\n{FILE}{}vars.other_zones = 'backup'\n", nginx.frontend());
    let elasticd = Elasticd::new(&config("z1"));
    let zoned: String = backends
        .iter()
        .zip(["z1", "z2"])
        .map(|(b, zone)| b.entry().replace("id:", &format!("zone: {zone}, id:")))
        .collect();
    elasticd.write("backends.yaml", &zoned);
    let elasticd = elasticd.ready();
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    nginx.await_answers(&["a"]);
    assert_eq!(nginx.upstreams().matches(" backup;").count(), 1, "{}", nginx.upstreams());
    // None is in ours: nginx refuses an upstream of backups alone.
    elasticd.configure(&config("z3"));
    assert_eq!(elasticd.run(&["reload"]).0, 0);
    elasticd.await_proven("nginx", "web", &["a", "b"]);
    nginx.await_answers(&["a", "b"]);
    assert!(!nginx.upstreams().contains(" backup;"), "{}", nginx.upstreams());
    elasticd.configure(&format!("{}vars.method = 'ip_hash'\n", config("z1")));
    let (code, _, said) = elasticd.run(&["check"]);
    assert!(code == 78 && said.contains("nginx has no backups with the methods hash, ip_hash and random"), "{said}");
}

/// Puts a program there that says it is this version of nginx.
fn install(elasticd: &Elasticd, version: &str) {
    // Not overwritten: a program that runs cannot be.
    elasticd.write("new", &format!("#!/bin/sh\necho 'nginx version: nginx/{version}' >&2\n"));
    fs::set_permissions(elasticd.path("new"), fs::Permissions::from_mode(0o755)).expect("its mode");
    fs::rename(elasticd.path("new"), elasticd.path("nginx")).expect("in place");
}

#[test]
fn a_backend_of_weight_0_drains_where_nginx_knows_that() {
    let config = "[frontends.nginx]\ntype = 'nginx'\noutput = 'DIR/nginx.conf'\nversion = ['DIR/nginx', '-v']\ncheck = []\n\
                  reload = 'none'\nproof = 'none'\n";
    let elasticd = Elasticd::new(&format!("{FILE}port = 80\nweight = {{ tag = 'Weight', default = 1 }}\n{config}"));
    install(&elasticd, "1.29.5");
    elasticd.write("backends.yaml", "- { id: a, address: 10.0.0.1, tags: { Role: web, Weight: '0' } }\n");
    assert!(elasticd.run(&["render"]).1.contains("server 10.0.0.1:80 down;"));
    install(&elasticd, "1.29.6");
    assert!(elasticd.run(&["render"]).1.contains("server 10.0.0.1:80 drain;"));
    install(&elasticd, "1.28.0");
    let elasticd = elasticd.ready();
    let written = |expected: &str| {
        elasticd.await_status("written", |_| elasticd.read("nginx.conf").contains(expected));
    };
    written("server 10.0.0.1:80 down;");
    // It is upgraded: the next change is written for the new one.
    install(&elasticd, "1.30.1");
    elasticd.write("backends.yaml", "- { id: a, address: 10.0.0.2, tags: { Role: web, Weight: '0' } }\n");
    written("server 10.0.0.2:80 drain;");
    // Nobody can say: what every version understands.
    fs::remove_file(elasticd.path("nginx")).expect("removed");
    elasticd.write("backends.yaml", "- { id: a, address: 10.0.0.3, tags: { Role: web, Weight: '0' } }\n");
    written("server 10.0.0.3:80 down;");
}

#[test]
fn included_files_and_byte_order_marks_are_read() {
    let config = "[frontends.list]\ntype = 'custom'\nescape = 'none'\noutput = 'DIR/out'\ntemplate = 'list.tpl'\n";
    let elasticd = Elasticd::new(&format!("{FILE}{config}"));
    elasticd.write("backends.yaml", "- { id: a, address: 10.0.0.1:80, tags: { Role: web } }\n");
    elasticd.write(
        "list.tpl",
        "\u{FEFF}{% for s in services %}{% include \"part.tpl\" %}{% endfor %} {{ own.host }} {{ frontend.name }}",
    );
    elasticd.write("part.tpl", "\u{FEFF}{% for b in s.backends %}\n{{ b.adress }}{% endfor %}");
    let (code, _, said) = elasticd.run(&["check"]);
    assert!(
        code == 78 && said.contains("part.tpl line 2 column 5: there is no `b.adress`: write `address`?"),
        "{said}"
    );
    elasticd.write("part.tpl", "{% include \"list.tpl\" %}");
    let (code, _, said) = elasticd.run(&["check"]);
    assert!(
        code == 78 && said.contains("part.tpl line 1 column 12: these files include each other in a circle"),
        "{said}"
    );
    elasticd.write("part.tpl", "\u{FEFF}{% for b in s.backends %}{{ b.address }}{% endfor %}");
    let elasticd = elasticd.ready();
    let host = nix::unistd::gethostname().expect("a name").into_string().expect("plain");
    assert_eq!(elasticd.read("out"), format!("10.0.0.1 {host} list"));
}
