//! Accepting connections and serving them within bounds of number, time and memory.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::UCred;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::error::Problem;
use super::route::{Answer, Answers, Surface};
use super::xds::Discovery;
use crate::sys::unix_socket;

/// The smallest buffer hyper takes (`max_buf_size`, which panics below).
const MIN_BUFFER: usize = 8192;

/// What connections can be accepted from.
pub(super) trait Accept {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Who is at the other end, where the kernel tells.
    fn peer(_: &Self::Io) -> Option<UCred> {
        None
    }
}

impl Accept for unix_socket::Listener {
    type Io = UnixStream;

    fn accept(&self) -> impl Future<Output = io::Result<UnixStream>> + Send {
        self.accept()
    }

    fn peer(io: &UnixStream) -> Option<UCred> {
        io.peer_cred().ok()
    }
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// One listener's server.
#[derive(Debug)]
pub(super) struct Server {
    /// Which resources it serves.
    pub(super) surface: Surface,
    /// Connections at once.
    pub(super) connections: usize,
    /// Where answers come from.
    pub(super) answers: Arc<Answers>,
    /// What a client may take.
    pub(super) limits: Limits,
    /// Ends accepting, and starts the drain.
    pub(super) shutdown: CancellationToken,
}

impl Server {
    /// Serves until shutdown, and drains.
    pub(super) async fn run<L: Accept>(self, listener: L) {
        let permits = Arc::new(Semaphore::new(self.connections.min(Semaphore::MAX_PERMITS)));
        let crowd = Arc::new(Notify::new());
        let graceful = GracefulShutdown::new();
        let mut tasks = JoinSet::new();
        let mut accepting = Accepting::new(self.limits.accept_pause);
        loop {
            let next = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => { surface_panic(ended); continue }
                next = async {
                    if permits.available_permits() == 0 {
                        crowd.notify_waiters();
                    }
                    accepting.next(&listener, &permits).await
                } => next,
            };
            let Some((io, permit)) = next else { break };
            let denied = (self.surface == Surface::Admin).then(|| denied(L::peer(&io))).flatten();
            let house = House { permits: Arc::clone(&permits), crowd: Arc::clone(&crowd) };
            tasks.spawn(self.connection(io, denied, permit, house, graceful.watcher()));
        }
        // New clients should find no listener, rather than wait for one that no longer accepts.
        drop(listener);
        // Who has just been let in has a request on the way; an answer now ends its connection.
        sleep(self.limits.linger).await;
        if timeout(self.limits.drain, graceful.shutdown()).await.is_err() {
            tracing::warn!(bound = ?self.limits.drain, "cutting off requests that did not end in time");
        }
        tasks.abort_all();
        while let Some(ended) = tasks.join_next().await {
            surface_panic(ended);
        }
    }

    fn connection<I>(
        &self,
        io: I,
        denied: Option<Problem>,
        permit: OwnedSemaphorePermit,
        house: House,
        watcher: Watcher,
    ) -> impl Future<Output = ()> + Send + use<I>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (answers, surface, limits) = (Arc::clone(&self.answers), self.surface, self.limits.clone());
        let shutdown = self.shutdown.clone();
        async move {
            let clock = Arc::new(Clock::new());
            let service = service_fn(|request: Request<Incoming>| {
                clock.enter(Phase::Answering);
                let answer = match &denied {
                    None => answers.answer(surface, &request, limits.request / 2, &shutdown),
                    Some(problem) => Answer::Now(problem.response()),
                };
                let (answers, clock, house, shutdown) = (&answers, &clock, &house, &shutdown);
                async move {
                    let (mut response, sending) = match answer {
                        Answer::Now(response) => (response, Phase::Sending),
                        Answer::Events(response) => (response, Phase::Streaming),
                        // How long a body may take to come is bounded with the answer.
                        Answer::Done(action) => (action.answer(answers, request.into_body()).await, Phase::Sending),
                        Answer::Discovery => match Discovery::read(request.into_body()).await {
                            Err(problem) => (problem.response(), Phase::Sending),
                            Ok(asked) => {
                                clock.enter(Phase::Waiting(asked.wait()));
                                let response = asked.answer(answers, shutdown).await;
                                clock.enter(Phase::Answering);
                                (response, Phase::Sending)
                            }
                        },
                        Answer::Later(later) => {
                            clock.enter(Phase::Waiting(later.bound()));
                            let response = later.answer(answers, request.headers(), shutdown).await;
                            clock.enter(Phase::Answering);
                            (response, Phase::Sending)
                        }
                    };
                    if house.is_full() || shutdown.is_cancelled() || sending == Phase::Streaming {
                        // Others may be waiting: clients that keep connections open must not lock them out.
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    clock.enter_from(Phase::Answering, sending);
                    Ok::<_, Infallible>(response)
                }
            });
            let io = TokioIo::new(Timed { io, clock: Arc::clone(&clock) });
            let connection = watcher.watch(builder(&limits).serve_connection(io, service));
            let connection = pin!(connection);
            tokio::select! {
                ended = connection => if let Err(error) = ended { tracing::debug!(%error, "connection ended") },
                phase = clock.overdue(&limits) => tracing::debug!(?phase, "connection cut off: it took too long"),
                () = house.wants_room(&clock, limits.crowded) => tracing::debug!("idle connection ended: others wait"),
            }
            drop(permit);
        }
    }
}

