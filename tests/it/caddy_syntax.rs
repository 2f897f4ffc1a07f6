//! Caddy's templates and the escaping of values, judged by Caddy itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use elasticd::frontend::escape::Escape;
use elasticd::frontend::template::{Context, Template};
use elasticd::model::{Backend, BackendState, Name, ServiceSet, Snapshot};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::BoundedCommand as _;

const JSON: &str = include_str!("../../templates/caddy/upstreams.json");
const CADDYFILE: &str = include_str!("../../templates/caddyfile/upstreams.caddyfile");
const GOLDEN_JSON: &str = include_str!("golden/caddy_upstreams.json");
const GOLDEN_CADDYFILE: &str = include_str!("golden/caddy_upstreams.caddyfile");

/// Tag values that end tokens, lines, quotes and blocks if they are let.
const HOSTILE: &[&str] = &[
    "",
    "\"",
    "`",
    "\\",
    "trailing\\",
    "\\\"",
    "\\`",
    "a\nb",
    "\n}\nrespond evil\n{",
    "a b\tc",
    "# no comment",
    "x # no comment",
    "{",
    "}",
    "{}",
    "{$HOME}",
    "$HOME}",
    "{http.request.host}",
    "{host}",
    "import",
    "<<EOF\nx\nEOF",
    "404",
    "@matcher",
    "  leading",
    "trailing ",
    "\u{85}\u{a0}\u{2028}\u{3000}",
    "größe ☃\u{FEFF}",
    "\u{0}\u{7}\r\u{b}\u{c}\u{7f}",
];

fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

fn backend(id: &str, address: &str, weight: u16, value: &str) -> Backend {
    Backend {
        id: id.to_owned(),
        address: address.parse().expect("an address"),
        port: 8080,
        zone: None,
        weight,
        state: BackendState::Up,
        tags: [("V".to_owned(), value.to_owned())].into(),
    }
}

fn context(services: &[(&str, Vec<Backend>)]) -> Context {
    let set = |backends: &Vec<Backend>| ServiceSet { revision: 1, backends: backends.clone() }.into();
    let services: BTreeMap<_, _> = services.iter().map(|(service, backends)| (name(service), set(backends))).collect();
    let names: Vec<_> = services.keys().cloned().collect();
    let vars = BTreeMap::from([("id_prefix".to_owned(), Value::from("elasticd_"))]);
    Context::new(&Snapshot { revision: 1, services }, &names, &vars)
}

fn pools() -> Context {
    let web = [("i-1", "10.0.0.1", 1), ("i-2", "2001:db8::1", 256), ("i-3", "10.0.0.3", 0)];
    let web = web.map(|(id, address, weight)| backend(id, address, weight, ""));
    context(&[("api.v2", web.to_vec()), ("drained", vec![backend("i-1", "10.0.0.1", 0, "")]), ("empty", vec![])])
}

fn render(template: &str, escape: Escape, context: &Context) -> String {
    Template::compile("caddy/test", template, escape).expect("it compiles").render(context).expect("it renders")
}

/// The JSON that Caddy reads in a Caddyfile.
#[track_caller]
fn adapt(text: &str) -> Value {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("Caddyfile");
    std::fs::write(&path, text).expect("written");
    let output = Command::new("caddy")
        .args(["adapt", "--adapter", "caddyfile", "--config"])
        .arg(&path)
        .env("HOME", dir.path())
        .bounded_output();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_templates_match_their_golden_files() {
    let json = render(JSON, Escape::Json, &pools());
    assert_eq!(json, GOLDEN_JSON);
    let expected = json!({
        "elasticd_api.v2": [{"dial": "10.0.0.1:8080"}, {"dial": "[2001:db8::1]:8080"}],
        "elasticd_drained": [],
        "elasticd_empty": [],
    });
    assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), expected);
    assert_eq!(render(CADDYFILE, Escape::Caddyfile, &pools()), GOLDEN_CADDYFILE);
}

#[test]
fn a_snippet_is_what_a_reverse_proxy_imports() {
    let snippets = render(CADDYFILE, Escape::Caddyfile, &pools());
    let proxy = |name: &str| format!("reverse_proxy /{name} {{\n\timport {name}\n\tlb_policy first\n}}\n");
    let proxies = ["api.v2", "drained", "empty"].map(proxy).concat();
    let config = adapt(&format!("{snippets}http:// {{\n{proxies}}}\n"));
    let proxies = found(&config, "handler", "reverse_proxy");
    let upstreams = proxies.iter().filter_map(|proxy| proxy.get("upstreams")).collect::<Vec<_>>();
    assert_eq!(proxies.len(), 3, "{config:#}");
    assert_eq!(upstreams, [&json!([{"dial": "10.0.0.1:8080"}, {"dial": "[2001:db8::1]:8080"}])]);
}

