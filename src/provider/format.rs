//! What a set of instances looks like in a file, as a program prints it, and as a server answers it.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::instance_spec::{self, Fault, InstanceSpec, Place, Text};
use crate::model::{FieldFault, Instance, Tags};
use crate::sys::text;
use crate::units::ByteSize;

/// The label of a target group that says its zone.
const ZONE: &str = "zone";

/// How many of an invalid set's faults an error names; what went wrong goes wrong in every entry.
const MAX_FAULTS: usize = 10;

/// How much of what others wrote an error repeats, in characters: a key may be as long as everything there is.
const MAX_REPEATED: usize = 300;

/// The largest set read where nothing else is configured, in bytes: some 200,000 instances with a few tags each. What is
/// larger is more likely to be a mistake than a list.
pub const MAX_SIZE: usize = 64 * 1024 * 1024;

/// The most that may be configured, in bytes: it is held in memory.
const LARGEST_SIZE: usize = 1024 * 1024 * 1024;

/// The `max_bytes` of a provider where none is configured.
pub(super) const fn default_max_bytes() -> ByteSize {
    ByteSize(MAX_SIZE as u64)
}

/// The `max_bytes` of a provider, within its bounds.
pub(super) fn max_bytes(written: ByteSize) -> Result<usize, FieldFault> {
    let valid = usize::try_from(written.0).ok().filter(|max| (1..=LARGEST_SIZE).contains(max));
    let largest = ByteSize(LARGEST_SIZE as u64);
    valid.ok_or_else(|| FieldFault::new("max_bytes", format!("{written} is not between 1B and {largest}")))
}

/// Why something is no set of instances.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing but white space or comments, as a truncated write leaves it.
    #[error("{origin} is empty, which is not the same as an empty set: write `[]` if there are no instances")]
    Empty {
        /// Where it is from.
        origin: String,
    },
    /// None of the forms, in its format's own words.
    #[error(
        "{}: invalid {format}: {message}; write a list of instances, `instances:` with such a list, or a list of \
         `targets:` and `labels:`",
        at(origin, *line, *column)
    )]
    Syntax {
        /// Where it is from.
        origin: String,
        /// `JSON` or `YAML`.
        format: &'static str,
        /// From 1; 0 if unknown.
        line: u64,
        /// From 1, in characters (YAML) or bytes (JSON); 0 if unknown.
        column: u64,
        /// What the parser says.
        message: String,
    },
    /// Entries that are not instances.
    #[error("{origin}: {}; correct the entries, or remove them", list(faults))]
    Entries {
        /// Where it is from.
        origin: String,
        /// All of them.
        faults: Vec<Fault>,
    },
}

fn at(origin: &str, line: u64, column: u64) -> String {
    if line == 0 { origin.to_owned() } else { format!("{origin}:{line}:{column}") }
}

fn list(faults: &[Fault]) -> String {
    let shown: Vec<_> = faults.iter().take(MAX_FAULTS).map(|fault| shortened(&fault.to_string())).collect();
    let more = faults.len().saturating_sub(MAX_FAULTS);
    if more == 0 { shown.join("; ") } else { format!("{}; and {more} more", shown.join("; ")) }
}

/// What others wrote, on one line that fits into a message.
pub(super) fn shortened(text: &str) -> String {
    text::one_line(text, MAX_REPEATED)
}

/// Reads a whole file, whose extension says its format; if it does not, its first character does.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Instance>, Error> {
    read(&path.display().to_string(), is_json(path, bytes), bytes)
}

/// Reads JSON from elsewhere, which messages call `origin`.
pub(super) fn json(origin: &str, bytes: &[u8]) -> Result<Vec<Instance>, Error> {
    read(origin, true, bytes).map_err(|error| match error {
        // The parser says both too, and with an origin that is no file they would be taken for a port.
        Error::Syntax { origin, format, message, .. } => Error::Syntax { origin, format, line: 0, column: 0, message },
        other => other,
    })
}

