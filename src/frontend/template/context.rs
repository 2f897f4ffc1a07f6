//! What templates see.

use std::collections::BTreeMap;

use upon::Value;

use super::functions;
use crate::model::{Backend, Name, ServiceSet, Snapshot};

/// What a template sees:
///
/// - `services`: a list of `{name, revision, backends}` in the order the frontend names them. A service's `revision`
///   is the one at which its own backends last changed; `backends` is a list of `{id, address, port, zone, weight,
///   state, tags}` ordered by id, where `zone` may be none and `tags` is a map.
/// - `revision`: the snapshot's. **It grows when any service changes**, those that the frontend does not name
///   included: a template that prints it makes its file change, and its frontend reload, each time.
/// - `vars`: the frontend's own, as the configuration has them.
///
/// There is no clock and nothing of this machine in it: unless `revision` is printed, a file changes only when a
/// service of its frontend does, and every sidecar in a fleet writes the same bytes.
///
/// Building it and dropping it cost more than rendering from it (measured with 1,000 to 30,000 backends), since the
/// engine's maps own a text for every key: build it once for a snapshot, and render every output from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Context(Value);

impl Context {
    /// The context of these services at a snapshot. One of which the snapshot knows nothing yet is left out.
    pub fn new(snapshot: &Snapshot, services: &[Name], vars: &BTreeMap<String, serde_json::Value>) -> Self {
        let known = services.iter().filter_map(|name| Some(service(name, snapshot.services.get(name)?)));
        let vars: BTreeMap<_, _> = vars.iter().map(|(key, value)| (key.clone(), functions::from_json(value))).collect();
        Self(Value::from([
            ("services", Value::List(known.collect())),
            ("revision", revision(snapshot.revision)),
            ("vars", Value::Map(vars)),
        ]))
    }

    /// The engine's own form, from which it renders without another copy.
    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

fn service(name: &Name, set: &ServiceSet) -> Value {
    Value::from([
        ("name", Value::from(name.as_str())),
        ("revision", revision(set.revision)),
        ("backends", Value::List(set.backends.iter().map(backend).collect())),
    ])
}

fn backend(backend: &Backend) -> Value {
    let Backend { id, address, port, zone, weight, state, tags } = backend;
    let tags = tags.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    Value::from([
        ("id", Value::from(id.as_str())),
        ("address", Value::String(address.to_string())),
        ("port", Value::from(*port)),
        ("zone", Value::from(zone.as_deref())),
        ("weight", Value::from(*weight)),
        ("state", Value::from(state.as_str())),
        ("tags", Value::Map(tags)),
    ])
}

fn revision(revision: u64) -> Value {
    Value::Integer(i64::try_from(revision).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::template::sample;

    #[test]
    fn a_backend_is_what_it_is_serialised_to() {
        for address in ["10.0.0.1", "2001:db8::1"] {
            let mut made_up = sample::backend(1, address.parse().expect("an address"));
            for zone in [None, Some("eu-west-1a".to_owned())] {
                made_up.zone = zone;
                assert_eq!(backend(&made_up), upon::to_value(&made_up).expect("it serialises"));
            }
        }
    }

    #[test]
    fn only_the_services_named_are_there_in_their_order() {
        let set = |revision| ServiceSet { revision, backends: Vec::new() }.into();
        let name = |text: &str| text.parse::<Name>().expect("a valid name");
        let services = BTreeMap::from([(name("a"), set(1)), (name("b"), set(2)), (name("c"), set(3))]);
        let snapshot = Snapshot { revision: 3, services };
        let context = Context::new(&snapshot, &[name("c"), name("missing"), name("a")], &BTreeMap::new());
        let Value::Map(top) = context.value() else { panic!("a map") };
        let expected = upon::value! { services: [
            { name: "c", revision: 3, backends: (Vec::<Value>::new()) },
            { name: "a", revision: 1, backends: (Vec::<Value>::new()) },
        ] };
        let Value::Map(expected) = expected else { panic!("a map") };
        assert_eq!(top["services"], expected["services"]);
    }

    #[test]
    fn another_service_changes_nothing_but_the_snapshots_revision() {
        let set =
            |revision, n| ServiceSet { revision, backends: vec![sample::backend(n, [10, 0, 0, n].into())] }.into();
        let name = |text: &str| text.parse::<Name>().expect("a valid name");
        let at = |revision, n| {
            let services = BTreeMap::from([(name("a"), set(1, 1)), (name("b"), set(revision, n))]);
            let context = Context::new(&Snapshot { revision, services }, &[name("a")], &BTreeMap::new());
            let Value::Map(mut top) = context.0 else { panic!("a map") };
            top.remove("revision");
            top
        };
        assert_eq!(at(1, 1), at(2, 2));
    }
}
