//! Where instances are learnt from.
//!
//! A provider answers with the whole set or with an error, never with a part. It keeps no clock and never retries:
//! [`poll`] asks it, jittered, bounded in time and backed off, for ever.
//!
//! A new provider is one file here (its configuration, its type, its tests) and the lines in this file that the
//! compiler then asks for.

#[cfg(feature = "ec2")]
pub mod ec2;
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

use std::future::Future;
use std::time::{Duration, SystemTime};

use self::rate_limiter::RateLimiter;
use crate::model::{Instance, Name, Selector};

/// Learns which instances exist.
pub trait Provider: Send {
    /// Why it could not.
    type Error: std::error::Error + Send;

    /// Every instance there is, or an error; never a part. The caller bounds the time, and may drop the future.
    fn discover(&mut self) -> impl Future<Output = Result<Vec<Instance>, Self::Error>> + Send;

    /// Returns when there is reason to believe that the set has changed. Without a way to tell, never.
    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// When the set that was last discovered was observed: now, unless somebody else observed it.
    fn observed_at(&self) -> SystemTime {
        SystemTime::now()
    }

    /// What was asked of the source since this was last called, by polls that failed or were dropped, too.
    fn usage(&mut self) -> ApiUsage {
        ApiUsage::default()
    }

    /// What its calls are taken out of. The time they wait for it is not counted as a poll's.
    fn rate_limiter(&self) -> RateLimiter {
        RateLimiter::default()
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
    pub fn build(&self, selectors: &[Selector]) -> AnyProvider {
        #[cfg(not(any(feature = "ec2", feature = "nats")))]
        let _ = selectors;
        match self {
            Self::Fixed(config) => AnyProvider::Fixed(fixed::Fixed::new(config)),
            Self::File(config) => AnyProvider::File(Box::new(file::File::new(config))),
            Self::Exec(config) => AnyProvider::Exec(Box::new(exec::Exec::new(config))),
            Self::Http(config) => AnyProvider::Http(Box::new(http::Http::new(config))),
            #[cfg(feature = "ec2")]
            Self::Ec2(config) => AnyProvider::Ec2(Box::new(ec2::Ec2::new(config, selectors))),
            #[cfg(feature = "nats")]
            Self::Nats(config) => AnyProvider::Nats(Box::new(nats::Nats::new(config, selectors))),
        }
    }
}

/// One provider of whichever type.
#[derive(Debug)]
#[expect(missing_docs, reason = "the variants are the types of `Config`")]
pub enum AnyProvider {
    Fixed(fixed::Fixed),
    File(Box<file::File>),
    Exec(Box<exec::Exec>),
    Http(Box<http::Http>),
    #[cfg(feature = "ec2")]
    Ec2(Box<ec2::Ec2>),
    #[cfg(feature = "nats")]
    Nats(Box<nats::Nats>),
}

impl AnyProvider {
    /// The same for who only looks: what it discovers is remembered nowhere.
    #[must_use]
    pub fn read_only(self) -> Self {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(provider) => Self::Nats(Box::new(provider.read_only())),
            other => other,
        }
    }

    /// Whether what tells of changes, where something is configured for that, can be used. Nothing is taken from it.
    pub async fn examine_events(&self) -> Option<Result<(), Box<dyn std::error::Error + Send + Sync>>> {
        match self {
            Self::Fixed(_) | Self::File(_) | Self::Exec(_) | Self::Http(_) => None,
            #[cfg(feature = "ec2")]
            Self::Ec2(provider) => Some(provider.examine_events().await?.map_err(Into::into)),
            #[cfg(feature = "nats")]
            Self::Nats(_) => None,
        }
    }
}

/// Why a poll yielded nothing. Every message names what was tried, and the remedy.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the variants are the types of `Config`")]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error(transparent)]
    Exec(#[from] exec::Error),
    #[error(transparent)]
    Http(#[from] http::Error),
    #[cfg(feature = "ec2")]
    #[error(transparent)]
    Ec2(#[from] ec2::Error),
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] nats::Error),
    /// The poll took longer than the provider's `timeout`.
    #[error("no complete answer within {0:?}; raise the provider's `timeout` if its source is merely slow")]
    Timeout(Duration),
}

impl Error {
    /// Whether the source asked for fewer calls.
    pub fn is_throttled(&self) -> bool {
        match self {
            #[cfg(feature = "ec2")]
            Self::Ec2(error) => error.is_throttled(),
            Self::Http(error) => error.is_throttled(),
            #[cfg(feature = "nats")]
            Self::Nats(error) => error.is_throttled(),
            Self::File(_) | Self::Exec(_) | Self::Timeout(_) => false,
        }
    }
}

impl Provider for AnyProvider {
    type Error = Error;

    async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        Ok(match self {
            Self::Fixed(provider) => {
                let Ok(instances) = provider.discover().await;
                instances
            }
            Self::File(provider) => provider.discover().await?,
            Self::Exec(provider) => provider.discover().await?,
            Self::Http(provider) => provider.discover().await?,
            #[cfg(feature = "ec2")]
            Self::Ec2(provider) => provider.discover().await?,
            #[cfg(feature = "nats")]
            Self::Nats(provider) => provider.discover().await?,
        })
    }

    async fn changed(&mut self) {
        match self {
            Self::Fixed(provider) => provider.changed().await,
            Self::File(provider) => provider.changed().await,
            Self::Exec(provider) => provider.changed().await,
            Self::Http(provider) => provider.changed().await,
            #[cfg(feature = "ec2")]
            Self::Ec2(provider) => provider.changed().await,
            #[cfg(feature = "nats")]
            Self::Nats(provider) => provider.changed().await,
        }
    }

    fn observed_at(&self) -> SystemTime {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(provider) => provider.observed_at(),
            _ => SystemTime::now(),
        }
    }

    fn usage(&mut self) -> ApiUsage {
        match self {
            Self::Fixed(provider) => provider.usage(),
            Self::File(provider) => provider.usage(),
            Self::Exec(provider) => provider.usage(),
            Self::Http(provider) => provider.usage(),
            #[cfg(feature = "ec2")]
            Self::Ec2(provider) => provider.usage(),
            #[cfg(feature = "nats")]
            Self::Nats(provider) => provider.usage(),
        }
    }

    fn rate_limiter(&self) -> RateLimiter {
        match self {
            Self::Fixed(provider) => provider.rate_limiter(),
            Self::File(provider) => provider.rate_limiter(),
            Self::Exec(provider) => provider.rate_limiter(),
            Self::Http(provider) => provider.rate_limiter(),
            #[cfg(feature = "ec2")]
            Self::Ec2(provider) => provider.rate_limiter(),
            #[cfg(feature = "nats")]
            Self::Nats(provider) => provider.rate_limiter(),
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
