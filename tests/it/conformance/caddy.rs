//! Caddy, changed over its admin API, by JSON and by a Caddyfile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::caddy_syntax::{found, readable};
use crate::harness::backend::Backend;
use crate::harness::caddy::{Caddy, Form};

/// Where Caddy's admin API listens if nothing says otherwise.
const DEFAULT_ADMIN: u16 = 2019;

/// Not yet started, by JSON. A second handler is given the same backends.
pub fn json() -> Caddy {
    let caddy = Caddy::new(Form::Json);
    caddy.configure(&caddy.json(&["elasticd_web", "elasticd_z"]).to_string());
    caddy
}

/// Not yet started, by a Caddyfile.
pub fn caddyfile() -> Caddy {
    Caddy::new(Form::Caddyfile)
}

/// Two handlers, of which `elasticd_z` gets a list that no Caddy takes where there is a backend `b`.
const REFUSED: &str = "{%- for s in services %}{\"elasticd_web\": [\n{%- for b in s.backends %}{\"dial\": {{ b | hostport }} }\n\
                       {%- if not loop.last %},{% endif %}{% endfor %}],\n\
                       \"elasticd_z\": [{%- for b in s.backends %}{\"dial\":\n\
                       {%- if b.id | eq: \"b\" %} 7 {%- else %} {{ b | hostport }} {%- endif %} }\n\
                       {%- if not loop.last %},{% endif %}{% endfor %}] }{% endfor %}\n";

/// A snippet with each value at the end of a line and in a comment.
const HOSTILE: &str = "{% for s in services %}({{ s.name }}) {\n{% for b in s.backends %}\tto {{ b | hostport }}\n\
                       \theader_down X-{{ b.id }} {{ b.tags.V }} # {{ b.tags.V }}\n{% endfor %}\n}\n{% endfor %}";

impl Frontend for Caddy {
    fn name(&self) -> &'static str {
        "caddy"
    }

    fn takes(&self) -> Takes {
        Takes::Live
    }

    fn spawn(&mut self) {
        self.spawn(&[]);
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
        self.output_path()
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn process(&self) -> String {
        self.child_pid().to_string()
    }

    fn changes_taken(&self) -> String {
        let log = self.log();
        format!("{} {}", log.matches("\"method\":\"PATCH\"").count(), log.matches("load complete").count())
    }

    fn await_backends(&self, ids: &[&str]) {
        self.await_answers(ids);
    }

    fn assert_runs(&self, backends: &[(&Backend, u16)]) {
        let right: Vec<_> =
            backends.iter().filter(|(_, weight)| *weight > 0).map(|(backend, _)| backend.address.to_string()).collect();
        let running = self.running();
        let servers = running["apps"]["http"]["servers"].as_object().expect("servers");
        assert_eq!(servers.len(), 1, "{running:#}");
        let proxies = found(&running, "handler", "reverse_proxy");
        let dial = |upstream: &Value| upstream["dial"].as_str().expect("an address").to_owned();
        let upstreams =
            |proxy: &Value| proxy["upstreams"].as_array().map_or_else(Vec::new, |list| list.iter().map(dial).collect());
        let web = proxies.iter().find(|proxy| proxy.get("@id").is_none_or(|id| id == "elasticd_web")).expect("a proxy");
        assert_eq!(upstreams(web), right, "{running:#}");
        for (backend, _) in backends.iter().filter(|(_, weight)| *weight == 0) {
            assert!(!self.output().contains(&backend.address.to_string()), "{}", self.output());
        }
    }

    fn forgets(&self) -> bool {
        self.form == Form::Json
    }

    fn configuration(&self) -> String {
        assert!(self.listens_on(self.address.port()), "that is how a listener would be seen");
        assert!(!self.listens_on(DEFAULT_ADMIN), "its admin API has not moved: {}", self.log());
        self.running().to_string()
    }

    fn changes(&self) -> usize {
        if self.form == Form::Json { 100 } else { 20 }
    }

    fn kills(&self) -> (u64, u64) {
        (12, 400)
    }

    fn refusal(&self) -> &'static [&'static str] {
        match self.form {
            Form::Json => &["cannot unmarshal number", "elasticd_z", "refuses"],
            Form::Caddyfile => &["no_such_word", "was broken already, without this change"],
        }
    }

    fn refused_template(&self) -> Option<String> {
        (self.form == Form::Json).then(|| REFUSED.to_owned())
    }

    fn break_configuration(&self) {
        self.configure(&self.caddyfile("\t\tno_such_word\n"));
    }

    fn repair_configuration(&self) {
        self.configure(&self.caddyfile(""));
    }

    fn hostile(&self) -> Hostile {
        Hostile { template: Some(HOSTILE.to_owned()), keys: String::new(), values: hostile::values(readable) }
    }

    fn read_values(&self, _count: usize) -> BTreeMap<String, String> {
        let running = self.running();
        let proxies = found(&running, "handler", "reverse_proxy");
        let [proxy] = proxies.as_slice() else { panic!("one proxy: {running:#}") };
        let headers = proxy["headers"]["response"]["set"].as_object().expect("headers");
        let value = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([value]) => value.as_str().expect("text").to_owned(),
            _ => panic!("one value: {value}"),
        };
        let id = |name: &str| name.strip_prefix("X-").expect("such a name").to_lowercase();
        headers.iter().map(|(name, list)| (id(name), value(list))).collect()
    }
}
