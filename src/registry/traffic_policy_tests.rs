use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::model::{AtLeast, Percent, Tags};

const START: u64 = 1_700_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(START + seconds)
}

fn service() -> Service {
    Service::new("web".parse().expect("a name"), "prod".parse().expect("a name"))
}

fn member(id: &str) -> Member {
    let backend = Backend {
        id: id.to_owned(),
        address: "10.0.0.1".parse().expect("an address"),
        port: 80,
        zone: None,
        weight: 1,
        state: BackendState::Up,
        tags: Tags::default(),
    };
    Member { backend, launched: None }
}

fn launched(id: &str, seconds: u64) -> Member {
    let at = i64::try_from(START + seconds).expect("small");
    Member { launched: Some(Timestamp::from_second(at).expect("a time")), ..member(id) }
}

fn in_zone(id: &str, zone: &str) -> Member {
    let mut member = member(id);
    member.backend.zone = Some(zone.to_owned());
    member
}

fn input(seconds: u64) -> PolicyInput<'static> {
    PolicyInput { now: at(seconds), zone: None, failing: None, is_first: false }
}

/// As `id=weight`, with a `-` before the id of a draining backend.
fn served(effective: &EffectiveSet) -> Vec<String> {
    let sign = |backend: &Backend| if backend.state == BackendState::Draining { "-" } else { "" };
    effective.backends.iter().map(|b| format!("{}{}={}", sign(b), b.id, b.weight)).collect()
}

fn reasons(effective: &EffectiveSet) -> Vec<(&str, String)> {
    effective.exclusions.iter().map(|e| (e.id.as_str(), e.reason.to_string())).collect()
}

#[test]
fn without_any_rule_all_are_served_as_they_are() {
    let mut policy = TrafficPolicy::default();
    let effective = policy.apply(&service(), vec![member("a"), launched("b", 5)], &input(10));
    assert_eq!((served(&effective), effective.next_change), (vec!["a=1".to_owned(), "b=1".to_owned()], None));
    assert_eq!(policy, TrafficPolicy::default(), "no state is kept without need");
}

#[test]
fn an_instance_waits_for_min_age_unless_it_is_the_only_one() {
    let service = Service { min_age: Duration::from_secs(30), ..service() };
    let members = || vec![member("a"), launched("b", 0), launched("c", 20)];
    let mut policy = TrafficPolicy::default();
    let effective = policy.apply(&service, members(), &input(29));
    assert_eq!((served(&effective), effective.next_change), (vec!["a=1".to_owned()], Some(at(30))));
    let expected = "launched less than 30s ago, the service's min_age";
    assert_eq!(reasons(&effective), [("b", expected.to_owned()), ("c", expected.to_owned())]);
    let effective = policy.apply(&service, members(), &input(30));
    assert_eq!((served(&effective), effective.next_change), (vec!["a=1".to_owned(), "b=1".to_owned()], Some(at(50))));
    let effective = policy.apply(&service, vec![launched("c", 20)], &input(21));
    assert_eq!(served(&effective), ["c=1"]);
}

#[test]
fn a_backend_that_fails_its_check_is_excluded_unless_all_do() {
    let failing = BTreeMap::from([("a".to_owned(), "health check failed: refused".to_owned())]);
    let with = PolicyInput { failing: Some(&failing), ..input(0) };
    let effective = TrafficPolicy::default().apply(&service(), vec![member("a"), member("b")], &with);
    assert_eq!(served(&effective), ["b=1"]);
    assert_eq!(reasons(&effective), [("a", "health check failed: refused".to_owned())]);
    assert_eq!(served(&TrafficPolicy::default().apply(&service(), vec![member("a")], &with)), ["a=1"]);
}

