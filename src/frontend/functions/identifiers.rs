//! Names as some frontends want them, which take fewer characters than the names of services, ids and tags have.
//!
//! | function | gives |
//! | --- | --- |
//! | `service \| vcl_director` | an identifier of VCL for a service's name: the name itself, where that is one |
//! | `id \| vcl_backend: service` | an identifier of VCL for a backend's id in that service |
//! | `map \| label_names: "prefix"` | the map with keys that are names of Prometheus' labels: the prefix and the key, with `_` for what a name cannot hold |
//! | `services \| env_names: "prefix"` | a map of the services by names of variables: the prefix and the service's name in upper case, with `_` for what such a name cannot hold |
//!
//! Of several keys that `label_names` would make the same, one that needs no change comes first, and of the others the
//! first in the order of their bytes; the rest are left out. `env_names` refuses services whose names would be the same.

use upon::{Engine, Value};

use super::{Map, display, dotted, text};

/// Adds every function to the engine.
pub(super) fn install(engine: &mut Engine<'static>) {
    engine.add_function("vcl_director", |service: &Value| text(service).map(vcl_director));
    engine.add_function("vcl_backend", |id: &Value, service: &Value| {
        Ok::<_, String>(format!("{}__{}", vcl_director(text(service)?), vcl_letters(text(id)?)))
    });
    engine.add_function("label_names", label_names);
    engine.add_function("env_names", env_names);
}

/// What VCL reads as something else where a director is named (each tried with Varnish 7.1), and what begins the names
/// made here. So does `vcl_` with anything after it.
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

/// An identifier of VCL (`[A-Za-z][A-Za-z0-9_-]*`) for a service's name: another one for each name, and for VCL, which
/// does not tell `Web` from `web`, too.
///
/// Most names stay. Of the others every one begins with `elasticd__`, and no name that stays does. A backend's name goes
/// on with `__` and [`vcl_letters`], which begins with no `_` but that of a hexadecimal number: no name that stays has a
/// `__` in it or could make one with what follows.
fn vcl_director(service: &str) -> String {
    let stays = service.starts_with(|c: char| c.is_ascii_lowercase())
        && service.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        && !service.contains("__")
        && !service.ends_with('_')
        && !service.starts_with("vcl_")
        && !VCL_RESERVED.contains(&service);
    if stays { service.to_owned() } else { format!("elasticd__{}", vcl_letters(service)) }
}

/// Lower-case letters, digits and `-` as they are, any other byte as `_` and its two hexadecimal digits.
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

/// With `_` for everything but ASCII letters, digits and `_`, as Prometheus' own discovery makes names of keys.
fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn label_names(map: &Map, prefix: &str) -> Map {
    let named = |(key, value): (&String, &Value)| (format!("{prefix}{}", identifier(key)), value.clone());
    let (same, changed): (Vec<_>, Vec<_>) = map.iter().partition(|(key, _)| identifier(key) == **key);
    // What is collected later wins.
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
    fn each_does_what_its_line_says() {
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
    fn no_two_services_or_backends_have_one_name_in_vcl() {
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
