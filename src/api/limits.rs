use std::time::Duration;

/// What a client may take of time and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a request to the end of its headers.
    pub header: Duration,
    /// From the end of an answer, or the start of a connection, to the first byte of the next request.
    pub idle: Duration,
    /// The same while as many connections are open as may be, and others may be waiting.
    pub crowded: Duration,
    /// From the end of a request's headers until the client has taken the whole answer.
    pub request: Duration,
    /// How long connections without a request are kept after shutdown was asked for.
    pub linger: Duration,
    /// How long requests under way may take to end after that.
    pub drain: Duration,
    /// The longest request line and headers together, in bytes, at least 8192 (hyper's minimum); less counts as that.
    pub header_bytes: usize,
    /// The first pause after an accept that failed; it doubles with each failure in a row, up to [`Limits::MAX_PAUSE`].
    pub accept_pause: Duration,
}

impl Limits {
    /// The longest pause after an accept that failed.
    pub const MAX_PAUSE: Duration = Duration::from_secs(1);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            // Longer than the 60 s after which nginx (`keepalive_timeout` in an upstream, and lua's `setkeepalive`)
            // closes its side, so that no request is sent into a connection that we are just closing.
            idle: Duration::from_secs(75),
            crowded: Duration::from_secs(1),
            request: Duration::from_secs(30),
            linger: Duration::from_millis(100),
            drain: Duration::from_secs(5),
            header_bytes: 16 * 1024,
            accept_pause: Duration::from_millis(5),
        }
    }
}
