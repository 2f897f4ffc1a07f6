use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// A configuration directory of its own.
struct Etc(tempfile::TempDir);

impl Etc {
    fn new(main: &str) -> Self {
        let etc = Self(tempfile::tempdir().expect("a directory"));
        fs::write(etc.main(), main).expect("written");
        etc
    }

    fn main(&self) -> PathBuf {
        self.0.path().join("elasticd.toml")
    }

    fn fragment(self, name: &str, text: &str) -> Self {
        let directory = self.0.path().join("conf.d");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(name), text).expect("written");
        self
    }

    fn load(&self) -> Result<Config, Faults> {
        Config::load(&self.main())
    }

    /// The faults as lines, with the directory left out.
    fn faults(&self) -> Vec<String> {
        let directory = format!("{}/", self.0.path().display());
        let faults = self.load().expect_err("has faults");
        faults.0.iter().map(|fault| fault.to_string().replace(&directory, "")).collect()
    }
}

const GOOD: &str = r#"
state_dir = "/var/lib/elasticd"
[providers.prod]
type = "fixed"
instances = [{ address = "10.0.0.1", tags = { Role = "web" } }]
interval = "30s"
[services.web]
provider = "prod"
select = { Role = "web", Env = ["prod", "canary"] }
port = { tag = "Port", default = 8080 }
guard = { on_empty = "accept", max_drop = "25%", confirm = 2 }
[services.api]
provider = "prod"
port = 80
[frontends.nginx]
type = "nginx"
services = ["web"]
output = "/etc/nginx/conf.d/elasticd.conf"
pid_file = "/run/nginx.pid"
"#;

#[test]
fn a_good_one_is_read_whole() {
    let config = Etc::new(GOOD).load().expect("good");
    assert_eq!(config.api.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(config.api.mode, 0o660);
    let names: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["api", "web"], "ordered by name");
    let web = &config.services[1];
    assert_eq!(
        web.guard,
        crate::model::Guard {
            on_empty: crate::model::OnEmpty::Accept,
            max_drop: crate::model::Percent(25),
            confirm: 2
        }
    );
    assert!(matches!(&web.select.tags["Env"], crate::model::Condition::OneOf(values) if values.len() == 2));
    assert_eq!(config.providers.values().next().map(|p| p.pace.interval), Some(Duration::from_secs(30)));
    assert_eq!(config.frontends[0].services.len(), 1);
}

#[test]
fn later_layers_win_key_by_key() {
    let etc = Etc::new(GOOD)
        .fragment("10-a.toml", "[services.api]\nport = 81\n[api]\nmode = '0600'")
        .fragment("20-b.toml", "[services.api]\nport = 82")
        .fragment("30-c.txt", "not read");
    let config = etc.load().expect("good");
    assert_eq!(config.services[0].port, crate::model::PortRule::Fixed(82));
    assert_eq!(config.services[0].providers[0].as_str(), "prod", "what a fragment leaves out stays");
    assert_eq!(config.api.mode, 0o600);
}

#[test]
fn all_faults_come_at_once_each_with_its_file_and_key() {
    let etc = Etc::new(
        r#"
        state_dir = "relative"
        stat_dir = "/x"
        [api]
        mode = "9999"
        max_connections = 0
        [providers.prod]
        type = "ec3"
        [providers.local]
        type = "fixed"
        instances = [{ address = "nonsense" }]
        interval = "1ms"
        pages = 3
        [providers."bad name"]
        type = "fixed"
        instances = []
        [services.web]
        provider = "nope"
        prot = 80
        weight = 300
        guard = { max_drop = "150%", confirm = 0 }
        [services.api]
        port = 99999
        [frontends.nginx]
        type = "nginx"
        services = ["wep"]
        reload = { signal = "KILL" }
        "#,
    )
    .fragment("frontends.toml", "[frontends.edge]\ntype = 'nginx'\noutput = 'relative.conf'\nsettle = 'soon'\n");
    let faults = etc.faults();
    for expected in [
        "elasticd.toml: state_dir: \"relative\" is not an absolute path",
        "elasticd.toml: stat_dir: unknown key: did you mean `state_dir`? The keys here are state_dir, zone, confine, prune, api, ",
        "elasticd.toml: api.mode: \"9999\" is not a mode",
        "elasticd.toml: api.max_connections: must be at least 1",
        "elasticd.toml: providers.prod.type: \"ec3\" is none of fixed, file",
        "elasticd.toml: providers.local.instances[0]: the address \"nonsense\" is not an IP address",
        "elasticd.toml: providers.local.interval: 1ms is not between 100ms and 24h",
        "elasticd.toml: providers.local.pages: unknown key",
        "elasticd.toml: providers.bad name: \"bad name\" is not a name",
        "elasticd.toml: services.web.provider: there is no provider \"nope\"; the providers are bad name, local, prod",
        "elasticd.toml: services.web.prot: unknown key",
        "elasticd.toml: services.web.weight: 300 is not a weight: use 0 to 256",
        "elasticd.toml: services.web.guard.max_drop: \"150%\" is not a percentage",
        "elasticd.toml: services.web.guard.confirm: must be at least 1",
        "elasticd.toml: services.api.port: expected a number, or { tag",
        "elasticd.toml: services.api: the key provider is missing",
        "elasticd.toml: frontends.nginx.reload.signal: \"KILL\" is not a signal",
        "conf.d/frontends.toml: frontends.edge.settle:",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected:?} is not among {faults:#?}");
    }
}

