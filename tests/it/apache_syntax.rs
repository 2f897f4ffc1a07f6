//! The Apache template and the escaping of values, judged by Apache itself.

use std::collections::BTreeMap;
use std::fs;

use elasticd::frontend::escape::Escape;
use elasticd::frontend::template::{Context, Template};
use elasticd::model::{Backend, BackendState, Name, ServiceSet, Snapshot};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::harness::apache::{Apache, apache2};

const BALANCERS: &str = include_str!("../../templates/apache/balancers.conf");
const GOLDEN: &str = include_str!("golden/apache_balancers.conf");

fn backend(id: &str, address: &str, weight: u16) -> Backend {
    Backend {
        id: id.to_owned(),
        address: address.parse().expect("an address"),
        port: 8080,
        zone: None,
        weight,
        state: BackendState::Up,
        tags: Default::default(),
    }
}

fn context(services: &[(&str, Vec<Backend>)], vars: &[(&str, serde_json::Value)]) -> Context {
    let name = |text: &str| -> Name { text.parse().expect("a valid name") };
    let set = |backends: &Vec<Backend>| ServiceSet { revision: 1, backends: backends.clone() }.into();
    let services: BTreeMap<_, _> = services.iter().map(|(service, backends)| (name(service), set(backends))).collect();
    let names: Vec<_> = services.keys().cloned().collect();
    let vars = vars.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Context::new(&Snapshot { revision: 1, services }, &names, &vars)
}

