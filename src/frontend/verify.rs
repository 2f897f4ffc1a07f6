//! What can be said of a frontend before anything starts.

use std::path::Path;

use super::config::Config;
use super::raw::Fault;
use super::template::Template;
use crate::model::Service;
use crate::sys::atomic_file;

impl Config {
    /// Every fault that only using the configuration would otherwise bring to light: templates that do not compile or
    /// read a field there is not, outputs that can never be swapped in.
    pub fn verify(&self, services: &[Service]) -> Vec<Fault> {
        let told: Vec<_> = services.iter().filter(|service| self.services.contains(&service.name)).collect();
        let mut faults = Vec::new();
        for (index, output) in self.outputs.iter().enumerate() {
            let tried = Template::compile(&output.template_name, &output.template, self.escape)
                .and_then(|template| template.trial(&told, &self.vars));
            if let Err(error) = tried {
                faults.push((format!("outputs.{index}.template"), error.to_string()));
            }
            if let Err(message) = swappable(&output.path) {
                faults.push((format!("outputs.{index}.path"), format!("{} {message}", output.path.display())));
            }
        }
        faults
    }
}

/// Whether a path that exists can be replaced by renaming over it.
fn swappable(path: &Path) -> Result<(), &'static str> {
    if atomic_file::is_mount_point(path) {
        Err("is a mount point, and nothing can be renamed over it: mount its directory instead of the file")
    } else if path.is_symlink() {
        Err("is a symbolic link, which would be replaced by a file: name the file it points to")
    } else if path.is_dir() {
        Err("is a directory: name a file")
    } else {
        Ok(())
    }
}