/// Every object in which that key has that value.
pub fn found<'a>(value: &'a Value, key: &str, wanted: &str) -> Vec<&'a Value> {
    match value {
        Value::Array(list) => list.iter().flat_map(|value| found(value, key, wanted)).collect(),
        Value::Object(map) if map.get(key).is_some_and(|value| value == wanted) => vec![value],
        Value::Object(map) => map.values().flat_map(|value| found(value, key, wanted)).collect(),
        _ => Vec::new(),
    }
}

/// A template's line, in which `@` stands for the value, and what Caddy should read of it.
type Place = (&'static str, fn(&str) -> String);

/// At a token's start, middle and end, in both kinds of quotes, before and in a comment, on a continued line, twice in
/// a token, and around braces of the template's own.
const PLACES: &[Place] = &[
    ("@", |v| v.to_owned()),
    ("x@y", |v| format!("x{v}y")),
    ("x@", |v| format!("x{v}")),
    ("@#y", |v| format!("{v}#y")),
    ("@@", |v| format!("{v}{v}")),
    ("\"@\"", |v| v.to_owned()),
    ("\"x \\\"@ y\"", |v| format!("x \"{v} y")),
    ("`@`", |v| v.to_owned()),
    ("plain # @ @", |_| "plain".to_owned()),
    ("plain #@", |_| "plain".to_owned()),
    ("@ # @", |v| v.to_owned()),
    ("\\\n @", |v| v.replace('\n', "%0A")),
    ("@{http.request.host}", |v| {
        let escapes = v.ends_with('\\');
        format!("{}{{http.request.host}}", if escapes { v[..v.len() - 1].to_owned() + "%5C" } else { v.to_owned() })
    }),
];

/// What a Caddyfile cannot say in any quotes is written as `%XX`.
pub fn readable(value: &str) -> String {
    value.replace('{', "%7B").replace('}', "%7D")
}

/// Whether a value has what each of the kinds of quotes cannot hold: which of the two is encoded depends on its place.
fn fits_no_quotes(value: &str) -> bool {
    value.contains('`') && value.contains('\\')
}

fn assert_caddy_reads_back(values: &[String]) {
    let backends = values.iter().enumerate().map(|(i, v)| backend(&format!("i-{i:04}"), "10.0.0.1", 1, v)).collect();
    let mut template = "{% for s in services %}{% for b in s.backends %}".to_owned();
    for (place, (line, _)) in PLACES.iter().enumerate() {
        let line = line.replace('@', "{{ b.tags.V }}");
        let _ = writeln!(template, "header X-{place}-{{{{ loop.index }}}} {line}");
    }
    template += "{% endfor %}{% endfor %}";
    let lines = render(&template, Escape::Caddyfile, &context(&[("web", backends)]));
    let config = adapt(&format!("http:// {{\n{lines}\n}}\n"));
    let headers: BTreeMap<_, _> = found(&config, "handler", "headers")
        .into_iter()
        .flat_map(|handler| handler["response"]["set"].as_object().cloned().unwrap_or_default())
        .collect();
    assert_eq!(headers.len(), values.len() * PLACES.len(), "a line each: {config:#}\n{lines}");
    for (i, value) in values.iter().enumerate() {
        for (place, (line, expected)) in PLACES.iter().enumerate() {
            let read = &headers[&format!("X-{place}-{i}")];
            if fits_no_quotes(value) {
                let values = read.as_array().expect("a list");
                assert_eq!(values.len(), 1, "{line} with {value:?}");
            } else {
                assert_eq!(*read, json!([expected(&readable(value))]), "{line} with {value:?}");
            }
        }
    }
}

#[test]
fn caddy_reads_every_hostile_value_back_at_every_place() {
    assert_caddy_reads_back(&HOSTILE.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>());
}

#[test]
fn caddy_reads_generated_values_back_at_every_place() {
    let value = prop_oneof!["[ \\t\\r\\n{}\"`#\\\\$%()@<a]{0,12}", any::<String>()];
    let mut runner = TestRunner::default();
    let mut values: Vec<String> = (0..1000).map(|_| value.new_tree(&mut runner).expect("a value").current()).collect();
    // The markers of values within a template's text are elasticd's own.
    values.iter_mut().for_each(|value| value.retain(|c| !('\u{FDD0}'..='\u{FDD2}').contains(&c)));
    assert_caddy_reads_back(&values);
}
