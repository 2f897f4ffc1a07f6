//! Prometheus, which reads the targets that it scrapes from a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::harness::backend::Backend;
use crate::harness::prometheus::Prometheus;
use crate::harness::{BoundedCommand as _, until_or};

const TARGETS: &str = include_str!("../../../templates/prometheus/targets.json");

impl Frontend for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
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
        // It takes what it has read every 5 s.
        self.frontend() + "proof_timeout = '12s'\n"
    }

    fn directory(&self) -> PathBuf {
        self.path("sd")
    }

    fn output(&self) -> PathBuf {
        self.file()
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn process(&self) -> String {
        self.child_pid().to_string()
    }

    fn changes_taken(&self) -> String {
        self.ids().join(",")
    }

    fn await_backends(&self, ids: &[&str]) {
        until_or(|| format!("{ids:?}: {:?}", self.ids()), || (self.ids() == ids).then_some(()));
    }

    fn await_none(&self) {
        self.await_backends(&[]);
    }

    fn assert_runs(&self, backends: &[(&Backend, u16)]) {
        assert_eq!(self.ids(), backends.iter().map(|(backend, _)| backend.name.as_str()).collect::<Vec<_>>());
    }

    fn shows_drained(&self) -> bool {
        true
    }

    fn answers_early(&self) -> bool {
        true
    }

    fn changes(&self) -> usize {
        4
    }

    fn kills(&self) -> (u64, u64) {
        (6, 200)
    }

    fn refusal(&self) -> &'static [&'static str] {
        &["of the targets in", "it lacks "]
    }

    fn refusals(&self) -> u64 {
        1
    }

    fn refused_template(&self) -> Option<String> {
        // Prometheus takes no label without a name, and keeps what it had.
        let name = "__meta_elasticd_weight";
        let refused = TARGETS.replace(name, &format!("{{% if b.id | eq: \"b\" %}}{{% else %}}{name}{{% endif %}}"));
        assert_ne!(refused, TARGETS);
        Some(refused)
    }

    fn hostile(&self) -> Hostile {
        Hostile { template: None, keys: String::new(), values: hostile::any_text() }
    }

    fn read_values(&self, _count: usize) -> BTreeMap<String, String> {
        let promtool =
            Command::new("promtool").args(["check", "config"]).arg(self.path("prometheus.yml")).bounded_output();
        assert!(promtool.status.success(), "{}", String::from_utf8_lossy(&promtool.stderr));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = |target: &Value| {
            let labels = &target["discoveredLabels"];
            assert_eq!(labels["__meta_elasticd_tag__"], "x", "{labels:#}");
            (text(&labels["__meta_elasticd_id"]), text(&labels["__meta_elasticd_tag_a_b"]))
        };
        self.targets().iter().map(labels).collect()
    }
}
