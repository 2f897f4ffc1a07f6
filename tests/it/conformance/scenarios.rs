//! What every frontend must live through.

use std::path::PathBuf;

use serde_json::Value;

use super::hostile::{self, Hostile};
use super::{Frontend, Takes};
use crate::harness::backend::{Backend, FILE, entries, ids, three};
use crate::harness::elasticd::Elasticd;
use crate::harness::load::{Load, ask};
use crate::harness::nginx::inode;
use crate::harness::{until, until_or};

/// How many requests must not reach a drained backend.
const REQUESTS: usize = 60;

/// The service `web`, which may be empty.
fn service() -> String {
    FILE.replace("max_drop = '100%'", "max_drop = '100%', on_empty = 'accept'")
}

/// An elasticd that is not started yet, and knows of these backends.
fn elasticd(frontend: &dyn Frontend, more: &str, backends: &[Backend]) -> Elasticd {
    Elasticd::knowing(&format!("{}{}{more}", service(), frontend.section()), backends)
}

/// Starts elasticd, then the frontend, which finds its files in place, and waits until it is proven to run with these.
fn start(frontend: &mut dyn Frontend, elasticd: Elasticd, backends: &[Backend]) -> Elasticd {
    let elasticd = elasticd.ready();
    frontend.spawn();
    elasticd.await_proven(frontend.name(), "web", &ids(backends));
    await_backends(frontend, backends);
    elasticd
}

fn await_backends(frontend: &dyn Frontend, backends: &[Backend]) {
    if backends.is_empty() { frontend.await_none() } else { frontend.await_backends(&ids(backends)) }
}

/// Asserts that what is called proven is what the frontend runs, all with the weight 1.
fn assert_runs(frontend: &dyn Frontend, backends: &[Backend]) {
    frontend.assert_runs(&backends.iter().map(|backend| (backend, 1)).collect::<Vec<_>>());
}

fn count(elasticd: &Elasticd, frontend: &dyn Frontend, counter: &str) -> u64 {
    let status = elasticd.status();
    status["frontends"][frontend.name()][counter].as_u64().unwrap_or_else(|| panic!("no {counter}: {status:#}"))
}

fn is_in_phase(frontend: &dyn Frontend, phase: &'static str) -> impl Fn(&Value) -> bool {
    let name = frontend.name();
    move |status| status["frontends"][name]["phase"] == phase
}

fn written(frontend: &dyn Frontend) -> String {
    std::fs::read_to_string(frontend.output()).unwrap_or_default()
}

/// Asserts that nothing hidden is left where elasticd writes.
fn assert_tidy(frontend: &dyn Frontend, elasticd: &Elasticd) {
    assert_eq!(elasticd.hidden(&frontend.directory()), Vec::<PathBuf>::new());
}

/// Asserts that elasticd has applied nothing since this count.
fn assert_not_applied_since(frontend: &dyn Frontend, elasticd: &Elasticd, before: u64) {
    let allowed = before + u64::from(frontend.answers_early());
    let applies = count(elasticd, frontend, "applies");
    assert!((before..=allowed).contains(&applies), "{applies}, {before} before: {:#}", elasticd.status());
}

/// Restarts an elasticd that has ended, and asserts that it finds the frontend right and asks nothing of it.
fn assert_left_alone(frontend: &dyn Frontend, elasticd: &mut Elasticd, backends: &[Backend]) {
    let before = (frontend.process(), frontend.changes_taken(), inode(&frontend.output()));
    elasticd.restart();
    elasticd.await_ready();
    let status = elasticd.await_proven(frontend.name(), "web", &ids(backends));
    let report = &status["frontends"][frontend.name()];
    assert_eq!((&report["applies"], &report["reloads"]), (&0.into(), &0.into()), "{status:#}");
    assert_eq!((frontend.process(), frontend.changes_taken(), inode(&frontend.output())), before);
}

/// elasticd is killed (SIGKILL) at any moment of a change, and ends proven on the newest backends.
pub fn killed_at_any_moment(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let backends = three();
    let elasticd = elasticd(frontend, "", &backends[..1]);
    let mut elasticd = start(frontend, elasticd, &backends[..1]);
    let frontend = &*frontend;
    let process = frontend.process();
    elasticd.killed_amid_changes(frontend.name(), &backends, frontend.kills(), &frontend.directory(), |some| {
        assert_runs(frontend, some);
        frontend.await_backends(&ids(some));
    });
    if frontend.takes() == Takes::Live {
        assert_eq!(frontend.process(), process, "no needless reload: {}", elasticd.log());
    }
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_proven(frontend.name(), "web", &ids(&backends));
    frontend.await_backends(&ids(&backends));
    elasticd.kill();
    assert_left_alone(frontend, &mut elasticd, &backends);
}

