//! The policy that accepts a newly observed set, or holds it. Pure.

use serde::Serialize;

use crate::model::{Guard, OnEmpty};

/// Why an observed set is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Hold {
    /// The observed set is empty, and the policy holds an empty set.
    Empty {
        /// Backends in the set that stays in place.
        current: usize,
    },
    /// Too many backends are gone at once.
    Drop {
        /// Backends in the set that stays in place.
        current: usize,
        /// Backends in the held set.
        observed: usize,
        /// Observations in a row that showed such a drop.
        seen: u32,
        /// Observations in a row after which the drop is accepted.
        confirm: u32,
    },
}

/// How many observations in a row have shown too large a drop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropConfirmations(u32);

impl DropConfirmations {
    /// Takes the last observation back: the same one is going to be evaluated again.
    pub const fn undo_last(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// Evaluates a set of `observed` backends against the `current` ones (`None`: no set has been accepted yet).
///
/// `confirmations` is kept between the observations of one provider for one service. An empty set that is held resets
/// it: the provider contradicts itself.
///
/// # Errors
///
/// Why the current set is to be kept.
pub fn evaluate(
    policy: &Guard,
    current: Option<usize>,
    observed: usize,
    confirmations: &mut DropConfirmations,
) -> Result<(), Hold> {
    if observed == 0 && current != Some(0) && policy.on_empty == OnEmpty::Hold {
        *confirmations = DropConfirmations::default();
        return Err(Hold::Empty { current: current.unwrap_or(0) });
    }
    let current = current.unwrap_or(0);
    if policy.is_within_max_drop(current, observed) {
        *confirmations = DropConfirmations::default();
        return Ok(());
    }
    confirmations.0 += 1;
    if confirmations.0 >= policy.confirm {
        *confirmations = DropConfirmations::default();
        return Ok(());
    }
    Err(Hold::Drop { current, observed, seen: confirmations.0, confirm: policy.confirm })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Percent;

    fn policy(on_empty: OnEmpty, max_drop: u8, confirm: u32) -> Guard {
        Guard { on_empty, max_drop: Percent(max_drop), confirm }
    }

    #[test]
    fn an_empty_set_is_held_however_often_it_is_seen() {
        let mut confirmations = DropConfirmations::default();
        for _ in 0..100 {
            let result = evaluate(&policy(OnEmpty::Hold, 100, 1), Some(4), 0, &mut confirmations);
            assert_eq!(result, Err(Hold::Empty { current: 4 }));
        }
        // With nothing served there is nothing to lose, but an empty configuration may replace one that works.
        assert_eq!(evaluate(&Guard::default(), None, 0, &mut confirmations), Err(Hold::Empty { current: 0 }));
        // Once empty has been accepted, it may stay empty.
        assert_eq!(evaluate(&Guard::default(), Some(0), 0, &mut confirmations), Ok(()));
    }

    #[test]
    fn an_accepted_empty_set_is_still_a_drop_to_be_confirmed() {
        let policy = policy(OnEmpty::Accept, 50, 2);
        let mut confirmations = DropConfirmations::default();
        assert_eq!(
            evaluate(&policy, Some(4), 0, &mut confirmations),
            Err(Hold::Drop { current: 4, observed: 0, seen: 1, confirm: 2 })
        );
        assert_eq!(evaluate(&policy, Some(4), 0, &mut confirmations), Ok(()));
        assert_eq!(evaluate(&policy, None, 0, &mut confirmations), Ok(()));
    }

    #[test]
    fn half_may_go_at_once_and_more_when_confirmed_in_a_row() {
        let policy = Guard::default();
        let mut confirmations = DropConfirmations::default();
        assert_eq!(evaluate(&policy, Some(4), 2, &mut confirmations), Ok(()));
        assert!(evaluate(&policy, Some(4), 1, &mut confirmations).is_err());
        assert!(evaluate(&policy, Some(4), 1, &mut confirmations).is_err());
        assert_eq!(evaluate(&policy, Some(4), 4, &mut confirmations), Ok(()), "a full set ends the row");
        assert!(evaluate(&policy, Some(4), 1, &mut confirmations).is_err());
        assert!(evaluate(&policy, Some(4), 0, &mut confirmations).is_err());
        assert!(evaluate(&policy, Some(4), 1, &mut confirmations).is_err(), "an empty set ends the row too");
        assert!(evaluate(&policy, Some(4), 1, &mut confirmations).is_err());
        assert_eq!(evaluate(&policy, Some(4), 1, &mut confirmations), Ok(()));
    }

    proptest! {
        /// Whatever the provider reports, an accepted set is either within the bound or was confirmed, and never empty.
        #[test]
        fn traffic_never_falls_below_the_bound(
            observations in proptest::collection::vec(0_usize..20, 1..200),
            max_drop in 0_u8..=100,
            confirm in 1_u32..5,
        ) {
            let policy = policy(OnEmpty::Hold, max_drop, confirm);
            let mut confirmations = DropConfirmations::default();
            let mut current: Option<usize> = None;
            let mut row = 0;
            for observed in observations {
                let kept = current.unwrap_or(0);
                let too_far = (kept.saturating_sub(observed)) * 100 > kept * usize::from(max_drop);
                row = if too_far && observed > 0 { row + 1 } else { 0 };
                if evaluate(&policy, current, observed, &mut confirmations).is_ok() {
                    prop_assert!(observed > 0);
                    prop_assert!(!too_far || row >= confirm);
                    current = Some(observed);
                    row = 0;
                }
            }
        }
    }
}
