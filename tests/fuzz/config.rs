//! Mutated configurations: taken, or refused with faults that each name a key or a place.

use elasticd::config::Config;
use elasticd::frontend::preset;

use crate::{for_a_while, mutated};

const SEEDS: &[&str] = &[
    "[providers.p]\ntype = 'file'\npath = 'x.yaml'\ninterval = '15s'\ntimeout = '1m'\n[services.web]\nprovider = 'p'\n\
     select = { Role = 'web', Env = ['prod', 'canary'] }\naddress = 'private_ipv4'\nport = { tag = 'Port', default = 8080 }\n\
     guard = { on_empty = 'hold', max_drop = '50%', confirm = 3 }\n[frontends.json]\ntype = 'json'\noutput = 'out.json'\n",
    "zone = 'eu-west-1a'\n[providers.a]\ntype = 'exec'\ncommand = ['/bin/true', 'x']\nenv = { A = 'b' }\npass_env = ['C']\n\
     max_bytes = 1000\n[providers.b]\ntype = 'http'\nurl = 'https://127.0.0.1:1/x?y=z'\n\
     [services.web]\nprovider = ['a', 'b']\nsources = 'failover'\nexpire = '5m'\nweight = { tag = 'Weight', default = 10 }\n\
     min_age = '30s'\nslow_start = '2m'\ndrain = '1m'\nhealth = { type = 'http', path = '/healthz', interval = '5s' }\n",
    "[api]\nmode = '0660'\nmax_connections = 100\nmetrics = '127.0.0.1:9464'\n[providers.p]\ntype = 'fixed'\n\
     instances = [{ id = 'i-1', address = '10.0.0.1:80', zone = 'a', tags = { Role = 'web' } }]\n\
     [services.six]\nprovider = 'p'\naddress = 'ipv6'\nport = 80\n\
     [frontends.n]\ntype = 'custom'\nescape = 'nginx'\ntemplate = 't.tpl'\noutput = 'o'\nmode = '0644'\nowner = 'root'\n\
     group = 0\ncheck = ['true', '{candidate}']\nreload = { signal = 'HUP' }\nproof = 'workers'\nexecutable = 'nginx'\n\
     pid_file = 'p'\nsettle = '1s'\nvars = { a = [1, 'x', { b = true }] }\n",
    "[providers.p]\ntype = 'fixed'\ninstances = []\n[services.a-b]\nprovider = 'p'\n[frontends.nginx]\ntype = 'nginx'\n\
     [frontends.haproxy]\ntype = 'haproxy'\n[frontends.varnish]\ntype = 'varnish'\n[frontends.apache]\ntype = 'apache'\n\
     [frontends.caddy]\ntype = 'caddy'\n[frontends.envoy]\ntype = 'envoy'\noutput = 'e/{service}.json'\n\
     [frontends.traefik]\ntype = 'traefik'\n[frontends.prometheus]\ntype = 'prometheus'\n[frontends.env]\ntype = 'env'\n",
];

const TOKENS: &[&str] = &[
    "\n[",
    "]\n",
    "[[",
    "]]",
    "=",
    " = ",
    "''",
    "\"\"\"",
    "{",
    "}",
    ",",
    "\n",
    "\0",
    "#",
    "-1",
    "1e309",
    "18446744073709551616",
    "9223372036854775807",
    "'99999999999999999999s'",
    "'1us'",
    "'-1s'",
    "'101%'",
    "true",
    "1979-05-27T07:32:00Z",
    "nan",
    "..",
    "../../",
    "{service}",
    "{candidate}",
    "{tag:",
    "{{ ",
    " }}",
    "{% for",
    "type",
    "services",
    "providers",
    "frontends",
    "é",
    "\u{feff}",
    ".a.b.c",
    "\\u0000",
    "\\",
    "\nselect = {}\n",
    "\noutput = '/a/../b'\n",
    "\nhealth = {}\n",
];

#[test]
fn whatever_is_configured_is_taken_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("elasticd.toml");
    std::fs::write(dir.path().join("t.tpl"), "{% for s in services %}{{ s.name }}{% endfor %}").expect("written");
    let spelt_out = |name: &str| {
        let defaults = preset::defaults_text(name).expect("a preset");
        let defaults =
            defaults.replace("[[outputs]]", "[[frontends.f.outputs]]").replace("[vars]", "[frontends.f.vars]");
        let (pools, _) = SEEDS[3].split_once("[frontends").expect("some");
        format!("{pools}[frontends.f]\ntype = 'custom'\n{defaults}")
    };
    let presets: Vec<String> = preset::names().into_iter().map(spelt_out).collect();
    let seeds: Vec<&str> = SEEDS.iter().copied().chain(presets.iter().map(String::as_str)).collect();
    let (mut taken, mut refused) = (0_u64, 0_u64);
    for_a_while("configurations", |random| {
        std::fs::write(&file, mutated(random, &seeds, TOKENS)).expect("written");
        match Config::load(&file) {
            Ok(config) => {
                taken += 1;
                // All that is built of it at a start, before anything is opened.
                drop(config.settings());
                for frontend in &config.frontends {
                    frontend.templates().expect("compiled before");
                }
            }
            Err(faults) => {
                refused += 1;
                let said = faults.to_string();
                assert!(!faults.0.is_empty() && said.len() < 200_000, "{said}");
                for fault in &faults.0 {
                    assert!(!fault.message.is_empty() && (fault.place.is_some() || !fault.key.is_empty()), "{said}");
                }
            }
        }
    });
    assert!(taken > 0 && refused > 0);
    println!("configurations: {taken} taken, {refused} refused");
}
