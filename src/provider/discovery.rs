//! What every provider does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::error::Error;
use super::rate_limiter::RateLimiter;
use crate::model::{Instance, Name};
use crate::status::{self, ApiUsage};

/// Learns which instances exist.
pub trait Provider: std::fmt::Debug + Send {
    /// Every instance there is, or an error; never a part. The caller bounds the time, and may drop the future.
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, Error>>;

    /// Returns when there is reason to believe that the set has changed. Without a way to know, never.
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// When the set that was last discovered was observed: now, unless another elasticd observed it.
    fn observed_at(&self) -> SystemTime {
        SystemTime::now()
    }

    /// The calls to the source since this was last called, including polls that failed or were dropped.
    fn usage(&mut self) -> ApiUsage {
        ApiUsage::default()
    }

    /// The limiter that its calls wait for. That waiting is not counted as a poll's time.
    fn rate_limiter(&self) -> RateLimiter {
        RateLimiter::default()
    }

    /// Checks whether the source of change events, if one is configured, can be used, and says what is possible.
    /// Takes no event out of it.
    fn check_events(&self) -> Option<BoxFuture<'_, Result<&'static str, Error>>> {
        None
    }

    /// From now on nothing that is discovered is stored anywhere: for commands that only look.
    fn set_read_only(&mut self) {}

    /// The state of reading a fleet's sets, for a provider that does. Changes with every poll.
    fn fleet_reading(&self) -> Option<watch::Receiver<Arc<status::Reader>>> {
        None
    }
}

/// The result of one poll of one provider.
#[derive(Debug)]
pub struct Observation {
    /// The provider polled.
    pub provider: Name,
    /// When the set was observed, which is when the answer was complete, unless another elasticd observed it.
    pub at: SystemTime,
    /// How long the poll took.
    pub took: Duration,
    /// The calls that it made.
    pub cost: ApiUsage,
    /// The whole set, or why there is none.
    pub result: Result<Vec<Instance>, Error>,
}
