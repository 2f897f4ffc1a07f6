//! The Varnish template and the escaping of values, judged by Varnish itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use elasticd::frontend::escape::Escape;
use elasticd::frontend::template::{Context, Template};
use elasticd::model::{Backend, BackendState, Name, ServiceSet, Snapshot};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::harness::load::get;
use crate::harness::varnish::Varnish;

const BACKENDS: &str = include_str!("../../templates/varnish/backends.vcl");
const GOLDEN: &str = include_str!("golden/varnish_backends.vcl");

/// Tag values that end strings, comments and blocks if they are let.
const HOSTILE: &[&str] = &[
    "",
    "\"",
    "\"}",
    "\"\"\"",
    "\"} \"\"\"",
    "\"); } sub vcl_recv { return (pass); } #",
    "a\nb",
    "\r\n\t",
    "\n}\nsub vcl_recv { }\n",
    "*/ return (pass); /*",
    "/* // #",
    "/",
    "*",
    "C{ abort(); }C",
    "req.url",
    "\\\" \\n \\",
    "%22 %00 %s",
    "  größe ☃ ",
    "\u{0}\u{7}\u{7f}",
];

fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

fn backend(id: &str, address: &str, weight: u16) -> Backend {
    let address: IpAddr = address.parse().expect("an address");
    let tags = Default::default();
    Backend { id: id.to_owned(), address, port: 8080, zone: None, weight, state: BackendState::Up, tags }
}

fn render(template: &str, services: &[(&str, Vec<Backend>)], vars: &[(&str, &str)]) -> String {
    let set = |backends: &Vec<Backend>| ServiceSet { revision: 1, backends: backends.clone() }.into();
    let services: BTreeMap<_, _> = services.iter().map(|(service, backends)| (name(service), set(backends))).collect();
    let names: Vec<_> = services.keys().cloned().collect();
    let vars = vars.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let template = Template::compile("varnish/test.vcl", template, Escape::Vcl).expect("it compiles");
    template.render(&Context::new(&Snapshot { revision: 1, services }, &names, &vars)).expect("it renders")
}

const PRESET: [(&str, &str); 3] = [("director", "random"), ("backend", ""), ("probe", "")];

/// Starts Varnish with these backends, and has it do that with every request.
#[track_caller]
fn start(backends: &str, recv: &str) -> Varnish {
    let mut varnish = Varnish::new();
    std::fs::write(varnish.output(), backends).expect("written");
    let output = varnish.output().display().to_string();
    varnish.configure(&format!("vcl 4.1;\ninclude \"{output}\";\nsub vcl_recv {{\n{recv}\n}}\n"));
    varnish.spawn();
    varnish
}

fn pools() -> [(&'static str, Vec<Backend>); 3] {
    [
        (
            "api.v2",
            vec![backend("i-1", "10.0.0.1", 1), backend("I-1", "2001:db8::1", 256), backend("x", "10.0.0.3", 0)],
        ),
        ("drained", vec![backend("i-1", "127.0.0.1", 0)]),
        ("empty", vec![]),
    ]
}

#[test]
fn the_template_matches_its_golden_file() {
    assert_eq!(render(BACKENDS, &pools(), &PRESET), GOLDEN);
}

#[test]
fn a_service_without_backends_answers_503() {
    let text = render(BACKENDS, &pools(), &PRESET);
    let choose = "if (req.url == \"/empty\") { set req.backend_hint = empty.backend(); }\n\
                  if (req.url == \"/drained\") { set req.backend_hint = drained.backend(); }\nreturn (pass);";
    let varnish = start(&text, choose);
    for path in ["/empty", "/drained", "/no-hint"] {
        assert_eq!(get(varnish.address, path).map(|answer| answer.0), Some(503), "{path}");
    }
}

#[test]
fn varnish_takes_any_names_and_any_number_of_them() {
    let long = "x".repeat(63);
    let services = [
        "web",
        "Web",
        "WEB",
        "web.a",
        "web_a",
        "web__a",
        "9lives",
        "a-",
        "a_",
        "default",
        "backend",
        "req",
        "if",
        "elasticd",
        "elasticd__web",
        "client",
        "vcl_recv",
        "now",
        "error",
        "none",
        "hash",
        "obj",
        &long,
    ];
    let ids = ["i-0", "I-0", "i_0", "i.0", "i:0", "[::1]:80", "a@b", "__", "-", &"Ö".replace('Ö', "_").repeat(128)];
    let backends: Vec<_> = ids.iter().map(|id| backend(id, "127.0.0.1", 1)).collect();
    let services = services.map(|service| (service, backends.clone()));
    let varnish = start(&render(BACKENDS, &services, &PRESET), "return (synth(204));");
    assert_eq!(get(varnish.address, "/").map(|answer| answer.0), Some(204));
}

/// A value outside a string, in each kind of string, beside strings and in each kind of comment.
const PLACES: &str = r#"
{%- for s in services %}{% for b in s.backends %}
sub vcl_synth { # {{ b.tags.V }}
    // {{ b.tags.V }}
    /* {{ b.tags.V }} *//*{{ b.tags.V }}*/
    if (req.url == "/code{{ loop.index }}") { synthetic({{ b.tags.V }}); return (deliver); }
    if (req.url == "/beside{{ loop.index }}") { synthetic("<"+{{ b.tags.V }}+{">"}); return (deliver); }
    if (req.url == "/short{{ loop.index }}") { synthetic("<{{ b.tags.V }}>"); return (deliver); }
    if (req.url == "/braces{{ loop.index }}") { synthetic({"<"{{ b.tags.V }}>"}); return (deliver); }
    if (req.url == "/triple{{ loop.index }}") { synthetic("""<"{{ b.tags.V }}>"""); return (deliver); }
}
{%- endfor %}{% endfor %}
import std;
backend none none;
sub vcl_init { if (std.healthy(none)) { } }
"#;

/// What VCL cannot say is written as `%XX`.
pub fn readable(text: &str) -> String {
    let text = text.replace('\0', "%00");
    let in_braces = !text.contains("\"}");
    let in_triple = !text.contains("\"\"\"") && !text.ends_with('"');
    if in_braces || in_triple { text } else { text.replace("\"}", "%22}") }
}

#[test]
fn varnish_reads_every_hostile_value_back_at_every_place() {
    let strategy = proptest::string::string_regex("[ \\t\\r\\n;{}\"'#\\\\$%()/*C\\x00ntr0aé]{0,12}|\\PC{0,12}");
    let strategy = strategy.expect("a pattern");
    let mut runner = TestRunner::default();
    let made = (0..80).map(|_| strategy.new_tree(&mut runner).expect("a value").current());
    let values: Vec<String> = HOSTILE.iter().map(|value| (*value).to_owned()).chain(made).collect();
    let tagged = |(i, value): (usize, &String)| {
        let mut backend = backend(&format!("i-{i:03}"), "10.0.0.1", 1);
        backend.tags.insert("V".to_owned(), value.clone());
        backend
    };
    let backends = values.iter().enumerate().map(tagged).collect();
    let varnish = start(&render(PLACES, &[("web", backends)], &[]), "return (synth(200));");
    for (i, value) in values.iter().enumerate() {
        for (place, expected) in [
            ("code", readable(value)),
            ("beside", format!("<{}>", readable(value))),
            ("short", readable(&format!("<{value}>"))),
            ("braces", readable(&format!("<\"{value}>"))),
            ("triple", readable(&format!("<\"{value}>"))),
        ] {
            let answer = get(varnish.address, &format!("/{place}{i}"));
            assert_eq!(answer, Some((200, expected)), "{place} {i}: {value:?}");
        }
    }
}
