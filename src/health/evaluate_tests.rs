use proptest::prelude::*;

use super::*;
use crate::model::Probe;

fn check(rise: u32, fall: u32, panic: u8) -> HealthCheck {
    HealthCheck { rise, fall, panic: Percent(panic), ..HealthCheck::new(Probe::Tcp) }
}

fn target(id: impl ToString, port: u16) -> Target {
    Target { id: id.to_string(), address: ([10, 0, 0, 1], port).into() }
}

fn targets(ids: &[&str]) -> Vec<Target> {
    ids.iter().map(|id| target(id, 80)).collect()
}

/// An evaluator of the first backends of a service.
fn evaluate(check: &HealthCheck, ids: &[&str]) -> Evaluator {
    let mut evaluator = Evaluator::new(check);
    evaluator.set(&targets(ids));
    evaluator
}

impl Evaluator {
    fn probe(&mut self, id: &str, well: bool) -> bool {
        self.probe_started(id);
        self.probe_ended(id, if well { Ok(()) } else { Err("refused".to_owned()) })
    }

    /// Probes each of these once; a capital letter stands for a failure.
    fn round(&mut self, ids: &str) {
        for id in ids.chars() {
            self.probe(&id.to_ascii_lowercase().to_string(), id.is_ascii_lowercase());
        }
    }

    /// The ids of those that are out, in one word.
    fn outs(&self) -> String {
        self.out().into_keys().collect()
    }
}

#[test]
fn a_backend_that_failed_before_a_restart_is_out_until_it_passes() {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let mut evaluator = evaluate(&check(2, 3, 50), &["a", "b", "c"]);
    evaluator.restore_failed(&ids(&["b", "gone"]));
    assert_eq!(evaluator.out().keys().collect::<Vec<_>>(), ["b"]);
    assert!(evaluator.out()["b"].contains("before elasticd was restarted"));
    for _ in 0..2 {
        evaluator.probe_started("b");
        evaluator.probe_ended("b", Ok(()));
    }
    assert!(evaluator.out().is_empty());
    evaluator.restore_failed(&ids(&["a", "b", "c"]));
    assert!(evaluator.out().is_empty(), "not if that is everybody");
}

#[test]
fn a_backend_goes_out_after_fall_failures_and_comes_back_after_rise_successes() {
    let mut evaluator = evaluate(&check(2, 3, 50), &["a", "b", "c"]);
    assert_eq!(evaluator.outs(), "", "nothing is known yet");
    ["abC", "abC"].iter().for_each(|round| evaluator.round(round));
    assert_eq!(evaluator.outs(), "");
    assert!(evaluator.probe("c", false));
    assert_eq!(evaluator.out().get("c").map(String::as_str), Some("health check failed: refused"));
    assert!(!evaluator.probe("c", false), "nothing new");
    ["abc", "abC", "abc"].iter().for_each(|round| evaluator.round(round));
    assert_eq!(evaluator.outs(), "c", "not so many in a row");
    assert!(evaluator.probe("c", true));
    assert_eq!(evaluator.outs(), "");
    assert!(!evaluator.is_panicking());
}

#[test]
fn the_last_cause_is_reported() {
    let mut evaluator = evaluate(&check(2, 1, 50), &["a", "b"]);
    evaluator.round("aBaB");
    evaluator.probe_started("b");
    assert!(evaluator.probe_ended("b", Err("no answer within 2s".to_owned())));
    assert_eq!(evaluator.out()["b"], "health check failed: no answer within 2s");
}

#[test]
fn a_new_backend_is_out_until_its_first_success() {
    let mut evaluator = evaluate(&check(2, 3, 50), &["a", "b"]);
    assert_eq!(evaluator.set(&targets(&["a", "b", "c", "d"])), ["c", "d"]);
    assert_eq!(evaluator.out()["c"], NOT_CHECKED_YET);
    ["abCd", "abC"].iter().for_each(|round| evaluator.round(round));
    assert_eq!(evaluator.out()["c"], "health check failed: refused");
    assert_eq!(evaluator.outs(), "c");
    assert_eq!(evaluator.set(&targets(&["a", "b", "c", "d"])), Vec::<String>::new(), "it has been probed");
    evaluator.round("c");
    assert_eq!(evaluator.outs(), "");
}

#[test]
fn new_backends_that_fail_cause_no_panic() {
    let mut evaluator = evaluate(&check(2, 2, 50), &["a", "b"]);
    evaluator.set(&targets(&["a", "b", "c", "d", "e", "f"]));
    (0..5).for_each(|_| evaluator.round("abCDEF"));
    assert_eq!((evaluator.outs().as_str(), evaluator.is_panicking()), ("cdef", false));
}

