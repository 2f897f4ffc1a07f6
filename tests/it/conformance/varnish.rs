//! Varnish, changed over its management interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::harness::backend::Backend;
use crate::harness::varnish::Varnish;
use crate::varnish_syntax::readable;

const BACKENDS: &str = include_str!("../../../templates/varnish/backends.vcl");

impl Frontend for Varnish {
    fn name(&self) -> &'static str {
        "varnish"
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
        self.dir().to_owned()
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
        let active = self.active();
        assert!(active.starts_with("elasticd_"), "{active}");
        active
    }

    fn await_backends(&self, ids: &[&str]) {
        self.await_answers(ids);
    }

    fn assert_runs(&self, backends: &[(&Backend, u16)]) {
        // What runs is what it was given, not what is in the file by now.
        let running = self.adm(&["vcl.show", "-v", &self.active()]);
        for (backend, weight) in backends {
            let host = format!("\"{}\"", backend.ip());
            assert!(*weight == 0 || running.contains(&host), "{host}: {running}");
        }
    }

    fn forgets(&self) -> bool {
        true
    }

    fn kills(&self) -> (u64, u64) {
        (15, 500)
    }

    fn refusal(&self) -> &'static [&'static str] {
        &["'sett'", "the frontend refuses"]
    }

    fn break_configuration(&self) {
        self.configure(&self.including().replace("set req", "sett req"));
    }

    fn repair_configuration(&self) {
        self.configure(&self.including());
    }

    fn hostile(&self) -> Hostile {
        let show = "if (req.url != \"/\") { return (synth(200)); }\n    set req.backend_hint";
        self.configure(&self.including().replace("set req.backend_hint", show));
        let template = format!(
            "{BACKENDS}\n{{% for s in services %}}{{% for b in s.backends %}}sub vcl_synth {{ # {{{{ b.tags.V }}}}\n    \
             /* {{{{ b.tags.V }}}} */\n    \
             if (req.url == \"/{{{{ b.id }}}}\") {{ synthetic(\"{{{{ b.tags.V }}}}\"); return (deliver); }}\n}}\n\
             {{% endfor %}}{{% endfor %}}"
        );
        Hostile { template: Some(template), keys: String::new(), values: hostile::values(readable) }
    }

    fn read_values(&self, count: usize) -> BTreeMap<String, String> {
        hostile::asked(self.address, count)
    }
}