/// The backends change again and again while clients ask: no request fails, and each change costs at most one reload.
pub fn changes_under_load(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let backends = three();
    let elasticd = elasticd(frontend, "", &backends[..1]);
    let elasticd = start(frontend, elasticd, &backends[..1]);
    let frontend = &*frontend;
    let process = frontend.process();
    let before = ["applies", "reloads"].map(|counter| count(&elasticd, frontend, counter));
    let load = frontend.address().map(|address| Load::start(address, 3));
    elasticd.changes(frontend.changes(), &backends, |some| {
        elasticd.await_proven(frontend.name(), "web", &ids(some));
        assert_runs(frontend, some);
    });
    let tally = load.map(Load::stop);
    let changes = u64::try_from(frontend.changes()).expect("few");
    let after = ["applies", "reloads"].map(|counter| count(&elasticd, frontend, counter));
    let [applies, reloads] = [after[0] - before[0], after[1] - before[1]];
    assert_eq!(applies, changes, "each change once: {:#}", elasticd.status());
    match frontend.takes() {
        Takes::Live => assert_eq!((reloads, frontend.process()), (0, process), "{:#}", elasticd.status()),
        Takes::Reload => assert_eq!(reloads, changes, "each change once: {:#}", elasticd.status()),
    }
    assert_eq!(count(&elasticd, frontend, "failures"), 0, "{}", elasticd.log());
    assert_tidy(frontend, &elasticd);
    if let Some(tally) = tally {
        assert_eq!(tally.answers.len(), 3, "every backend had its share: {tally:?}");
        frontend.judge(&tally, frontend.changes());
    }
}

/// Values that break configurations come as tags and zones: the frontend reads each back as it was, and nothing else.
pub fn hostile_values(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let Hostile { template, keys, values } = frontend.hostile();
    let keys = template.as_ref().map_or(keys.clone(), |_| format!("template = 'hostile.tpl'\n{keys}"));
    let elasticd = elasticd(frontend, &keys, &[]);
    if let Some(template) = template {
        elasticd.write("hostile.tpl", &template);
    }
    elasticd.write("backends.json", &hostile::instances(&values));
    let config = elasticd.read("elasticd.toml").replace("backends.yaml", "backends.json");
    std::fs::write(elasticd.path("elasticd.toml"), config).expect("written");
    let elasticd = elasticd.ready();
    frontend.spawn();
    elasticd.await_status("proven", is_in_phase(frontend, "proven"));
    let found = frontend.read_values(values.len());
    for (index, (value, expected)) in values.iter().enumerate() {
        let id = hostile::id(index);
        let found = found.get(&id);
        assert_eq!(found, Some(expected), "{id}: {value:?}\n{}", written(frontend));
    }
    assert_eq!(found.len(), values.len(), "nothing else is read: {found:?}");
}

/// A service becomes empty, and is so at the start: no request is answered, none hangs, and backends that come serve.
pub fn empty_pool(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let backends = three();
    let elasticd = elasticd(frontend, "", &[]);
    let elasticd = start(frontend, elasticd, &[]);
    let (process, reloads) = (frontend.process(), count(&elasticd, frontend, "reloads"));
    for some in [&backends[..], &[], &backends[1..], &[]] {
        elasticd.write("backends.yaml", &entries(some));
        elasticd.await_proven(frontend.name(), "web", &ids(some));
        assert_runs(frontend, some);
        await_backends(frontend, some);
    }
    if frontend.takes() == Takes::Live {
        assert_eq!((frontend.process(), count(&elasticd, frontend, "reloads")), (process, reloads));
    }
    assert_tidy(frontend, &elasticd);
}

