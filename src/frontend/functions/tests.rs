//! The page on templates is true, complete, and says nothing that does not exist.

use std::collections::BTreeSet;

use upon::{Engine, Value};

use super::{from_json, install};
use crate::frontend::escape::Escape;

const PAGE: &str = include_str!("../../../docs/reference/templates.md");

fn engine() -> Engine<'static> {
    let mut engine = Engine::new();
    install(&mut engine);
    Escape::None.install(&mut engine, false);
    engine
}

fn values() -> Value {
    let (_, json) = PAGE.split_once("```json\n").expect("the values");
    let (json, _) = json.split_once("```").expect("their end");
    from_json(&serde_json::from_str(json).expect("JSON"))
}

fn render(template: &str) -> Result<String, String> {
    let mut engine = engine();
    engine.add_template("t", template.to_owned()).map_err(|error| error.to_string())?;
    engine.template("t").render_from(&values()).to_string().map_err(|error| error.to_string())
}

/// The cells of each row of the section's table, without the backticks around them.
fn rows(section: &str) -> Vec<Vec<String>> {
    let (_, text) = PAGE.split_once(&format!("\n## {section}\n")).expect("the section");
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(2);
    let cells = |row: &str| {
        let row = row.replace("\\|", "\u{0}");
        let cells = row.trim_matches('|').split(" | ").map(|cell| cell.replace('\u{0}', "|"));
        let bare = |cell: String| match cell.trim().strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) {
            Some(code) => code.to_owned(),
            None => cell.trim().to_owned(),
        };
        cells.map(bare).collect()
    };
    rows.map(cells).collect()
}

#[test]
fn each_example_gives_what_the_page_says() {
    let mut tried = 0;
    for (section, at) in [("Language", 1), ("Functions", 2)] {
        for row in rows(section) {
            let (example, expected) = (&row[at], &row[at + 1]);
            assert_eq!(render(example).as_deref(), Ok(expected.as_str()), "{example}");
            tried += 1;
        }
    }
    assert!(tried > 60, "the tables were not read: {tried}");
}

#[test]
fn the_page_has_every_function_and_no_other() {
    // The engine lists its functions nowhere else.
    let listed = format!("{:?}", engine());
    let (_, callables) = listed.split_once("callables: {").expect("a map");
    let (callables, _) = callables.split_once("}, ").expect("its end");
    let installed: BTreeSet<_> = callables.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let documented: BTreeSet<_> = rows("Functions").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, installed);
    for row in rows("Functions") {
        assert!(row[2].contains(&row[0]), "the example of {} does not use it", row[0]);
    }
}

#[test]
fn what_functions_refuse_is_explained() {
    for (template, reason) in [
        (r#"{{ "x" | add: 1 }}"#, "`add` needs numbers, and \"x\" is none"),
        (
            "{{ services.0.backends.1.zone | add: 1 }}",
            "`add` needs numbers, and one is absent: write `| default: 0` before it",
        ),
        ("{{ 1 | div: 0 }}", "`div` cannot divide by 0"),
        ("{{ 9223372036854775807 | mul: 9223372036854775807 }}", "`mul`: the result is too large"),
        (r#"{{ "x" | matches: "(" }}"#, "is no regular expression: unclosed group"),
        (r#"{{ "x" | matches: "(a{1000}){1000}" }}"#, "is no regular expression"),
        (r#"{{ services | sum: "name" }}"#, "`sum` needs a whole number at \"name\" of each item, and found \"web\""),
        ("{{ revision | first }}", "`first` needs a list, not a number"),
        (r#"{{ fail("because") }}"#, "because"),
        ("{{ own.host | hostport }}", "expects map argument"),
        ("{{ vars | hostport }}", "`hostport` needs a backend"),
        ("{{ services | lower }}", "a text is needed here, not a list"),
        ("{{ services }}", "a list cannot be written: use a loop, `join` or `json`"),
        (r#"{{ primary_zone("no", services, own.zone) }}"#, "`other_zones` is \"no\": write \"backup\""),
        (
            r#"{% for p in services.0.backends.0 | parameters: {"a": {"tag": "Owner"} }, {"a": "[0-9]+"} %}{% endfor %}"#,
            "parameter a (tag Owner) is \"Ann\": it must have the form [0-9]+",
        ),
        (
            r#"{% for p in services.0.backends.0 | parameters: {"a": {"tags": "Owner"} }, {} %}{% endfor %}"#,
            "parameter a: write { tag = \"KEY\" }",
        ),
        (
            r#"{% for p in services.0.backends.0 | parameters: {"a": {"tag": "Owner"} }, {"a": "flag"} %}{% endfor %}"#,
            "parameter a (tag Owner) is \"Ann\": write \"true\" or \"false\"",
        ),
    ] {
        let error = render(template).expect_err(template);
        assert!(error.contains(reason), "{template}: {error}");
    }
}