/// Those of the preset, with some replaced.
fn vars(other: &[(&'static str, serde_json::Value)]) -> Vec<(&'static str, serde_json::Value)> {
    let preset: [(&str, serde_json::Value); 8] = [
        ("scheme", "http".into()),
        ("method", "byrequests".into()),
        ("retry", 10.into()),
        ("connect_timeout", 5.into()),
        ("sticky", "".into()),
        ("balancer", "".into()),
        ("member", "".into()),
        ("other_zones", "".into()),
    ];
    let kept = preset.into_iter().filter(|(key, _)| other.iter().all(|(name, _)| name != key));
    kept.chain(other.iter().cloned()).collect()
}

fn render(template: &str, context: &Context) -> String {
    let template = Template::compile("apache/test.conf", template, Escape::Apache).expect("it compiles");
    template.render(context).expect("it renders")
}

fn pools() -> [(&'static str, Vec<Backend>); 4] {
    [
        ("api", vec![backend("i-1", "10.0.0.1", 1), backend("i-2", "2001:db8::1", 100), backend("i-3", "10.0.0.3", 0)]),
        ("drained", vec![backend("i-1", "10.0.0.1", 0), backend("i-2", "10.0.0.2", 0)]),
        ("empty", vec![]),
        (
            "heavy",
            vec![backend("i-1", "10.0.0.1", 1), backend("i-2", "10.0.0.2", 128), backend("i-3", "10.0.0.3", 256)],
        ),
    ]
}

#[track_caller]
fn assert_accepts(text: &str) {
    let apache = Apache::new();
    fs::write(apache.path("conf.d/elasticd.conf"), text).expect("written");
    let (accepted, said) = apache2(&apache.path("apache2.conf"), &["-t"]);
    assert!(accepted, "{said}\n{text}");
}

#[test]
fn the_template_matches_its_golden_file() {
    let text = render(BALANCERS, &context(&pools(), &vars(&[])));
    assert_eq!(text, GOLDEN);
    assert_accepts(&text);
}

#[test]
fn options_are_rendered_and_accepted() {
    let vars = vars(&[
        ("method", "bybusyness".into()),
        ("retry", 0.into()),
        ("sticky", "ROUTEID".into()),
        ("balancer", "timeout=3 nofailover=On".into()),
        ("member", "timeout=30 keepalive=On".into()),
    ]);
    let text = render(BALANCERS, &context(&pools(), &vars));
    assert!(
        text.contains("    ProxySet lbmethod=bybusyness stickysession=ROUTEID timeout=3 nofailover=On\n"),
        "{text}"
    );
    let member =
        "\"http://10.0.0.1:8080\" loadfactor=1 retry=0 connectiontimeout=5 route=i-1 timeout=30 keepalive=On\n";
    assert!(text.contains(member), "{text}");
    assert_accepts(&text);
}

/// Each place in which a template may write a value, and what Apache reads there for a value `V`.
const PLACES: [(&str, &str); 10] = [
    ("{{ v }}", "V"),
    ("x{{ v }}y", "xVy"),
    ("\"{{ v }}\"", "V"),
    ("'{{ v }}'", "V"),
    ("\"a {{ v }} b\"", "a V b"),
    ("'\\'{{ v }}\"'", "'V\""),
    ("x\"{{ v }}\\\\z", "x\"V\\z"),
    ("\"{{ v }}", "V"),
    ("x\\\n{{ v }}\\\n", "xV"),
    ("\"${elasticd_test}{{ v }}${elasticd_test}\"", "<>V<>"),
];

/// What Apache's syntax cannot say is written as `%XX`.
pub fn readable(value: &str) -> String {
    let percent =
        |c: char| -> String { c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let written = |c: char| if c.is_control() && c != '\t' { percent(c) } else { c.to_string() };
    value.chars().map(written).collect::<String>().replace("${", "$%7B")
}

/// Values of the characters that mean something to Apache, and any others.
fn hostile() -> Vec<String> {
    let fixed = [
        "",
        "#",
        "\\",
        "a\\",
        "\\\\",
        "\"",
        "'",
        "a\nServerRoot /x\n",
        "</VirtualHost>",
        "<IfDefine x>",
        "${PATH}",
        "$",
        "{",
    ];
    let one = prop_oneof![
        "[ \\t\\r\\n;{}\"'#\\\\$%<>()nta\u{b}\u{c}\u{a0}é]{0,10}",
        proptest::collection::vec(any::<char>(), 0..12).prop_map(|chars| chars.into_iter().collect::<String>()),
    ];
    let many = proptest::collection::vec(one, 400).new_tree(&mut TestRunner::default()).expect("values").current();
    // elasticd's own marks become the replacement character, whatever the syntax.
    let marks = |c: char| if ('\u{fdd0}'..='\u{fdd2}').contains(&c) { '\u{fffd}' } else { c };
    fixed.map(str::to_owned).into_iter().chain(many).map(|value| value.chars().map(marks).collect()).collect()
}

#[test]
fn apache_reads_every_hostile_value_back_at_every_place() {
    let values = hostile();
    let tagged = |(i, value): (usize, &String)| {
        let mut backend = backend(&format!("{i:03}"), "10.0.0.1", 1);
        backend.tags.insert("V".to_owned(), value.clone());
        backend
    };
    let web = [("web", values.iter().enumerate().map(tagged).collect())];
    let defines: String = PLACES
        .iter()
        .enumerate()
        .map(|(place, (text, _))| format!("# {{{{ v }}}}\nDefine t{place}_{{{{ b.id }}}} {text}\n# {{{{ v }}}}\n"))
        .collect();
    let template = format!(
        "Define elasticd_test <>\n{{% for s in services %}}{{% for b in s.backends %}}{{% with b.tags.V as v %}}\
         {defines}{{% endwith %}}{{% endfor %}}{{% endfor %}}"
    );
    let text = render(&template, &context(&web, &[]));
    let apache = Apache::new();
    fs::write(apache.path("conf.d/defines.conf"), &text).expect("written");
    let (accepted, said) = apache2(&apache.path("apache2.conf"), &["-t", "-D", "DUMP_RUN_CFG"]);
    assert!(accepted, "{}", said.chars().take(2000).collect::<String>());
    // An empty one is listed without its sign.
    let read: BTreeMap<_, _> = said
        .split('\n')
        .filter_map(|line| line.strip_prefix("Define: t"))
        .map(|define| define.split_once('=').unwrap_or((define, "")))
        .collect();
    for (i, value) in values.iter().enumerate() {
        for (place, (text, expected)) in PLACES.iter().enumerate() {
            let mut wanted = expected.replace('V', &readable(value));
            if *text == "\"{{ v }}" && (wanted.ends_with('\\') || wanted.ends_with([' ', '\t'])) {
                // Where nothing closes the quotes, the line's end takes white space, and a backslash would take the next line.
                let end = wanted.trim_end_matches([' ', '\t']);
                wanted = if end.len() < wanted.len() {
                    end.to_owned()
                } else {
                    format!("{}%5C", &wanted[..wanted.len() - 1])
                };
            }
            let key = format!("{place}_{i:03}");
            assert_eq!(read.get(key.as_str()).copied(), Some(wanted.as_str()), "{text} with {value:?}");
        }
    }
    assert_eq!(read.len(), values.len() * PLACES.len(), "no directive more, and none less");
}