/// A backend of weight 0 gets no request, and where all have it, none does.
pub fn drained(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let backends = three();
    let elasticd = elasticd(frontend, "", &backends);
    let elasticd = start(frontend, elasticd, &backends);
    let frontend = &*frontend;
    let (process, reloads) = (frontend.process(), count(&elasticd, frontend, "reloads"));
    let revision = elasticd.status()["revision"].as_u64().expect("a number");
    for (revision, weights) in (revision + 1..).zip([[0, 0, 1], [0, 3, 256], [0, 0, 0], [1, 1, 1]]) {
        let weighted: Vec<_> = backends.iter().zip(weights).collect();
        let entry =
            |(backend, weight): &(&Backend, u16)| backend.entry().replace("tags:", &format!("weight: {weight}, tags:"));
        elasticd.write("backends.yaml", &weighted.iter().map(entry).collect::<String>());
        let name = frontend.name();
        elasticd.await_status("proven", |status| status["frontends"][name]["proven_revision"] == revision);
        elasticd.await_proven(name, "web", &ids(&backends));
        frontend.assert_runs(&weighted);
        let serving: Vec<_> = weighted
            .iter()
            .filter(|(_, weight)| *weight > 0 || frontend.shows_drained())
            .map(|(backend, _)| backend.name.as_str())
            .collect();
        if serving.is_empty() {
            frontend.await_none()
        } else {
            frontend.await_backends(&serving)
        }
        if let (Some(address), [only]) = (frontend.address(), serving.as_slice()) {
            for _ in 0..REQUESTS {
                assert_eq!(ask(address), Some((200, (*only).to_owned())));
            }
        }
    }
    if frontend.takes() == Takes::Live {
        assert_eq!((frontend.process(), count(&elasticd, frontend, "reloads")), (process, reloads));
    }
}

/// A backend leaves a service with `drain`: at first it has the weight 0, and gets no more requests; then it is gone.
pub fn leaving(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let backends = three();
    let config = format!("{}drain = '3s'\n{}", service(), frontend.section());
    let elasticd = start(frontend, Elasticd::knowing(&config, &backends[..2]), &backends[..2]);
    let (process, reloads) = (frontend.process(), count(&elasticd, frontend, "reloads"));
    elasticd.write("backends.yaml", &entries(&backends[..1]));
    let known = || elasticd.get("/v1/services/web").2;
    until_or(
        || format!("b drains: {}", known()),
        || {
            let body: Value = serde_json::from_str(&known()).expect("JSON");
            let b = body["backends"].as_array()?.iter().find(|backend| backend["id"] == "b")?;
            (b["weight"] == 0).then_some(())
        },
    );
    until("it keeps its connections", || frontend.keeps_connections(&backends[1]).then_some(()));
    if !frontend.shows_drained() {
        frontend.await_backends(&["a"]);
    }
    elasticd.await_proven(frontend.name(), "web", &["a"]);
    assert_runs(frontend, &backends[..1]);
    frontend.await_backends(&["a"]);
    if frontend.takes() == Takes::Live {
        assert_eq!((frontend.process(), count(&elasticd, frontend, "reloads")), (process, reloads));
    }
}

/// Starts it once its files are old enough for elasticd to know that it was started after them.
fn spawn(frontend: &mut dyn Frontend) {
    let age = || std::fs::metadata(frontend.output()).ok()?.modified().ok()?.elapsed().ok();
    until("its files are old enough", || age().filter(|age| *age >= frontend.start_precision()));
    frontend.spawn();
}

