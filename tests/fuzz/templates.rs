//! Hostile tags, zones and ids in every preset, and at every kind of place of each syntax that has a judge which is
//! quick to ask: no value ever leaves its place.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use elasticd::config::Config;
use elasticd::frontend::escape::Escape;
use elasticd::frontend::preset;
use elasticd::frontend::template::{Context, Template};
use elasticd::model::{Backend, BackendState, Name, ServiceSet, Snapshot};
use serde_json::Value;

use crate::{for_a_while, hostile};

fn backend(n: u8, id: String, zone: String, tags: [String; 2]) -> Backend {
    let [one, other] = tags;
    Backend {
        id,
        address: [10, 0, 0, n].into(),
        port: 8080,
        zone: Some(zone),
        weight: u16::from(n),
        state: BackendState::Up,
        tags: [("V".to_owned(), one), ("W".to_owned(), other)].into(),
    }
}

fn snapshot(backends: Vec<Backend>) -> Snapshot {
    let name: Name = "web".parse().expect("a name");
    Snapshot { revision: 1, services: [(name, ServiceSet { revision: 1, backends }.into())].into() }
}

/// What remains when all texts are the same: who has which keys, and how many there are of each.
fn shape(value: &Value) -> Value {
    match value {
        Value::String(_) => Value::Null,
        Value::Array(list) => list.iter().map(shape).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        other => other.clone(),
    }
}

/// The words with which the lines begin.
fn skeleton(text: &str) -> Vec<&str> {
    text.split('\n').map(|line| line.split_ascii_whitespace().next().unwrap_or_default()).collect()
}

#[test]
fn whatever_is_tagged_in_every_preset() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display();
    let mut text = "[providers.p]\ntype = 'fixed'\ninstances = []\n[services.web]\nprovider = 'p'\n".to_owned();
    for name in preset::names() {
        let service = if name == "envoy" { "{service}" } else { "out" };
        text += &format!("[frontends.{name}]\ntype = '{name}'\n");
        // Those of several outputs keep their own paths: nothing is written here.
        if preset::defaults_text(name).expect("a preset").matches("[[outputs]]").count() == 1 {
            text += &format!("output = '{at}/{name}-{service}'\n");
        }
    }
    let file = dir.path().join("elasticd.toml");
    std::fs::write(&file, text).expect("written");
    let config = Config::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
    let templates: Vec<_> = config.frontends.iter().map(|f| f.templates().expect("compiled")).collect();
    let plain = |n: u8| backend(n, format!("i-{n}"), "zone".to_owned(), ["v".to_owned(), "w".to_owned()]);
    let harmless = snapshot(vec![plain(1), plain(2)]);
    let all = |snapshot: &Snapshot| -> Vec<Vec<String>> {
        let render = |(f, t): (&elasticd::frontend::Config, &Vec<Template>)| {
            f.render(t, snapshot, &f.facts()).expect("rendered").contents
        };
        config.frontends.iter().zip(&templates).map(render).collect()
    };
    let expected = all(&harmless);
    for_a_while("presets", |random| {
        let mut evil = |n: u8| {
            let id = format!("i-{n}{}", hostile(random));
            backend(n, id, hostile(random), [hostile(random), hostile(random)])
        };
        let snapshot = snapshot(vec![evil(1), evil(2)]);
        for ((frontend, rendered), harmless) in config.frontends.iter().zip(all(&snapshot)).zip(&expected) {
            for (text, harmless) in rendered.iter().zip(harmless) {
                match serde_json::from_str::<Value>(harmless) {
                    Ok(harmless) => {
                        let read: Value = serde_json::from_str(text)
                            .unwrap_or_else(|error| panic!("{}: {error}: {text}\n{snapshot:?}", frontend.name));
                        // Envoy has a group of endpoints for each zone.
                        if frontend.type_name != "envoy" {
                            assert_eq!(shape(&read), shape(&harmless), "{}: {text}", frontend.name);
                        }
                    }
                    // A name may be made of an id, never more than one.
                    Err(_) => {
                        let (lines, wanted) = (skeleton(text), skeleton(harmless));
                        assert_eq!(lines.len(), wanted.len(), "{}: {text}\n{snapshot:?}", frontend.name);
                        let others = lines.iter().zip(&wanted).filter(|(line, wanted)| line != wanted).count();
                        assert!(others <= 2, "{}: {text}\n{snapshot:?}", frontend.name);
                    }
                }
            }
        }
    });
}

/// Values at once in one file for a judge.
const BATCH: usize = 40;

fn render(escape: Escape, template: &str, values: &[String]) -> String {
    let tagged = |(n, value): (usize, &String)| {
        let n = u8::try_from(n).expect("few");
        backend(n, format!("i-{n:03}"), "a".to_owned(), [value.clone(), String::new()])
    };
    let snapshot = snapshot(values.iter().enumerate().map(tagged).collect());
    let names = [snapshot.services.keys().next().expect("one").clone()];
    let context = Context::new(&snapshot, &names, &BTreeMap::new());
    Template::compile("fuzz", template, escape).expect("compiles").render(&context).expect("rendered")
}

