//! The service `web` is changed again and again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::backend::{Backend, entries, ids};
use super::elasticd::Elasticd;
use super::load::{Load, Tally};

impl Elasticd {
    /// Changes its backends `count` times, and lets `each` see to it that a change has arrived.
    pub fn changes(&self, count: usize, backends: &[Backend; 3], mut each: impl FnMut(&[Backend])) {
        for round in 0..count {
            // a and b, all, a and b, a alone, ...
            let some = &backends[..[2, 3, 2, 1][round % 4]];
            self.write("backends.yaml", &entries(some));
            each(some);
        }
    }

    /// The same while three clients ask this address: what they saw.
    pub fn changes_under_load(
        &self,
        address: SocketAddr,
        count: usize,
        backends: &[Backend; 3],
        each: impl FnMut(&[Backend]),
    ) -> Tally {
        let load = Load::start(address, 3);
        self.changes(count, backends, each);
        let tally = load.stop();
        assert_eq!(tally.answers.len(), 3, "every backend had its share: {tally:?}");
        tally
    }

    /// Is killed and started again in `rounds` changes, each time up to `within` milliseconds after the change. Each
    /// ends proven on the newest, and leaves nothing hidden in `outputs`; `each` looks at the frontend itself.
    pub fn killed_amid_changes(
        &mut self,
        frontend: &str,
        backends: &[Backend; 3],
        (rounds, within): (u64, u64),
        outputs: &Path,
        mut each: impl FnMut(&[Backend]),
    ) {
        let mut revision = 0;
        for round in 0..rounds {
            let some = &backends[..1 + usize::try_from(round).expect("small") % 3];
            self.write("backends.yaml", &entries(some));
            // From before the change is seen to after it is proven, in odd steps.
            sleep(Duration::from_millis(round * 37 % within));
            self.kill();
            self.restart();
            self.await_answer();
            self.await_status("known", |status| !status["revision"].is_null());
            let status = self.await_effect(frontend, "web", &ids(some));
            let now = status["revision"].as_u64().expect("a number");
            assert!(now >= revision, "revision {now} after {revision}");
            revision = now;
            each(some);
            assert_eq!(self.hidden(outputs), Vec::<PathBuf>::new(), "round {round}");
        }
    }
}
