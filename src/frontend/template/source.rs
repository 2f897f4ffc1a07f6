//! The text of a template, together with the files that it includes.

use std::collections::BTreeMap;

/// A template's text and all that it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Its path as the operator wrote it, or the name of a built-in template.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The texts of all files that are included, directly or not, by the names under which they are.
    pub includes: BTreeMap<String, String>,
}

impl Source {
    /// A template that includes nothing.
    pub fn plain(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), includes: BTreeMap::new() }
    }

    /// Every text with its name, the template's own first.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = (self.name.as_str(), self.text.as_str());
        std::iter::once(own).chain(self.includes.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// The text of that name; the template's own if there is none.
    pub fn text_of(&self, name: &str) -> &str {
        if name == self.name { &self.text } else { self.includes.get(name).unwrap_or(&self.text) }
    }
}
