//! A provider that flaps between full, empty and half.

use std::fs;
use std::time::{Duration, SystemTime};

use elasticd::config::Config;
use elasticd::model::Instance;
use elasticd::provider::{ApiUsage, Error, Observation};
use elasticd::registry::{Event, Registry};

use crate::Fault;

pub const FLAPPING: Fault = Fault {
    name: "flapping",
    what: "polls that bring all 20 instances, half of them, none, or an error; now and then another start. One service may \
           lose half at once, one a quarter unless it is seen 3 times in a row",
    rounds: (1000, 10_000),
    run: flapping,
};

const ALL: usize = 20;

/// So many times in a row half of all must be seen where that is too large a drop.
const CONFIRM: u32 = 3;

fn flapping(rounds: u32, random: &mut fastrand::Rng) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display();
    let instances: String = (0..ALL).map(|n| format!("{{ id = 'i-{n:02}', address = '10.0.0.{n}:80' }},")).collect();
    let text = format!(
        "state_dir = '{at}'\n[providers.p]\ntype = 'fixed'\ninstances = [{instances}]\n[services.web]\nprovider = 'p'\n\
         [services.strict]\nprovider = 'p'\nguard = {{ max_drop = '25%', confirm = {CONFIRM} }}\n"
    );
    let file = dir.path().join("elasticd.toml");
    fs::write(&file, text).expect("written");
    let config = Config::load(&file).expect("valid");
    let provider = config.providers.values().next().expect("one");
    let mut built = provider.config.build(&elasticd::provider::BuildContext {
        selectors: &[],
        unconfined: &elasticd::sys::unconfined::Unconfined::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let all: Vec<Instance> = runtime.block_on(built.discover()).expect("fixed");
    assert_eq!(all.len(), ALL);
    let broken = dir.path().join("none");
    let mut registry = Registry::build(config.settings(), dir.path());
    let (mut revision, mut least, mut held, mut starts) = (0, ALL, 0, 0);
    let (mut in_a_row, mut strict, mut falls) = (0, 0, 0);
    for round in 0..rounds {
        let result = match if round == 0 { 0 } else { random.u8(0..8) } {
            0..3 => Ok(all.clone()),
            3..5 => Ok(all[..ALL / 2].to_vec()),
            5 | 6 => Ok(Vec::new()),
            _ => {
                let missing = elasticd::provider::file::Config { path: broken.clone() };
                let mut missing = elasticd::provider::file::File::new(&missing);
                Err(Error::from(runtime.block_on(missing.discover()).expect_err("it is not there")))
            }
        };
        let provider = "p".parse().expect("a name");
        let (took, cost) = (Duration::from_millis(1), ApiUsage::default());
        // An error says nothing of how many there are.
        in_a_row = match &result {
            Ok(some) if some.len() == ALL / 2 => in_a_row + 1,
            Ok(_) => 0,
            Err(_) => in_a_row,
        };
        registry.handle(Event::Observed(Observation { provider, at: SystemTime::now(), took, cost, result }));
        let snapshot = registry.snapshots().borrow().clone().expect("known");
        let backends = |name: &str| snapshot.services[name].backends.len();
        least = least.min(backends("web"));
        assert!(least >= ALL / 2, "round {round}: {least} backends");
        let now = backends("strict");
        assert!(now >= ALL / 2, "round {round}: {now} backends");
        if now < strict {
            falls += 1;
            assert!(in_a_row >= CONFIRM, "round {round}: {now} backends after {strict}, seen {in_a_row} times");
        }
        strict = now;
        assert!(snapshot.revision >= revision, "revision {} after {revision}", snapshot.revision);
        revision = snapshot.revision;
        held += u32::from(registry.report().borrow().services.values().any(|s| s.status.held.is_some()));
        // What was suspected is forgotten at a start, and seen anew.
        if random.u8(..) == 0 {
            registry = Registry::build(config.settings(), dir.path());
            starts += 1;
        }
    }
    assert!(held > 0 && falls > 0);
    format!(
        "nothing: never fewer than {least} of {ALL} served, {held} answers held back, {falls} falls of the second service, \
         each seen {CONFIRM} times; {starts} starts, revision {revision}"
    )
}
