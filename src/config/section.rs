//! One table of the configuration, with its place.

use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use super::layers::Layers;
use super::preset::Preset;
use crate::model::{FieldFault, Name, NameError};

/// A table of the configuration while it is read: its place, those of its keys that were not read yet, and the layers
/// in which its faults are noted.
#[derive(Debug)]
pub struct Section<'l> {
    layers: &'l mut Layers,
    path: Vec<String>,
    unread: Value,
    /// The keys that earlier reads took out of `unread`: where the keys of the section are listed, they are, too.
    read: Vec<&'static str>,
}

impl<'l> Section<'l> {
    /// The section at `path`, of which nothing was read yet.
    pub fn at(layers: &'l mut Layers, path: &[&str]) -> Self {
        let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        let unread = layers.value(&path).unwrap_or_else(|| Dict::new().into());
        Self { layers, path, unread, read: Vec::new() }
    }

    /// The names of the tables in the table `section`; anything else there is a fault.
    pub fn names(layers: &mut Layers, section: &str) -> Vec<String> {
        let Some(value) = layers.values.get(section).cloned() else { return Vec::new() };
        let Value::Dict(_, entries) = value else {
            Section::at(layers, &[section]).fault("", format!("must be a table: write [{section}.NAME]"));
            return Vec::new();
        };
        let (tables, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, value)| matches!(value, Value::Dict(..)));
        for (name, _) in others {
            let message = format!("must be a table: write [{section}.{name}]");
            Section::at(layers, &[section, &name]).fault("", message);
        }
        tables.into_iter().map(|(name, _)| name).collect()
    }

    /// Leaves out keys that are read elsewhere.
    pub fn forget(&mut self, keys: &[&str]) {
        if let Value::Dict(_, unread) = &mut self.unread {
            unread.retain(|key, _| !keys.contains(&key.as_str()));
        }
    }

    /// Its own name, the last part of its key, if that can be one.
    pub fn name(&mut self) -> Option<Name> {
        let name = self.path.last()?.parse();
        name.map_err(|error: NameError| self.fault("", error.to_string())).ok()
    }

    /// Notes a fault of `field`, a key below this section, dotted; empty for the section as a whole.
    pub fn fault(&mut self, field: &str, message: impl Into<String>) {
        self.layers.fault(&self.below(field), message);
    }

    /// Notes a warning of `field`, as a [`fault`](Self::fault).
    pub fn warn(&mut self, field: &str, message: impl Into<String>) {
        self.layers.warn(&self.below(field), message);
    }

    fn below(&self, field: &str) -> Vec<String> {
        let parts = field.split('.').filter(|part| !part.is_empty()).map(str::to_owned);
        self.path.iter().cloned().chain(parts).collect()
    }

    /// Notes all these faults.
    pub fn report(&mut self, faults: impl IntoIterator<Item = FieldFault>) {
        for fault in faults {
            self.fault(&fault.field, fault.message);
        }
    }

    /// Its own key, dotted.
    pub fn key(&self) -> String {
        self.path.join(".")
    }

    /// The keys that are written there and were not read yet.
    pub fn unread(&self) -> &Dict {
        static NONE: Dict = Dict::new();
        self.unread.as_dict().unwrap_or(&NONE)
    }

    /// Lays a preset's keys under those that are written.
    pub fn lay_over(&mut self, preset: &Preset) {
        let mut keys = self.layers.lay_over(&self.path, preset);
        keys.retain(|key, _| !self.read.contains(&key.as_str()));
        self.unread = keys.into();
    }

    /// Reads `type`, which must be one of `known`.
    pub fn read_type(&mut self, known: &[&str]) -> Option<String> {
        let Value::Dict(_, keys) = &mut self.unread else { return None };
        self.read.push("type");
        match keys.remove("type") {
            Some(Value::String(_, text)) if known.contains(&text.as_str()) => return Some(text),
            Some(other) => {
                let found = other.as_str().map_or_else(|| "not a text".to_owned(), |text| format!("{text:?}"));
                self.fault("type", format!("{found} is none of {}", known.join(", ")));
            }
            None => self.fault("type", format!("missing: one of {}", known.join(", "))),
        }
        None
    }

    /// Reads some of its keys, the fields of a `T`.
    pub fn read_some<T: DeserializeOwned>(&mut self, fields: &'static [&'static str]) -> Option<T> {
        let Value::Dict(tag, keys) = &mut self.unread else { return None };
        let tag = *tag;
        let own = fields.iter().filter_map(|field| keys.remove_entry(*field)).collect();
        self.read.extend(fields);
        self.layers.extract(&self.path, &mut Value::Dict(tag, own), &[])
    }

    /// Reads all keys that are left. `None`: they cannot be read, for reasons that are noted.
    pub fn read_rest<T: DeserializeOwned>(&mut self) -> Option<T> {
        self.layers.extract(&self.path, &mut self.unread, &self.read)
    }

    /// Reads all keys that are left, and has them resolved.
    pub fn resolve<R: DeserializeOwned, C>(
        &mut self,
        resolve: impl FnOnce(R) -> Result<C, Vec<FieldFault>>,
    ) -> Option<C> {
        let raw = self.read_rest()?;
        resolve(raw).map_err(|faults| self.report(faults)).ok()
    }
}
