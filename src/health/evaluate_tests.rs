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

/// A judge of a service's first backends.
fn evaluate(check: &HealthCheck, ids: &[&str]) -> Judge {
    let mut judge = Judge::new(check);
    judge.set(&targets(ids));
    judge
}

impl Judge {
    fn ask(&mut self, id: &str, well: bool) -> bool {
        self.begin(id);
        self.note(id, if well { Ok(()) } else { Err("refused".to_owned()) })
    }

    /// Asks each of these once: a capital for one that fails.
    fn round(&mut self, ids: &str) {
        for id in ids.chars() {
            self.ask(&id.to_ascii_lowercase().to_string(), id.is_ascii_lowercase());
        }
    }

    /// Who is out, in one word.
    fn outs(&self) -> String {
        self.out().into_keys().collect()
    }
}

#[test]
fn who_failed_before_a_restart_is_out_until_it_passes() {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let mut judge = evaluate(&check(2, 3, 50), &["a", "b", "c"]);
    judge.recall(&ids(&["b", "gone"]));
    assert_eq!(judge.out().keys().collect::<Vec<_>>(), ["b"]);
    assert!(judge.out()["b"].contains("before elasticd was restarted"));
    for _ in 0..2 {
        judge.begin("b");
        judge.note("b", Ok(()));
    }
    assert!(judge.out().is_empty());
    judge.recall(&ids(&["a", "b", "c"]));
    assert!(judge.out().is_empty(), "not if that is everybody");
}

#[test]
fn one_goes_out_after_so_many_failures_and_comes_back_after_so_many_successes() {
    let mut judge = evaluate(&check(2, 3, 50), &["a", "b", "c"]);
    assert_eq!(judge.outs(), "", "nothing is known yet");
    ["abC", "abC"].iter().for_each(|round| judge.round(round));
    assert_eq!(judge.outs(), "");
    assert!(judge.ask("c", false));
    assert_eq!(judge.out().get("c").map(String::as_str), Some("fails its health check: refused"));
    assert!(!judge.ask("c", false), "nothing new");
    ["abc", "abC", "abc"].iter().for_each(|round| judge.round(round));
    assert_eq!(judge.outs(), "c", "not so many in a row");
    assert!(judge.ask("c", true));
    assert_eq!(judge.outs(), "");
    assert!(!judge.is_panicking());
}

#[test]
fn the_cause_of_who_is_out_is_the_last_one() {
    let mut judge = evaluate(&check(2, 1, 50), &["a", "b"]);
    judge.round("aBaB");
    judge.begin("b");
    assert!(judge.note("b", Err("no answer within 2s".to_owned())));
    assert_eq!(judge.out()["b"], "fails its health check: no answer within 2s");
}

#[test]
fn a_newcomer_is_out_until_its_first_success() {
    let mut judge = evaluate(&check(2, 3, 50), &["a", "b"]);
    assert_eq!(judge.set(&targets(&["a", "b", "c", "d"])), ["c", "d"]);
    assert_eq!(judge.out()["c"], "has not been checked yet");
    ["abCd", "abC"].iter().for_each(|round| judge.round(round));
    assert_eq!(judge.out()["c"], "fails its health check: refused");
    assert_eq!(judge.outs(), "c");
    assert_eq!(judge.set(&targets(&["a", "b", "c", "d"])), Vec::<String>::new(), "it has been asked");
    judge.round("c");
    assert_eq!(judge.outs(), "");
}

#[test]
fn newcomers_that_fail_say_nothing_about_the_sidecar() {
    let mut judge = evaluate(&check(2, 2, 50), &["a", "b"]);
    judge.set(&targets(&["a", "b", "c", "d", "e", "f"]));
    (0..5).for_each(|_| judge.round("abCDEF"));
    assert_eq!((judge.outs().as_str(), judge.is_panicking()), ("cdef", false));
}

