//! Accepting connections and serving them within bounds of number, time and memory.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::UCred;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Answers, Late};
use super::clock::{Clock, Phase, Timed};
use super::error::Problem;
use super::limits::Limits;
use super::metrics;
use super::respond::Body;
use super::route::ListenerKind;
use super::xds::Discovery;
use crate::sys::backoff::{Backoff, Jitter};
use crate::sys::unix_socket;

/// The smallest buffer hyper takes (`max_buf_size`, which panics below).
const MIN_BUFFER: usize = 8192;

/// What connections can be accepted from.
pub(super) trait Accept {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// The process at the other end, if the kernel knows it.
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
    pub(super) kind: ListenerKind,
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
        let server = Arc::new(self);
        let limit = Arc::new(ConnectionLimit::new(server.connections));
        let mut tasks = JoinSet::new();
        let mut accepting = Accepting::new(server.limits.accept_pause);
        loop {
            let next = tokio::select! {
                biased;
                () = server.shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => { surface_panic(ended); continue }
                next = async {
                    if limit.is_full() {
                        limit.changed.notify_waiters();
                    }
                    accepting.next(&listener, &limit.permits).await
                } => next,
            };
            let Some((io, permit)) = next else { break };
            let denied = (server.kind == ListenerKind::Admin).then(|| denied(L::peer(&io))).flatten();
            tasks.spawn(Arc::clone(&server).connection(io, denied, permit, Arc::clone(&limit)));
        }
        // New clients should find no listener, rather than wait for one that no longer accepts.
        drop(listener);
        // A client that was just accepted has a request on the way; its response ends the connection.
        sleep(server.limits.linger).await;
        limit.close();
        if timeout(server.limits.drain, drained(&mut tasks)).await.is_err() {
            tracing::warn!(
                bound_seconds = server.limits.drain.as_secs_f64(),
                "requests that did not end in time are cut off"
            );
        }
        tasks.abort_all();
        drained(&mut tasks).await;
    }

    async fn connection<I>(
        self: Arc<Self>,
        io: I,
        denied: Option<Problem>,
        permit: OwnedSemaphorePermit,
        limit: Arc<ConnectionLimit>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { kind, answers, limits, shutdown, .. } = &*self;
        let (clock, limit) = (&Clock::new(), &*limit);
        let ending = Ending { limit, clock, shutdown };
        let service = service_fn(|request: Request<Incoming>| {
            clock.enter(Phase::Answering);
            let answer = match &denied {
                None => answers.answer(*kind, &request, limits.request / 2, shutdown),
                Some(problem) => Answer::Now(problem.response()),
            };
            // The rest of the request would keep the buffer that it was read into.
            let body = request.into_body();
            let answer = match answer {
                Answer::Now(response) => Ok(ending.send(response, Phase::Sending)),
                Answer::Events(response) => Ok(ending.send(response, Phase::Streaming)),
                // Boxed: hyper moves what is to come about, and keeps room for it while a connection is idle.
                Answer::Late(late) => Err(Box::pin(async move {
                    let response = match late {
                        // How long a body may take to come is bounded with the answer.
                        Late::Done(action) => Box::pin(action.answer(&answers.context, body)).await,
                        Late::Discovery => match Box::pin(Discovery::read(body)).await {
                            Err(problem) => problem.response(),
                            Ok(request) => {
                                clock.wait(request.wait());
                                Box::pin(request.answer(&answers.context, shutdown)).await
                            }
                        },
                        Late::Metrics => Box::pin(metrics::answer(&answers.context.sources)).await,
                        Late::Change(ref change) => {
                            clock.wait(change.bound());
                            change.answer(&answers.context, shutdown).await
                        }
                    };
                    clock.waited();
                    ending.send(response, Phase::Sending)
                })),
            };
            async {
                Ok::<_, Infallible>(match answer {
                    Ok(response) => response,
                    Err(late) => late.await,
                })
            }
        });
        let io = TokioIo::new(Timed { io, clock });
        let mut connection = pin!(builder(limits).serve_connection(io, service));
        let mut is_closing = false;
        loop {
            tokio::select! {
                biased;
                never = clock.ticking() => match never {},
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    break;
                }
                phase = clock.overdue(limits) => {
                    tracing::debug!(?phase, "connection closed: it took too long");
                    break;
                }
                close_reason = limit.close_reason(clock, limits.crowded, is_closing) => match close_reason {
                    CloseReason::Shutdown => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    CloseReason::Crowded => {
                        tracing::debug!("idle connection closed: others wait");
                        break;
                    }
                },
            }
        }
        drop(permit);
    }
}

/// How a request ends on a connection.
#[derive(Clone, Copy)]
struct Ending<'a> {
    limit: &'a ConnectionLimit,
    clock: &'a Clock,
    shutdown: &'a CancellationToken,
}

