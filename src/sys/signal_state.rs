//! Whether a process would act on a signal at once, as `/proc/PID/status` shows it.
//!
//! A server that is at a reload puts the next one off. nginx blocks its signals and takes them only where it waits for
//! them (`sigsuspend` in `ngx_process_cycle.c`), so one that comes meanwhile is pending. Apache takes its handlers for
//! faults down with the configuration's memory, and sets them up again once the new configuration has been read
//! (`ap_fatal_signal_setup`, first thing in each of its multi-processing modules' runs).

use procfs::process::Process as ProcEntry;
use rustix::process::Signal;

/// How a process stands to a signal at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalState {
    /// It acts on the signal at once.
    Ready,
    /// It acts on it later: it is at something else, or one of the kind is pending already.
    Busy,
}

impl SignalState {
    /// How the process stands to `signal`. `caught_when_ready` is a signal that it is known to catch at all times but when
    /// it is busy. A process that has ended, or whose status cannot be read, counts as ready: the attempt to signal it
    /// tells more. Blocks.
    pub fn of(pid: i32, signal: Signal, caught_when_ready: Option<Signal>) -> Self {
        let Ok(status) = ProcEntry::new(pid).and_then(|entry| entry.status()) else { return Self::Ready };
        let masks = Masks {
            pending: status.sigpnd | status.shdpnd,
            blocked: status.sigblk,
            ignored: status.sigign,
            caught: status.sigcgt,
        };
        masks.state(signal, caught_when_ready)
    }
}

/// Sets of signals: signal N is bit N - 1.
struct Masks {
    pending: u64,
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl Masks {
    fn state(&self, signal: Signal, caught_when_ready: Option<Signal>) -> SignalState {
        let holds = |mask: u64, signal: Signal| mask & (1 << (signal.as_raw() - 1)) != 0;
        // One that is blocked and not caught either is read from a descriptor (`signalfd`): it is blocked at all times.
        let is_put_off = holds(self.blocked, signal) && holds(self.caught, signal);
        let is_busy = holds(self.pending, signal)
            || is_put_off
            || holds(self.ignored, signal)
            || caught_when_ready.is_some_and(|sign| !holds(self.caught, sign));
        if is_busy { SignalState::Busy } else { SignalState::Ready }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUP: u64 = 1;
    const SEGV: u64 = 1 << 10;
    const NONE: Masks = Masks { pending: 0, blocked: 0, ignored: 0, caught: HUP };

    #[test]
    fn a_signal_that_would_wait_or_be_lost_finds_the_process_busy() {
        let state = |masks: Masks, sign| masks.state(Signal::HUP, sign);
        assert_eq!(state(NONE, None), SignalState::Ready);
        for masks in
            [Masks { pending: HUP, ..NONE }, Masks { blocked: HUP, ..NONE }, Masks { ignored: HUP, caught: 0, ..NONE }]
        {
            assert_eq!(state(masks, None), SignalState::Busy);
        }
        assert_eq!(state(Masks { blocked: HUP, caught: 0, ..NONE }, None), SignalState::Ready, "read by signalfd");
        assert_eq!(state(NONE, Some(Signal::SEGV)), SignalState::Busy);
        assert_eq!(state(Masks { caught: HUP | SEGV, ..NONE }, Some(Signal::SEGV)), SignalState::Ready);
    }

    #[test]
    fn a_process_that_is_gone_is_left_to_the_attempt() {
        assert_eq!(SignalState::of(i32::MAX, Signal::HUP, None), SignalState::Ready);
    }
}
