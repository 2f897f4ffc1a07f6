//! Apache, restarted gracefully for each change.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::apache_syntax::readable;
use crate::harness::apache::{Apache, apache2};
use crate::harness::backend::Backend;
use crate::harness::load::{Load, Tally};
use crate::harness::until;

const BALANCERS: &str = include_str!("../../../templates/apache/balancers.conf");

/// In its conf.d.
const BROKEN: &str = "broken.conf";

/// What clients see while the same graceful restarts are asked for by hand, with nothing changed in between, of at least as
/// many requests.
fn by_hand(apache: &Apache, restarts: usize, requests: usize) -> Tally {
    let mut all = Tally::default();
    while all.total() < requests {
        let load = Load::start(apache.address, 3);
        for _ in 0..restarts {
            let before = apache.generation().expect("a status");
            apache.graceful();
            until("restarted", || (apache.generation()? > before).then_some(()));
        }
        all.add(load.stop());
    }
    all
}

impl Frontend for Apache {
    fn name(&self) -> &'static str {
        "apache"
    }

    fn takes(&self) -> Takes {
        Takes::Reload
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
        self.conf_d()
    }

    fn output(&self) -> PathBuf {
        self.conf_d().join("elasticd.conf")
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn process(&self) -> String {
        format!("{} {}", self.parent(), self.generation().expect("a status"))
    }

    fn pid(&self) -> Option<u32> {
        Some(self.parent())
    }

    fn changes_taken(&self) -> String {
        self.restarts().to_string()
    }

    fn await_backends(&self, ids: &[&str]) {
        self.await_answers(ids);
    }

    fn assert_runs(&self, backends: &[(&Backend, u16)]) {
        let balancers = self.balancers();
        for (backend, _) in backends {
            assert!(balancers.contains(&backend.address.to_string()), "{balancers}");
        }
        let drained = backends.iter().filter(|(_, weight)| *weight == 0).count();
        assert_eq!(balancers.matches("status=+N").count(), drained, "{balancers}");
    }

    fn start_precision(&self) -> Duration {
        // mod_status says in whole seconds how long it has run.
        Duration::from_secs(if self.has_api { 2 } else { 0 })
    }

    fn kills(&self) -> (u64, u64) {
        (15, 200)
    }

    fn judge(&self, tally: &Tally, changes: usize) {
        println!("{} of {} failed: {:?}", tally.failures.len(), tally.total(), tally.failures);
        if !tally.failures.is_empty() {
            // Apache itself drops some, about one in ten thousand: more than twice what it drops by hand, and three, is more
            // than chance.
            let hand = by_hand(self, changes, tally.total());
            println!("by hand: {} of {} failed", hand.failures.len(), hand.total());
            assert!(tally.failures.len() <= 2 * hand.failures.len() + 3, "{:?}; by hand {hand:?}", tally.failures);
        }
        assert!(tally.total() > 0, "no request was made");
    }

    fn refusal(&self) -> &'static [&'static str] {
        &["NoSuchDirective", "Invalid command 'NoSuchDirective'", "was broken already, without this change"]
    }

    fn break_configuration(&self) {
        fs::write(self.conf_d().join(BROKEN), "NoSuchDirective\n").expect("written");
    }

    fn repair_configuration(&self) {
        fs::remove_file(self.conf_d().join(BROKEN)).expect("removed");
    }

    fn hostile(&self) -> Hostile {
        let template = format!(
            "{BALANCERS}\n{{% for s in services %}}{{% for b in s.backends %}}# {{{{ b.tags.V }}}}\n\
             Define t{{{{ b.id }}}} \"{{{{ b.tags.V }}}}\"\n{{% endfor %}}{{% endfor %}}"
        );
        Hostile { template: Some(template), keys: String::new(), values: hostile::values(readable) }
    }

    fn read_values(&self, _count: usize) -> BTreeMap<String, String> {
        let (accepted, said) = apache2(&self.path("apache2.conf"), &["-t", "-D", "DUMP_RUN_CFG"]);
        assert!(accepted, "{said}");
        let define = |line: &str| {
            let (name, value) = line.strip_prefix("Define: t")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        said.split('\n').filter_map(define).collect()
    }
}
