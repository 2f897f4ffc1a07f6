//! `elasticd check`.

use std::path::Path;

use super::{Exit, complain};
use crate::config::{self, Config};

/// Reads the configuration and says what is wrong with it.
pub fn run(file: &Path) -> Exit {
    for (variable, instead) in config::former_variables() {
        complain(&format!(
            "{variable} is ignored: write {instead}, as keys of the configuration begin with ELASTICD__"
        ));
    }
    match Config::load(file) {
        Ok(config) => {
            for warning in &config.warnings {
                complain(&format!("warning: {warning}"));
            }
            let counts = [
                (config.providers.len(), "provider"),
                (config.services.len(), "service"),
                (config.frontends.len(), "frontend"),
            ];
            let counts = counts.map(|(n, what)| format!("{n} {what}{}", if n == 1 { "" } else { "s" }));
            println!("{}: valid: {}", file.display(), counts.join(", "));
            Exit::SUCCESS
        }
        Err(faults) => {
            complain(&faults);
            Exit::CONFIG
        }
    }
}
