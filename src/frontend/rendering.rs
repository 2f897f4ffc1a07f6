//! What a frontend's outputs are at a snapshot, without the backends that a template cannot render.
//!
//! A backend that makes a template fail (it lacks a tag that the template reads, or has a value that a function refuses) is
//! left out of this frontend's outputs, and nothing else is. Nothing is searched for as long as nothing fails.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::slice;
use std::sync::Arc;

use super::config::{Config, Output};
use super::template::{self, Context, Facts, Template, Variables};
use crate::model::{Backend, Guard, Name, OnEmpty, ServiceSet, Snapshot};

/// The content of a frontend's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// In the order of the outputs.
    pub contents: Vec<String>,
    /// The backends that are in none of them, ordered by service and id.
    pub left_out: Vec<LeftOut>,
}

/// A backend that cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its service.
    pub service: Name,
    /// Its id.
    pub id: String,
    /// Why, with the template's file, line and column.
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.id, self.service, self.reason)
    }
}

/// Why nothing can be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A template fails, and not because of single backends.
    #[error(transparent)]
    Template(#[from] template::Error),
    /// More backends cannot be rendered than the guard of their service lets go.
    #[error(
        "at least {count} of the {of} backends of service {} cannot be rendered, and its guard lets no more than {}% go{}; \
         correct their tags or the template. The first is {first}", first.service, guard.max_drop.0, or_all(guard)
    )]
    TooMany {
        /// How many were found; the search ends with the first that is too many.
        count: usize,
        /// How many the service has.
        of: usize,
        /// The service's guard.
        guard: Guard,
        /// The first of them.
        first: LeftOut,
    },
}

fn or_all(guard: &Guard) -> &'static str {
    match guard.on_empty {
        OnEmpty::Hold => ", and never all",
        OnEmpty::Accept => "",
    }
}

/// A backend as a member of a service.
type Member<'s> = (&'s Name, &'s Backend);

impl Config {
    /// The content of each output at a snapshot; `templates` are [those of the outputs](Self::templates). Backends that
    /// cannot be rendered are left out, as long as the guards of their services let so many go.
    ///
    /// # Errors
    ///
    /// A template fails for another reason than single backends, or for too many of them.
    pub fn render(&self, templates: &[Template], snapshot: &Snapshot, facts: &Facts) -> Result<Rendering, Error> {
        let frontend = Rendered { config: self, templates, facts };
        match frontend.contents(snapshot) {
            Ok(contents) => Ok(Rendering { contents, left_out: Vec::new() }),
            Err(error) => frontend.contents_without_culprits(snapshot, error),
        }
    }

    /// What is known of the machine without asking anybody. The version of the frontend's program is not.
    pub fn facts(&self) -> Facts {
        let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
        Facts { host, frontend: self.name.to_string(), own_zone: self.own_zone.clone(), version: None }
    }

    /// What its templates see beside the services.
    pub(super) fn variables<'a>(&'a self, facts: &'a Facts) -> Variables<'a> {
        Variables { vars: &self.vars, service_vars: &self.service_vars, facts }
    }
}

/// A frontend that is being rendered.
#[derive(Clone, Copy)]
struct Rendered<'r> {
    config: &'r Config,
    templates: &'r [Template],
    facts: &'r Facts,
}

impl<'r> Rendered<'r> {
    fn contents(self, snapshot: &Snapshot) -> Result<Vec<String>, template::Error> {
        let shown = self.config.shown_services(snapshot);
        let mut of_all = None;
        let render = |(output, template): (&Output, &Template)| {
            let mut of_one;
            let context = match &output.service {
                None => of_all.get_or_insert_with(|| self.context(snapshot, &shown)),
                Some(service) => {
                    of_one = self.context(snapshot, slice::from_ref(service));
                    &mut of_one
                }
            };
            context.set_output(output.index);
            template.render(context)
        };
        self.outputs().map(render).collect()
    }