/// What connections know of each other.
#[derive(Debug)]
struct House {
    permits: Arc<Semaphore>,
    /// Told when the last permit is taken and another connection is to be accepted.
    crowd: Arc<Notify>,
}

impl House {
    fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Returns once this connection has been idle for `bound` while others may be waiting.
    async fn wants_room(&self, clock: &Clock, bound: Duration) {
        loop {
            let mut told = pin!(self.crowd.notified());
            told.as_mut().enable();
            // One that is busy ends with its answer.
            if !self.is_full() || clock.idle_for().is_none() {
                told.await;
            }
            while let Some(idle) = clock.idle_for().filter(|_| self.is_full()) {
                match bound.checked_sub(idle) {
                    Some(left) if !left.is_zero() => sleep(left).await,
                    _ => return,
                }
            }
        }
    }
}

/// Why a client may not use the admin listener. Its mode keeps others out already; root and our own user remain, and
/// whoever was handed a connection of theirs.
fn denied(peer: Option<UCred>) -> Option<Problem> {
    let uid = peer.as_ref().map_or(u32::MAX, UCred::uid);
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return None;
    }
    let pid = peer.as_ref().and_then(UCred::pid);
    tracing::warn!(uid, pid, "refused on the admin listener");
    Some(Problem::Denied { uid })
}

fn builder(limits: &Limits) -> http1::Builder {
    let bytes = limits.header_bytes.max(MIN_BUFFER);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper starts this clock when the previous answer ends, so it can only bound idling and headers together;
        // the time from a request's first byte is bounded by `Clock`.
        .header_read_timeout(limits.idle.saturating_add(limits.header))
        .max_header_size(bytes)
        .max_buf_size(bytes);
    builder
}

/// A panic in a connection's task goes on here, so that whoever runs the server sees it.
fn surface_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The accept loop's memory.
struct Accepting {
    first_pause: Duration,
    /// The pause after the next failure; `None` while accepting works.
    pause: Option<Duration>,
}

impl Accepting {
    fn new(first_pause: Duration) -> Self {
        Self { first_pause: first_pause.max(Duration::from_millis(1)), pause: None }
    }