#[test]
fn what_only_the_whole_shows() {
    let etc = Etc::new(&format!(
        "{GOOD}\n[frontends.second]\ntype = 'nginx'\nservices = ['wep']\noutput = '/etc/nginx/conf.d/elasticd.conf'\n"
    ));
    let faults = etc.faults();
    assert_eq!(
        faults,
        [
            "elasticd.toml: frontends.second.services: there is no service \"wep\"; the services are api, web",
            "elasticd.toml: frontends.second.output: /etc/nginx/conf.d/elasticd.conf is written by frontends.nginx as well",
        ]
    );
    let faults = Etc::new("").faults();
    assert_eq!(faults, ["services: there is none: nothing would be discovered; write [services.NAME]"]);
}

#[test]
fn templates_are_tried_before_anything_starts() {
    let etc = Etc::new(&format!("{GOOD}template = 'own.conf'\n"));
    for (template, expected) in [
        ("{% for s in services %}", "own.conf"),
        ("{% for s in services %}{% for b in s.backends %}{{ b.adress }}{% endfor %}{% endfor %}", "adress"),
    ] {
        fs::write(etc.0.path().join("own.conf"), template).expect("written");
        let faults = etc.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("elasticd.toml: frontends.nginx.outputs.0.template: "), "{faults:?}");
        assert!(faults[0].contains(expected), "{faults:?}");
    }
}

/// The warnings of a configuration whose frontend has this template.
fn warnings(template: &str, keys: &str) -> Vec<String> {
    let etc = Etc::new(&format!("{GOOD}template = 'own.conf'\n{keys}"));
    fs::write(etc.0.path().join("own.conf"), template).expect("written");
    let directory = format!("{}/", etc.0.path().display());
    let config = etc.load().unwrap_or_else(|faults| panic!("{faults}"));
    config.warnings.iter().map(|warning| warning.to_string().replace(&directory, "")).collect()
}

#[test]
fn a_tag_that_no_selector_guarantees_is_a_warning() {
    let each = |text: &str| {
        format!("{{% for s in services %}}\n{{% for b in s.backends %}}{text}{{% endfor %}}{{% endfor %}}")
    };
    let expected = "elasticd.toml: frontends.nginx.outputs.0.template: own.conf line 2 column 35: no selector of service \
                    web guarantees the tag Owner, and a backend without it is left out of this frontend: write \
                    `{{ b.tags | get: \"Owner\", \"default\" }}`, or select by it: Owner = { present = true }";
    assert_eq!(warnings(&each("{{ b.tags.Owner }}"), ""), [expected]);
    for well in [
        "{{ b.tags.Role }}{{ b.tags.Env }}",
        "{{ b.tags | get: \"Owner\", \"\" }}",
        "{% if b.tags | contains: \"Owner\" %}{{ b.tags.Owner }}{% endif %}",
        "{{ s.backends | where: \"tags.Owner\", 1 | length }}",
    ] {
        assert_eq!(warnings(&each(well), ""), [""; 0], "{well}");
    }
    // The tags that create services are those of all of their backends.
    let created = "[services.all]\nprovider = 'prod'\neach = 'haproxy'\n[frontends.nginx]\nservices = ['api']\n\
                   [frontends.any]\ntype = 'nginx'\noutput = '/etc/any.conf'\ntemplate = 'any.conf'\nservice.web-80.keepalive = 1\n";
    let etc = Etc::new(&GOOD.replace("[services.api]", "[services.api]\nselect = { Name = { present = true } }"))
        .fragment("created.toml", created);
    let tag = |key: &str| format!("{{{{ b.tags | get: \"{key}\", 1 }}}}");
    fs::write(etc.0.path().join("any.conf"), each(&(tag("HAProxy:Service:Port") + "{{ b.tags.Name }}")))
        .expect("written");
    let found = etc.load().unwrap_or_else(|faults| panic!("{faults}")).warnings;
    let all = found.iter().map(|warning| warning.message.as_str()).find(|message| message.contains("the tag Name"));
    assert!(all.is_some_and(|message| message.contains("no selector of services web, all guarantees")), "{found:?}");
    // A port with a default says nothing of the tag, one without does.
    assert_eq!(warnings(&each("{{ b.tags.Port }}"), "").len(), 1);
    let needed = "[services.api]\nport = { tag = 'Port' }\n[frontends.nginx]\nservices = ['api']\n";
    let etc = Etc::new(&format!("{GOOD}template = 'own.conf'\n")).fragment("needed.toml", needed);
    fs::write(etc.0.path().join("own.conf"), each("{{ b.tags.Port }}{{ b.tags.Role }}")).expect("written");
    let warnings = etc.load().expect("valid").warnings;
    assert!(warnings.len() == 1 && warnings[0].message.contains("guarantees the tag Role"), "{warnings:?}");
}