/// A frontend that starts after elasticd, or is restarted, runs with the newest backends, and without a reload.
pub fn restarted(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let backends = three();
    let mut elasticd = elasticd(frontend, "", &backends[..1]).ready();
    let status = elasticd.status();
    assert!(is_in_phase(frontend, "not_running")(&status), "{status:#}");
    let error = status["frontends"][frontend.name()]["error"].as_str().expect("an error");
    assert!(error.contains(frontend.absence()), "{error}");
    let address = backends[0].ip().to_string();
    assert!(written(frontend).contains(&address), "in place for its start: {}", written(frontend));
    spawn(frontend);
    elasticd.await_proven(frontend.name(), "web", &["a"]);
    frontend.await_backends(&["a"]);

    // Another process, which has read what was in place.
    let (process, file) = (frontend.process(), inode(&frontend.output()));
    let applies = count(&elasticd, frontend, "applies");
    let is_known_by_pid = frontend.pid().is_some();
    frontend.stop();
    if !is_known_by_pid {
        elasticd.await_status("elasticd has noticed", is_in_phase(frontend, "not_running"));
    }
    spawn(frontend);
    let pid = frontend.pid();
    elasticd.await_status("adopted", |status| {
        is_in_phase(frontend, "proven")(status)
            && pid.is_none_or(|pid| status["frontends"][frontend.name()]["pid"] == pid)
    });
    frontend.await_backends(&["a"]);
    assert_ne!(frontend.process(), process);
    assert_eq!(count(&elasticd, frontend, "reloads"), 0, "{:#}", elasticd.status());
    if !frontend.forgets() {
        assert_eq!(inode(&frontend.output()), file, "not written again");
        assert_not_applied_since(frontend, &elasticd, applies);
    }

    // What changes while it is stopped is in place when it starts.
    frontend.stop();
    elasticd.write("backends.yaml", &entries(&backends[..2]));
    let address = backends[1].ip().to_string();
    until_or(|| format!("b in {}", written(frontend)), || written(frontend).contains(&address).then_some(()));
    elasticd.await_status("in place", is_in_phase(frontend, "not_running"));
    let applies = count(&elasticd, frontend, "applies");
    spawn(frontend);
    frontend.await_backends(&["a", "b"]);
    elasticd.await_proven(frontend.name(), "web", &["a", "b"]);
    if !frontend.forgets() {
        assert_not_applied_since(frontend, &elasticd, applies);
    }
    assert_eq!(count(&elasticd, frontend, "reloads"), 0, "{:#}", elasticd.status());

    // Further changes are taken as before.
    elasticd.write("backends.yaml", &entries(&backends));
    elasticd.await_proven(frontend.name(), "web", &["a", "b", "c"]);
    assert_runs(frontend, &backends);
    frontend.await_backends(&["a", "b", "c"]);
    assert_eq!(count(&elasticd, frontend, "reloads"), u64::from(frontend.takes() == Takes::Reload));

    // An elasticd that is restarted finds it as it should be.
    assert!(elasticd.stop().success());
    assert_left_alone(frontend, &mut elasticd, &backends);
    frontend.await_backends(&["a", "b", "c"]);
}

/// A candidate that the frontend refuses leaves it untouched; the refusal is logged once, in the frontend's own words.
pub fn refused_check(mut frontend: Box<dyn Frontend>) {
    let frontend = frontend.as_mut();
    let backends = three();
    let template = frontend.refused_template();
    let more = if template.is_some() { "template = 'refused.tpl'\n" } else { "" };
    let elasticd = elasticd(frontend, more, &backends[..1]);
    if let Some(text) = &template {
        elasticd.write("refused.tpl", text);
    }
    let elasticd = start(frontend, elasticd, &backends[..1]);
    let name = frontend.name();
    let (process, output, reloads) = (frontend.process(), written(frontend), count(&elasticd, frontend, "reloads"));
    let (configuration, changes_taken) = (frontend.configuration(), frontend.changes_taken());
    if template.is_none() {
        frontend.break_configuration();
    }
    elasticd.write("backends.yaml", &entries(&backends));
    let refusals = frontend.refusals();
    let status =
        elasticd.await_status("refused", |status| status["frontends"][name]["failures"].as_u64() >= Some(refusals));
    let error = status["frontends"][name]["error"].as_str().expect("an error");
    for part in frontend.refusal() {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    assert_eq!(error.matches(frontend.refusal()[0]).count(), 1, "the frontend's own word, once: {error}");
    assert_eq!(elasticd.logged(Elasticd::UPDATE_FAILED), 1, "said once: {}", elasticd.log());
    // Each further attempt may put the new file there and take it away again.
    let before = (&output, &configuration);
    until("all is as before", || ((&written(frontend), &frontend.configuration()) == before).then_some(()));
    assert_eq!(frontend.process(), process, "nothing changed");
    let taken = if frontend.takes_what_the_check_refuses() { &backends[..] } else { &backends[..1] };
    assert_runs(frontend, taken);
    frontend.await_backends(&ids(taken));
    if template.is_none() {
        assert_eq!(count(&elasticd, frontend, "reloads"), reloads, "never reloaded");
    }
    if template.is_none() && !frontend.takes_what_the_check_refuses() {
        assert_eq!(frontend.changes_taken(), changes_taken, "nothing was asked of it");
    }
    assert_eq!(elasticd.get("/v1/services/web").2.matches("\"id\"").count(), 3, "the socket is not held up");

    // It is repaired, and elasticd finds out by itself; a template is good again without `b`.
    let some = if template.is_some() {
        elasticd.write("backends.yaml", &entries([&backends[0], &backends[2]]));
        vec!["a", "c"]
    } else {
        frontend.repair_configuration();
        vec!["a", "b", "c"]
    };
    elasticd.await_proven(name, "web", &some);
    frontend.await_backends(&some);
    assert_ne!(written(frontend), output);
    assert_eq!(elasticd.logged(Elasticd::RECOVERED), 1, "{}", elasticd.log());
    assert_tidy(frontend, &elasticd);
}
