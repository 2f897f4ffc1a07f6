//! Which phase a connection is in, since when, and whether that takes too long.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::limits::Limits;

/// The phase that a connection is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No byte of a next request has come.
    Idle,
    /// Some bytes have.
    Header,
    /// All headers have; the answer is being made.
    Answering,
    /// Nothing has changed yet that the client waits for.
    Waiting,
    /// The answer is made, and the client has not taken all of it.
    Sending,
    /// Events go out, and the client has not taken the last one.
    Streaming,
}

impl Phase {
    const ALL: [Self; 6] = [Self::Idle, Self::Header, Self::Answering, Self::Waiting, Self::Sending, Self::Streaming];
}

/// Which phase a connection is in, and since when.
///
/// One task has it to itself: its fields are atomic only so that the task can go from thread to thread. The clock is
/// read once each time the task is woken, and phases begin and end at that time: a request takes several, and
/// nothing that takes long happens without waiting.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    /// When the task was last woken, in milliseconds since `start`, as is `since`.
    now: AtomicU64,
    phase: AtomicU8,
    since: AtomicU64,
    /// How long it may be waiting, in milliseconds.
    wait: AtomicU64,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            now: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            wait: AtomicU64::new(0),
        }
    }

    /// Reads the clock whenever it is polled, and never ends.
    pub(super) async fn ticking(&self) -> Infallible {
        std::future::poll_fn(|_| {
            self.now.store(millis(self.start.elapsed()), Ordering::Relaxed);
            Poll::Pending
        })
        .await
    }

    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The answer waits for a change, so long at most.
    pub(super) fn wait(&self, bound: Duration) {
        self.wait.store(millis(bound), Ordering::Relaxed);
        self.enter(Phase::Waiting);
    }

    /// It waits no longer, if it did.
    pub(super) fn waited(&self) {
        if self.phase() == Phase::Waiting {
            self.enter(Phase::Answering);
        }
    }

    /// The answer is made, and goes out. Sending counts from the end of the headers, as answering does.
    pub(super) fn send(&self, sending: Phase) {
        match sending {
            Phase::Sending => self.phase.store(sending as u8, Ordering::Relaxed),
            _ => self.enter(sending),
        }
    }

    /// For how long no request has come. `None`: one is under way.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        (self.phase() == Phase::Idle).then(|| self.start.elapsed().saturating_sub(self.since()))
    }

    fn since(&self) -> Duration {
        Duration::from_millis(self.since.load(Ordering::Relaxed))
    }

    fn deadline(&self, limits: &Limits) -> (Phase, Instant) {
        let phase = self.phase();
        let bound = match phase {
            Phase::Idle => limits.idle,
            Phase::Header => limits.header,
            Phase::Answering | Phase::Sending | Phase::Streaming => limits.request,
            Phase::Waiting => Duration::from_millis(self.wait.load(Ordering::Relaxed)).saturating_add(limits.request),
        };
        (phase, self.start + self.since() + bound)
    }

    /// Ends when a phase has lasted longer than its bound.
    pub(super) async fn overdue(&self, limits: &Limits) -> Phase {
        // A phase that begins while we sleep cannot end sooner than this, so none is noticed late.
        let shortest = limits.idle.min(limits.header).min(limits.request);
        loop {
            let (phase, deadline) = self.deadline(limits);
            let now = Instant::now();
            if deadline <= now {
                return phase;
            }
            sleep_until(deadline.min(now + shortest)).await;
        }
    }
}

/// Whole milliseconds; those of half a billion years at most.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A connection that notifies its clock when a request begins and when a response has been taken.
#[derive(Debug)]
pub(super) struct Timed<'a, I> {
    pub(super) io: I,
    pub(super) clock: &'a Clock,
}

impl<I: AsyncRead + Unpin> AsyncRead for Timed<'_, I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before && self.clock.phase() == Phase::Idle {
            self.clock.enter(Phase::Header);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<'_, I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes once it has handed over all it had to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        if polled.is_ready() {
            match self.clock.phase() {
                Phase::Sending => self.clock.enter(Phase::Idle),
                Phase::Streaming => self.clock.enter(Phase::Streaming),
                _ => {}
            }
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_bound() {
        let limits = Limits {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            request: Duration::from_secs(30),
            ..Limits::default()
        };
        for (phase, seconds) in [
            (Phase::Idle, 75),
            (Phase::Header, 10),
            (Phase::Answering, 30),
            (Phase::Waiting, 85),
            (Phase::Sending, 30),
            (Phase::Streaming, 30),
        ] {
            let clock = Clock::new();
            let start = Instant::now();
            let entered = async {
                sleep(Duration::from_secs(3)).await;
                match phase {
                    Phase::Waiting => clock.wait(Duration::from_secs(55)),
                    phase => clock.enter(phase),
                }
                std::future::pending::<()>().await;
            };
            let late = tokio::select! {
                biased;
                never = clock.ticking() => match never {},
                () = entered => unreachable!(),
                phase = clock.overdue(&limits) => phase,
            };
            assert_eq!((late, start.elapsed().as_secs()), (phase, seconds + 3));
        }
    }
}
