//! `[frontends.NAME]`.

use std::path::Path;

use super::layers::Layers;
use crate::frontend::{self, preset};
use crate::model::Name;

/// Every frontend without faults; the faults of the others are noted. `base` is the directory in which relative paths of
/// templates start.
pub fn frontends(layers: &mut Layers, services: &[Name], base: &Path) -> Vec<frontend::Config> {
    let mut known = preset::names();
    known.push(preset::CUSTOM);
    let mut frontends = Vec::new();
    for text in layers.tables("frontends") {
        let mut section = layers.section(&["frontends", &text]);
        let name = section.name();
        let type_name = section.read_type(&known);
        let raw: Option<frontend::Raw> = section.read_rest();
        let (Some(name), Some(type_name), Some(raw)) = (name, type_name, raw) else { continue };
        match raw.over(preset::defaults(&type_name).unwrap_or_default()).resolve(name, &type_name, services, base) {
            Ok(config) => frontends.push(config),
            Err(faults) => section.report(faults),
        }
    }
    frontends
}
