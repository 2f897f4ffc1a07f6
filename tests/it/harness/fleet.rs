//! Publishers and sidecars of one fleet.

use std::cell::RefCell;

use serde_json::Value;

use super::elasticd::Elasticd;
use super::until_or;

/// A publisher's configuration, with a provider `prod` that reads `DIR/backends.yaml`.
pub fn publishing(url: &str, more: &str) -> String {
    format!(
        "[providers.prod]\ntype = 'file'\npath = 'DIR/backends.yaml'\ninterval = '300ms'\n\
         [publish]\ntype = 'nats'\nurl = '{url}'\nfleet = 'shop'\nleader_ttl = '2s'\n{more}\n"
    )
}

/// A publisher, running, that observes these instances.
pub fn publisher(url: &str, ids: &[&str]) -> Elasticd {
    publisher_with(url, "", ids)
}

/// The same, with more in `[publish]`.
pub fn publisher_with(url: &str, more: &str, ids: &[&str]) -> Elasticd {
    let publisher = Elasticd::new(&publishing(url, more));
    observe(&publisher, ids);
    publisher.ready()
}

/// What a publisher observes from now on.
pub fn observe(publisher: &Elasticd, ids: &[&str]) {
    let entry = |id: &&str| format!("- {{id: {id}, address: 10.0.0.{}, tags: {{Role: web}}}}\n", id.len());
    publisher.write("backends.yaml", &if ids.is_empty() { "[]".to_owned() } else { ids.iter().map(entry).collect() });
}

/// A sidecar's configuration, with a service `web` and a file `DIR/out.json`.
pub fn reading(url: &str, more: &str) -> String {
    format!(
        "[providers.prod]\ntype = 'nats'\nurl = '{url}'\nfleet = 'shop'\ninterval = '1s'\n{more}\n\
         [services.web]\nprovider = 'prod'\nport = 80\nguard = {{ on_empty = 'hold', max_drop = '100%' }}\n\
         [frontends.out]\ntype = 'json'\noutput = 'DIR/out.json'\nsettle = '10ms'\n"
    )
}

/// A sidecar, running.
pub fn reader(url: &str) -> Elasticd {
    reader_with(url, "")
}

/// The same, with more in its provider.
pub fn reader_with(url: &str, more: &str) -> Elasticd {
    let reader = Elasticd::new(&reading(url, more)).start();
    reader.await_answer();
    reader
}

/// Waits until a sidecar's file names exactly these.
pub fn await_backends(reader: &Elasticd, ids: &[&str]) {
    let written = || std::fs::read_to_string(reader.path("out.json")).unwrap_or_default();
    until_or(
        || format!("{ids:?} in {}\n{:#}\n{}", written(), fleet(reader), reader.log()),
        || (backends(reader)? == ids).then_some(()),
    );
}

/// The ids in a sidecar's file, in order. `None`: there is no file.
pub fn backends(reader: &Elasticd) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(reader.path("out.json")).ok()?;
    let value: Value = serde_json::from_str(&text).expect("never half a file");
    let mut ids = Vec::new();
    collect(&value, &mut ids);
    Some(ids)
}

fn collect(value: &Value, ids: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            ids.extend(fields.get("id").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, ids));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, ids)),
        _ => {}
    }
}

/// The status' part on the fleet.
pub fn fleet(elasticd: &Elasticd) -> Value {
    elasticd
        .try_get("/v1/status")
        .and_then(|(_, _, body)| serde_json::from_str::<Value>(&body).ok())
        .unwrap_or_default()["fleet"]
        .clone()
}

/// Waits until the status' part on the fleet is as it should be.
pub fn await_fleet(elasticd: &Elasticd, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    let last = RefCell::new(Value::Null);
    until_or(
        || format!("{what}: {:#}\n{}", last.borrow(), elasticd.log()),
        || {
            last.replace(fleet(elasticd));
            good(&last.borrow()).then(|| last.borrow().clone())
        },
    )
}

/// Waits until a publisher leads.
pub fn await_lead(publisher: &Elasticd) -> Value {
    await_fleet(publisher, "it leads", |fleet| fleet["publisher"]["is_leader"] == true)
}

/// Waits for an error of a sidecar's provider that holds all of these.
pub fn await_error(elasticd: &Elasticd, part: &str, words: &[&str]) -> String {
    let error = |fleet: &Value| match part {
        "publisher" => fleet["publisher"]["error"].as_str().map(str::to_owned),
        "published" => fleet["publisher"]["providers"]["prod"]["error"].as_str().map(str::to_owned),
        _ => fleet["readers"]["prod"]["error"].as_str().map(str::to_owned),
    };
    let fleet = await_fleet(elasticd, &format!("an error with {words:?}"), |fleet| {
        error(fleet).is_some_and(|error| words.iter().all(|word| error.contains(word)))
    });
    error(&fleet).expect("found")
}
