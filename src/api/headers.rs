use hyper::header::{HeaderName, HeaderValue};

/// The revision at which the resource last changed.
pub(super) const REVISION: HeaderName = HeaderName::from_static("x-elasticd-revision");

/// The picked backend's `ip:port`, for clients that read no bodies (nginx's `auth_request_set`).
pub(super) const BACKEND: HeaderName = HeaderName::from_static("x-elasticd-backend");

/// The id of the last event that a client has seen.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies such as nginx gather an answer unless this says `no`.
pub(super) const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// For `Cache-Control`: an answer that a cache must not serve without asking again.
pub(super) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// The media type of plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";

/// The media type of problems (RFC 9457).
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// The media type of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// The media type of OpenMetrics text (OpenMetrics 1.0, "Protocol Negotiation").
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
