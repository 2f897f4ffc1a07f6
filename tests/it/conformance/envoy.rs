//! Envoy, which reads EDS files.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::harness::backend::Backend;
use crate::harness::envoy::Envoy;

const EDS: &str = include_str!("../../../templates/envoy/eds.json");

impl Frontend for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn takes(&self) -> Takes {
        Takes::Live
    }

    fn spawn(&mut self) {
        self.spawn();
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn section(&self) -> String {
        self.frontend()
    }

    fn directory(&self) -> PathBuf {
        self.path("eds")
    }

    fn output(&self) -> PathBuf {
        self.file("web")
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn process(&self) -> String {
        self.child_pid().to_string()
    }

    fn changes_taken(&self) -> String {
        self.stat("cluster.web.update_success").to_string()
    }

    fn await_backends(&self, ids: &[&str]) {
        self.await_answers(ids);
    }

    fn assert_runs(&self, backends: &[(&Backend, u16)]) {
        let mut right: Vec<_> = backends
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(backend, weight)| (backend.ip().to_string(), u64::from(*weight)))
            .collect();
        right.sort();
        let host = |host: &Value| {
            let ip = host["address"]["socket_address"]["address"].as_str().expect("an address").to_owned();
            (ip, host["weight"].as_u64().expect("a weight"))
        };
        let mut hosts: Vec<_> = self.hosts("web").iter().map(host).collect();
        hosts.sort();
        assert_eq!(hosts, right, "{}", self.log());
    }

    fn kills(&self) -> (u64, u64) {
        (12, 400)
    }

    fn judge(&self, tally: &crate::harness::load::Tally, _changes: usize) {
        tally.assert_none_failed();
        assert_eq!(self.stat("cluster.web.update_rejected"), 0);
    }

    fn refusal(&self) -> &'static [&'static str] {
        &["cluster.web.update_rejected is ", "cluster \"web\": it lacks "]
    }

    fn refused_template(&self) -> Option<String> {
        // Envoy takes no weight of 0.
        let refused = EDS.replace("{{ b.weight }},", "{% if b.id | eq: \"b\" %}0{% else %}1{% endif %},");
        assert_ne!(refused, EDS);
        Some(refused)
    }

    fn hostile(&self) -> Hostile {
        Hostile { template: None, keys: "vars.lb_tags = ['V']\n".to_owned(), values: hostile::any_text() }
    }

    fn read_values(&self, _count: usize) -> BTreeMap<String, String> {
        let dump: Value =
            serde_json::from_str(&self.get("/config_dump?include_eds").expect("an answer")).expect("JSON");
        let mut read = BTreeMap::new();
        let mut stack = vec![&dump];
        while let Some(node) = stack.pop() {
            for endpoint in node["lb_endpoints"].as_array().into_iter().flatten() {
                let metadata = &endpoint["metadata"]["filter_metadata"];
                let id = metadata["elasticd"]["id"].as_str().expect("an id").to_owned();
                let value = metadata["envoy.lb"]["V"].as_str().expect("a tag").to_owned();
                assert_eq!(node["locality"]["zone"].as_str().unwrap_or_default(), value, "{id}");
                assert!(read.insert(id, value).is_none(), "listed once");
            }
            match node {
                Value::Array(items) => stack.extend(items),
                Value::Object(items) => stack.extend(items.values()),
                _ => {}
            }
        }
        read
    }
}
