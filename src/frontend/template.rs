//! Templates: compiled once, tried with sample data before anything starts, and rendered from snapshots.
//!
//! The language is upon's: `{{ s.name }}`, `{% for b in s.backends %} … {% endfor %}`, `{% if … %}`, `{% with … %}`,
//! comments `{# … #}`, and `-` inside a tag to trim the white space beside it. [`Context`] describes the values that a
//! template can use, [`functions`] what it can call. Every value is escaped for its place, see [`Escape`].

mod context;
mod error;
mod sample;

use std::collections::BTreeMap;

use upon::Engine;

pub use context::Context;
pub use error::{Error, Fault};

use super::escape::{self, Escape};
use super::functions;
use crate::model;

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
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
        if let Some(at) = escape::find_marker(text) {
            return Err(Error::Compile(Fault::at(name, text, at, "the characters U+FDD0 to U+FDD2 cannot be used")));
        }
        let engine = build(name, text, escape).map_err(|error| {
            Error::Compile(Fault::locate(name, text, &error, |twin| build(name, twin, escape).err()))
        })?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), escape, engine })
    }

    /// Renders the template. Equal contexts give equal bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Render`] if the template uses a value that does not exist, or calls a function with a wrong argument.
    pub fn render(&self, context: &Context) -> Result<String, Error> {
        self.render_fault(context).map_err(Error::Render)
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
    pub fn trial(&self, services: &[&model::Service], vars: &BTreeMap<String, serde_json::Value>) -> Result<(), Error> {
        let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
        let attempts = [
            ("sample backends", sample::snapshot(services, &self.text)),
            ("services without backends", sample::empty(services)),
        ];
        for (with, snapshot) in attempts {
            let context = Context::new(&snapshot, &names, vars);
            self.render_fault(&context).map_err(|fault| Error::Trial { fault, with })?;
        }
        Ok(())
    }

    fn render_fault(&self, context: &Context) -> Result<String, Fault> {
        let rendered = render(&self.engine, &self.name, context).map_err(|error| {
            Fault::locate(&self.name, &self.text, &error, |twin| {
                let engine = build(&self.name, twin, self.escape).ok()?;
                render(&engine, &self.name, context).err()
            })
        })?;
        Ok(self.escape.apply(rendered))
    }
}

fn build(name: &str, text: &str, escape: Escape) -> Result<Engine<'static>, upon::Error> {
    let mut engine = Engine::new();
    functions::install(&mut engine);
    escape.install(&mut engine, text);
    engine.add_template(name.to_owned(), text.to_owned())?;
    Ok(engine)
}

fn render(engine: &Engine<'static>, name: &str, context: &Context) -> Result<String, upon::Error> {
    engine.template(name).render_from(context.value()).to_string()
}

#[cfg(test)]
mod tests;