#[test]
fn a_variable_that_is_not_set_is_found_wherever_it_is_read() {
    let etc = Etc::new(&format!("{GOOD}template = 'own.conf'\nvars.size = ''\n"));
    for (template, expected) in [
        (
            "\n{% if vars.size %}{{ vars.colour }}{% endif %}",
            Some("own.conf line 2 column 22: there is no variable `colour`: set it"),
        ),
        ("{{ vars.sise }}", Some("own.conf line 1 column 4: there is no variable `sise`: did you mean `size`?")),
        ("{% include \"part.conf\" %}", Some("part.conf line 2 column 4: there is no variable `colour`")),
        ("{% if vars?.colour %}{{ vars.colour }}{% endif %}{{ vars.size }}{{ vars | get: \"x\", 1 }}", None),
    ] {
        fs::write(etc.0.path().join("own.conf"), template).expect("written");
        fs::write(etc.0.path().join("part.conf"), "{# a #}\n{{ vars.colour }}").expect("written");
        match expected {
            None => drop(etc.load().unwrap_or_else(|faults| panic!("{faults}"))),
            Some(expected) => {
                let faults = etc.faults();
                assert!(faults.len() == 1 && faults[0].contains(expected), "{expected} is not in {faults:?}");
            }
        }
    }
}

