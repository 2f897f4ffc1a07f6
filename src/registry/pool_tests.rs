use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::model::{Guard, InstanceState, OnEmpty, PortRule, Selector};

const INTERVAL: Option<Duration> = Some(Duration::from_secs(15));

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn instances(ids: &[&str]) -> Vec<Instance> {
    let instance = |id: &&str| Instance { private_ipv4: Some([10, 0, 0, 1].into()), ..Instance::new(*id) };
    ids.iter().map(instance).collect()
}

fn service(sources: SourcesMode, expire: Option<u64>) -> Service {
    Service {
        providers: vec![name("near"), name("far")],
        sources,
        expire: expire.map(Duration::from_secs),
        port: PortRule::Fixed(80),
        ..Service::new(name("web"), name("near"))
    }
}

fn pool(service: Service) -> Pool {
    Pool::new(service, PersistedService::default(), false)
}

fn ids(pool: &mut Pool, seconds: u64) -> Option<Vec<String>> {
    pool.serve(at(seconds), None, None).map(|served| served.backends.into_iter().map(|b| b.id).collect())
}

fn some(ids: &[&str]) -> Option<Vec<String>> {
    Some(ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn a_part_is_never_served_as_the_whole() {
    let mut pool = pool(service(SourcesMode::Union, None));
    assert_eq!(ids(&mut pool, 0), None);
    pool.observe(&name("near"), &instances(&["a"]), at(0), INTERVAL);
    assert_eq!(ids(&mut pool, 0), None, "the other provider may have more");
    pool.observe(&name("far"), &instances(&["b"]), at(1), INTERVAL);
    assert_eq!(ids(&mut pool, 1), some(&["a", "b"]));
}

#[test]
fn one_that_fails_takes_nothing_from_the_other() {
    let mut pool = pool(service(SourcesMode::Union, None));
    pool.observe(&name("near"), &instances(&["a"]), at(0), INTERVAL);
    pool.poll_failed(&name("far"));
    assert_eq!(ids(&mut pool, 0), some(&["a"]), "one that cannot answer is not waited for");
    pool.observe(&name("far"), &instances(&["b", "c"]), at(1), INTERVAL);
    assert_eq!(ids(&mut pool, 1), some(&["a", "b", "c"]));
    pool.poll_failed(&name("far"));
    assert_eq!(ids(&mut pool, 1_000_000), some(&["a", "b", "c"]), "its last set stays");
    let report = pool.report(Some((1, 3)));
    assert_eq!(report.status.age_seconds.map(status::Age::time), Some(at(0)));
    assert_eq!(report.status.sources.iter().map(|s| s.backends).collect::<Vec<_>>(), [Some(1), Some(2)]);
}

#[test]
fn a_silent_ones_set_expires_and_the_last_one_never_does() {
    let mut pool = pool(service(SourcesMode::Union, Some(60)));
    pool.observe(&name("near"), &instances(&["a"]), at(0), INTERVAL);
    pool.observe(&name("far"), &instances(&["b"]), at(30), INTERVAL);
    assert_eq!(ids(&mut pool, 59), some(&["a", "b"]));
    assert_eq!(pool.serve(at(59), None, None).expect("served").next_change, Some(at(60)));
    assert_eq!(ids(&mut pool, 60), some(&["b"]));
    assert_eq!(
        pool.report(None).excluded_members[0].reason.to_string(),
        "provider near has not answered for longer than the service's `expire`"
    );
    assert_eq!(ids(&mut pool, 1000), some(&["a", "b"]), "what is old is better than nothing");
    pool.observe(&name("near"), &instances(&["a"]), at(1000), INTERVAL);
    assert_eq!(ids(&mut pool, 1000), some(&["a"]));
}

#[test]
fn failover_serves_the_first_that_has_any() {
    let mut pool = pool(service(SourcesMode::Failover, Some(60)));
    pool.observe(&name("near"), &instances(&["a"]), at(0), INTERVAL);
    pool.observe(&name("far"), &instances(&["b"]), at(0), INTERVAL);
    assert_eq!(ids(&mut pool, 0), some(&["a"]));
    assert_eq!(
        pool.report(None).excluded_members[0].reason.to_string(),
        "provider far is on standby (`sources = \"failover\"`)"
    );
    pool.observe(&name("far"), &instances(&["b"]), at(50), INTERVAL);
    assert_eq!(ids(&mut pool, 61), some(&["b"]), "the first has fallen silent");
    pool.observe(&name("near"), &instances(&["a"]), at(62), INTERVAL);
    assert_eq!(ids(&mut pool, 62), some(&["a"]));
}

#[test]
fn failover_does_not_follow_an_empty_answer_that_the_guard_holds_back() {
    let mut held = pool(service(SourcesMode::Failover, Some(60)));
    held.observe(&name("near"), &instances(&["a"]), at(0), INTERVAL);
    held.observe(&name("far"), &instances(&["b"]), at(0), INTERVAL);
    held.observe(&name("near"), &[], at(1), INTERVAL);
    assert_eq!(ids(&mut held, 1), some(&["a"]));
    assert!(held.report(None).status.held.is_some());
    assert_eq!(held.accept_held(), Some(0));
    assert_eq!(ids(&mut held, 1), some(&["b"]));
    let guard = Guard { on_empty: OnEmpty::Accept, confirm: 1, ..Guard::default() };
    let mut taken = pool(Service { guard, ..service(SourcesMode::Failover, Some(60)) });
    taken.observe(&name("near"), &[], at(0), INTERVAL);
    taken.observe(&name("far"), &instances(&["b"]), at(0), INTERVAL);
    assert_eq!(ids(&mut taken, 0), some(&["b"]));
}

#[test]
fn each_providers_set_is_guarded_by_itself() {
    let mut pool = pool(service(SourcesMode::Union, None));
    pool.observe(&name("near"), &instances(&["a", "b"]), at(0), INTERVAL);
    pool.observe(&name("far"), &instances(&["c", "d", "e", "f", "g", "h"]), at(0), INTERVAL);
    pool.observe(&name("near"), &[], at(1), INTERVAL);
    assert_eq!(ids(&mut pool, 1).expect("served").len(), 8, "a quarter of all, and all of one provider");
    assert_eq!(pool.accept_held(), Some(0));
    assert_eq!(ids(&mut pool, 1).expect("served").len(), 6);
}

#[test]
fn the_provider_named_first_has_the_last_word() {
    let mut pool = pool(service(SourcesMode::Union, None));
    pool.observe(&name("far"), &instances(&["a"]), at(0), INTERVAL);
    let elsewhere = Instance { private_ipv4: Some([10, 9, 9, 9].into()), ..Instance::new("a") };
    pool.observe(&name("near"), &[elsewhere], at(0), INTERVAL);
    let served = pool.serve(at(0), None, None).expect("served");
    assert_eq!(served.backends.len(), 1);
    assert_eq!(served.backends[0].address.to_string(), "10.9.9.9");
}

#[test]
fn registered_backends_join_and_stand_for_their_namesakes() {
    let mut pool = pool(Service { port: PortRule::Fixed(80), ..Service::new(name("web"), name("near")) });
    pool.observe(&name("near"), &instances(&["b", "c"]), at(0), INTERVAL);
    let backend = |id: &str| Backend { id: id.to_owned(), port: 9, ..pool_backend() };
    let registered = |id: &str| (id.to_owned(), Registered::new(backend(id), Duration::from_secs(60), at(0)));
    let registered = BTreeMap::from([registered("a"), registered("c")]);
    let served = pool.serve(at(0), None, Some(&registered)).expect("served");
    let found: Vec<_> = served.backends.iter().map(|b| (b.id.as_str(), b.port)).collect();
    assert_eq!(found, [("a", 9), ("b", 80), ("c", 9)]);
}

fn pool_backend() -> Backend {
    let mut pool = pool(Service { port: PortRule::Fixed(80), ..Service::new(name("web"), name("near")) });
    pool.observe(&name("near"), &instances(&["x"]), at(0), INTERVAL);
    pool.serve(at(0), None, None).expect("served").backends.remove(0)
}

#[test]
fn what_was_kept_is_served_until_its_provider_answers() {
    let mut before = pool(service(SourcesMode::Union, None));
    before.observe(&name("near"), &instances(&["a"]), at(0), INTERVAL);
    before.observe(&name("far"), &instances(&["b"]), at(0), INTERVAL);
    assert_eq!(ids(&mut before, 0), some(&["a", "b"]));
    let json = serde_json::to_string(before.persisted()).expect("plain data");
    let kept: PersistedService = serde_json::from_str(&json).expect("read back");
    assert_eq!(&kept, before.persisted());
    let mut after = Pool::new(service(SourcesMode::Union, None), kept, true);
    assert_eq!(ids(&mut after, 1), some(&["a", "b"]));
    assert!(after.report(Some((1, 2))).status.restored);
    after.observe(&name("near"), &instances(&["a"]), at(1), INTERVAL);
    after.observe(&name("far"), &instances(&["b"]), at(1), INTERVAL);
    assert!(!after.report(Some((1, 2))).status.restored);
    // A provider that the service does not name any more takes its set along.
    after.reconfigure(Service { port: PortRule::Fixed(80), ..Service::new(name("web"), name("far")) }, None);
    assert_eq!(ids(&mut after, 2), some(&["b"]));
}

#[test]
fn the_reasons_of_all_providers_are_counted() {
    let select = Selector::of_tags([("Role", ["web"])]);
    let mut pool = pool(Service { select, ..service(SourcesMode::Union, None) });
    let mut stopped = instances(&["s"]).remove(0);
    stopped.state = InstanceState::Stopped;
    pool.observe(&name("near"), &instances(&["a", "b"]), at(0), INTERVAL);
    pool.observe(&name("far"), &[stopped], at(0), INTERVAL);
    assert_eq!(pool.report(None).status.exclusions.count, 3);
}

#[test]
fn one_observation_told_twice_confirms_nothing() {
    let mut pool = pool(service(SourcesMode::Union, None));
    let near = name("near");
    pool.observe(&near, &instances(&["a", "b", "c", "d"]), at(0), INTERVAL);
    for _ in 0..10 {
        pool.observe(&near, &instances(&["a"]), at(1), INTERVAL);
    }
    assert!(pool.held.contains_key(&near), "three polls are to confirm it, and there was one");
    pool.observe(&near, &instances(&["a"]), at(2), INTERVAL);
    pool.observe(&near, &instances(&["a"]), at(3), INTERVAL);
    assert!(!pool.held.contains_key(&near));
}
