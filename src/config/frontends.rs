//! `[frontends.NAME]`.

use std::path::Path;

use figment::value::{Dict, Value};

use super::keys::{keys_of, most_similar};
use super::layers::Layers;
use super::preset::Preset;
use super::section::Section;
use crate::frontend::{self, VarsRead, preset};
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
    let written = WrittenVars::of(section.unread());
    if let Some(preset) = &preset {
        section.lay_over(preset);
    }
    let raw: Option<frontend::Raw> = section.read_rest();
    let (name, type_name) = (name?, type_name?);
    let resolved = raw.map(|mut raw| {
        raw.prune.get_or_insert(prune);
        raw.resolve(name, &type_name, services, base)
    });
    let config = match resolved {
        Some(Ok(config)) => Some(config),
        Some(Err(faults)) => {
            section.report(faults);
            None
        }
        None => None,
    };
    if let Some(preset) = &preset {
        written.check(section, preset, config.as_ref());
    }
    config
}

/// What `type` may be.
pub fn types() -> Vec<&'static str> {
    preset::names().into_iter().chain([preset::CUSTOM]).collect()
}

/// The variables that are written in a section, rather than taken from a preset.
struct WrittenVars {
    /// Each with its key in the section: `vars.x` or `service.web.x`.
    keys: Vec<(String, String)>,
    has_own_templates: bool,
}

impl WrittenVars {
    fn of(written: &Dict) -> Self {
        let table = |value: Option<&Value>| value.and_then(Value::as_dict).cloned().unwrap_or_default();
        let vars = table(written.get("vars")).into_keys().map(|var| (format!("vars.{var}"), var));
        let tables = table(written.get("service")).into_iter();
        let of_services = tables.flat_map(|(service, vars)| {
            table(Some(&vars)).into_keys().map(move |var| (format!("service.{service}.{var}"), var))
        });
        let has_own_templates = written.contains_key("template") || written.contains_key("outputs");
        Self { keys: vars.chain(of_services).collect(), has_own_templates }
    }

    /// Notes variables that nothing reads: as faults where a preset's own templates are used, since it is known what these
    /// read, and as warnings elsewhere. A key of the frontend that TOML's order has made a variable is always a fault.
    fn check(&self, section: &mut Section, preset: &Preset, config: Option<&frontend::Config>) {
        let is_preset = !self.has_own_templates && !preset.is_empty();
        let own_keys = keys_of::<frontend::Raw>();
        let read = config.map(frontend::Config::vars_read);
        let mut known: Vec<&str> = if is_preset { preset.vars() } else { Vec::new() };
        let is_read = |var: &str| match &read {
            _ if is_preset => known.contains(&var),
            Some(VarsRead::All) => true,
            Some(VarsRead::These(names)) => names.contains(var),
            None => !own_keys.iter().any(|key| key == var),
        };
        let unread: Vec<_> = self.keys.iter().filter(|(_, var)| !is_read(var)).collect();
        if let Some(VarsRead::These(names)) = read.as_ref().filter(|_| !is_preset) {
            known.extend(names.iter().map(String::as_str));
        }
        for (key, var) in unread {
            let instead = match most_similar(var, &known) {
                Some(similar) => format!(": did you mean `{similar}`?"),
                None if known.is_empty() => "; there is none at all".to_owned(),
                None => format!("; these are read: {}", known.join(", ")),
            };
            if own_keys.contains(var) {
                let table = key.strip_suffix(&format!(".{var}")).unwrap_or(key);
                let message = format!(
                    "this is a key of the frontend, and not a variable: write it above [{}.{table}], as in TOML all that \
                     follows a table's header belongs to the table",
                    section.key()
                );
                section.fault(key, message);
            } else if is_preset {
                section.fault(key, format!("unknown variable{instead}"));
            } else {
                section.warn(key, format!("no template of this frontend reads this variable{instead}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
