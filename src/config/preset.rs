//! Presets as layers: their keys lie under those that the operator writes.

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::frontend::{self, preset};

/// The key whose entries are laid over one by one. Any other key wins as a whole: a reload by command, for example, does
/// not keep the preset's signal.
const MERGED: &str = "vars";

/// The keys of a preset that lie under the ones written in a section.
#[derive(Debug)]
pub struct Preset {
    name: String,
    keys: Dict,
}

impl Preset {
    /// What remains of the preset `name` under the keys `written`. A name without a preset, such as `custom`, has no keys.
    pub fn under(name: &str, written: &Dict) -> Self {
        let mut keys = read::<Dict>(name).unwrap_or_default();
        // Another program than the preset's may ask a daemon, which sees nothing of the namespace of an isolated check.
        let program = |check: &Value| check.as_array().and_then(|command| command.first()?.as_str().map(str::to_owned));
        if let Some(check) = written.get("check")
            && program(check) != keys.get("check").and_then(program)
        {
            keys.remove("isolate_check");
            keys.remove("check_files");
        }
        keys.retain(|key, _| key == MERGED || !written.contains_key(key));
        Self { name: name.to_owned(), keys }
    }

    /// Whether it sets nothing.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The names of its variables.
    pub fn vars(&self) -> Vec<&str> {
        let vars = self.keys.get(MERGED).and_then(Value::as_dict);
        vars.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
    }

    /// The layer of a configuration that has these keys in the section at `path`.
    pub fn layer(&self, path: &[String]) -> impl Provider + use<> {
        let keys = path.iter().rev().fold(self.keys.clone(), |keys, part| Dict::from([(part.clone(), keys.into())]));
        Layer { name: format!("the preset {}", self.name), keys }
    }
}

/// The preset `name` as the keys of a frontend. `None`: there is no such preset.
pub fn frontend(name: &str) -> Option<frontend::Raw> {
    read(name)
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    let text = preset::defaults_text(name)?;
    Some(Figment::from(Toml::string(text)).extract().expect("a test reads every preset"))
}

struct Layer {
    name: String,
    keys: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.keys.clone())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_whole_preset() {
        assert!(preset::names().contains(&"nginx"));
        for name in preset::names() {
            let keys = frontend(name).unwrap_or_else(|| panic!("{name} has no preset.toml"));
            assert!(preset::guide(name).is_some(), "{name} has no README.md");
            for output in keys.outputs {
                let template = output.template.expect("every output of a preset has a template");
                assert!(preset::template(&template).is_some(), "{name} names {template}, which does not exist");
            }
        }
    }

    #[test]
    fn a_check_by_another_program_is_not_isolated_by_the_preset() {
        let keys = |written: &str| {
            let written: Dict = Figment::from(Toml::string(written)).extract().expect("TOML");
            Preset::under("nginx", &written).keys
        };
        assert!(keys("").contains_key("isolate_check"));
        assert!(keys("check = ['nginx', '-t']").contains_key("isolate_check"));
        assert!(!keys("check = ['docker', 'exec', 'nginx', 'nginx', '-t']").contains_key("isolate_check"));
        assert!(!keys("check = []").contains_key("isolate_check"));
    }
}
