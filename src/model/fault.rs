//! Faults of a section of the configuration.

use std::fmt;

/// A fault of one section of the configuration, with its place relative to that section.
///
/// Whoever knows where the section stands puts the section's own key before it: a provider that reports `url` is said to
/// have a fault in `providers.prod.url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The key below the section, dotted, such as `reload.signal` or `outputs.0.path`. Empty: the section as a whole.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl FieldFault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same fault seen from the section that has this one as its `parent` key.
    #[must_use]
    pub fn below(self, parent: &str) -> Self {
        let field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        Self { field, ..self }
    }
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