#[test]
fn another_address_or_an_absence_makes_a_newcomer() {
    let mut judge = evaluate(&check(2, 3, 50), &["a", "b", "c"]);
    judge.round("abc");
    assert_eq!(judge.set(&[target("a", 80), target("b", 81)]), ["b"]);
    assert_eq!(judge.set(&targets(&["a", "c"])), ["c"]);
    assert_eq!(judge.outs(), "c");
}

#[test]
fn who_comes_to_nobody_is_taken_as_the_first_are() {
    let mut judge = Judge::new(&check(2, 3, 50));
    judge.set(&[]);
    assert_eq!(judge.out(), BTreeMap::new());
    judge.set(&targets(&["a", "b"]));
    assert_eq!(judge.outs(), "");
    judge.set(&targets(&["c", "d"]));
    assert_eq!(judge.outs(), "", "all were replaced at once");
}

#[test]
fn while_too_few_pass_verdicts_freeze() {
    let mut judge = evaluate(&check(1, 2, 50), &["a", "b", "c", "d"]);
    ["abcD", "abcD"].iter().for_each(|round| judge.round(round));
    judge.set(&targets(&["a", "b", "c", "d", "e"]));
    assert_eq!(judge.outs(), "de");
    ["aBCD", "aBCD"].iter().for_each(|round| judge.round(round));
    assert_eq!((judge.outs().as_str(), judge.is_panicking()), ("d", true), "e is as good as any");
    assert_eq!(judge.set(&targets(&["a", "b", "c", "d", "e", "f"])), ["f"]);
    assert_eq!(judge.outs(), "d", "and so is f");
    judge.round("aBCDEFaBCDEF");
    assert_eq!(judge.outs(), "d");
    judge.round("d");
    assert_eq!((judge.outs().as_str(), judge.is_panicking()), ("", true), "two of six pass");
    judge.round("e");
    assert_eq!((judge.outs().as_str(), judge.is_panicking()), ("", false), "half of them pass");
    judge.round("BcF");
    assert_eq!(judge.outs(), "bf", "they fail still");
}

#[test]
fn who_seems_to_fail_when_a_panic_ends_is_asked_once_more() {
    let mut judge = evaluate(&check(2, 1, 50), &["a", "b"]);
    judge.round("AB");
    assert!(judge.is_panicking());
    judge.begin("b");
    judge.round("a");
    assert!(!judge.is_panicking());
    judge.note("b", Err("refused".to_owned()));
    assert_eq!(judge.outs(), "", "that was asked before");
    judge.round("b");
    assert_eq!((judge.outs().as_str(), judge.is_panicking()), ("", false));
}

#[test]
fn who_is_left_alone_is_in_however_it_fails() {
    for panic in [0, 50, 100] {
        let mut judge = evaluate(&check(2, 1, panic), &["a", "b"]);
        (0..2).for_each(|_| judge.round("aB"));
        assert_eq!(judge.outs(), if panic == 100 { "" } else { "b" }, "{panic}%");
        judge.set(&targets(&["b"]));
        assert_eq!((judge.outs().as_str(), judge.is_panicking()), ("", true), "{panic}%");
        judge.round("B");
        assert_eq!(judge.outs(), "", "{panic}%");
        judge.set(&targets(&["b", "c"]));
        assert_eq!(judge.outs(), "", "there is nothing better: {panic}%");
    }
}