    /// The next connection and its permit; the permit comes first, so that what is beyond the bound waits in the
    /// kernel's backlog. `None` never comes as long as the semaphore is open. Dropping the future loses nothing.
    async fn next<L: Accept>(
        &mut self,
        listener: &L,
        permits: &Arc<Semaphore>,
    ) -> Option<(L::Io, OwnedSemaphorePermit)> {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok(io) => {
                    if self.pause.take().is_some() {
                        tracing::info!("accepting connections again");
                    }
                    return Some((io, permit));
                }
                Err(error) => self.back_off(&error).await,
            }
        }
    }

    /// At EMFILE accept fails at once and the connection stays in the backlog: without a pause this is a hot loop.
    async fn back_off(&mut self, error: &io::Error) {
        if self.pause.is_none() {
            tracing::warn!(%error, "cannot accept connections; if files are exhausted, raise LimitNOFILE or lower api.max_connections");
        }
        let pause = self.pause.unwrap_or(self.first_pause);
        self.pause = Some((pause * 2).min(Limits::MAX_PAUSE));
        sleep(pause).await;
    }
}

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No byte of a next request has come.
    Idle,
    /// Some bytes have.
    Header,
    /// All headers have; the answer is being made.
    Answering,
    /// Nothing has changed yet that the client waits for, this long at most.
    Waiting(Duration),
    /// The answer is made, and the client has not taken all of it.
    Sending,
    /// Events go out, and the client has not taken the last one.
    Streaming,
}

/// Since when a connection is at what.
#[derive(Debug)]
struct Clock(Mutex<(Phase, Instant)>);

impl Clock {
    fn new() -> Self {
        Self(Mutex::new((Phase::Idle, Instant::now())))
    }

    fn state(&self) -> MutexGuard<'_, (Phase, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        *self.state() = (phase, Instant::now());
    }

    fn enter_from(&self, from: Phase, to: Phase) {
        let mut state = self.state();
        if state.0 == from {
            // Sending counts from the end of the headers, as answering does.
            let since = if to == Phase::Sending { state.1 } else { Instant::now() };
            *state = (to, since);
        }
    }

    /// For how long no request has come. `None`: one is under way.
    fn idle_for(&self) -> Option<Duration> {
        let (phase, since) = *self.state();
        (phase == Phase::Idle).then(|| since.elapsed())
    }

    fn deadline(&self, limits: &Limits) -> (Phase, Instant) {
        let (phase, since) = *self.state();
        let bound = match phase {
            Phase::Idle => limits.idle,
            Phase::Header => limits.header,
            Phase::Answering | Phase::Sending | Phase::Streaming => limits.request,
            Phase::Waiting(bound) => bound.saturating_add(limits.request),
        };
        (phase, since + bound)
    }

    /// Ends when a phase has lasted longer than its bound.
    async fn overdue(&self, limits: &Limits) -> Phase {
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

/// A connection that tells its clock when a request begins and when an answer has been taken.
#[derive(Debug)]
struct Timed<I> {
    io: I,
    clock: Arc<Clock>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Timed<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.clock.enter_from(Phase::Idle, Phase::Header);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<I> {
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
            self.clock.enter_from(Phase::Sending, Phase::Idle);
            self.clock.enter_from(Phase::Streaming, Phase::Streaming);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Fails as often as told, then accepts.
    struct Failing(AtomicUsize);

    impl Accept for Failing {
        type Io = tokio::io::DuplexStream;

        async fn accept(&self) -> io::Result<Self::Io> {
            if self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                return Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32));
            }
            Ok(tokio::io::duplex(1).0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accept_errors_back_off_up_to_a_second() {
        let permits = Arc::new(Semaphore::new(1));
        let mut accepting = Accepting::new(Duration::from_millis(5));
        let start = Instant::now();
        let _connection = accepting.next(&Failing(AtomicUsize::new(12)), &permits).await.expect("a connection");
        // 5 + 10 + ... + 640 ms, then four times one second.
        assert_eq!(start.elapsed().as_millis(), 1275 + 4000);
        assert_eq!(accepting.pause, None);
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_bound() {
        let limits = Limits {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            request: Duration::from_secs(30),
            ..Limits::default()
        };
        for (phase, seconds) in [(Phase::Idle, 75), (Phase::Header, 10), (Phase::Answering, 30), (Phase::Sending, 30)] {
            let clock = Clock::new();
            let start = Instant::now();
            let entered = async {
                sleep(Duration::from_secs(3)).await;
                clock.enter(phase);
                std::future::pending::<()>().await;
            };
            let late = tokio::select! { phase = clock.overdue(&limits) => phase, () = entered => unreachable!() };
            assert_eq!((late, start.elapsed().as_secs()), (phase, seconds + 3));
        }
    }
}
