//! Decides what must be done next for a frontend, from what is known of it. Pure.

use super::digest::Digest;
use super::journal::{Proven, Step};
use crate::sys::process::Identity;

/// What must be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The frontend runs the outputs that are wanted.
    Nothing,
    /// It was started after the wanted outputs were in place, and so runs them: only the record must be updated.
    Adopt,
    /// The wanted outputs are in place and checked, and no process runs yet that could read them.
    AwaitFrontend,
    /// It has, or may have, been asked to reload: look for the proof before asking again.
    Prove,
    /// The outputs that differ must be swapped, and the frontend asked to reload.
    Apply,
}

/// The process that should run the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// The frontend is not known by a process: it reloads by a command, or by itself.
    Unknown,
    /// There is none.
    No,
    /// There is.
    Yes(Identity),
    /// It reloads by a command, and this process of its program is seen from here.
    Seen(Identity),
    /// Its runtime API was asked, and says whether it runs what is wanted.
    Asked {
        /// Whether it does.
        agrees: bool,
    },
}

/// Decides from evidence alone: the outputs wanted, those on disk, the record, and the process that runs.
///
/// Files that are as wanted are never enough: the frontend must be proven to run them.
pub fn plan(wanted: &Digest, on_disk: &Digest, proven: Option<&Proven>, step: &Step, running: Running) -> Action {
    if on_disk != wanted {
        return Action::Apply;
    }
    let is_on_record = *step == Step::Idle && proven.is_some_and(|proven| proven.digest == *wanted);
    match step {
        // What the frontend itself answers outweighs any record.
        _ if running == (Running::Asked { agrees: true }) && is_on_record => Action::Nothing,
        _ if running == (Running::Asked { agrees: true }) => Action::Adopt,
        Step::Reloading { digest, before, swapped_at, asked, .. } if digest == wanted => match (running, before) {
            // It may be about to.
            (Running::Asked { .. }, _) if *asked => Action::Prove,
            (Running::No, _) => Action::AwaitFrontend,
            (Running::Yes(process) | Running::Seen(process), None) if process.start_ticks > *swapped_at => {
                Action::Adopt
            }
            (Running::Yes(_), Some(_)) => Action::Prove,
            (Running::Yes(_), None) | (Running::Unknown | Running::Seen(_) | Running::Asked { .. }, _) => Action::Apply,
        },
        // Unchecked outputs are undone before anything is planned.
        Step::Swapping { .. } => Action::Apply,
        Step::Reloading { .. } | Step::Idle => match (proven.filter(|proven| proven.digest == *wanted), running) {
            (None, _) => Action::Apply,
            (Some(_), Running::Unknown) => Action::Nothing,
            (Some(_), Running::No) => Action::AwaitFrontend,
            (Some(proven), Running::Yes(process) | Running::Seen(process)) if proven.process == Some(process) => {
                Action::Nothing
            }
            (Some(proven), Running::Yes(process) | Running::Seen(process))
                if process.start_ticks > proven.swapped_at =>
            {
                Action::Adopt
            }
            // An older one took the outputs by the command, or is another.
            (Some(_), Running::Seen(_)) => Action::Nothing,
            (Some(_), Running::Yes(_) | Running::Asked { .. }) => Action::Apply,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::Generation;
    use super::*;

    const OLD: Identity = Identity { pid: 10, start_ticks: 100 };
    const NEW: Identity = Identity { pid: 11, start_ticks: 300 };
    const SWAPPED_AT: u64 = 200;

    fn digest(content: &str) -> Digest {
        Digest::of(content.as_bytes())
    }

    fn proven(content: &str, process: Option<Identity>) -> Proven {
        Proven { digest: digest(content), revision: 1, process, swapped_at: SWAPPED_AT, evidence: None }
    }

    fn reloading(content: &str, before: Option<Identity>) -> Step {
        let before = before.map(|frontend| Generation { frontend, workers: vec![], pid_file: None });
        Step::Reloading {
            changes: vec![],
            digest: digest(content),
            revision: 2,
            swapped_at: SWAPPED_AT,
            before,
            mark: None,
            asked: false,
        }
    }

    fn idle(on_disk: &str, proven: Option<Proven>, running: Running) -> Action {
        plan(&digest("a"), &digest(on_disk), proven.as_ref(), &Step::Idle, running)
    }

    #[test]
    fn files_that_differ_are_replaced() {
        assert_eq!(idle("b", Some(proven("a", Some(OLD))), Running::Yes(OLD)), Action::Apply);
        assert_eq!(idle("b", None, Running::No), Action::Apply);
    }

    #[test]
    fn right_files_alone_prove_nothing() {
        assert_eq!(idle("a", None, Running::Yes(OLD)), Action::Apply);
        assert_eq!(idle("a", Some(proven("b", Some(OLD))), Running::Yes(OLD)), Action::Apply);
    }

    #[test]
    fn what_is_proven_is_left_alone() {
        assert_eq!(idle("a", Some(proven("a", Some(OLD))), Running::Yes(OLD)), Action::Nothing);
        assert_eq!(idle("a", Some(proven("a", None)), Running::Unknown), Action::Nothing);
    }

    #[test]
    fn a_frontend_started_since_has_read_the_files_and_an_older_one_has_not() {
        assert_eq!(idle("a", Some(proven("a", Some(OLD))), Running::Yes(NEW)), Action::Adopt);
        assert_eq!(idle("a", Some(proven("a", Some(NEW))), Running::Yes(OLD)), Action::Apply);
        assert_eq!(idle("a", Some(proven("a", Some(OLD))), Running::No), Action::AwaitFrontend);
    }

    #[test]
    fn what_a_frontend_says_itself_outweighs_the_record() {
        let (yes, no) = (Running::Asked { agrees: true }, Running::Asked { agrees: false });
        assert_eq!(idle("a", Some(proven("a", None)), yes), Action::Nothing);
        assert_eq!(idle("a", Some(proven("a", None)), no), Action::Apply);
        assert_eq!(idle("a", None, yes), Action::Adopt);
        assert_eq!(idle("a", None, no), Action::Apply);
        assert_eq!(idle("b", Some(proven("a", None)), yes), Action::Apply, "the files come first");
        let act = |step: &Step, running| plan(&digest("a"), &digest("a"), None, step, running);
        let mut step = reloading("a", None);
        assert_eq!((act(&step, yes), act(&step, no)), (Action::Adopt, Action::Apply));
        if let Step::Reloading { asked, .. } = &mut step {
            *asked = true;
        }
        assert_eq!((act(&step, yes), act(&step, no)), (Action::Adopt, Action::Prove));
    }

    #[test]
    fn an_interrupted_reload_is_looked_for_before_it_is_repeated() {
        let act = |step: &Step, running| plan(&digest("a"), &digest("a"), None, step, running);
        assert_eq!(act(&reloading("a", Some(OLD)), Running::Yes(OLD)), Action::Prove);
        assert_eq!(act(&reloading("a", Some(OLD)), Running::Yes(NEW)), Action::Prove);
        assert_eq!(act(&reloading("a", None), Running::Yes(NEW)), Action::Adopt);
        assert_eq!(act(&reloading("a", None), Running::Yes(OLD)), Action::Apply);
        assert_eq!(act(&reloading("a", None), Running::No), Action::AwaitFrontend);
        assert_eq!(act(&reloading("a", None), Running::Unknown), Action::Apply);
        assert_eq!(act(&reloading("b", Some(OLD)), Running::Yes(OLD)), Action::Apply, "of other content");
        assert_eq!(act(&reloading("a", None), Running::Seen(NEW)), Action::Adopt);
        assert_eq!(act(&reloading("a", None), Running::Seen(OLD)), Action::Apply, "the command is repeated");
    }

    #[test]
    fn a_process_that_a_command_reloads_is_taken_for_the_frontend_only_if_it_is_new() {
        assert_eq!(idle("a", Some(proven("a", Some(OLD))), Running::Seen(OLD)), Action::Nothing);
        assert_eq!(idle("a", Some(proven("a", None)), Running::Seen(OLD)), Action::Nothing);
        assert_eq!(idle("a", Some(proven("a", Some(OLD))), Running::Seen(NEW)), Action::Adopt);
        assert_eq!(idle("a", None, Running::Seen(OLD)), Action::Apply);
    }
}