#[test]
fn our_own_zone_is_preferred_while_it_has_enough() {
    let members = || vec![in_zone("a", "z1"), in_zone("b", "z1"), in_zone("c", "z2"), member("d")];
    let prefer = |at_least| Service { prefer: Some(Prefer { at_least }), ..service() };
    let ours = PolicyInput { zone: Some("z1"), ..input(0) };
    let near = |service: &Service, input: &PolicyInput<'_>| {
        served(&TrafficPolicy::default().apply(service, members(), input)).len()
    };
    assert_eq!(near(&prefer(AtLeast::Count(2)), &ours), 2);
    assert_eq!(near(&prefer(AtLeast::Count(3)), &ours), 4, "too few: all join");
    assert_eq!(near(&prefer(AtLeast::Part(Percent(50))), &ours), 2);
    assert_eq!(near(&prefer(AtLeast::Part(Percent(51))), &ours), 4);
    assert_eq!(
        near(&prefer(AtLeast::Part(Percent(0))), &PolicyInput { zone: Some("z9"), ..input(0) }),
        4,
        "no backend is in our zone"
    );
    assert_eq!(near(&prefer(AtLeast::Count(2)), &input(0)), 4, "our own zone is unknown");
    let effective = TrafficPolicy::default().apply(&prefer(AtLeast::Count(2)), members(), &ours);
    assert_eq!(effective.exclusions[0].reason, Reason::OtherZone { zone: Some("z2".to_owned()), own: "z1".to_owned() });
}

#[test]
fn slow_start_raises_a_weight_in_steps() {
    let service = Service { slow_start: Some(Duration::from_secs(100)), ..service() };
    let mut policy = TrafficPolicy::default();
    let first = PolicyInput { is_first: true, ..input(0) };
    let effective = policy.apply(&service, vec![member("a")], &first);
    assert_eq!(
        (served(&effective), effective.next_change),
        (vec!["a=10".to_owned()], None),
        "the first set needs none"
    );
    let mut weights = Vec::new();
    let mut now = 5;
    loop {
        let effective = policy.apply(&service, vec![member("a"), member("b")], &input(now));
        weights.push(effective.backends[1].weight);
        assert_eq!(effective.backends[0].weight, 10);
        let Some(next) = effective.next_change else { break };
        let next = next.duration_since(at(0)).expect("later").as_secs();
        assert_eq!(next, now + 10);
        now = next;
    }
    assert_eq!(weights, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]);
    // Nor does a machine that was launched long before a new sidecar first saw it.
    let mut policy = TrafficPolicy::default();
    let effective =
        policy.apply(&service, vec![launched("a", 0), launched("b", 150)], &PolicyInput { now: at(200), ..first });
    assert_eq!(served(&effective), ["a=10", "b=6"]);
}

#[test]
fn weights_stay_within_bounds_during_slow_start() {
    let service = Service { slow_start: Some(Duration::from_secs(100)), ..service() };
    let with = |id: &str, weight| {
        let mut member = member(id);
        member.backend.weight = weight;
        member
    };
    let mut policy = TrafficPolicy::default();
    policy.apply(&service, vec![with("a", 100)], &input(0));
    let effective = policy.apply(&service, vec![with("a", 100), with("b", 100), with("c", 0)], &input(200));
    assert_eq!(served(&effective), ["a=200", "b=20", "c=0"]);
    let effective = policy.apply(&service, vec![with("a", 256), with("b", 1)], &input(200));
    assert_eq!(served(&effective), ["a=256", "b=1"]);
}