/// Renders batch upon batch, and has each judged.
fn judged(name: &str, escape: Escape, template: &str, mut judge: impl FnMut(&Path, &str, &[String])) {
    let dir = tempfile::tempdir().expect("a directory");
    for_a_while(name, |random| {
        let values: Vec<_> = (0..BATCH).map(|_| hostile(random)).collect();
        judge(dir.path(), &render(escape, template, &values), &values);
    });
}

fn accepted(program: &str, arguments: &[&str], text: &str, values: &[String]) {
    let output = Command::new("timeout").args(["60", program]).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `tests/run` installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}\n{values:?}");
}

#[test]
fn whatever_is_tagged_nginx_reads_it() {
    let template = "{% for s in services %}{% for b in s.backends %}\n\
        map $uri $a{{ b.port }}{{ b.weight }} { default {{ b.tags.V }}; x x{{ b.tags.V }}y; y \"{{ b.tags.V }}\"; \
        z '{{ b.tags.V }}'; } # {{ b.tags.V }}\n{% endfor %}{% endfor %}";
    judged("nginx", Escape::Nginx, template, |dir, text, values| {
        let main = dir.join("nginx.conf");
        let at = dir.display();
        // Each map has its five parameters, or nginx refuses it; and after them nothing else is left.
        let config =
            format!("pid {at}/p;\nerror_log {at}/e;\nevents {{}}\nhttp {{ map_hash_max_size 8192;\n{text}\n}}\n");
        std::fs::write(&main, config).expect("written");
        accepted("nginx", &["-t", "-q", "-e", "stderr", "-c", &main.to_string_lossy()], text, values);
    });
}

#[test]
fn whatever_is_tagged_haproxy_reads_it() {
    let template = "{% for s in services %}{% for b in s.backends %}  acl a{{ b.weight }} path -m str -- x{{ b.tags.V }} \
        \"{{ b.tags.V }}\" '{{ b.tags.V }}' y{{ b.tags.V }}z # {{ b.tags.V }}\n{% endfor %}{% endfor %}";
    judged("haproxy", Escape::Haproxy, template, |dir, text, values| {
        let main = dir.join("haproxy.cfg");
        let config = format!(
            "defaults\n  mode http\n  timeout client 1s\n  timeout server 1s\n  timeout connect 1s\nfrontend f\n  bind 127.0.0.1:1\n  default_backend b\nbackend b\n{text}"
        );
        std::fs::write(&main, config).expect("written");
        accepted("haproxy", &["-c", "-f", &main.to_string_lossy()], text, values);
    });
}

#[test]
fn whatever_is_tagged_a_shell_reads_it_back() {
    let template = "{% for s in services %}{% for b in s.backends %}# {{ b.tags.V }}\nA{{ b.weight }}={{ b.tags.V }}\n\
        B{{ b.weight }}=\"x{{ b.tags.V }}y\"\nC{{ b.weight }}='x{{ b.tags.V }}y'\n{% endfor %}{% endfor %}";
    judged("shell", Escape::Shell, template, |dir, text, values| {
        std::fs::write(dir.join("env"), text).expect("written");
        let names = (0..values.len()).flat_map(|n| ["A", "B", "C"].map(|place| format!("{place}{n}")));
        let print: String = names.map(|name| format!("printf '%s\\0' \"${name}\"\n")).collect();
        std::fs::write(dir.join("print"), format!(". ./env\n{print}")).expect("written");
        let output =
            Command::new("timeout").args(["60", "sh", "-eu", "print"]).current_dir(dir).output().expect("sh runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        let said: Vec<_> = said.split_terminator('\0').collect();
        assert_eq!(said.len(), 3 * values.len(), "{text}");
        for (said, value) in said.chunks(3).zip(values) {
            assert!(said[1] == format!("x{}y", said[0]) && said[2] == said[1], "{value:?}: {said:?}");
            let plain = value.chars().all(|c| !c.is_control() && (c as u32) < 0xfdd0);
            assert!(!plain || said[0] == value, "{value:?}: {said:?}");
        }
        assert!(!dir.join("pwned").exists());
    });
}

#[test]
fn whatever_is_tagged_apache_reads_it() {
    let template = "{% for s in services %}{% for b in s.backends %}Define A{{ b.weight }} x{{ b.tags.V }}\n\
        Define B{{ b.weight }} \"{{ b.tags.V }}\"\nDefine C{{ b.weight }} '{{ b.tags.V }}'\n# {{ b.tags.V }}\n\
        {% endfor %}{% endfor %}";
    judged("apache", Escape::Apache, template, |dir, text, values| {
        let main = dir.join("apache2.conf");
        let at = dir.display();
        let modules = "LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n";
        let config = format!("ServerRoot {at}\nServerName x\nDefaultRuntimeDir {at}\nErrorLog {at}/e\n{modules}{text}");
        std::fs::write(&main, config).expect("written");
        accepted("apache2", &["-t", "-f", &main.to_string_lossy()], text, values);
    });
}
