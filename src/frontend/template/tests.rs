//! Rendered output, errors with their places, and trials.

use std::collections::BTreeMap;

use super::*;
use crate::model::{AddressKind, Name, PortRule, Selector, Service, ServiceSet, Snapshot};

fn service(name: &str, address: AddressKind) -> Service {
    Service {
        select: Selector::of_tags([("Role", ["web"])]),
        address,
        port: PortRule::Tag { key: "Port".to_owned(), default: None },
        ..Service::new(name.parse().expect("a valid name"), "prod".parse().expect("a valid name"))
    }
}

fn compile(text: &str) -> Template {
    Template::compile("t.conf", text, Escape::Nginx).expect("it compiles")
}

fn trial(text: &str) -> Result<(), String> {
    let web = service("web", AddressKind::Ipv6);
    let vars = BTreeMap::from([("size".to_owned(), serde_json::json!("64k"))]);
    let (service_vars, facts) = (BTreeMap::new(), Facts::default());
    let variables = Variables { vars: &vars, service_vars: &service_vars, facts: &facts };
    compile(text).trial(&[&web], &variables).map_err(|error| error.to_string())
}

fn compile_error(text: &str) -> String {
    Template::compile("t.conf", text, Escape::Nginx).expect_err("an invalid template").to_string()
}

const EACH: &str = "{% for s in services %}{% for b in s.backends %}";
const END: &str = "{% endfor %}{% endfor %}";

#[test]
fn a_template_that_uses_only_existing_values_passes() {
    let all = "{{ b.id }}{{ b.address }}{{ b.port }}{{ b.zone }}{{ b.weight }}{{ b.state }}{{ b | hostport }}";
    let tags = "{{ b.tags.Role }}{{ b.tags.Port }}{{ b.tags.Any }}{{ s.name }}{{ s.revision }}{{ b.zone | upper }}";
    assert_eq!(trial(&format!("{EACH}{all}{tags}{END}{{{{ revision }}}}{{{{ vars.size }}}}")), Ok(()));
}

#[test]
fn a_syntax_error_has_its_place() {
    let error = compile_error("a\n  {{ b | }}\n");
    assert!(error.starts_with("t.conf line 2 column 10: "), "{error}");
    let error = compile_error("größe \u{FDD0}");
    assert!(error.starts_with("t.conf line 1 column 7: the characters U+FDD0"), "{error}");
}

#[test]
fn an_unknown_field_has_its_place_and_a_suggestion() {
    let error = trial(&format!("# x\n{EACH}\n\tserver {{{{ b.adress }}}};{END}")).expect_err("no such field");
    assert_eq!(error, "t.conf line 3 column 13: there is no `b.adress`: write `address`? (found with sample backends)");
}

#[test]
fn places_are_right_after_text_that_is_not_ascii() {
    let error =
        trial(&format!("# größe — ☃ 日本\n# ü\n{EACH}\n ü {{{{ b.adress }}}}{END}")).expect_err("no such field");
    assert!(error.starts_with("t.conf line 4 column 8: there is no `b.adress`"), "{error}");
    let error = compile_error("# ☃☃☃\n# ☃☃☃\n☃ {{ b | }}");
    assert!(error.starts_with("t.conf line 3 column 10: "), "{error}");
}

#[test]
fn each_unknown_name_has_its_remedy() {
    for (text, remedy) in [
        ("{{ backends }}", "there is no `backends`: at the top level there are services, revision, vars"),
        ("{{ vars.sise }}", "there is no `vars.sise`: set `sise` among the frontend's vars"),
        ("{% for s in services %}{{ s.xyzzy }}{% endfor %}", "a backend has id, address"),
    ] {
        let error = trial(text).expect_err("no such name");
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn a_fault_that_shows_only_without_backends_is_found_too() {
    let error = trial("{% for s in services %}{{ s.backends.0.id }}{% endfor %}").expect_err("there is no first one");
    assert!(error.contains("index out of bounds") && error.contains("services without backends"), "{error}");
}

#[test]
fn an_error_of_a_missing_tag_names_the_remedy() {
    let mut backend = sample::backend(1, [10, 0, 0, 1].into());
    backend.tags.insert("Role".to_owned(), "web".to_owned());
    let name: Name = "web".parse().expect("a valid name");
    let set = ServiceSet { revision: 1, backends: vec![backend] };
    let snapshot = Snapshot { revision: 1, services: [(name.clone(), set.into())].into() };
    let context = Context::new(&snapshot, &[name], &BTreeMap::new());
    let error = compile(&format!("{EACH}{{{{ b.tags.Owner }}}}{END}")).render(&context).expect_err("no such tag");
    assert!(error.to_string().ends_with("write `tags | get: \"KEY\", \"default\"` instead"), "{error}");
    let text = format!("{EACH}<{{{{ b.tags | get: \"Owner\", \"\" | raw }}}}>{{{{ b.tags.Role }}}}{END}");
    assert_eq!(compile(&text).render(&context).expect("it renders"), "<>web");
    let text = format!("{EACH}{{% with b.tags as t %}}<{{{{ t?.Owner }}}}>{{% endwith %}}{END}");
    assert_eq!(compile(&text).render(&context).expect("it renders"), "<>");
}

#[test]
fn an_optional_tag_that_the_engine_could_not_render_later_is_found_in_the_trial() {
    let error = trial(&format!("{EACH}{{{{ b.tags?.Owner }}}}{END}")).expect_err("it may be absent");
    assert!(error.contains("`b.tags?.Owner` finds nothing, and `?.` does not work with a loop's variable"), "{error}");
}

#[test]
fn a_hostile_tag_is_escaped_unless_raw() {
    let mut backend = sample::backend(1, [10, 0, 0, 1].into());
    backend.tags.insert("Role".to_owned(), "1; } x".to_owned());
    let name: Name = "web".parse().expect("a valid name");
    let set = ServiceSet { revision: 1, backends: vec![backend] };
    let snapshot = Snapshot { revision: 1, services: [(name.clone(), set.into())].into() };
    let context = Context::new(&snapshot, &[name], &BTreeMap::new());
    let render = |escape, expression: &str| {
        let text = format!("{EACH}x {expression};{END}");
        Template::compile("t", &text, escape).expect("it compiles").render(&context).expect("it renders")
    };
    assert_eq!(render(Escape::Nginx, "{{ b.tags.Role }}"), "x \"1; } x\";");
    assert_eq!(render(Escape::Nginx, "'{{ b.tags | json }}'"), "x '{\\\"Role\\\":\\\"1; } x\\\"}';");
    assert_eq!(render(Escape::Nginx, "{{ b.tags.Role | raw }}"), "x 1; } x;");
    assert_eq!(render(Escape::None, "{{ b.tags.Role }}"), "x 1; } x;");
    assert_eq!(render(Escape::Json, "{{ b.tags | json }}"), "x {\"Role\":\"1; } x\"};");
    assert_eq!(render(Escape::Nginx, "\\{{ b.id }}"), "x \\\\i-sample1;");
}
