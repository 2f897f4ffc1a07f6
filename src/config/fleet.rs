//! `[publish]`, and providers that stand in for a silent fleet.

use std::collections::BTreeMap;

use figment::value::Value;

use super::layers::Layers;
use super::providers::Provider;
use super::section::Section;
use super::service::raw::RawSelector;
use crate::fleet;
use crate::model::Name;
use crate::provider;
use crate::provider::poll::PollSchedule;

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

/// Gives each provider that names a fallback the configuration of that one.
pub(super) fn link_fallbacks(layers: &mut Layers, providers: &mut BTreeMap<Name, Provider>) {
    let all = all(layers, providers);
    for (name, provider) in providers {
        let Some(fallback) = provider.config.fallback().cloned() else { continue };
        let message = match all.get(&fallback) {
            Some(Some((config, _))) if config.reads_fleet() => {
                format!("is of type {} as well: name one that is polled directly", config.type_name())
            }
            Some(Some((config, schedule))) => {
                provider.config.set_fallback(config.clone(), *schedule);
                continue;
            }
            // It has faults of its own.
            Some(None) => continue,
            None => format!("there is no provider {fallback:?}"),
        };
        Section::at(layers, &["providers", name.as_str()]).fault("fallback", message);
    }
}

/// `[publish]`, if there is one.
pub(super) fn publish(layers: &mut Layers, providers: &BTreeMap<Name, Provider>) -> Option<fleet::Config> {
    let is_table = matches!(layers.values.get("publish")?, Value::Dict(..));
    let all = all(layers, providers);
    let mut section = Section::at(layers, &["publish"]);
    let Some(known) = fleet::TYPE else {
        section.fault("", "this elasticd was built without publishing to a fleet: use a build that has it");
        return None;
    };
    if !is_table {
        section.fault("", "must be a table: write [publish]");
        return None;
    }
    section.read_type(&[known]);
    let select: Option<RawSelector> = section.read_some(RawSelector::KEYS);
    let mut faults = Vec::new();
    let select = select.map(|raw| raw.resolve(&mut faults)).unwrap_or_default();
    section.report(faults);
    section.resolve(|raw: fleet::Raw| raw.resolve(select, &all))
}
