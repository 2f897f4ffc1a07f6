//! Where instances are learnt from.
//!
//! A provider answers with the whole set or with an error, never with a part. It keeps no clock and never retries:
//! [`poll`] asks it, jittered, bounded in time and backed off, for ever.
//!
//! A new provider is one file here (its configuration, its type, its tests) and the lines in this file that the
//! compiler then asks for.

#[cfg(feature = "ec2")]
pub mod ec2;
mod error;
pub mod exec;
pub mod file;
pub mod fixed;
pub mod format;
pub mod http;
pub mod instance_spec;
#[cfg(feature = "nats")]
pub mod nats;
pub mod poll;
pub mod rate_limiter;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use self::error::{Error, ErrorKind};
use self::rate_limiter::RateLimiter;
use crate::model::fleet::Reading;
use crate::model::{Instance, Name, Selector};

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

    /// What was asked of the source since this was last called, including polls that failed or were dropped.
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

    /// How reading a fleet's sets stands, for a provider that does. Changes with every poll.
    fn fleet_reading(&self) -> Option<watch::Receiver<Arc<Reading>>> {
        None
    }
}

/// What was asked of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApiUsage {
    /// Calls, repeated ones included.
    pub calls: u64,
    /// Pages that came back.
    pub pages: u64,
    /// Calls that were refused because there were too many, even if they succeeded when repeated.
    pub throttles: u64,
}

/// A provider's own configuration, by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// Instances written in the configuration itself.
    Fixed(fixed::Config),
    /// Instances in a file.
    File(file::Config),
    /// Instances that a program prints.
    Exec(exec::Config),
    /// Instances that an HTTP server answers with.
    Http(Box<http::Config>),
    /// AWS EC2.
    #[cfg(feature = "ec2")]
    Ec2(ec2::Config),
    /// What publishers of a fleet put into NATS.
    #[cfg(feature = "nats")]
    Nats(nats::Config),
}

impl Config {
    /// Every type, as the configuration writes it.
    pub const TYPES: &[&str] = &[
        "fixed",
        "file",
        "exec",
        "http",
        #[cfg(feature = "ec2")]
        "ec2",
        #[cfg(feature = "nats")]
        "nats",
    ];

    /// The type, as the configuration writes it.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Fixed(_) => "fixed",
            Self::File(_) => "file",
            Self::Exec(_) => "exec",
            Self::Http(_) => "http",
            #[cfg(feature = "ec2")]
            Self::Ec2(_) => "ec2",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "nats",
        }
    }

    /// Builds the provider. `selectors` are those of all its services: a provider whose cloud can filter asks only
    /// for what one of them may want.
    pub fn build(&self, selectors: &[Selector]) -> Box<dyn Provider> {
        #[cfg(not(any(feature = "ec2", feature = "nats")))]
        let _ = selectors;
        match self {
            Self::Fixed(config) => Box::new(fixed::Fixed::new(config)),
            Self::File(config) => Box::new(file::File::new(config)),
            Self::Exec(config) => Box::new(exec::Exec::new(config)),
            Self::Http(config) => Box::new(http::Http::new(config)),
            #[cfg(feature = "ec2")]
            Self::Ec2(config) => Box::new(ec2::Ec2::new(config, selectors)),
            #[cfg(feature = "nats")]
            Self::Nats(config) => Box::new(nats::Nats::new(config, selectors)),
        }
    }
}

/// How much of its `timeout` a provider takes that can say more of what it waited for than that it was too long.
fn inner_timeout(timeout: Duration) -> Duration {
    timeout - timeout / 20
}

/// An error and everything beneath it, on one line: some keep the reason at the bottom.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |&error| error.source()) {
        let said = format::shortened(&error.to_string());
        if !words.iter().any(|earlier| earlier.contains(&said)) {
            words.push(said);
        }
    }
    words.join(": ")
}

/// The availability zone that this machine is in, as the metadata service of its cloud says.
///
/// # Errors
///
/// It does not say.
#[cfg(feature = "ec2")]
pub async fn own_zone() -> Result<String, ec2::ZoneError> {
    ec2::own_zone().await
}

/// The same without a cloud that could be asked: never.
#[cfg(not(feature = "ec2"))]
pub async fn own_zone() -> Result<String, std::convert::Infallible> {
    std::future::pending().await
}

/// What one poll of one provider brought.
#[derive(Debug)]
pub struct Observation {
    /// The provider polled.
    pub provider: Name,
    /// When the set was observed, which is when the answer was complete, unless somebody else observed it.
    pub at: SystemTime,
    /// How long the poll took.
    pub took: Duration,
    /// What it asked of its source.
    pub cost: ApiUsage,
    /// The whole set, or why there is none.
    pub result: Result<Vec<Instance>, Error>,
}
