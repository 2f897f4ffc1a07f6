//! Values that break configurations if they are let, and what each frontend shows of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::harness::load::get;

/// Values that end words, strings, comments and blocks in one syntax or another.
const FIXED: &[&str] = &[
    "plain",
    "two words",
    "\"",
    "'",
    "\"}, {",
    "\"}",
    "\"\"\"",
    "\\",
    "trailing\\",
    "a\nb",
    "\n}\nserver { }\n#",
    "1; } server { listen 1;",
    "\n  server evil 10.9.9.9:1\n",
    "*/ return (pass); /*",
    "</VirtualHost>",
    "# no comment",
    "$x",
    "${HOME}",
    "{$HOME}",
    "{{ x }}",
    "{% for %}",
    "%{x}",
    "%[env(HOME)]",
    "  leading",
    "trailing ",
    "größe ☃",
];

/// How a frontend shows hostile values.
pub struct Hostile {
    /// A template that writes each tag `V` where the frontend can show it. `None`: the preset's own does.
    pub template: Option<String>,
    /// More keys of the frontend.
    pub keys: String,
    /// Values of the tag `V`, and what the frontend must show of each.
    pub values: Vec<(String, String)>,
}

/// The fixed values and generated ones, with what becomes of each.
pub fn values(readable: impl Fn(&str) -> String) -> Vec<(String, String)> {
    let own = "[ \\t\\n;{}\"'#\\\\$%()ntr0aé]{1,12}";
    let values = generated(own, 40, FIXED);
    let readable = values.iter().map(|value| readable(value)).collect::<Vec<_>>();
    values.into_iter().zip(readable).collect()
}

/// The fixed values and any text at all, which must come back as it is: for formats that can say everything.
pub fn any_text() -> Vec<(String, String)> {
    let other = ["\u{0}\u{7f}\u{feff}", ""];
    let fixed: Vec<_> = FIXED.iter().copied().chain(other).collect();
    let mut values = generated("[ \\t\\r\\n;{}\"'#\\\\$%()ntr0aé\u{85}\u{2028}]{0,12}", 100, &fixed);
    values.extend(generated("(?s).{0,32}", 100, &[]));
    values.into_iter().map(|value| (value.clone(), value)).collect()
}

fn generated(pattern: &str, count: usize, fixed: &[&str]) -> Vec<String> {
    let strategy = proptest::string::string_regex(pattern).expect("a pattern");
    let mut runner = TestRunner::deterministic();
    let made = (0..count).map(|_| strategy.new_tree(&mut runner).expect("a value").current());
    // The characters with which elasticd marks values within a template's text are not theirs to hold.
    let made = made.map(|value| value.replace(['\u{FDD0}', '\u{FDD1}', '\u{FDD2}'], ""));
    fixed.iter().map(|value| (*value).to_owned()).chain(made).collect()
}

/// The id of the backend with the value of this index.
pub fn id(index: usize) -> String {
    format!("i-{index:03}")
}

/// The port of the backend with the value of this index.
pub fn port(index: usize) -> u16 {
    1000 + u16::try_from(index).expect("few")
}

/// The bodies of the answers to `/ID` for each id.
pub fn asked(address: SocketAddr, count: usize) -> BTreeMap<String, String> {
    let one = |index| Some((id(index), get(address, &format!("/{}", id(index)))?.1));
    (0..count).filter_map(one).collect()
}

/// The file of a `file` provider with a backend for each value: as a tag, as a part of a tag's key, and as its zone.
pub fn instances(values: &[(String, String)]) -> String {
    let instance = |(index, (value, _)): (usize, &(String, String))| {
        // `a_b` itself, and three keys that would all be that as labels.
        let tags = json!({
            "Role": "web", "V": value, "a-b": "second", "a_b": value, "a.b": "third", "ä": "x", format!("k{value}"): "y",
        });
        json!({ "id": id(index), "address": format!("127.0.0.1:{}", port(index)), "zone": value, "tags": tags })
    };
    json!(values.iter().enumerate().map(instance).collect::<Vec<_>>()).to_string()
}