#[test]
fn another_address_or_an_absence_makes_a_backend_new() {
    let mut evaluator = evaluate(&check(2, 3, 50), &["a", "b", "c"]);
    evaluator.round("abc");
    assert_eq!(evaluator.set(&[target("a", 80), target("b", 81)]), ["b"]);
    assert_eq!(evaluator.set(&targets(&["a", "c"])), ["c"]);
    assert_eq!(evaluator.outs(), "c");
}

#[test]
fn if_no_backend_is_left_the_next_ones_are_up_like_the_first() {
    let mut evaluator = Evaluator::new(&check(2, 3, 50));
    evaluator.set(&[]);
    assert_eq!(evaluator.out(), BTreeMap::new());
    evaluator.set(&targets(&["a", "b"]));
    assert_eq!(evaluator.outs(), "");
    evaluator.set(&targets(&["c", "d"]));
    assert_eq!(evaluator.outs(), "", "all were replaced at once");
}

#[test]
fn while_too_few_pass_no_backend_goes_out() {
    let mut evaluator = evaluate(&check(1, 2, 50), &["a", "b", "c", "d"]);
    ["abcD", "abcD"].iter().for_each(|round| evaluator.round(round));
    evaluator.set(&targets(&["a", "b", "c", "d", "e"]));
    assert_eq!(evaluator.outs(), "de");
    ["aBCD", "aBCD"].iter().for_each(|round| evaluator.round(round));
    assert_eq!((evaluator.outs().as_str(), evaluator.is_panicking()), ("d", true), "e is as good as any");
    assert_eq!(evaluator.set(&targets(&["a", "b", "c", "d", "e", "f"])), ["f"]);
    assert_eq!(evaluator.outs(), "d", "and so is f");
    evaluator.round("aBCDEFaBCDEF");
    assert_eq!(evaluator.outs(), "d");
    evaluator.round("d");
    assert_eq!((evaluator.outs().as_str(), evaluator.is_panicking()), ("", true), "two of six pass");
    evaluator.round("e");
    assert_eq!((evaluator.outs().as_str(), evaluator.is_panicking()), ("", false), "half of them pass");
    evaluator.round("BcF");
    assert_eq!(evaluator.outs(), "bf", "they fail still");
}

#[test]
fn a_backend_that_fails_when_a_panic_ends_is_probed_once_more() {
    let mut evaluator = evaluate(&check(2, 1, 50), &["a", "b"]);
    evaluator.round("AB");
    assert!(evaluator.is_panicking());
    evaluator.probe_started("b");
    evaluator.round("a");
    assert!(!evaluator.is_panicking());
    evaluator.probe_ended("b", Err("refused".to_owned()));
    assert_eq!(evaluator.outs(), "", "that probe started before");
    evaluator.round("b");
    assert_eq!((evaluator.outs().as_str(), evaluator.is_panicking()), ("", false));
}

#[test]
fn the_only_backend_is_never_out() {
    for panic in [0, 50, 100] {
        let mut evaluator = evaluate(&check(2, 1, panic), &["a", "b"]);
        (0..2).for_each(|_| evaluator.round("aB"));
        assert_eq!(evaluator.outs(), if panic == 100 { "" } else { "b" }, "{panic}%");
        evaluator.set(&targets(&["b"]));
        assert_eq!((evaluator.outs().as_str(), evaluator.is_panicking()), ("", true), "{panic}%");
        evaluator.round("B");
        assert_eq!(evaluator.outs(), "", "{panic}%");
        evaluator.set(&targets(&["b", "c"]));
        assert_eq!(evaluator.outs(), "", "there is nothing better: {panic}%");
    }
}

#[test]
fn another_check_keeps_states_and_resets_counts_of_another_probe() {
    let mut evaluator = evaluate(&check(3, 2, 50), &["a", "b", "c", "d"]);
    ["abcD", "abcD", "abCd", "abcd"].iter().for_each(|round| evaluator.round(round));
    assert_eq!(evaluator.outs(), "d");
    evaluator.reconfigure(&check(3, 2, 50), true);
    evaluator.round("abCd");
    assert_eq!(evaluator.outs(), "d", "neither the failure nor the successes count");
    evaluator.reconfigure(&check(2, 2, 50), false);
    evaluator.round("abCd");
    assert_eq!(evaluator.outs(), "c", "they count");
}

/// `n` backends by number.
fn numbered(n: usize) -> Vec<Target> {
    (0..n).map(|i| target(i, 80)).collect()
}