    fn contents_without_culprits(self, snapshot: &Snapshot, error: template::Error) -> Result<Rendering, Error> {
        let shown = self.config.shown_services(snapshot);
        let sets = shown.iter().filter_map(|name| Some((name, snapshot.services.get(name)?)));
        let members: Vec<Member<'_>> =
            sets.flat_map(|(name, set)| set.backends.iter().map(move |backend| (name, backend))).collect();
        let mut search = Search { frontend: self, snapshot, shown: &shown, found: BTreeMap::new() };
        if search.fails(&[]) {
            return Err(error.into());
        }
        search.search(&members)?;
        let mut rest = snapshot.clone();
        let mut left_out = Vec::new();
        for (service, found) in search.found {
            let ids: BTreeSet<_> = found.iter().map(|left_out| left_out.id.as_str()).collect();
            if let Some(set) = rest.services.get_mut(&service) {
                Arc::make_mut(set).backends.retain(|backend| !ids.contains(backend.id.as_str()));
            }
            left_out.extend(found);
        }
        // It may still fail, for what several backends have in common.
        Ok(Rendering { contents: self.contents(&rest)?, left_out })
    }

    fn context(self, snapshot: &Snapshot, services: &[Name]) -> Context {
        Context::with(snapshot, services, &self.config.variables(self.facts))
    }

    fn outputs(self) -> impl Iterator<Item = (&'r Output, &'r Template)> {
        self.config.outputs.iter().zip(self.templates)
    }
}

/// The search for backends that cannot be rendered: by halves, so that few of many are found with few attempts.
struct Search<'s> {
    frontend: Rendered<'s>,
    snapshot: &'s Snapshot,
    shown: &'s [Name],
    /// By service, each ordered by id.
    found: BTreeMap<Name, Vec<LeftOut>>,
}

impl Search<'_> {
    fn search(&mut self, members: &[Member<'_>]) -> Result<(), Error> {
        if members.is_empty() || !self.fails(members) {
            return Ok(());
        }
        if let [member] = members {
            return self.add(*member);
        }
        let (first, second) = members.split_at(members.len() / 2);
        self.search(first)?;
        self.search(second)
    }

    fn add(&mut self, (service, backend): Member<'_>) -> Result<(), Error> {
        let Err(error) = self.frontend.contents(&self.only(&[(service, backend)])) else { return Ok(()) };
        let found = self.found.entry(service.clone()).or_default();
        found.push(LeftOut { service: service.clone(), id: backend.id.clone(), reason: error.to_string() });
        let (guard, count) = (self.frontend.config.guards.of(service), found.len());
        let of = self.snapshot.services.get(service).map_or(0, |set| set.backends.len());
        let may_be_empty = count < of || guard.on_empty == OnEmpty::Accept;
        if may_be_empty && guard.is_within_max_drop(of, of - count) {
            return Ok(());
        }
        Err(Error::TooMany { count, of, guard: guard.clone(), first: found[0].clone() })
    }

    /// Whether some output cannot be rendered with these backends alone. Of the outputs for one service, only those are
    /// looked at whose service has one of them.
    fn fails(&self, members: &[Member<'_>]) -> bool {
        let only = self.only(members);
        let all = LazyCell::new(|| self.frontend.context(&only, self.shown));
        let fails = |(output, template): (&Output, &Template)| match &output.service {
            None => !template.can_render(&all),
            Some(service) if !members.is_empty() && members.iter().all(|(name, _)| *name != service) => false,
            Some(service) => !template.can_render(&self.frontend.context(&only, slice::from_ref(service))),
        };
        self.frontend.outputs().any(fails)
    }

    /// The snapshot with these backends alone.
    fn only(&self, members: &[Member<'_>]) -> Snapshot {
        let mut backends: BTreeMap<&Name, Vec<Backend>> = BTreeMap::new();
        for (service, backend) in members {
            backends.entry(service).or_default().push((*backend).clone());
        }
        let sets = self.shown.iter().filter_map(|name| {
            let revision = self.snapshot.services.get(name)?.revision;
            let backends = backends.remove(name).unwrap_or_default();
            Some((name.clone(), Arc::new(ServiceSet { revision, backends })))
        });
        Snapshot { revision: self.snapshot.revision, services: sets.collect() }
    }
}

#[cfg(test)]
mod tests;
