//! Templates: compiled once, tried with sample data before anything starts, and rendered from snapshots.
//!
//! The language is upon's: `{{ s.name }}`, `{% for b in s.backends %} … {% endfor %}`, `{% if … %}`, `{% with … %}`,
//! comments `{# … #}`, and `-` inside a tag to trim the white space beside it. [`Context`] describes the values that a
//! template can use, [`functions`] what it can call. Every value is escaped for its place, see [`Escape`].

mod context;
mod error;
mod read;
mod sample;
pub(super) mod scan;
mod source;

use std::collections::BTreeSet;
use std::sync::Arc;

use upon::Engine;

pub use context::{Context, Facts, Variables};
pub use error::{Error, Fault};
pub use source::Source;

use super::escape::{self, Escape};
use super::functions;
use crate::model::{self, Name};

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    source: Arc<Source>,
    escape: Escape,
    engine: Engine<'static>,
}

impl Template {
    /// Compiles a template's text. Errors refer to it by `name`, its path as the operator wrote it.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if the text is not a template, or contains the noncharacters U+FDD0 to U+FDD2, with which elasticd
    /// itself marks where values begin and end.
    pub fn compile(name: &str, text: &str, escape: Escape) -> Result<Self, Error> {
        Self::of(Arc::new(Source::plain(name, text)), escape)
    }

    /// Compiles a template with what it includes.
    ///
    /// # Errors
    ///
    /// As of [`compile`](Self::compile), for each of the texts.
    pub fn of(source: Arc<Source>, escape: Escape) -> Result<Self, Error> {
        for (name, text) in source.texts() {
            if let Some(at) = escape::find_marker(text) {
                return Err(Error::Compile(Fault::at(
                    name,
                    text,
                    at,
                    "the characters U+FDD0 to U+FDD2 cannot be used",
                )));
            }
        }
        let engine = build(&source, escape)
            .map_err(|error| Error::Compile(Fault::locate(&source, &error, |twin| build(twin, escape).err())))?;
        Ok(Self { source, escape, engine })
    }

    /// Renders the template. Equal contexts give equal bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Render`] if the template uses a value that does not exist, or calls a function with a wrong argument.
    pub fn render(&self, context: &Context) -> Result<String, Error> {
        self.render_fault(context).map_err(Error::Render)
    }

    /// Whether the template can be rendered. Costs less than [`render`](Self::render) where it cannot, as no place is
    /// looked for.
    pub(super) fn can_render(&self, context: &Context) -> bool {
        render(&self.engine, &self.source.name, context).is_ok()
    }

    /// Renders the template with sample backends of these services, and once more without backends, so that the use of a
    /// field that does not exist is found before anything starts.
    ///
    /// The sample backends have the tags by which their service selects, and every tag that the template mentions as
    /// `tags.KEY`; one of them has no zone and a weight of 0.
    ///
    /// # Errors
    ///
    /// [`Error::Trial`], for the reasons of [`render`](Self::render).
    pub fn trial(&self, services: &[&model::Service], variables: &Variables<'_>) -> Result<(), Error> {
        let attempts = [
            ("sample backends", sample::snapshot(services, &self.mentioned_tags())),
            ("services without backends", sample::empty(services)),
        ];
        for (with, snapshot) in attempts {
            let context = Self::sample_context(services, &snapshot, variables);
            self.render_fault(&context).map_err(|fault| Error::Trial { fault, with })?;
        }
        Ok(())
    }

    /// The uses of tags that these services do not guarantee, and without which the template cannot be rendered: each with
    /// the tag's key and the services. Found by rendering sample backends without the tag.
    pub(super) fn unguaranteed_tags(
        &self,
        services: &[&model::Service],
        variables: &Variables<'_>,
    ) -> Vec<(String, Vec<Name>, Fault)> {
        let mentioned = self.mentioned_tags();
        let without = |key: &String| {
            let lacking: Vec<_> = services.iter().copied().filter(|s| !sample::guarantees(s, key)).collect();
            if lacking.is_empty() {
                return None;
            }
            let snapshot = sample::without_tag(sample::snapshot(services, &mentioned), &lacking, key);
            let fault = self.render_fault(&Self::sample_context(services, &snapshot, variables)).err()?;
            Some((key.clone(), lacking.into_iter().map(|service| service.name.clone()).collect(), fault))
        };
        mentioned.iter().filter_map(without).collect()
    }

    /// Whether what it renders depends on our own zone. Found by rendering sample backends.
    pub(super) fn depends_on_own_zone(&self, services: &[&model::Service], variables: &Variables<'_>) -> bool {
        let snapshot = sample::taking_traffic(sample::snapshot(services, &self.mentioned_tags()));
        let rendered = [None, Some("zone-a".to_owned())].map(|own_zone| {
            let facts = Facts { own_zone, ..variables.facts.clone() };
            let variables = Variables { facts: &facts, ..*variables };
            self.render_fault(&Self::sample_context(services, &snapshot, &variables)).ok()
        });
        rendered[0] != rendered[1]
    }

    /// The tags that the template mentions as `tags.KEY`. Those with `?.` may be absent, and so are left out.
    fn mentioned_tags(&self) -> BTreeSet<String> {
        let uses = self.source.texts().flat_map(|(_, text)| scan::uses(text, "tags"));
        let needed = uses.filter(|found| found.access == scan::Access::Needed);
        needed.filter_map(|found| found.member.map(str::to_owned)).collect()
    }

    fn sample_context(services: &[&model::Service], snapshot: &model::Snapshot, variables: &Variables<'_>) -> Context {
        let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
        Context::with(snapshot, &names, variables)
    }

    fn render_fault(&self, context: &Context) -> Result<String, Fault> {
        let rendered = render(&self.engine, &self.source.name, context).map_err(|error| {
            Fault::locate(&self.source, &error, |twin| {
                let engine = build(twin, self.escape).ok()?;
                render(&engine, &twin.name, context).err()
            })
        })?;
        Ok(self.escape.apply(rendered))
    }
}

fn build(source: &Source, escape: Escape) -> Result<Engine<'static>, upon::Error> {
    let mut engine = Engine::new();
    functions::install(&mut engine);
    escape.install(&mut engine, source.texts().any(|(_, text)| text.contains('\\')));
    for (name, text) in source.texts() {
        engine.add_template(name.to_owned(), text.to_owned())?;
    }
    Ok(engine)
}

fn render(engine: &Engine<'static>, name: &str, context: &Context) -> Result<String, upon::Error> {
    engine.template(name).render_from(context.value()).to_string()
}

#[cfg(test)]
mod tests;
