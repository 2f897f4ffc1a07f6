//! HAProxy, changed over its runtime API.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::harness::backend::Backend;
use crate::harness::haproxy::Haproxy;

const BACKENDS: &str = include_str!("../../../templates/haproxy/backends.cfg");

/// What breaks its main configuration.
const BROKEN: &str = "\nnonsense here\n";

impl Frontend for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
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
        self.path("out")
    }

    fn output(&self) -> PathBuf {
        self.output()
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn process(&self) -> String {
        self.worker()
    }

    fn changes_taken(&self) -> String {
        self.servers("web").join(",")
    }

    fn await_backends(&self, ids: &[&str]) {
        self.await_answers(ids);
    }

    fn assert_runs(&self, backends: &[(&Backend, u16)]) {
        let right: Vec<_> =
            backends.iter().map(|(backend, weight)| format!("{} {} {weight}", backend.name, backend.address)).collect();
        assert_eq!(self.servers("web"), right);
    }

    fn keeps_connections(&self, backend: &Backend) -> bool {
        self.servers("web").contains(&format!("{} {} 0", backend.name, backend.address))
    }

    fn kills(&self) -> (u64, u64) {
        (15, 300)
    }

    fn absence(&self) -> &'static str {
        "nothing listens at"
    }

    fn refusal(&self) -> &'static [&'static str] {
        &["unknown keyword 'nonsense'", "was broken already, without this change"]
    }

    fn takes_what_the_check_refuses(&self) -> bool {
        true
    }

    fn break_configuration(&self) {
        let main = fs::read_to_string(self.path("haproxy.cfg")).expect("there");
        fs::write(self.path("haproxy.cfg"), main + BROKEN).expect("written");
    }

    fn repair_configuration(&self) {
        let main = fs::read_to_string(self.path("haproxy.cfg")).expect("there");
        fs::write(self.path("haproxy.cfg"), main.replace(BROKEN, "")).expect("written");
    }

    fn hostile(&self) -> Hostile {
        let template = format!(
            "{BACKENDS}\n{{% for s in services %}}{{% for b in s.backends %}}  http-request return status 200 \
             content-type text/plain string {{{{ b.tags.V }}}} if {{ path /{{{{ b.id }}}} }} # {{{{ b.tags.V }}}}\n\
             {{% endfor %}}{{% endfor %}}"
        );
        Hostile { template: Some(template), keys: String::new(), values: hostile::values(str::to_owned) }
    }

    fn read_values(&self, count: usize) -> BTreeMap<String, String> {
        hostile::asked(self.address, count)
    }
}
