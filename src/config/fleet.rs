//! What concerns a fleet: providers of type `nats`, and `[publish]`.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::Value;

use super::layers::Layers;
use super::service::RawSelector;
use super::{Provider, part, report, resolved, type_of};
use crate::fleet;
use crate::model::Name;
use crate::provider::{self, nats};

/// Takes the keys of a connection out of an entry.
fn connection(layers: &mut Layers, key: &str, entry: &mut Value) -> Option<nats::connection::Config> {
    let raw: nats::connection::Raw = part(layers, key, entry, nats::connection::Raw::KEYS)?;
    raw.resolve().map_err(|messages| report(layers, key, messages)).ok()
}

/// A provider of type `nats`. Its fallback is not bound yet.
pub(super) fn provider(layers: &mut Layers, key: &str, own: &Name, entry: &mut Value) -> Option<nats::Config> {
    let connection = connection(layers, key, entry);
    // What else is wrong is found out all the same.
    let raw: nats::Raw = layers.extract(key, entry)?;
    raw.resolve(connection?, own).map_err(|messages| report(layers, key, messages)).ok()
}

/// Binds what providers of type `nats` take from the rest of the configuration.
pub(super) fn bind(layers: &mut Layers, providers: &mut BTreeMap<Name, Provider>, state_dir: Option<&Path>) {
    let all = providers.clone();
    for (name, provider) in providers {
        let provider::Config::Nats(config) = &mut provider.config else { continue };
        config.state = state_dir.map(|dir| dir.join(format!("fleet-{name}.json")));
        let find = |wanted: &Name| all.get(wanted).map(|found| (found.config.clone(), found.pace));
        if let Err(message) = config.bind(find) {
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
    let select: Option<RawSelector> = part(layers, "publish", &mut entry, RawSelector::KEYS);
    let select = select.map(|raw| raw.resolve(layers, "publish")).unwrap_or_default();
    let all = providers.iter().map(|(name, found)| (name.clone(), (found.config.clone(), found.pace))).collect();
    let resolve = |raw: fleet::Raw| match connection {
        Some(connection) => raw.resolve(connection, select, &all).map(Some),
        None => Ok(None),
    };
    resolved(layers, "publish", &mut entry, resolve).flatten()
}