#[test]
fn a_backend_that_leaves_drains_and_one_that_comes_back_does_not() {
    let service = Service { drain: Duration::from_secs(30), ..service() };
    let mut policy = TrafficPolicy::default();
    policy.apply(&service, vec![member("a"), member("b")], &input(0));
    let effective = policy.apply(&service, vec![member("a")], &input(10));
    assert_eq!((served(&effective), effective.next_change), (vec!["a=1".to_owned(), "-b=0".to_owned()], Some(at(40))));
    let again = policy.clone().apply(&service, vec![member("a"), member("b")], &input(20));
    assert_eq!(served(&again), ["a=1", "b=1"]);
    let effective = policy.apply(&service, vec![member("a")], &input(39));
    assert_eq!(served(&effective), ["a=1", "-b=0"]);
    let effective = policy.apply(&service, vec![member("a")], &input(40));
    assert_eq!((served(&effective), effective.next_change), (vec!["a=1".to_owned()], None));
    // A backend whose end the cloud announces drains while it is reported, and for the drain time after that.
    let mut leaving = member("a");
    (leaving.backend.state, leaving.backend.weight) = (BackendState::Draining, 0);
    assert_eq!(served(&policy.apply(&service, vec![leaving, member("c")], &input(50))), ["-a=0", "c=1"]);
    assert_eq!(served(&policy.apply(&service, vec![member("c")], &input(60))), ["-a=0", "c=1"]);
    assert_eq!(served(&policy.apply(&service, vec![member("c")], &input(80))), ["c=1"]);
}

#[test]
fn a_shorter_drain_applies_to_backends_that_drain_already() {
    let drain = |seconds| Service { drain: Duration::from_secs(seconds), ..service() };
    let mut policy = TrafficPolicy::default();
    policy.apply(&drain(60), vec![member("a"), member("b")], &input(0));
    assert_eq!(served(&policy.apply(&drain(60), vec![member("a")], &input(0))), ["a=1", "-b=0"]);
    assert_eq!(served(&policy.apply(&drain(0), vec![member("a")], &input(1))), ["a=1"]);
}

proptest! {
    /// Whatever the rules, every member is either served or excluded with a reason, and at least one is served.
    #[test]
    fn every_member_is_served_or_excluded_with_a_reason(
        sets in proptest::collection::vec(proptest::collection::btree_map("[a-e]", (0_u64..60, 0_u16..=256, "[xy]"), 1..5), 1..8),
        failing in proptest::collection::btree_map("[a-e]", "x", 0..5),
        min_age in 0_u64..40,
        slow_start in 0_u64..40,
        drain in 0_u64..40,
        at_least in 1_usize..4,
    ) {
        let seconds = Duration::from_secs;
        let service = Service {
            min_age: seconds(min_age),
            slow_start: Some(seconds(slow_start)).filter(|ramp| !ramp.is_zero()),
            drain: seconds(drain),
            prefer: Some(Prefer { at_least: AtLeast::Count(at_least) }),
            ..service()
        };
        let mut policy = TrafficPolicy::default();
        for (turn, set) in sets.iter().enumerate() {
            let members: Vec<_> = set.iter().map(|(id, (age, weight, zone))| {
                let mut member = launched(id, *age);
                (member.backend.weight, member.backend.zone) = (*weight, Some(zone.clone()));
                member
            }).collect();
            let now = turn as u64 * 10;
            let with = PolicyInput { zone: Some("x"), failing: Some(&failing), is_first: turn == 0, ..input(now) };
            let before = policy.clone();
            let effective = policy.apply(&service, members.clone(), &with);
            let up: Vec<_> = effective.backends.iter().filter(|b| b.state == BackendState::Up).collect();
            prop_assert!(!up.is_empty());
            prop_assert!(effective.backends.windows(2).all(|pair| pair[0].id < pair[1].id));
            prop_assert!(effective.backends.iter().all(|b| b.weight <= MAX_WEIGHT));
            prop_assert!(effective.next_change.is_none_or(|next| next > with.now));
            for member in &members {
                let is_up = up.iter().any(|b| b.id == member.backend.id);
                prop_assert!(is_up != effective.exclusions.iter().any(|e| e.id == member.backend.id));
                prop_assert!(!is_up || member.backend.weight == 0 || up.iter().all(|b| b.id != member.backend.id || b.weight > 0));
            }
            // Applied again, nothing changes.
            let mut again = before;
            prop_assert_eq!(&again.apply(&service, members.clone(), &with), &effective);
            prop_assert_eq!(&again.apply(&service, members, &PolicyInput { is_first: false, ..with }), &effective);
        }
    }
}