fn read(origin: &str, json: bool, bytes: &[u8]) -> Result<Vec<Instance>, Error> {
    let invalid = |format, line, column, message: String| Error::Syntax {
        origin: origin.to_owned(),
        format,
        line,
        column,
        message: shortened(&message),
    };
    let format = if json { "JSON" } else { "YAML" };
    let text = str::from_utf8(bytes)
        .map_err(|error| invalid(format, 0, 0, format!("not UTF-8 after byte {}", error.valid_up_to())))?;
    let blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || (!json && (matches!(line, "---" | "...") || line.starts_with('#')))
    };
    if text.lines().all(blank) {
        return Err(Error::Empty { origin: origin.to_owned() });
    }
    let resolved = if json {
        let entries: Entries<Text> = serde_json::from_str(text)
            .map_err(|error| invalid(format, error.line() as u64, error.column() as u64, error.to_string()))?;
        entries.resolve()
    } else {
        let entries: Entries<String> =
            yaml(text).map_err(|(line, column, message)| invalid(format, line, column, message))?;
        entries.resolve()
    };
    resolved.map_err(|faults| Error::Entries { origin: origin.to_owned(), faults })
}

fn is_json(path: &Path, bytes: &[u8]) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => true,
        Some("yaml" | "yml") => false,
        _ => matches!(bytes.iter().find(|b| !b.is_ascii_whitespace()), Some(b'[' | b'{')),
    }
}

fn yaml(text: &str) -> Result<Entries<String>, (u64, u64, String)> {
    // The file's size is bounded, and no node is smaller than a byte: counts need no bound of their own. What an alias
    // may multiply keeps the bounds it has.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: usize::MAX, max_nodes: usize::MAX },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        (line, column, error.to_string())
    })
}

/// All entries, in whichever of the forms.
struct Entries<T>(Vec<Entry<T>>);

enum Entry<T> {
    Instance(Box<InstanceSpec<T>>),
    Group(Group<T>),
}

/// Prometheus' form, that of `file_sd` and of `http_sd`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Group<T> {
    targets: Vec<String>,
    #[serde(default, deserialize_with = "instance_spec::tags::<T, _>", bound = "T: Deserialize<'de> + Into<String>")]
    labels: Tags,
    #[serde(skip)]
    reads: PhantomData<T>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, bound = "T: Deserialize<'de> + Into<String>")]
struct Named<T> {
    instances: Vec<Entry<T>>,
}

impl<T: Default> Entries<T> {
    fn resolve(self) -> Result<Vec<Instance>, Vec<instance_spec::Fault>> {
        let entries = self.0.into_iter().enumerate().flat_map(|(i, entry)| match entry {
            Entry::Instance(written) => vec![(Place::Entry(i), *written)],
            Entry::Group(group) => group.instances(i),
        });
        instance_spec::resolve(entries)
    }
}

impl<T: Default> Group<T> {
    fn instances(self, i: usize) -> Vec<(Place, InstanceSpec<T>)> {
        let instance = |address: String| InstanceSpec {
            address: Some(address),
            zone: self.labels.get(ZONE).cloned(),
            tags: self.labels.clone(),
            ..InstanceSpec::default()
        };
        let targets = self.targets.into_iter().enumerate();
        targets.map(|(j, target)| (Place::Target(i, j), instance(target))).collect()
    }
}

impl<'de, T: Deserialize<'de> + Into<String>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Into<String>> Visitor<'de> for EntriesVisitor<T> {
    type Value = Entries<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of instances")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries<T>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = seq.next_element()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entries<T>, A::Error> {
        Ok(Entries(Named::deserialize(MapAccessDeserializer::new(map))?.instances))
    }
}

impl<'de, T: Deserialize<'de> + Into<String>> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor(PhantomData))
    }
}

struct EntryVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Into<String>> Visitor<'de> for EntryVisitor<T> {
    type Value = Entry<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an instance, or `targets` with `labels`")
    }

    /// The first key distinguishes the forms. serde's own ways to do so would lose the line and column of errors.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry<T>, A::Error> {
        let first: Option<String> = map.next_key()?;
        let group = matches!(first.as_deref(), Some("targets" | "labels"));
        let whole = MapAccessDeserializer::new(Whole { first, rest: map });
        if group {
            Group::deserialize(whole).map(Entry::Group)
        } else {
            InstanceSpec::deserialize(whole).map(|written| Entry::Instance(Box::new(written)))
        }
    }
}

