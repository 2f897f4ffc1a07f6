//! The layers of a configuration, and typed reading of them that finds every fault, not just the first.

use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

use super::environment;
use super::explain::{explain, not_toml};
use super::fault::Fault;
use super::preset::Preset;

/// All layers, merged.
#[derive(Debug)]
pub struct Layers {
    figment: Figment,
    /// The merged keys.
    pub values: Dict,
    /// The faults found so far.
    pub faults: Vec<Fault>,
    /// What works, but maybe not as intended.
    pub warnings: Vec<Fault>,
}

impl Layers {
    /// `file`, then `conf.d/*.toml` beside it in the order of their names, then the environment.
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
        let mut figment = Figment::new();
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
        figment = figment.merge(environment::layer());
        let values = match figment.data() {
            Ok(mut profiles) => profiles.remove(&Profile::Default).unwrap_or_default(),
            Err(error) => {
                let fault =
                    |error: figment::Error| Fault { place: None, key: String::new(), message: error.to_string() };
                return Err(error.into_iter().map(fault).collect());
            }
        };
        Ok(Self { figment, values, faults, warnings: Vec::new() })
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
            let found_value = find(value, &path).cloned();
            let found = found_value.as_ref().map_or_else(|| value.tag(), Value::tag);
            let message = explain(&error.kind, place, &path, found_value.as_ref(), more);
            self.fault_at(found, [place, &path].concat().join("."), message);
            if !remove(value, &path) {
                return None;
            }
        }
    }

    /// Notes a fault in what `tag` marks.
    pub fn fault_at(&mut self, tag: Tag, key: String, message: String) {
        let fault = self.at(tag, key, message);
        self.faults.push(fault);
    }

    /// Notes a fault at a key, in whichever layer has it, or else its nearest parent.
    pub fn fault(&mut self, key: &[String], message: impl Into<String>) {
        let fault = self.at(self.tag(key), key.join("."), message.into());
        self.faults.push(fault);
    }

    /// Notes a warning at a key, as a [`fault`](Self::fault).
    pub fn warn(&mut self, key: &[String], message: impl Into<String>) {
        let warning = self.at(self.tag(key), key.join("."), message.into());
        self.warnings.push(warning);
    }

    fn at(&self, tag: Tag, key: String, message: String) -> Fault {
        let place = self.figment.get_metadata(tag).and_then(|metadata| place(metadata, &key));
        Fault { place, key, message }
    }

    /// What marks a key, or else its nearest parent.
    fn tag(&self, key: &[String]) -> Tag {
        let mut path = key.to_vec();
        let root = Value::from(self.values.clone());
        loop {
            match find(&root, &path) {
                Some(value) if !path.is_empty() => break value.tag(),
                None if !path.is_empty() => {
                    path.pop();
                }
                _ => break Tag::Default,
            }
        }
    }

    /// The value at `path` in all layers.
    pub fn value(&self, path: &[String]) -> Option<Value> {
        find(&Value::from(self.values.clone()), path).cloned()
    }

    /// Lays a preset under the section at `path`, and returns the section's keys and the preset's.
    pub fn lay_over(&mut self, path: &[String], preset: &Preset) -> Dict {
        self.figment = std::mem::take(&mut self.figment).join(preset.layer(path));
        let merged = self.figment.data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default));
        let merged = Value::from(merged.unwrap_or_default());
        find(&merged, path).and_then(Value::as_dict).cloned().unwrap_or_default()
    }

    /// The layers of this text alone.
    #[cfg(test)]
    pub fn of_text(toml: &str) -> Self {
        let figment = Figment::from(Toml::string(toml));
        let values = figment.data().expect("TOML").remove(&Profile::Default).unwrap_or_default();
        Self { figment, values, faults: Vec::new(), warnings: Vec::new() }
    }
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
        _ if metadata.name.contains("environment") => Some(environment::variable(key)),
        _ => None,
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
