//! `[frontends.NAME]`.

use std::path::Path;

use figment::value::Value;

use super::keys::keys_of;
use super::layers::Layers;
use super::preset::Preset;
use super::section::Section;
use crate::frontend::{self, preset};
use crate::model::Name;

/// Every frontend without faults; the faults of the others are noted. `base` is the directory in which relative paths of
/// templates start.
/// `prune` holds for those that do not say otherwise.
pub fn frontends(layers: &mut Layers, services: &[Name], base: &Path, prune: bool) -> Vec<frontend::Config> {
    let names = Section::names(layers, "frontends");
    let read = |name: &String| frontend(&mut Section::at(layers, &["frontends", name]), services, base, prune);
    names.iter().filter_map(read).collect()
}

fn frontend(section: &mut Section, services: &[Name], base: &Path, prune: bool) -> Option<frontend::Config> {
    let name = section.name();
    let type_name = section.read_type(&types());
    let preset = type_name.as_ref().map(|type_name| Preset::under(type_name, section.unread()));
    if let Some(preset) = &preset {
        check_vars(section, preset);
        section.lay_over(preset);
    }
    let mut raw: frontend::Raw = section.read_rest()?;
    raw.prune.get_or_insert(prune);
    match raw.resolve(name?, &type_name?, services, base) {
        Ok(config) => Some(config),
        Err(faults) => {
            section.report(faults);
            None
        }
    }
}

/// What `type` may be.
pub fn types() -> Vec<&'static str> {
    preset::names().into_iter().chain([preset::CUSTOM]).collect()
}

/// Notes variables that the preset's own templates do not know. The operator's own templates may use any.
fn check_vars(section: &mut Section, preset: &Preset) {
    let written = section.unread();
    let has_own_templates = written.contains_key("template") || written.contains_key("outputs");
    let vars = written.get("vars").and_then(Value::as_dict).map(|vars| vars.keys().cloned().collect::<Vec<_>>());
    if has_own_templates || preset.is_empty() {
        return;
    }
    let known = preset.vars();
    for var in vars.unwrap_or_default().iter().filter(|var| !known.contains(&var.as_str())) {
        let message = if keys_of::<frontend::Raw>().contains(var) {
            format!("unknown variable; if the frontend's key is meant, write it above [{}.vars]", section.key())
        } else if known.is_empty() {
            "unknown variable; the preset has none".to_owned()
        } else {
            format!("unknown variable; the preset's are {}", known.join(", "))
        };
        section.fault(&format!("vars.{var}"), message);
    }
}

#[cfg(test)]
mod tests;