/// What may happen: a pool, by whether each of six is in it and where; a probe that begins; one that ends.
#[derive(Debug, Clone)]
enum Step {
    Set([Option<u16>; 6]),
    Begin(u8),
    End(u8, bool),
    Reconfigure(u32, u32, u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let member = prop_oneof![1 => Just(None), 4 => Just(Some(80)), 1 => Just(Some(81))];
    prop_oneof![
        1 => prop::array::uniform6(member).prop_map(Step::Set),
        8 => (0_u8..6).prop_map(Step::Begin),
        12 => (0_u8..6, prop::bool::weighted(0.4)).prop_map(|(id, well)| Step::End(id, well)),
        1 => (1_u32..4, 1_u32..4, 0_u8..=100, any::<bool>()).prop_map(|(r, f, p, forget)| Step::Reconfigure(r, f, p, forget)),
    ]
}

proptest! {
    #[test]
    fn never_all_are_out_and_every_change_is_reported(
        first in (1_u32..4, 1_u32..4, 0_u8..=100),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut evaluator = Evaluator::new(&check(first.0, first.1, first.2));
        for step in steps {
            let before = (evaluator.out(), evaluator.is_panicking());
            let may_change = match step {
                Step::Set(members) => {
                    let here = |(id, port): (usize, &Option<u16>)| port.map(|port| target(id, port));
                    evaluator.set(&members.iter().enumerate().filter_map(here).collect::<Vec<_>>());
                    true
                }
                Step::Begin(id) => {
                    evaluator.probe_started(&id.to_string());
                    false
                }
                Step::End(id, well) => {
                    evaluator.probe_ended(&id.to_string(), if well { Ok(()) } else { Err("refused".to_owned()) })
                }
                Step::Reconfigure(rise, fall, panic, forget) => {
                    evaluator.reconfigure(&check(rise, fall, panic), forget);
                    true
                }
            };
            let (out, targets) = (evaluator.out(), evaluator.targets());
            prop_assert!(out.keys().all(|id| targets.contains_key(id)));
            prop_assert!(targets.is_empty() || out.len() < targets.len(), "all are out");
            prop_assert!(may_change || before == (out, evaluator.is_panicking()), "a change was not reported");
        }
    }

    /// Whatever the order of probes and of their ends, even if one failure suffices, and after it too.
    #[test]
    fn a_fault_of_everything_at_once_takes_no_backend_out(
        steps in prop::collection::vec((0_usize..8, any::<prop::sample::Index>()), 400),
        fault in 0_usize..50,
        fall in 1_u32..4,
        panic in 0_u8..=100,
    ) {
        let mut evaluator = Evaluator::new(&check(2, fall, panic));
        evaluator.set(&numbered(8));
        let mut under_way = Vec::new();
        let (mut panicked, mut recovered) = (false, false);
        for (at, (begins, ends)) in steps.into_iter().enumerate() {
            // What begins during the fault fails; it ends some time after it was noticed.
            if !under_way.iter().any(|(id, _)| *id == begins) {
                evaluator.probe_started(&begins.to_string());
                under_way.push((begins, at < fault || recovered));
            }
            if under_way.len() > 4 {
                let (id, well) = under_way.swap_remove(ends.index(under_way.len()));
                evaluator.probe_ended(&id.to_string(), if well { Ok(()) } else { Err("unreachable".to_owned()) });
            }
            prop_assert!(evaluator.out().is_empty(), "{:?} are out", evaluator.out().keys());
            panicked |= evaluator.is_panicking();
            recovered = panicked && at > 250;
        }
        prop_assert!(panicked);
        prop_assert!(!evaluator.is_panicking());
    }

    #[test]
    fn flapping_below_the_thresholds_changes_nothing(
        fall in 2_u32..5,
        runs in prop::collection::vec((0_usize..5, 1_u32..5), 0..100),
    ) {
        let mut evaluator = Evaluator::new(&check(2, fall, 50));
        evaluator.set(&numbered(5));
        for (id, failures) in runs {
            let id = id.to_string();
            for _ in 0..failures.min(fall - 1) {
                prop_assert!(!evaluator.probe(&id, false));
            }
            prop_assert!(!evaluator.probe(&id, true));
            prop_assert!(evaluator.out().is_empty() && !evaluator.is_panicking());
        }
    }

    #[test]
    fn fewer_than_panic_are_never_left(
        panic in 1_u8..=100,
        rounds in prop::collection::vec(prop::collection::vec(any::<bool>(), 7), 1..30),
    ) {
        let mut evaluator = Evaluator::new(&check(1, 2, panic));
        evaluator.set(&numbered(7));
        for round in rounds {
            for (id, well) in round.iter().enumerate() {
                evaluator.probe(&id.to_string(), *well);
            }
            prop_assert!((7 - evaluator.out().len()) * 100 >= 7 * usize::from(panic));
        }
    }
}
