//! Faults of a frontend that show only when its templates are rendered and its paths are looked at.

use std::collections::BTreeSet;
use std::path::Path;
use std::slice;
use std::sync::Arc;

use super::config::{Config, Output};
use super::escape::Escape;
use super::template::{Facts, Fault, Source, Template, scan};
use crate::model::{FieldFault, Name, Service};
use crate::sys::atomic_file;

/// Which variables the templates of a frontend read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VarsRead {
    /// They read the variables as a whole, and so may read any.
    All,
    /// These alone.
    These(BTreeSet<String>),
}

/// What is wrong with a frontend, and what an operator may not have meant.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must be corrected.
    pub faults: Vec<FieldFault>,
    /// What works, but maybe not as intended.
    pub warnings: Vec<FieldFault>,
    /// Whether what the templates render depends on our own zone.
    pub depends_on_own_zone: bool,
}

impl Config {
    /// Every fault that would otherwise show only when the configuration is used: templates that do not compile or that
    /// read a field that does not exist, and outputs that can never be swapped in.
    ///
    /// `created` stand for the services that tags will create.
    pub fn verify(&self, services: &[Service], created: &[Service]) -> Verdict {
        let mut verdict = Verdict::default();
        if self.escape == Escape::Apache {
            verdict.faults.extend(same_balancer(&self.services));
        }
        // Outputs of the same template have the same faults.
        let add = |to: &mut Vec<FieldFault>, fault: FieldFault| {
            if !to.contains(&fault) {
                to.push(fault);
            }
        };
        // Services that tags create have outputs too.
        let to_come = self.per_service.iter().filter(|_| self.follows_all_services);
        for output in self.outputs.iter().chain(to_come) {
            let field = format!("outputs.{}.template", output.index);
            match self.try_template(output, services, created) {
                Ok(tried) => {
                    for warning in tried.warnings {
                        add(&mut verdict.warnings, FieldFault::new(&field, warning));
                    }
                    verdict.depends_on_own_zone |= tried.depends_on_own_zone;
                }
                Err(faults) => {
                    for fault in faults {
                        add(&mut verdict.faults, FieldFault::new(&field, fault));
                    }
                }
            }
            if let Err(message) = swappable(&output.path) {
                let message = format!("{} {message}", output.path.display());
                verdict.faults.push(FieldFault::new(format!("outputs.{}.path", output.index), message));
            }
        }
        verdict
    }

    /// Which variables the templates read.
    pub fn vars_read(&self) -> VarsRead {
        let texts = self.outputs.iter().flat_map(|output| output.template.texts());
        let members = texts.flat_map(|(_, text)| scan::uses(text, "vars")).map(|found| found.member.map(str::to_owned));
        members.collect::<Option<_>>().map_or(VarsRead::All, VarsRead::These)
    }

    /// Tries an output's template with sample backends.
    fn try_template(&self, output: &Output, services: &[Service], created: &[Service]) -> Result<Tried, Vec<String>> {
        let names = output.service.as_ref().map_or(self.services.as_slice(), slice::from_ref);
        let created = created.iter().filter(|_| self.follows_all_services && output.service.is_none());
        let shown: Vec<_> = if output.is_per_service() {
            services.iter().chain(created).last().into_iter().collect()
        } else {
            services.iter().filter(|service| names.contains(&service.name)).chain(created).collect()
        };
        let unset = self.unset_vars(&output.template);
        if !unset.is_empty() {
            return Err(unset);
        }
        let facts = Facts { frontend: self.name.to_string(), ..Facts::default() };
        let variables = self.variables(&facts);
        let tried = Template::of(Arc::clone(&output.template), self.escape)
            .and_then(|template| template.trial(&shown, &variables).map(|()| template));
        let template = tried.map_err(|error| vec![error.to_string()])?;
        let unguaranteed = template.unguaranteed_tags(&shown, &variables).into_iter();
        Ok(Tried {
            warnings: unguaranteed.map(|(key, services, fault)| unguaranteed_tag(&key, &services, &fault)).collect(),
            depends_on_own_zone: template.depends_on_own_zone(&shown, &variables),
        })
    }

    /// The variables that a template reads and that are not set, also where sample backends do not lead to them.
    fn unset_vars(&self, template: &Source) -> Vec<String> {
        let is_set =
            |name: &str| self.vars.contains_key(name) || self.service_vars.values().any(|vars| vars.contains_key(name));
        let mut optional = template.texts().flat_map(|(_, text)| scan::uses(text, "vars")).collect::<Vec<_>>();
        optional.retain(|found| found.access == scan::Access::Optional);
        let unset = template.texts().flat_map(|(name, text)| {
            let needed = scan::uses(text, "vars").into_iter().filter(|found| found.access == scan::Access::Needed);
            needed.filter_map(move |found| Some((name, text, found.at, found.member?)))
        });
        // A template that asks for it may do so first.
        let unset = unset.filter(|(.., member)| !is_set(member) && optional.iter().all(|o| o.member != Some(member)));
        unset
            .map(|(name, text, at, member)| {
                let known: Vec<_> = self.vars.keys().map(String::as_str).collect();
                let similar = similar::get_close_matches(member, &known, 1, 0.7);
                let reason = match similar.as_slice() {
                    [similar, ..] => format!("there is no variable `{member}`: did you mean `{similar}`?"),
                    [] => format!(
                        "there is no variable `{member}`: set it among the frontend's vars, or write `vars?.{member}`"
                    ),
                };
                Fault::at(name, text, at, reason).to_string()
            })
            .collect()
    }
}

/// What a template does with sample backends.
struct Tried {
    warnings: Vec<String>,
    depends_on_own_zone: bool,
}

fn unguaranteed_tag(key: &str, services: &[Name], fault: &Fault) -> String {
    let names = services.iter().take(3).map(Name::as_str).collect::<Vec<_>>().join(", ");
    let (services, more) = match services.len() {
        1 => (format!("service {names}"), String::new()),
        4.. => (format!("services {names}"), format!(" and {} more", services.len() - 3)),
        _ => (format!("services {names}"), String::new()),
    };
    let reason = format!(
        "no selector of {services}{more} guarantees the tag {key}, and a backend without it is left out of this frontend: \
         write `{{{{ b.tags | get: \"{key}\", \"default\" }}}}`, or select by it: {key} = {{ present = true }}"
    );
    Fault { reason, ..fault.clone() }.to_string()
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
