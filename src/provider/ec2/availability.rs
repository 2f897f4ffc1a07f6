//! What AWS knows of instances beyond their lifecycle state, from several of its APIs.

use std::collections::BTreeMap;

use crate::model::{Availability, Instance};

/// By instance. Of several, the strictest holds: out before leaving; among equals, the first.
#[derive(Debug, Default)]
pub(super) struct AvailabilityOverrides(BTreeMap<String, Availability>);

impl AvailabilityOverrides {
    pub fn add(&mut self, id: impl Into<String>, availability: Availability) {
        let known = self.0.entry(id.into()).or_default();
        if strictness(&availability) > strictness(known) {
            *known = availability;
        }
    }

    /// Sets the instances' availability.
    pub fn apply(mut self, instances: &mut [Instance]) {
        for instance in instances {
            if let Some(availability) = self.0.remove(&instance.id) {
                instance.availability = availability;
            }
        }
    }
}

const fn strictness(availability: &Availability) -> u8 {
    match availability {
        Availability::Ready => 0,
        Availability::Leaving { .. } => 1,
        Availability::Out { .. } => 2,
    }
}

pub(super) fn leaving(why: impl Into<String>) -> Availability {
    Availability::Leaving { why: why.into() }
}

pub(super) fn out(why: impl Into<String>) -> Availability {
    Availability::Out { why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_holds_and_of_equals_the_first() {
        let mut overrides = AvailabilityOverrides::default();
        for (id, availability) in [
            ("a", leaving("1")),
            ("a", out("2")),
            ("a", out("3")),
            ("a", leaving("4")),
            ("b", Availability::Ready),
            ("c", leaving("5")),
            ("c", Availability::Ready),
            ("unknown", out("6")),
        ] {
            overrides.add(id, availability);
        }
        let mut instances = ["a", "b", "c", "d"].map(Instance::new);
        overrides.apply(&mut instances);
        let applied = instances.map(|instance| instance.availability);
        assert_eq!(applied, [out("2"), Availability::Ready, leaving("5"), Availability::Ready]);
    }
}