impl Ending<'_> {
    fn send(self, mut response: Response<Body>, sending: Phase) -> Response<Body> {
        if self.limit.is_full() || self.shutdown.is_cancelled() || sending == Phase::Streaming {
            // Others may be waiting: clients that keep connections open must not lock them out.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.clock.send(sending);
        response
    }
}

/// What the connections of a listener share.
#[derive(Debug)]
struct ConnectionLimit {
    permits: Arc<Semaphore>,
    is_closing: AtomicBool,
    /// Notified when the last permit is taken and another connection is to be accepted, and at the end.
    changed: Notify,
}

/// Why a connection is to end.
enum CloseReason {
    /// elasticd stops: it ends with the response under way.
    Shutdown,
    /// It is idle, and others may be waiting: it ends at once.
    Crowded,
}

impl ConnectionLimit {
    fn new(connections: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
            is_closing: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Returns once the limit closes, unless that `is_known`, or once this connection has been idle for `bound` while
    /// others may be waiting.
    async fn close_reason(&self, clock: &Clock, bound: Duration, is_known: bool) -> CloseReason {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if !is_known && self.is_closing.load(Ordering::Acquire) {
                return CloseReason::Shutdown;
            }
            // One that is busy ends with its answer.
            match clock.idle_for().filter(|_| self.is_full()).map(|idle| bound.saturating_sub(idle)) {
                None => changed.await,
                Some(Duration::ZERO) => return CloseReason::Crowded,
                // Boxed, as it is seldom, and would make every connection larger.
                Some(left) => drop(Box::pin(timeout(left, changed)).await),
            }
        }
    }
}

/// Why a client may not use the admin listener. Its mode keeps others out already; root and our own user remain, and
/// processes that they handed a connection to.
fn denied(peer: Option<UCred>) -> Option<Problem> {
    let uid = peer.as_ref().map_or(u32::MAX, UCred::uid);
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return None;
    }
    let pid = peer.as_ref().and_then(UCred::pid);
    tracing::warn!(uid, pid, "admin request refused: only root and elasticd's own user may change anything");
    Some(Problem::Denied { uid })
}

fn builder(limits: &Limits) -> http1::Builder {
    let bytes = limits.header_bytes.max(MIN_BUFFER);
    let mut builder = http1::Builder::new();
    // Without a timer hyper has no time limits of its own: they are `Clock`'s, which costs no timer for each request.
    builder.max_header_size(bytes).max_buf_size(bytes);
    builder
}

/// Waits until all connections have ended.
async fn drained(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        surface_panic(ended);
    }
}

/// A panic in a connection's task goes on here, so that the caller sees it.
fn surface_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The accept loop's memory.
struct Accepting {
    backoff: Backoff,
}

impl Accepting {
    fn new(first_pause: Duration) -> Self {
        let first = first_pause.clamp(Duration::from_millis(1), Limits::MAX_PAUSE);
        let backoff = Backoff::new(first, Limits::MAX_PAUSE, Jitter::None);
        Self { backoff: backoff.expect("the first pause is between its bounds") }
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
                    if self.backoff.failures() > 0 {
                        tracing::info!("accepting connections again");
                    }
                    self.backoff.reset();
                    return Some((io, permit));
                }
                Err(error) => self.back_off(&error).await,
            }
        }
    }

    /// At EMFILE accept fails at once and the connection stays in the backlog: without a pause this is a hot loop.
    async fn back_off(&mut self, error: &io::Error) {
        if self.backoff.failures() == 0 {
            tracing::warn!(%error, "cannot accept connections; if files are exhausted, raise LimitNOFILE or lower api.max_connections");
        }
        sleep(self.backoff.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::time::Instant;

    use super::*;
    use crate::api::testing::feeds;

    /// Fails as often as changed, then accepts.
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

    /// A thousand clients that wait take so much each, and hyper's buffers.
    #[tokio::test]
    async fn an_idle_connection_is_small() {
        let (_feeds, sources) = feeds();
        let server = Arc::new(Server {
            kind: ListenerKind::Query,
            connections: 1,
            answers: Arc::new(Answers::new(sources)),
            limits: Limits::default(),
            shutdown: CancellationToken::new(),
        });
        let limit = Arc::new(ConnectionLimit::new(1));
        let permit = Arc::clone(&limit.permits).try_acquire_owned().expect("room for one");
        let connection = server.connection(UnixStream::pair().expect("a pair").0, None, permit, limit);
        assert!(size_of_val(&connection) <= 2048, "{} bytes", size_of_val(&connection));
    }

    #[tokio::test(start_paused = true)]
    async fn accept_errors_back_off_up_to_a_second() {
        let permits = Arc::new(Semaphore::new(1));
        let mut accepting = Accepting::new(Duration::from_millis(5));
        let start = Instant::now();
        let _connection = accepting.next(&Failing(AtomicUsize::new(12)), &permits).await.expect("a connection");
        // 5 + 10 + ... + 640 ms, then four times one second.
        assert_eq!(start.elapsed().as_millis(), 1275 + 4000);
        assert_eq!(accepting.backoff.failures(), 0);
    }
}
