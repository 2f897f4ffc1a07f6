//! The sections of a fleet: providers of type `nats`, and `[publish]`.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::Value;

use super::Provider;
use super::layers::Layers;
use super::section::Section;
use super::service::RawSelector;
use crate::fleet;
use crate::model::Name;
use crate::provider::poll::PollSchedule;
use crate::provider::{self, nats};

fn connection(section: &mut Section) -> Option<nats::connection::Config> {
    let raw: nats::connection::Raw = section.read_some(nats::connection::Raw::KEYS)?;
    raw.resolve().map_err(|faults| section.report(faults)).ok()
}

/// A provider of type `nats`. Its fallback is not bound yet.
pub(super) fn provider(section: &mut Section, own: &Name) -> Option<nats::Config> {
    let connection = connection(section);
    // Faults of the other keys are found even without a connection.
    section.resolve(|raw: nats::Raw| raw.resolve(connection, own)).flatten()
}

/// Every provider by name; `None` for those that have faults.
fn all(layers: &Layers, sound: &BTreeMap<Name, Provider>) -> BTreeMap<Name, Option<(provider::Config, PollSchedule)>> {
    let written = layers.values.get("providers").and_then(Value::as_dict);
    let names = written.into_iter().flatten().filter_map(|(name, _)| name.parse::<Name>().ok());
    names
        .map(|name| {
            let found = sound.get(&name).map(|found| (found.config.clone(), found.pace));
            (name, found)
        })
        .collect()
}

/// Binds what providers of type `nats` take from the rest of the configuration.
pub(super) fn bind(layers: &mut Layers, providers: &mut BTreeMap<Name, Provider>, state_dir: Option<&Path>) {
    let all = all(layers, providers);
    for (name, provider) in providers {
        let provider::Config::Nats(config) = &mut provider.config else { continue };
        config.state = state_dir.map(|dir| dir.join(format!("fleet-{name}.json")));
        if let Err(message) = config.bind(&all) {
            layers.section(&["providers", name.as_str()]).fault("fallback", message);
        }
    }
}

/// `[publish]`, if there is one.
pub(super) fn publish(layers: &mut Layers, providers: &BTreeMap<Name, Provider>) -> Option<fleet::Config> {
    let is_table = matches!(layers.values.get("publish")?, Value::Dict(..));
    let all = all(layers, providers);
    let mut section = layers.section(&["publish"]);
    if !is_table {
        section.fault("", "must be a table: write [publish]");
        return None;
    }
    section.read_type(&["nats"]);
    let connection = connection(&mut section);
    let select: Option<RawSelector> = section.read_some(RawSelector::KEYS);
    let select = select.map(|raw| raw.resolve(&mut section)).unwrap_or_default();
    section.resolve(|raw: fleet::Raw| raw.resolve(connection, select, &all)).flatten()
}
