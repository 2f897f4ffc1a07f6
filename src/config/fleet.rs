//! What concerns a fleet: providers of type `nats`, and `[publish]`.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::Value;

use super::layers::Layers;
use super::service::RawSelector;
use super::{Provider, report, resolved, type_of};
use crate::fleet;
use crate::model::Name;
use crate::provider::poll::PollSchedule;
use crate::provider::{self, nats};

/// Takes the keys of a connection out of an entry.
fn connection(layers: &mut Layers, key: &str, entry: &mut Value) -> Option<nats::connection::Config> {
    let raw: nats::connection::Raw = layers.part(key, entry, nats::connection::Raw::KEYS)?;
    raw.resolve().map_err(|messages| report(layers, key, messages)).ok()
}

/// A provider of type `nats`. Its fallback is not bound yet.
pub(super) fn provider(layers: &mut Layers, key: &str, own: &Name, entry: &mut Value) -> Option<nats::Config> {
    let connection = connection(layers, key, entry);
    // What else is wrong is found out all the same.
    resolved(layers, key, entry, |raw: nats::Raw| raw.resolve(connection, own)).flatten()
}

/// Every provider by name, without what is known of those that have faults.
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
            layers.fault(&format!("providers.{name}.fallback"), message);
        }
    }
}

/// `[publish]`, if there is one.
pub(super) fn publish(layers: &mut Layers, providers: &BTreeMap<Name, Provider>) -> Option<fleet::Config> {
    let mut entry = layers.values.get("publish").cloned()?;
    if !matches!(entry, Value::Dict(..)) {
        layers.fault("publish", "must be a table: write [publish]");
        return None;
    }
    type_of(layers, "publish", &mut entry, &["nats"]);
    let connection = connection(layers, "publish", &mut entry);
    let select: Option<RawSelector> = layers.part("publish", &mut entry, RawSelector::KEYS);
    let select = select.map(|raw| raw.resolve(layers, "publish")).unwrap_or_default();
    let all = all(layers, providers);
    resolved(layers, "publish", &mut entry, |raw: fleet::Raw| raw.resolve(connection, select, &all)).flatten()
}
