//! The layers of a configuration, and typed reading of them that finds every fault, not just the first.

use std::ops::Range;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::providers::{Env, Format, Toml};
use figment::value::{Dict, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

use super::DEFAULT_SOCKET;
use super::fault::Fault;
use super::section::Section;

/// What every environment variable starts with. Below it `__` separates the parts of a key.
const PREFIX: &str = "ELASTICD_";

/// Variables of the program itself rather than of its configuration.
const NOT_KEYS: &[&str] = &["config", "log", "log_format", "socket"];

/// What holds where nothing else is written.
fn defaults() -> String {
    format!("state_dir = \"/var/lib/elasticd\"\napi.socket = \"{DEFAULT_SOCKET}\"\n")
}

/// All layers, merged.
#[derive(Debug)]
pub struct Layers {
    figment: Figment,
    /// The merged keys.
    pub values: Dict,
    /// The faults found so far.
    pub faults: Vec<Fault>,
}

impl Layers {
    /// Defaults, then `file`, then `conf.d/*.toml` beside it in the order of their names, then the environment.
    ///
    /// # Errors
    ///
    /// A file is absent, unreadable or no TOML. Nothing more can be said of such a configuration.
    pub fn read(file: &Path) -> Result<Self, Vec<Fault>> {
        let whole = |path: &Path, message: String| Fault {
            place: Some(path.display().to_string()),
            key: String::new(),
            message,
        };
        let mut faults = Vec::new();
        let mut figment = Figment::from(Toml::string(&defaults()));
        let fragments =
            fragments(file).map_err(|(path, error)| vec![whole(&path, format!("cannot list it: {error}"))])?;
        for path in std::iter::once(file.to_owned()).chain(fragments) {
            // Read first: figment takes an absent file for an empty one.
            match std::fs::read_to_string(&path) {
                Ok(text) => match figment::providers::Toml::from_str::<Dict>(&text) {
                    Ok(_) => figment = figment.merge(Toml::file_exact(&path)),
                    Err(error) => faults.push(whole(&path, not_toml(&text, error.span(), error.message()))),
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    faults.push(whole(
                        &path,
                        "there is no such file; name one with --config, or try `elasticd demo`".into(),
                    ));
                }
                Err(error) => faults.push(whole(&path, format!("cannot be read: {error}"))),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        figment = figment.merge(Env::prefixed(PREFIX).ignore(NOT_KEYS).split("__"));
        let values = match figment.data() {
            Ok(mut profiles) => profiles.remove(&Profile::Default).unwrap_or_default(),
            Err(error) => {
                let fault =
                    |error: figment::Error| Fault { place: None, key: String::new(), message: error.to_string() };
                return Err(error.into_iter().map(fault).collect());
            }
        };
        Ok(Self { figment, values, faults })
    }

    /// Reads `value`, found at `place`, as a `T`. Whatever is wrong with a part of it is noted, and that part left out,
    /// until it can be read or nothing more can be left out. `None`: it cannot be read. `more` are keys that are known
    /// there beside the fields of `T`.
    pub fn extract<T: DeserializeOwned>(&mut self, place: &[String], value: &mut Value, more: &[&str]) -> Option<T> {
        loop {
            let error = match value.deserialize::<T>() {
                Ok(parsed) => return Some(parsed),
                Err(error) => error,
            };
            let mut path = error.path.clone();
            if let Kind::UnknownField(name, _) = &error.kind
                && path.last() != Some(name)
            {
                path.push(name.clone());
            }
            let found = find(value, &path).map(Value::tag).unwrap_or_else(|| value.tag());
            let message = explain(&error.kind, if path.len() == 1 { more } else { &[] });
            self.fault_at(found, [place, &path].concat().join("."), message);
            if !remove(value, &path) {
                return None;
            }
        }
    }

    /// Notes a fault in what `tag` marks.
    pub fn fault_at(&mut self, tag: Tag, key: String, message: String) {
        let place = self.figment.get_metadata(tag).and_then(|metadata| place(metadata, &key));
        self.faults.push(Fault { place, key, message });
    }

    /// Notes a fault at a key, in whichever layer has it, or else its nearest parent.
    pub fn fault(&mut self, key: &[String], message: impl Into<String>) {
        let mut path = key.to_vec();
        let root = Value::from(self.values.clone());
        let tag = loop {
            match find(&root, &path) {
                Some(value) if !path.is_empty() => break value.tag(),
                None if !path.is_empty() => {
                    path.pop();
                }
                _ => break Tag::Default,
            }
        };
        self.fault_at(tag, key.join("."), message.into());
    }

    /// The handle of one section, to read it or to note faults in it.
    pub fn section(&mut self, path: &[&str]) -> Section<'_> {
        let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        let value = find(&Value::from(self.values.clone()), &path).cloned().unwrap_or_else(|| Dict::new().into());
        Section::new(self, path, value)
    }

    /// The names of the tables in the table `section`; anything else there is a fault.
    pub fn tables(&mut self, section: &str) -> Vec<String> {
        let Some(value) = self.values.get(section).cloned() else { return Vec::new() };
        let Value::Dict(_, entries) = value else {
            self.section(&[section]).fault("", format!("must be a table: write [{section}.NAME]"));
            return Vec::new();
        };
        let (tables, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, value)| matches!(value, Value::Dict(..)));
        for (name, _) in others {
            self.section(&[section, &name]).fault("", format!("must be a table: write [{section}.{name}]"));
        }
        tables.into_iter().map(|(name, _)| name).collect()
    }
}

/// Where, and why. Without the line itself, as the parser would show it: it may hold a secret.
fn not_toml(text: &str, at: Option<Range<usize>>, why: &str) -> String {
    let before = at.and_then(|at| text.get(..at.start)).unwrap_or_default();
    let (line, last) = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default());
    let why = why.trim_end().replace('\n', ", ");
    format!("is not TOML: line {line} column {}: {why}", last.chars().count() + 1)
}

