//! Faults of a frontend that show only when its templates are rendered and its paths are looked at.

use std::path::Path;
use std::slice;

use super::config::Config;
use super::escape::Escape;
use super::template::Template;
use crate::model::{FieldFault, Name, Service};
use crate::sys::atomic_file;

impl Config {
    /// Every fault that would otherwise show only when the configuration is used: templates that do not compile or that
    /// read a field that does not exist, and outputs that can never be swapped in.
    pub fn verify(&self, services: &[Service]) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        if self.escape == Escape::Apache {
            faults.extend(same_balancer(&self.services));
        }
        // Services that tags create have outputs too, and are like one of those that are known.
        let to_come = self.per_service.iter().filter(|_| self.follows_all_services);
        for output in self.outputs.iter().chain(to_come) {
            let (index, names) =
                (output.index, output.service.as_ref().map_or(self.services.as_slice(), slice::from_ref));
            let shown: Vec<_> = if output.is_per_service() {
                services.last().into_iter().collect()
            } else {
                services.iter().filter(|service| names.contains(&service.name)).collect()
            };
            let tried = Template::compile(&output.template_name, &output.template, self.escape)
                .and_then(|template| template.trial(&shown, &self.vars));
            // Outputs of the same template have the same faults.
            let fault =
                tried.err().map(|error| FieldFault::new(format!("outputs.{index}.template"), error.to_string()));
            faults.extend(fault.filter(|fault| !faults.contains(fault)));
            if let Err(message) = swappable(&output.path) {
                let message = format!("{} {message}", output.path.display());
                faults.push(FieldFault::new(format!("outputs.{index}.path"), message));
            }
        }
        faults
    }
}

/// Apache ignores the case of balancers' names (`ap_proxy_define_balancer`): members of two would be one pool.
fn same_balancer(services: &[Name]) -> Option<FieldFault> {
    let twin = |name: &Name| services.iter().find(|n| *n > name && n.as_str().eq_ignore_ascii_case(name.as_str()));
    let (one, other) = services.iter().find_map(|name| Some((name, twin(name)?)))?;
    let message = format!("{one} and {other} are one name to Apache, which ignores their case: rename one of them");
    Some(FieldFault::new("services", message))
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