#[test]
fn another_check_keeps_verdicts_and_forgets_what_it_did_not_count() {
    let mut judge = evaluate(&check(3, 2, 50), &["a", "b", "c", "d"]);
    ["abcD", "abcD", "abCd", "abcd"].iter().for_each(|round| judge.round(round));
    assert_eq!(judge.outs(), "d");
    judge.reconfigure(&check(3, 2, 50), true);
    judge.round("abCd");
    assert_eq!(judge.outs(), "d", "neither the failure nor the successes count");
    judge.reconfigure(&check(2, 2, 50), false);
    judge.round("abCd");
    assert_eq!(judge.outs(), "c", "they count");
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
    fn never_all_are_out_nor_anybody_else_and_no_change_is_missed(
        first in (1_u32..4, 1_u32..4, 0_u8..=100),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut judge = Judge::new(&check(first.0, first.1, first.2));
        for step in steps {
            let before = (judge.out(), judge.is_panicking());
            let told = match step {
                Step::Set(members) => {
                    let here = |(id, port): (usize, &Option<u16>)| port.map(|port| target(id, port));
                    judge.set(&members.iter().enumerate().filter_map(here).collect::<Vec<_>>());
                    true
                }
                Step::Begin(id) => {
                    judge.begin(&id.to_string());
                    false
                }
                Step::End(id, well) => {
                    judge.note(&id.to_string(), if well { Ok(()) } else { Err("refused".to_owned()) })
                }
                Step::Reconfigure(rise, fall, panic, forget) => {
                    judge.reconfigure(&check(rise, fall, panic), forget);
                    true
                }
            };
            let (out, targets) = (judge.out(), judge.targets());
            prop_assert!(out.keys().all(|id| targets.contains_key(id)));
            prop_assert!(targets.is_empty() || out.len() < targets.len(), "all are out");
            prop_assert!(told || before == (out, judge.is_panicking()), "a change was not told");
        }
    }

    /// Whatever the order of probes and of their ends, even if one failure suffices, and after it too.
    #[test]
    fn a_fault_of_everything_at_once_takes_nobody_out(
        steps in prop::collection::vec((0_usize..8, any::<prop::sample::Index>()), 400),
        fault in 0_usize..50,
        fall in 1_u32..4,
        panic in 0_u8..=100,
    ) {
        let mut judge = Judge::new(&check(2, fall, panic));
        judge.set(&numbered(8));
        let mut under_way = Vec::new();
        let (mut panicked, mut recovered) = (false, false);
        for (at, (begins, ends)) in steps.into_iter().enumerate() {
            // What begins during the fault fails; it ends some time after it was noticed.
            if !under_way.iter().any(|(id, _)| *id == begins) {
                judge.begin(&begins.to_string());
                under_way.push((begins, at < fault || recovered));
            }
            if under_way.len() > 4 {
                let (id, well) = under_way.swap_remove(ends.index(under_way.len()));
                judge.note(&id.to_string(), if well { Ok(()) } else { Err("unreachable".to_owned()) });
            }
            prop_assert!(judge.out().is_empty(), "{:?} are out", judge.out().keys());
            panicked |= judge.is_panicking();
            recovered = panicked && at > 250;
        }
        prop_assert!(panicked);
        prop_assert!(!judge.is_panicking());
    }

    #[test]
    fn flapping_below_the_thresholds_changes_nothing(
        fall in 2_u32..5,
        runs in prop::collection::vec((0_usize..5, 1_u32..5), 0..100),
    ) {
        let mut judge = Judge::new(&check(2, fall, 50));
        judge.set(&numbered(5));
        for (id, failures) in runs {
            let id = id.to_string();
            for _ in 0..failures.min(fall - 1) {
                prop_assert!(!judge.ask(&id, false));
            }
            prop_assert!(!judge.ask(&id, true));
            prop_assert!(judge.out().is_empty() && !judge.is_panicking());
        }
    }

    #[test]
    fn fewer_than_panic_are_never_left(
        panic in 1_u8..=100,
        rounds in prop::collection::vec(prop::collection::vec(any::<bool>(), 7), 1..30),
    ) {
        let mut judge = Judge::new(&check(1, 2, panic));
        judge.set(&numbered(7));
        for round in rounds {
            for (id, well) in round.iter().enumerate() {
                judge.ask(&id.to_string(), *well);
            }
            prop_assert!((7 - judge.out().len()) * 100 >= 7 * usize::from(panic));
        }
    }
}