fn fragments(file: &Path) -> Result<Vec<PathBuf>, (PathBuf, std::io::Error)> {
    let directory = file.parent().unwrap_or(Path::new("")).join("conf.d");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err((directory, error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| (directory, error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn place(metadata: &Metadata, key: &str) -> Option<String> {
    match &metadata.source {
        Some(figment::Source::File(path)) => Some(path.display().to_string()),
        _ if metadata.name.contains("environment") => {
            Some(format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase()))
        }
        _ => None,
    }
}

fn explain(kind: &Kind, more: &[&str]) -> String {
    match kind {
        Kind::UnknownField(_, expected) if expected.is_empty() && more.is_empty() => {
            "unknown key; none is expected here".to_owned()
        }
        Kind::UnknownField(_, expected) => {
            format!("unknown key; the keys here are {}", [expected, more].concat().join(", "))
        }
        Kind::MissingField(name) => format!("the key {name} is missing"),
        // What is written there may be a secret in the wrong place.
        Kind::InvalidType(Actual::Str(_), expected) => format!("invalid type: found a text, expected {expected}"),
        other => other.to_string(),
    }
}

fn find<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, part| match value {
        Value::Dict(_, dict) => dict.get(part),
        Value::Array(_, items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Whether there was something to remove.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match value {
        Value::Dict(_, dict) if rest.is_empty() => dict.remove(first).is_some(),
        Value::Dict(_, dict) => dict.get_mut(first).is_some_and(|inner| remove(inner, rest)),
        Value::Array(_, items) => match first.parse::<usize>().ok().filter(|index| *index < items.len()) {
            // An item left out shifts those behind it, and their faults would name the wrong index.
            Some(_) if rest.is_empty() => false,
            Some(index) => remove(&mut items[index], rest),
            None => false,
        },
        _ => false,
    }
}
