//! A fleet on one poll: real publishers, real sidecars, real NATS servers, and what goes wrong between them.

use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::doctor::Found;
use crate::harness::elasticd::Elasticd;
use crate::harness::fleet::{
    await_backends, await_error, await_fleet, await_lead, backends, fleet, observe, publisher, publisher_with, reader,
    reader_with,
};
use crate::harness::nats::{Line, Nats};
use crate::harness::{BoundedCommand as _, until};

/// What would be another one if the sidecar's file had been touched.
fn file(reader: &Elasticd) -> (u64, i64, i64) {
    let meta = std::fs::metadata(reader.path("out.json")).expect("written");
    (meta.ino(), meta.mtime(), meta.mtime_nsec())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The position of the set that a sidecar has.
fn position(reader: &Elasticd) -> (u64, u64) {
    let fleet = fleet(reader);
    let prod = &fleet["readers"]["prod"];
    (number(&prod["term"]), number(&prod["sequence"]))
}

fn polls(publisher: &Elasticd) -> u64 {
    number(&fleet(publisher)["publisher"]["providers"]["prod"]["polls"])
}

#[test]
fn all_sidecars_get_what_the_leader_observes_and_only_it_polls() {
    let nats = Nats::start();
    let first = publisher(&nats.url(), &["a", "bb"]);
    await_lead(&first);
    let second = publisher(&nats.url(), &["a", "bb"]);
    let readers = [reader(&nats.url()), reader(&nats.url())];
    readers.iter().for_each(|reader| await_backends(reader, &["a", "bb"]));
    let before = file(&readers[0]);
    let polled = polls(&first);
    until("the leader polls on", || (polls(&first) > polled + 3).then_some(()));
    assert_eq!(polls(&second), 0, "a standby does not poll");
    assert_eq!(file(&readers[0]), before, "unchanged polls touch nothing");
    observe(&first, &["a", "bb", "ccc"]);
    readers.iter().for_each(|reader| await_backends(reader, &["a", "bb", "ccc"]));
    await_fleet(&readers[0], "the readers are counted", |fleet| fleet["readers"]["prod"]["readers"] == 2);
    let (code, shown, _) = readers[0].run(&["fleet"]);
    assert!(code == 0 && shown.contains("shop") && shown.contains("elasticd"), "{shown}");
    let (_, json, _) = second.run(&["fleet", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["publisher"]["is_leader"], false);
    assert!(json["publisher"]["leader"].is_string());
}

#[test]
fn a_standby_takes_over_from_a_leader_that_was_killed() {
    let nats = Nats::start();
    let mut first = publisher(&nats.url(), &["a"]);
    let term = number(&await_lead(&first)["publisher"]["term"]);
    let second = publisher(&nats.url(), &["a"]);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a"]);
    let (before, stood) = (file(&reader), position(&reader));
    first.kill();
    let led = await_lead(&second);
    assert!(number(&led["publisher"]["term"]) > term);
    until("the new leader polls", || (polls(&second) > 2).then_some(()));
    assert_eq!(file(&reader), before, "the same backends from another leader touch nothing");
    observe(&second, &["a", "bb"]);
    await_backends(&reader, &["a", "bb"]);
    assert!(position(&reader) > stood);
    // It comes back, and finds its place taken.
    first.restart();
    await_fleet(&first, "it stands by", |fleet| fleet["publisher"]["leader"].is_string());
    assert_eq!((polls(&first), fleet(&second)["publisher"]["is_leader"] == true), (0, true));
}

#[test]
fn a_leader_that_is_stopped_hands_over() {
    let nats = Nats::start();
    // So long that no standby would take over within the test by waiting.
    let ttl = "leader_ttl = '10m'";
    let config = |url: &str| crate::harness::fleet::publishing(url, "").replace("leader_ttl = '2s'", ttl);
    let mut first = Elasticd::new(&config(&nats.url())).ready();
    await_lead(&first);
    first.stop();
    let second = Elasticd::new(&config(&nats.url())).ready();
    await_lead(&second);
}

#[test]
fn a_leader_that_was_paused_cannot_overwrite_its_successor() {
    let nats = Nats::start();
    let first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    let second = publisher(&nats.url(), &["a"]);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a"]);
    for round in 0..3 {
        let (paused, leads) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let taken = number(&fleet(leads)["publisher"]["takeovers"]);
        paused.signal(Signal::SIGSTOP);
        await_fleet(leads, "it takes over", |fleet| number(&fleet["publisher"]["takeovers"]) > taken);
        let name = "x".repeat(round + 3);
        observe(leads, &[&name]);
        await_backends(&reader, &[&name]);
        let stood = position(&reader);
        // What it will have seen when it wakes up: a poll that is due, a file that changed, a lead it believes in.
        observe(paused, &["stale"]);
        paused.signal(Signal::SIGCONT);
        await_fleet(paused, "it has noticed", |fleet| fleet["publisher"]["is_leader"] == false);
        let polled = polls(leads);
        until("the successor goes on", || (polls(leads) > polled + 3).then_some(()));
        assert_eq!(backends(&reader).expect("a file"), [name], "round {round}");
        assert_eq!(position(&reader), stood);
        assert_eq!(fleet(leads)["publisher"]["is_leader"], true);
        observe(paused, &["a"]);
    }
}

#[test]
fn a_partition_that_isolates_the_leader_ends_its_lead() {
    let nats = Nats::start();
    let line = Line::to(nats.address());
    let first = publisher(&line.url(), &["a"]);
    await_lead(&first);
    let second = publisher(&nats.url(), &["a"]);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a"]);
    line.cut(true);
    // What it observes now waits on the line, and arrives later.
    observe(&first, &["stale"]);
    await_fleet(&first, "it gives up by itself", |fleet| fleet["publisher"]["is_leader"] == false);
    let polled = polls(&first);
    await_lead(&second);
    observe(&second, &["a", "bb"]);
    await_backends(&reader, &["a", "bb"]);
    assert_eq!(polls(&first), polled, "who does not lead does not poll");
    line.cut(false);
    await_fleet(&first, "it stands by", |fleet| fleet["publisher"]["error"].is_null());
    let polled = polls(&second);
    until("the successor goes on", || (polls(&second) > polled + 3).then_some(()));
    assert_eq!(backends(&reader).expect("a file"), ["a", "bb"]);
    assert_eq!(fleet(&first)["publisher"]["is_leader"], false);
}

#[test]
fn a_set_that_could_not_be_stored_is_tried_again_without_another_poll() {
    let nats = Nats::start();
    let line = Line::to(nats.address());
    let config = crate::harness::fleet::publishing(&line.url(), "");
    let first = Elasticd::new(&config.replace("300ms", "10m").replace("'2s'", "'60s'"));
    observe(&first, &["a"]);
    let first = first.ready();
    await_lead(&first);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a"]);
    line.cut(true);
    observe(&first, &["a", "bb"]);
    await_error(&first, "published", &["NATS could not"]);
    let polled = polls(&first);
    line.cut(false);
    await_backends(&reader, &["a", "bb"]);
    assert_eq!(polls(&first), polled);
    await_fleet(&first, "nothing is wrong any more", |fleet| {
        fleet["publisher"]["providers"]["prod"]["error"].is_null()
    });
}

#[test]
fn a_reader_behind_a_silent_connection_keeps_its_set_and_catches_up() {
    let nats = Nats::start();
    let line = Line::to(nats.address());
    let first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    let reader = reader(&line.url());
    await_backends(&reader, &["a"]);
    line.cut(true);
    observe(&first, &["a", "bb"]);
    await_error(&reader, "reader", &["NATS"]);
    assert_eq!(backends(&reader).expect("a file"), ["a"]);
    line.cut(false);
    await_backends(&reader, &["a", "bb"]);
    await_fleet(&reader, "nothing is wrong any more", |fleet| fleet["readers"]["prod"]["error"].is_null());
}

#[test]
fn an_emptied_store_is_filled_again_without_a_change_for_readers() {
    let mut nats = Nats::start();
    let first = publisher(&nats.url(), &["a", "bb"]);
    await_lead(&first);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a", "bb"]);
    let (before, stood) = (file(&reader), position(&reader));
    nats.lose();
    nats.spawn();
    await_fleet(&reader, "a later set", |fleet| {
        fleet["readers"]["prod"]["term"].as_u64().is_some_and(|term| term > stood.0)
    });
    assert_eq!(file(&reader), before);
    observe(&first, &["a", "bb", "ccc"]);
    await_backends(&reader, &["a", "bb", "ccc"]);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).bounded_output().status;
    assert!(status.success());
}

#[test]
fn an_older_store_is_not_applied_until_a_leader_is_above_it() {
    let mut nats = Nats::start();
    let mut first = publisher(&nats.url(), &["old"]);
    await_lead(&first);
    let mut reader = reader(&nats.url());
    await_backends(&reader, &["old"]);
    first.stop();
    nats.kill();
    copy(&nats.path("js"), &nats.path("backup"));
    nats.spawn();
    first.restart();
    await_lead(&first);
    observe(&first, &["new"]);
    await_backends(&reader, &["new"]);
    let before = file(&reader);
    first.stop();
    nats.lose();
    copy(&nats.path("backup"), &nats.path("js"));
    nats.spawn();
    await_error(&reader, "reader", &["older than the set", "not applied", "fleet-prod.json"]);
    // A restart forgets nothing.
    reader.kill();
    reader.restart();
    reader.await_answer();
    await_error(&reader, "reader", &["older than the set", "not applied"]);
    assert_eq!((backends(&reader).expect("a file"), file(&reader)), (vec!["new".to_owned()], before));
    first.restart();
    await_fleet(&reader, "nothing is wrong any more", |fleet| fleet["readers"]["prod"]["error"].is_null());
    assert_eq!(file(&reader), before);
}

#[test]
fn a_publisher_with_a_stale_cache_that_comes_last_publishes_nothing() {
    let nats = Nats::start();
    let first = publisher(&nats.url(), &["a", "bb"]);
    await_lead(&first);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a", "bb"]);
    let before = file(&reader);
    let stale = publisher(&nats.url(), &["stale"]);
    await_fleet(&stale, "it stands by", |fleet| fleet["publisher"]["leader"].is_string());
    let polled = polls(&first);
    until("the leader goes on", || (polls(&first) > polled + 3).then_some(()));
    assert_eq!((polls(&stale), file(&reader)), (0, before));
}

#[test]
fn a_lost_node_of_three_changes_nothing() {
    let mut cluster = Nats::cluster();
    let urls = cluster.iter().map(Nats::url).collect::<Vec<_>>();
    let more = format!("urls = ['{}', '{}']\nreplicas = 3", urls[1], urls[2]);
    let first = publisher_with(&urls[0], &more, &["a"]);
    let second = publisher_with(&urls[0], &more, &["a"]);
    let either = || [&first, &second].into_iter().find(|p| fleet(p)["publisher"]["is_leader"] == true);
    until("one leads", &either);
    let reader = reader_with(&urls[0], &format!("urls = ['{}', '{}']", urls[1], urls[2]));
    await_backends(&reader, &["a"]);
    let mut ids = vec!["a".to_owned()];
    for (n, node) in cluster.iter_mut().enumerate() {
        let before = file(&reader);
        node.kill();
        // The leader polls on, or its successor does.
        until("polls go on", || {
            let leader = either()?;
            let polled = polls(leader);
            until("a poll", || {
                (polls(leader) > polled || fleet(leader)["publisher"]["is_leader"] != true).then_some(())
            });
            (fleet(leader)["publisher"]["providers"]["prod"]["error"].is_null()).then_some(())
        });
        assert_eq!(file(&reader), before);
        ids.push("b".repeat(n + 2));
        let names: Vec<_> = ids.iter().map(String::as_str).collect();
        observe(&first, &names);
        observe(&second, &names);
        await_backends(&reader, &names);
        node.spawn();
        await_fleet(&reader, "it is connected", |fleet| fleet["readers"]["prod"]["connected"] == true);
    }
}

#[test]
fn while_the_fleet_is_silent_another_provider_is_polled_slowly() {
    let mut nats = Nats::start();
    let first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    let direct = "fallback = 'direct'\nfallback_after = '1s'\nfallback_spacing = '2s'\n\
                  [providers.direct]\ntype = 'file'\npath = 'DIR/direct.yaml'\ninterval = '100ms'\n";
    let reader = Elasticd::new(&crate::harness::fleet::reading(&nats.url(), direct));
    observe(&reader, &["unused"]);
    reader.write("direct.yaml", "- {id: direct, address: 10.0.0.9}\n");
    let reader = reader.ready();
    await_backends(&reader, &["a"]);
    let size = await_fleet(&reader, "the fleet's size", |fleet| fleet["readers"]["prod"]["readers"] == 1);
    assert_eq!(number(&size["readers"]["prod"]["fallback_polls"]), 0);
    nats.kill();
    let silent = Instant::now();
    await_backends(&reader, &["direct"]);
    let fell = await_fleet(&reader, "it says so", |fleet| fleet["readers"]["prod"]["fallback"] == "direct");
    let most = silent.elapsed().as_secs() / 2 + 1;
    assert!(number(&fell["readers"]["prod"]["fallback_polls"]) <= most, "{fell:#}");
    nats.spawn();
    await_backends(&reader, &["a"]);
    await_fleet(&reader, "it is over", |fleet| fleet["readers"]["prod"]["fallback"].is_null());
}

#[test]
fn everything_starts_in_any_order() {
    let mut nats = Nats::new("");
    let reader = reader(&nats.url());
    let first = publisher(&nats.url(), &["a"]);
    await_error(&first, "publisher", &["no NATS server answers"]);
    nats.spawn();
    await_backends(&reader, &["a"]);
    nats.kill();
    nats.spawn();
    observe(&first, &["a", "bb"]);
    await_backends(&reader, &["a", "bb"]);
}

#[test]
fn a_failing_poll_is_reported_to_all_readers_and_the_published_set_stays() {
    let nats = Nats::start();
    let first = publisher(&nats.url(), &["a"]);
    await_lead(&first);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a"]);
    first.write("backends.yaml", "");
    await_error(&reader, "reader", &["fails to poll", "backends.yaml is empty"]);
    assert_eq!(backends(&reader).expect("a file"), ["a"]);
    observe(&first, &["a"]);
    await_fleet(&reader, "it is over", |fleet| fleet["readers"]["prod"]["error"].is_null());
    // As long as no publisher runs, the known set grows older, and its age is reported.
    first.signal(Signal::SIGSTOP);
    let age = |fleet: &Value| fleet["readers"]["prod"]["age_seconds"].as_u64();
    await_fleet(&reader, "it grows old", |fleet| age(fleet).is_some_and(|age| age >= 3));
    first.signal(Signal::SIGCONT);
    await_fleet(&reader, "it is young again", |fleet| age(fleet).is_some_and(|age| age < 3));
}

#[test]
fn doctor_checks_publisher_and_reader_and_changes_nothing() {
    let mut nats = Nats::start();
    let first = publisher(&nats.url(), &["a", "bb"]);
    await_lead(&first);
    let prod = &["2 instances in"];
    Found::of(&first).says("ok", "providers.prod", prod).says(
        "ok",
        "publish",
        &["can be read", "was the last to lead"],
    );
    let ours = Elasticd::new(&crate::harness::fleet::reading(&nats.url(), ""));
    std::fs::create_dir(ours.path("state")).expect("created");
    Found::of(&ours).says("ok", "providers.prod", prod).says("ok", "services.web", &["2 of 2"]);
    let (code, rendered, errors) = ours.run(&["render"]);
    assert!(code == 0 && rendered.contains("bb"), "{rendered}{errors}");
    assert_eq!(std::fs::read_dir(ours.path("state")).expect("listed").count(), 0);
    nats.kill();
    Found::of(&first).says("fail", "publish", &["no NATS server answers", "`url`"]);
    Found::of(&ours).says("fail", "providers.prod", &["no NATS server answers", "`url`"]);
}

#[test]
fn only_what_is_selected_is_published() {
    let nats = Nats::start();
    let first = publisher_with(&nats.url(), "select = { Role = ['web', 'api'] }", &["a", "bb"]);
    await_lead(&first);
    let reader = reader(&nats.url());
    await_backends(&reader, &["a", "bb"]);
    first.write(
        "backends.yaml",
        "- {id: ccc, address: 10.0.0.3, tags: {Role: api}}\n- {id: dddd, address: 10.0.0.4, tags: {Role: db}}\n",
    );
    await_backends(&reader, &["ccc"]);
}

#[test]
fn what_is_polled_twice_is_said() {
    let nats = Nats::start();
    let both = crate::harness::fleet::publishing(&nats.url(), "[services.web]\nprovider = 'prod'\nport = 80");
    let both = Elasticd::new(&both);
    observe(&both, &["a"]);
    let both = both.ready();
    await_lead(&both);
    assert_eq!(both.logged("let the services use a provider of type reader"), 1, "{}", both.log());
    Found::of(&both).says("warn", "publish.providers", &["prod is polled", "type nats"]);
    // The advised way: its own services live on what it publishes, too.
    let own = "[providers.fleet]\ntype = 'nats'\nURL\nfleet = 'shop'\nprovider = 'prod'\n\
               [services.web]\nprovider = 'fleet'\nport = 80";
    let own = own.replace("URL", &format!("url = '{}'", nats.url()));
    both.configure(&crate::harness::fleet::publishing(&nats.url(), &own));
    both.signal(Signal::SIGHUP);
    both.await_status("its services are served", |status| status["services"]["web"]["backends"] == 1);
    await_fleet(&both, "it reads what it publishes", |fleet| fleet["readers"]["fleet"]["sequence"] == 1);
}
