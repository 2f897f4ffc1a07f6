//! The values that a template can use.

use std::collections::BTreeMap;

use upon::Value;

use super::functions::{self, Map};
use crate::model::{Backend, Name, ServiceSet, Snapshot};

/// What templates can use beside the services.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'v> {
    /// The frontend's variables.
    pub vars: &'v BTreeMap<String, serde_json::Value>,
    /// Those that hold for one service alone, laid over the frontend's.
    pub service_vars: &'v BTreeMap<Name, BTreeMap<String, serde_json::Value>>,
    /// What is known of the machine and of the frontend's program.
    pub facts: &'v Facts,
}

/// What is known of the machine that elasticd runs on, and of the frontend's program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The zone that elasticd runs in, once it is known.
    pub own_zone: Option<String>,
    /// The machine's host name.
    pub host: String,
    /// The frontend's name.
    pub frontend: String,
    /// The version of the frontend's program, such as `1.29.6`, if the frontend has a command that prints it.
    pub version: Option<String>,
}

/// The values that a template can use; `docs/reference/templates.md` describes them for people:
///
/// - `services`: a list of `{name, revision, backends, vars}`, in the order in which the frontend names the services. A
///   service's `revision` is the one at which its own backends last changed. `backends` is a list of `{id, address, port,
///   zone, weight, state, tags}` ordered by id; `zone` may be absent, and `tags` is a map. `vars` are the frontend's
///   variables with those of the service laid over them.
/// - `revision`: the revision of the snapshot. **It grows when any service changes**, including those that the frontend
///   does not name: a template that prints it changes its file, and has its frontend reloaded, each time.
/// - `vars`: the frontend's variables from the configuration.
/// - `own`: `{zone, host}`, of the machine that elasticd runs on; `zone` is absent while it is not known.
/// - `frontend`: `{name, version}`; `version` is absent if it is not known.
/// - `output`: `{index}`, which of the frontend's `outputs` is rendered, counted from 0.
///
/// There is no time in it: unless `revision` is printed, a file changes only when a service of its frontend does; and unless
/// `own` is used, all sidecars of a fleet write the same bytes.
///
/// Building and dropping a context cost more than rendering from it (measured with 1,000 to 30,000 backends), since the
/// engine's maps own a copy of every key. Build it once for a snapshot, and render every output from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Context(Value);

impl Context {
    /// The context of these services at a snapshot, with nothing but variables beside them. Services that the snapshot does
    /// not have yet are left out.
    pub fn new(snapshot: &Snapshot, services: &[Name], vars: &BTreeMap<String, serde_json::Value>) -> Self {
        let (service_vars, facts) = (BTreeMap::new(), Facts::default());
        Self::with(snapshot, services, &Variables { vars, service_vars: &service_vars, facts: &facts })
    }

    /// The context of these services at a snapshot.
    pub fn with(snapshot: &Snapshot, services: &[Name], variables: &Variables<'_>) -> Self {
        let Variables { vars, service_vars, facts } = variables;
        let vars: Map = vars.iter().map(|(key, value)| (key.clone(), functions::from_json(value))).collect();
        let known = services.iter().filter_map(|name| {
            let own = service_vars.get(name).into_iter().flatten();
            let mut vars = vars.clone();
            vars.extend(own.map(|(key, value)| (key.clone(), functions::from_json(value))));
            Some(service(name, snapshot.services.get(name)?, vars))
        });
        let own = [("zone", Value::from(facts.own_zone.as_deref())), ("host", Value::from(facts.host.as_str()))];
        let frontend =
            [("name", Value::from(facts.frontend.as_str())), ("version", Value::from(facts.version.as_deref()))];
        Self(Value::from([
            ("services", Value::List(known.collect())),
            ("revision", revision(snapshot.revision)),
            ("own", Value::from(own)),
            ("frontend", Value::from(frontend)),
            ("output", output(0)),
            ("vars", Value::Map(vars)),
        ]))
    }

    /// The same for another of the frontend's outputs, counted from 0.
    pub fn set_output(&mut self, index: usize) {
        if let Value::Map(values) = &mut self.0 {
            values.insert("output".to_owned(), output(index));
        }
    }

    /// The engine's own value, from which it renders without another copy.
    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

fn output(index: usize) -> Value {
    Value::from([("index", Value::Integer(index.try_into().unwrap_or(i64::MAX)))])
}

fn service(name: &Name, set: &ServiceSet, vars: Map) -> Value {
    Value::from([
        ("name", Value::from(name.as_str())),
        ("revision", revision(set.revision)),
        ("backends", Value::List(set.backends.iter().map(backend).collect())),
        ("vars", Value::Map(vars)),
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
    fn a_backend_has_the_fields_of_its_serialised_form() {
        for address in ["10.0.0.1", "2001:db8::1"] {
            let mut example = sample::backend(1, address.parse().expect("an address"));
            for zone in [None, Some("eu-west-1a".to_owned())] {
                example.zone = zone;
                assert_eq!(backend(&example), upon::to_value(&example).expect("it serialises"));
            }
        }
    }

    #[test]
    fn only_the_named_services_are_there_in_the_given_order() {
        let set = |revision| ServiceSet { revision, backends: Vec::new() }.into();
        let name = |text: &str| text.parse::<Name>().expect("a valid name");
        let services = BTreeMap::from([(name("a"), set(1)), (name("b"), set(2)), (name("c"), set(3))]);
        let snapshot = Snapshot { revision: 3, services };
        let context = Context::new(&snapshot, &[name("c"), name("missing"), name("a")], &BTreeMap::new());
        let Value::Map(top) = context.value() else { panic!("a map") };
        let expected = upon::value! { services: [
            { name: "c", revision: 3, backends: (Vec::<Value>::new()), vars: (Map::new()) },
            { name: "a", revision: 1, backends: (Vec::<Value>::new()), vars: (Map::new()) },
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

    #[test]
    fn variables_of_one_service_are_laid_over_those_of_the_frontend() {
        let json = |text: &str| serde_json::from_str(text).expect("JSON");
        let name = |text: &str| text.parse::<Name>().expect("a valid name");
        let set = ServiceSet { revision: 1, backends: Vec::new() };
        let services = ["a", "b"].map(|service| (name(service), set.clone().into())).into();
        let variables = Variables {
            vars: &json(r#"{"x": 1, "y": 2}"#),
            service_vars: &[(name("b"), json(r#"{"y": 3}"#))].into(),
            facts: &Facts { own_zone: Some("z".to_owned()), ..Facts::default() },
        };
        let context = Context::with(&Snapshot { revision: 1, services }, &[name("a"), name("b")], &variables);
        let template = "{% for s in services %}{{ s.vars.x }}{{ s.vars.y }} {% endfor %}{{ vars.y }} {{ own.zone }}";
        let template =
            crate::frontend::template::Template::compile("t", template, crate::frontend::escape::Escape::None);
        assert_eq!(template.expect("compiles").render(&context).expect("renders"), "12 13 2 z");
    }
}
