//! Identifiers for frontends that allow fewer characters in them than names of services, ids and tags may have.

use upon::{Engine, Value};

use super::values::{Map, display, dotted, text};

/// Adds every function to the engine.
pub(super) fn install(engine: &mut Engine<'static>) {
    engine.add_function("vcl_director", |service: &Value| text(service).map(vcl_director));
    engine.add_function("vcl_backend", |id: &Value, service: &Value| {
        Ok::<_, String>(format!("{}__{}", vcl_director(text(service)?), vcl_letters(text(id)?)))
    });
    engine.add_function("label_names", label_names);
    engine.add_function("env_names", env_names);
}

/// Words that VCL does not accept as the name of a director (each tried with Varnish 7.1), and `elasticd`, with which the
/// names made here begin. VCL accepts no name that begins with `vcl_` either.
const VCL_RESERVED: &[&str] = &[
    "acl",
    "backend",
    "ban",
    "bereq",
    "beresp",
    "call",
    "default",
    "directors",
    "elasticd",
    "false",
    "hash_data",
    "if",
    "import",
    "include",
    "new",
    "now",
    "probe",
    "regsub",
    "regsuball",
    "req",
    "resp",
    "return",
    "set",
    "std",
    "sub",
    "synthetic",
    "true",
    "unset",
    "vcl",
];

/// A VCL identifier (`[A-Za-z][A-Za-z0-9_-]*`) for a service's name. Different names give different identifiers, also if
/// case is ignored, as VCL does.
///
/// Most names are kept. All others become `elasticd__` and [`vcl_letters`], and no name that is kept begins with that. A
/// backend's identifier continues with `__` and [`vcl_letters`], in which `_` is always followed by two hexadecimal
/// digits; no name that is kept contains `__` or ends in `_`, so the parts cannot be confused.
fn vcl_director(service: &str) -> String {
    let is_kept = service.starts_with(|c: char| c.is_ascii_lowercase())
        && service.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        && !service.contains("__")
        && !service.ends_with('_')
        && !service.starts_with("vcl_")
        && !VCL_RESERVED.contains(&service);
    if is_kept { service.to_owned() } else { format!("elasticd__{}", vcl_letters(service)) }
}

/// Keeps lower-case letters, digits and `-`, and writes every other byte as `_` and two hexadecimal digits.
fn vcl_letters(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            byte => drop(write!(out, "_{byte:02x}")),
        }
        out
    })
}

/// Replaces everything but ASCII letters, digits and `_` by `_`, as Prometheus' own service discovery does.
fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn label_names(map: &Map, prefix: &str) -> Map {
    let named = |(key, value): (&String, &Value)| (format!("{prefix}{}", identifier(key)), value.clone());
    let (same, changed): (Vec<_>, Vec<_>) = map.iter().partition(|(key, _)| identifier(key) == **key);
    // The last of equal keys is kept.
    changed.into_iter().rev().chain(same).map(named).collect()
}

fn env_names(services: &[Value], prefix: &str) -> Result<Map, String> {
    let mut named = Map::new();
    for service in services {
        let Value::String(name) = dotted(service, "name") else {
            return Err("`env_names` needs the services: write `{{ services | env_names: \"PREFIX_\" }}`".to_owned());
        };
        let variable = format!("{prefix}{}", identifier(name).to_uppercase());
        if let Some(other) = named.insert(variable.clone(), service.clone()) {
            let other = display(dotted(&other, "name")).unwrap_or_default();
            return Err(format!(
                "the services {other:?} and {name:?} would both be {variable}: name only one of them in this frontend's \
                 `services`, and give the other a frontend with another `vars.prefix`"
            ));
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> String {
        let mut engine = Engine::new();
        install(&mut engine);
        let keys = [
            ("a-b", "first"),
            ("a.b", "second"),
            ("a_b", "same"),
            ("c-d", "first"),
            ("c.d", "second"),
            ("ä", "umlaut"),
        ];
        let keys = Value::Map(keys.map(|(key, value)| (key.to_owned(), value.into())).into());
        let context = upon::value! {
            keys: keys, services: [{ name: "web" }, { name: "api.2" }], same: [{ name: "a-b" }, { name: "A.b" }]
        };
        engine.add_template("t", template.to_owned()).expect("it compiles");
        engine.template("t").render(context).to_string().unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn functions_do_what_the_table_says() {
        for (template, expected) in [
            (
                r#"{{ "a-b_c" | vcl_director }} {{ "9.A" | vcl_director }} {{ "default" | vcl_director }}"#,
                "a-b_c elasticd__9_2e_41 elasticd__default",
            ),
            (
                r#"{{ "i-0A" | vcl_backend: "a_b" }} {{ "x:_" | vcl_backend: "a.b" }}"#,
                "a_b__i-0_41 elasticd__a_2eb__x_3a_5f",
            ),
            (
                r#"{% for k, v in keys | label_names: "t_" %}{{ k }}={{ v }} {% endfor %}"#,
                "t__=umlaut t_a_b=same t_c_d=first ",
            ),
            (
                r#"{% for k, s in services | env_names: "X_" %}{{ k }}={{ s.name }} {% endfor %}"#,
                "X_API_2=api.2 X_WEB=web ",
            ),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
        let same = render(r#"{% for k, s in same | env_names: "X_" %}{{ k }}{% endfor %}"#);
        assert!(same.contains(r#"services "a-b" and "A.b" would both be X_A_B"#), "{same}");
    }

    #[test]
    fn all_services_and_backends_have_different_identifiers_in_vcl() {
        let letters = ["a", "A", "_", ".", "-", "5", "f", "__", "_5f", "elasticd", "none_"];
        let mut texts: Vec<String> = letters.map(str::to_owned).to_vec();
        for _ in 0..2 {
            let longer: Vec<_> =
                texts.iter().flat_map(|text| letters.map(|letter| format!("{text}{letter}"))).collect();
            texts.extend(longer);
        }
        texts.sort();
        texts.dedup();
        let services: Vec<_> = texts.iter().filter(|text| text.parse::<crate::model::Name>().is_ok()).collect();
        let mut names = std::collections::HashMap::new();
        for service in services {
            let directed = (service.as_str(), "");
            let found = [(vcl_director(service), directed)].into_iter();
            let backends = texts.iter().filter(|id| id.len() < 4);
            let found = found.chain(backends.map(|id| {
                (format!("{}__{}", vcl_director(service), vcl_letters(id)), (service.as_str(), id.as_str()))
            }));
            for (name, of) in found {
                let valid = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
                assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(valid), "{name}");
                assert_ne!(name, "elasticd_none_", "{of:?}");
                let other = names.insert(name.to_ascii_lowercase(), of);
                assert_eq!(other, None, "and {of:?} are {name}");
            }
        }
        assert!(names.len() > 10_000, "{}", names.len());
    }
}