/// A map whose first key has been read already.
struct Whole<A> {
    first: Option<String>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Whole<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(key) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.rest.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(name: &str, text: &str) -> Vec<Instance> {
        parse(Path::new(name), text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_form_says_the_same_in_each_format() {
        let expected = read("f.json", r#"[{"address": "10.0.0.1:80", "tags": {"v": "7", "zone": "z"}, "zone": "z"}]"#);
        assert_eq!(expected[0].port, Some(80));
        for (name, text) in [
            ("f", r#" {"instances": [{"address": "10.0.0.1:80", "tags": {"v": 7, "zone": "z"}, "zone": "z"}]}"#),
            ("f", "- {address: '10.0.0.1:80', zone: z, tags: {v: 7, zone: z}}\n"),
            ("f.yml", "instances:\n- address: 10.0.0.1:80\n  zone: z\n  tags:\n    v: 7\n    zone: z\n"),
            ("f.yaml", r#"[{"targets": ["10.0.0.1:80"], "labels": {"v": 7, "zone": "z"}}]"#),
            ("f.json", r#"[{"labels": {"v": "7", "zone": "z"}, "targets": ["10.0.0.1:80"]}]"#),
        ] {
            assert_eq!(read(name, text), expected, "{text}");
        }
    }

    #[test]
    fn an_explicit_empty_list_is_an_empty_set() {
        for (name, text) in [("f.json", "[]"), ("f.yaml", "[]"), ("f", "instances: []"), ("f", "[{\"targets\": []}]")] {
            assert_eq!(read(name, text), []);
        }
    }

    #[test]
    fn yaml_scalars_stay_as_they_were_spelt() {
        let tags = &read("f.yaml", "- {id: a, tags: {version: 1.10, on: yes, zip: 0123, big: 1_000}}")[0].tags;
        let tags: Vec<_> = tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(tags, ["big=1_000", "on=yes", "version=1.10", "zip=0123"]);
    }

    #[test]
    fn a_large_yaml_file_is_read() {
        let text: String =
            (0..30_000).map(|i| format!("- {{id: i-{i}, port: 80, zone: z, tags: {{a: b, c: d}}}}\n")).collect();
        assert_eq!(read("f.yaml", &text).len(), 30_000);
    }

    #[test]
    fn a_group_with_an_instances_keys_is_refused() {
        let error = parse(Path::new("f.json"), br#"[{"targets": ["10.0.0.1"], "zone": "z"}]"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `zone`"), "{error}");
    }

    #[test]
    fn what_an_error_repeats_is_short_and_on_one_line() {
        let long = "x\u{7}\n".repeat(1_000_000);
        for text in [
            serde_json::json!([{ &long: 1 }]),
            serde_json::json!([{"id": "a", "state": long}]),
            serde_json::json!([{"id": "a", "address": long}]),
            serde_json::json!([{"id": long, "address": "10.0.0.1"}, {"id": long, "address": "10.0.0.1"}]),
            serde_json::json!([{"targets": [long]}]),
        ] {
            let error = json("it", text.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("it: "), "{error}");
            assert!(error.len() < 1000 && !error.contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn what_ends_too_early_is_never_a_smaller_set() {
        for text in [
            r#"[{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80", "tags": {"a": "b"}}]"#,
            r#"{"instances": [{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80"}]}"#,
            r#"[{"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"a": "b"}}]"#,
        ] {
            assert_eq!(json("it", text.as_bytes()).unwrap().len(), 2);
            for end in 0..text.len() {
                assert!(json("it", &text.as_bytes()[..end]).is_err(), "{}", &text[..end]);
            }
            assert!(json("it", format!("{text}{text}").as_bytes()).is_err(), "what follows counts too");
        }
    }

    /// Bits of what is expected, in any order.
    fn almost() -> impl Strategy<Value = String> {
        let bits = [
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "\"",
            "\"id\"",
            "\"address\"",
            "\"targets\"",
            "\"labels\"",
            "\"tags\"",
            "\"instances\"",
            "\"10.0.0.1:80\"",
            "\"port\"",
            "\"weight\"",
            "\"type\"",
            "\"availability\"",
            "7",
            "-1",
            "1e999",
            "null",
            "true",
            "\\u0000",
            "\u{fffd}",
            " ",
        ];
        prop::collection::vec(prop::sample::select(bits.to_vec()), 0..40).prop_map(|bits| bits.concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_set_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), text in almost()) {
            for bytes in [&bytes, text.as_bytes()] {
                if let Ok(instances) = json("it", bytes) {
                    let ids: std::collections::BTreeSet<_> = instances.iter().map(|i| &i.id).collect();
                    prop_assert_eq!(ids.len(), instances.len());
                }
            }
        }
    }
}
