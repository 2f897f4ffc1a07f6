//! One suite for all frontends: each scenario is run with each real frontend, as a test of its own.
//!
//! A frontend is a [`Frontend`]: how it is started and stopped, what it serves, and what it can show of itself. What only
//! one frontend does is tested in the file of its name beside this folder.

mod apache;
mod caddy;
mod envoy;
mod haproxy;
mod hostile;
mod nginx;
mod prometheus;
mod scenarios;
mod varnish;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::caddy::in_own_network;
use crate::harness::load::{Tally, ask};

/// How a frontend takes a change of backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// While it runs, without a reload.
    Live,
    /// By a reload for each change.
    Reload,
}

/// A real frontend that proxies everything to the service `web`, or watches its backends.
pub trait Frontend {
    /// Its name in elasticd's configuration and status.
    fn name(&self) -> &'static str;

    /// How it takes changes.
    fn takes(&self) -> Takes;

    /// Starts it with the files as they are, and waits until it runs.
    fn spawn(&mut self);

    /// Ends it, and waits until it has ended.
    fn stop(&mut self);

    /// What elasticd needs to know of it, as `[frontends.NAME]`.
    fn section(&self) -> String;

    /// The directory that elasticd writes to.
    fn directory(&self) -> PathBuf;

    /// The file that elasticd writes.
    fn output(&self) -> PathBuf;

    /// Where it takes requests. `None`: it takes none.
    fn address(&self) -> Option<SocketAddr>;

    /// What runs: another text after a restart or a reload.
    fn process(&self) -> String;

    /// The PID by which elasticd knows it. `None`: elasticd knows it by its runtime API.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// What it says of the changes that it took: another text after anything was asked of it, by elasticd or by others.
    fn changes_taken(&self) -> String;

    /// Waits until exactly these backends serve, or are watched.
    fn await_backends(&self, ids: &[&str]);

    /// Waits until it has no backend that it could send a request to.
    fn await_none(&self) {
        let address = self.address().expect("it takes requests");
        crate::harness::until("503", || (ask(address)?.0 == 503).then_some(()));
    }

    /// Asserts that it runs with exactly these backends and weights at this moment, as far as it can be asked.
    fn assert_runs(&self, backends: &[(&Backend, u16)]);

    /// What it runs, as far as it can show all of it: compared before and after a candidate that it refused.
    fn configuration(&self) -> String {
        String::new()
    }

    /// Whether a backend of weight 0 keeps the connections that it has.
    fn keeps_connections(&self, _backend: &Backend) -> bool {
        true
    }

    /// How precisely elasticd can know when it was started: a start sooner after its files were written costs a reload.
    fn start_precision(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether it may answer elasticd before it has read its files after a start, so that they are written once more.
    fn answers_early(&self) -> bool {
        false
    }

    /// Whether it shows backends of weight 0 like all others.
    fn shows_drained(&self) -> bool {
        false
    }

    /// Whether it must be given its backends again after a restart: it has not read them, or cannot show that it did.
    fn forgets(&self) -> bool {
        false
    }

    /// How many changes are made under load.
    fn changes(&self) -> usize {
        20
    }

    /// How often elasticd is killed, and how many milliseconds after a change at most.
    fn kills(&self) -> (u64, u64);

    /// Judges what clients saw during these many changes.
    fn judge(&self, tally: &Tally, _changes: usize) {
        tally.assert_none_failed();
    }

    /// What elasticd says if it does not run.
    fn absence(&self) -> &'static str {
        ""
    }

    /// What elasticd says when the frontend refuses a candidate: the first is the frontend's own word, which must be said
    /// once, the others may be repeated.
    fn refusal(&self) -> &'static [&'static str];

    /// A template whose result the frontend refuses as soon as there is a backend `b`. `None`: the frontend's
    /// own configuration is broken instead, so that no candidate passes.
    fn refused_template(&self) -> Option<String> {
        None
    }

    /// Breaks its own configuration, which it does not read by itself.
    fn break_configuration(&self) {
        unreachable!("a template is refused");
    }

    /// Repairs its own configuration.
    fn repair_configuration(&self) {
        unreachable!("a template is refused");
    }

    /// Whether a change that the check refuses reaches it over its runtime API nevertheless, as far as that can make it.
    fn takes_what_the_check_refuses(&self) -> bool {
        false
    }

    /// How often a refusal is repeated before it is looked at.
    fn refusals(&self) -> u64 {
        2
    }

    /// How it is made to show hostile values, before it is started.
    fn hostile(&self) -> hostile::Hostile;

    /// What it shows of that many hostile values, by the backends' ids.
    fn read_values(&self, count: usize) -> BTreeMap<String, String>;
}

/// A test for each scenario that is named, with the frontend that the expression makes.
macro_rules! conformance {
    ($module:ident, $within:expr, $frontend:expr, [$($scenario:ident),+ $(,)?]) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $scenario() {
                    $within(|| scenarios::$scenario(Box::new($frontend)));
                }
            )+
        }
    };
    ($module:ident, $within:expr, $frontend:expr) => {
        conformance!($module, $within, $frontend, [
            killed_at_any_moment,
            changes_under_load,
            hostile_values,
            empty_pool,
            drained,
            leaving,
            restarted,
            refused_check,
        ]);
    };
}

fn here(test: impl FnOnce() + Send) {
    test();
}

conformance!(nginx_http, here, nginx::http());
conformance!(nginx_stream, here, nginx::stream());
conformance!(haproxy_runtime, here, crate::harness::haproxy::Haproxy::new());
conformance!(varnish_cli, here, crate::harness::varnish::Varnish::new());
conformance!(apache_event, here, crate::harness::apache::Apache::new());
conformance!(apache_mod_status, here, crate::harness::apache::Apache::new().with_api(), [restarted]);
conformance!(apache_prefork, here, crate::harness::apache::Apache::with_mpm("prefork"), [changes_under_load]);
// Without hostile values: all that reaches it are addresses.
conformance!(
    caddy_json,
    in_own_network,
    caddy::json(),
    [killed_at_any_moment, changes_under_load, empty_pool, drained, leaving, restarted, refused_check]
);
conformance!(caddy_caddyfile, in_own_network, caddy::caddyfile());
conformance!(envoy_tcp, here, crate::harness::envoy::Envoy::new());
conformance!(envoy_unix, here, crate::harness::envoy::Envoy::on_unix_socket(), [empty_pool]);
conformance!(prometheus_targets, here, crate::harness::prometheus::Prometheus::new());