#[test]
fn no_fault_repeats_a_secret() {
    for wrong in [
        "env = { TOKEN = 'hush' ",
        "env = { TOKEN = \"hush\\q\" }",
        "env = 'hush'",
        "env = ['hush']",
        "env = { TOKEN = ['hush'] }",
        "env = { TOKEN = \"hush\\u0000\" }",
        "pass_env = 'hush'",
    ] {
        let faults = Etc::new(&format!("[providers.e]\ntype = 'exec'\ncommand = ['/bin/x']\n{wrong}\n")).faults();
        assert!(!faults.is_empty() && !faults.concat().contains("hush"), "{wrong}: {faults:?}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let etc = Etc::new("state_dir = \n").fragment("x.toml", "[[[");
    let faults = etc.faults();
    assert!(faults[0].starts_with("elasticd.toml: is not TOML: line 1 column 13: "), "{faults:?}");
    assert!(faults[1].starts_with("conf.d/x.toml: is not TOML: line 1 column 3: "), "{faults:?}");
    let faults = Config::load(Path::new("/nonexistent/elasticd.toml")).expect_err("absent").to_string();
    assert!(faults.contains("/nonexistent/elasticd.toml: there is no such file"), "{faults}");
}

#[test]
fn a_socket_path_that_does_not_fit_is_refused() {
    let etc = Etc::new(&format!("api.socket = '/{}'\n{GOOD}", "x".repeat(107)));
    assert!(etc.faults()[0].contains("the path has 108 bytes"), "{:?}", etc.faults());
}

#[test]
fn the_faults_of_a_fleet_are_all_reported_at_once() {
    if crate::fleet::TYPE.is_none() {
        return;
    }
    let etc = Etc::new(
        r#"
        [publish]
        type = "nats"
        url = "http://x"
        bucket = "a.b"
        leader_ttl = "1s"
        replicas = 7
        providers = ["nope", "p"]
        selct = {}
        select = { Role = [] }
        [providers.p]
        type = "nats"
        url = "nats://u:secret@h:1"
        fallback = "p"
        fleet_size = 0
        intervall = "15s"
        "#,
    );
    let faults = etc.faults();
    for expected in [
        "elasticd.toml: publish.url: \"http://x\" is not nats://HOST:PORT or tls://HOST:PORT",
        "elasticd.toml: publish.bucket: \"a.b\"",
        "elasticd.toml: publish.fleet: missing",
        "elasticd.toml: publish.leader_ttl: 1s is not between 2s and 1h",
        "elasticd.toml: publish.replicas: 7 is not between 1 and 5",
        "elasticd.toml: publish.providers: there is no provider \"nope\"",
        "elasticd.toml: publish.selct: unknown key: did you mean `select`? The keys here are leader_ttl, replicas, \
         providers, url, urls, tls,",
        "elasticd.toml: publish.select.Role: is an empty list",
        "elasticd.toml: providers.p.url: holds a name or password",
        "elasticd.toml: providers.p.fleet: missing",
        "elasticd.toml: providers.p.fallback: is this provider itself",
        "elasticd.toml: providers.p.fleet_size: must be more than 0",
        "elasticd.toml: providers.p.intervall: unknown key: did you mean `interval`? The keys here are provider, fallback, \
         fallback_after, fallback_spacing, fleet_size, url,",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected:?} is not among {faults:#?}");
    }
    assert!(!faults.concat().contains("secret"), "{faults:?}");
}

#[test]
fn a_fault_says_what_to_write() {
    for (keys, expected) in [
        ("[service.web]\nprovider = 'prod'", "service: unknown section: did you mean [services.web]?"),
        ("[upstreams.web]\nport = 80", "upstreams: unknown section; the sections are providers, services, frontends"),
        ("[providers.prod]\ninterval = 15", "providers.prod.interval: 15 has no unit: write \"15s\", in quotes"),
        ("[providers.prod]\ninterval = '15'", "providers.prod.interval: \"15\" has no unit: write \"15s\""),
        ("[providers.prod]\ninterval = '15 sekunden'", "is not a duration: write \"500ms\", \"15s\" or \"1m 30s\""),
        (
            "[services.web]\nguard.max_drop = 50",
            "services.web.guard.max_drop: 50 is a number: write \"50%\", in quotes",
        ),
        (
            "[services.web]\nselect = 'Role=web'",
            "services.web.select: found a text, expected conditions such as { Role =",
        ),
        (
            "[frontends.nginx]\nmode = 644",
            "frontends.nginx.mode: 644 is a number: write the mode in quotes, such as \"0644\"",
        ),
        (
            "[frontends.nginx]\ncheck = 'nginx -t'",
            "frontends.nginx.check: a command is a list: write [\"nginx\", \"-t\"]",
        ),
        (
            "[frontends.nginx]\noutput = ['/a']",
            "frontends.nginx.output: one path in quotes is expected; for several outputs write \
             [[frontends.nginx.outputs]]",
        ),
        (
            "[frontends.nginx]\nzone = 'a'",
            "frontends.nginx.zone: unknown key here: `zone` belongs at the top, before the",
        ),
        (
            "[frontends.nginx]\nservice = ['web']",
            "frontends.nginx.service: tables such as [frontends.nginx.service.web] are expected, of what holds for one service alone; names are listed as services = [\"web\"]",
        ),
        (
            "[frontends.nginx.vars]\nservices = ['web']",
            "frontends.nginx.vars.services: this is a key of the frontend, and not a variable: write it above",
        ),
        (
            "[frontends.nginx.service.api]\nkeepalive = 7",
            "frontends.nginx.service.api: api is none of this frontend's services: web",
        ),
        ("[api]\nmetrics = ':9464'", "api.metrics: \":9464\" is not an address with a port: write \"127.0.0.1:9464\""),
        ("[api]\nsocket = 7", "api.socket: found the number 7, expected a text: write \"7\", in quotes"),
        ("[api]\nmax_connections = '9'", "api.max_connections: found a text, expected a whole number"),
        ("[services.web]\nmin_age = '25h'", "services.web.min_age: 25h is more than 24h"),
        (
            "[services.web]\nhealth = { type = 'tcp', interval = '2h' }",
            "web.health.interval: 2h is not from 100ms to 1h",
        ),
        ("[services.web]\nexpire = '1s'", "services.web.expire: a single provider's last set never expires"),
    ] {
        let etc = Etc::new(GOOD).fragment("fault.toml", keys);
        let faults = etc.faults();
        assert!(faults.len() == 1 && faults[0].contains(expected), "{expected:?} is not in {faults:#?}");
    }
}

#[test]
fn the_quotes_of_a_text_are_explained() {
    let faults = Etc::new("state_dir = '/x\"").faults();
    assert!(faults[0].contains("a text that begins with ' ends with '"), "{faults:?}");
}

#[test]
fn sizes_are_read_as_people_write_them() {
    let exec = |max_bytes: &str| {
        Etc::new(GOOD)
            .fragment("exec.toml", &format!("[providers.e]\ntype = 'exec'\ncommand = ['/x']\nmax_bytes = {max_bytes}"))
    };
    assert!(exec("'1MiB'").load().is_ok() && exec("1048576").load().is_ok());
    assert_eq!(exec("'2GiB'").faults(), ["conf.d/exec.toml: providers.e.max_bytes: 2GiB is not between 1B and 1GiB"]);
    assert_eq!(
        exec("'many'").faults(),
        [
            "conf.d/exec.toml: providers.e.max_bytes: \"many\" is not a size: write \"64MiB\", \"500kB\" or a number of bytes"
        ]
    );
}
