//! Faults that no section shows by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use figment::value::Value;

use super::configuration::Config;
use super::layers::Layers;
use super::section::Section;
use crate::model::{Condition, FieldFault, Name, Pattern, Service};
use crate::provider;

/// Notes the faults that only the sections together show. A section that could not be read still counts as defined.
pub fn cross_check(config: &mut Config, layers: &mut Layers) {
    let defined = |layers: &Layers, section: &str| -> BTreeSet<String> {
        let table = layers.values.get(section).and_then(Value::as_dict);
        table.map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    };
    let providers = defined(layers, "providers");
    let services = defined(layers, "services");
    for service in config.all_services() {
        let mut section = Section::at(layers, &["services", service.name.as_str()]);
        for provider in service.providers.iter().filter(|provider| !providers.contains(provider.as_str())) {
            let message = format!("there is no provider {provider:?}; {}", known("providers", &providers));
            section.fault("provider", message);
        }
    }
    let created: Vec<_> = config.patterns.iter().map(created).collect();
    let mut outputs: BTreeMap<PathBuf, Name> = BTreeMap::new();
    for frontend in &mut config.frontends {
        let mut section = Section::at(layers, &["frontends", frontend.name.as_str()]);
        // Services that tags will create are not known yet.
        let is_unknown = |name: &&Name| !services.contains(name.as_str()) && config.patterns.is_empty();
        for service in frontend.services.iter().filter(is_unknown) {
            let message = format!("there is no service {service:?}; {}", known("services", &services));
            section.fault("services", message);
        }
        let has_created = frontend.follows_all_services;
        for name in frontend.service_vars.keys().filter(|name| !has_created && !frontend.services.contains(name)) {
            let known = frontend.services.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            section.fault(&format!("service.{name}"), format!("{name} is none of this frontend's services: {known}"));
        }
        for output in &frontend.outputs {
            if let Some(other) = outputs.insert(output.path.clone(), frontend.name.clone()) {
                let message = format!("{} is written by frontends.{other} as well", output.path.display());
                section.fault("output", message);
            }
        }
        let verdict = frontend.verify(&config.services, &created);
        section.report(verdict.faults);
        for FieldFault { field, message } in verdict.warnings {
            section.warn(&field, message);
        }
        frontend.depends_on_own_zone = verdict.depends_on_own_zone;
        frontend.own_zone = config.zone.clone().filter(|_| verdict.depends_on_own_zone);
    }
    let mut top = Section::at(layers, &[]);
    let asks_where = config.all_services().any(|service| service.prefer.is_some());
    if config.zone.is_none() && asks_where && !provider::can_look_up_zone() {
        let message = "missing: a service prefers our own zone, and this elasticd is built without a provider whose \
                       cloud could be asked for it";
        top.fault("zone", message);
    }
    let publishes = top.unread().contains_key("publish");
    // A publisher may have no services of its own.
    if services.is_empty() && !publishes {
        top.fault("services", "there is none: nothing would be discovered; write [services.NAME]");
    }
}

/// A service that stands for those which a pattern creates: all of their backends have the tags that do.
fn created(pattern: &Pattern) -> Service {
    let mut service = Service { select: pattern.selector(), ..pattern.base.clone() };
    if let Some(port) = &pattern.tags.port {
        service.select.tags.entry(port.clone()).or_insert(Condition::Present);
    }
    service
}

fn known(what: &str, names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return format!("there are no {what} at all");
    }
    format!("the {what} are {}", names.iter().cloned().collect::<Vec<_>>().join(", "))
}
