//! Where instances are learnt from.
//!
//! A provider answers with the whole set or with an error, never with a part. It never retries by itself: [`poll`] asks
//! it at its interval, with jitter, bounded in time and with back-off, for ever.
//!
//! A new provider is a file or folder here with a [`Configuration`] named `Config`, and a line in the table below.

mod configuration;
#[cfg(feature = "ec2")]
pub mod ec2;
mod error;
pub mod exec;
pub mod fallback;
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

pub use self::configuration::{Config, Configuration, Context, TypeVisitor, ZoneLookup};
pub use self::error::{Error, ErrorKind};
use self::rate_limiter::RateLimiter;
use crate::model::fleet::Reading;
use crate::model::{Instance, Name};

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

/// Makes a table of modules, each with its [`Configuration`], into the lists and look-ups that go over all types.
macro_rules! types {
    ($($(#[$gate:meta])* $module:ident,)*) => {
        /// Every type that this elasticd was built with, as the configuration writes it.
        pub const TYPES: &[&str] = &[$($(#[$gate])* <$module::Config as Configuration>::TYPE,)*];

        /// What each type gives to start from.
        const EXAMPLES: &[Option<&str>] = &[$($(#[$gate])* <$module::Config as Configuration>::EXAMPLE,)*];

        /// How each type's cloud is asked for our own zone.
        const ZONE_LOOKUPS: &[Option<ZoneLookup>] = &[$($(#[$gate])* <$module::Config as Configuration>::OWN_ZONE,)*];

        /// Has `visitor` visit the configuration of the type that is called `type_name`. `None`: there is no such type.
        pub fn visit_type<V: TypeVisitor>(type_name: &str, visitor: V) -> Option<V::Output> {
            $(
                $(#[$gate])*
                if type_name == <$module::Config as Configuration>::TYPE {
                    return Some(visitor.visit::<$module::Config>());
                }
            )*
            None
        }
    };
}

// One line for each type of provider.
types! {
    fixed,
    file,
    exec,
    http,
    #[cfg(feature = "ec2")]
    ec2,
    #[cfg(feature = "nats")]
    nats,
}

/// Sections to start a configuration from, without their headers: the most usual type first.
pub fn examples() -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().rev().copied().flatten()
}

/// Whether [`own_zone`] can find out anything: whether a type of provider was built in whose cloud can be asked.
pub fn can_look_up_zone() -> bool {
    ZONE_LOOKUPS.iter().any(Option::is_some)
}

/// The zone that this machine is in, as the metadata service of its cloud says.
///
/// # Errors
///
/// No cloud's metadata service says it.
pub async fn own_zone() -> Result<String, Error> {
    let mut result = Err(Error::new(ErrorKind::Failed, "no type of provider was built in whose cloud could be asked"));
    for look_up in ZONE_LOOKUPS.iter().flatten() {
        result = look_up().await;
        if result.is_ok() {
            break;
        }
    }
    result
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    struct TypeName;

    impl TypeVisitor for TypeName {
        type Output = &'static str;

        fn visit<C: Configuration>(self) -> &'static str {
            C::TYPE
        }
    }

    #[test]
    fn each_type_is_found_by_its_own_name() {
        assert_eq!(TYPES.iter().collect::<BTreeSet<_>>().len(), TYPES.len());
        for name in TYPES {
            assert_eq!(visit_type(name, TypeName), Some(*name));
        }
        assert_eq!(visit_type("none", TypeName), None);
    }

    #[test]
    fn configurations_are_equal_only_within_their_type() {
        let fixed = Config::new(fixed::Config { instances: Vec::new() });
        let file = |path: &str| Config::new(file::Config { path: path.into() });
        assert!(fixed == fixed.clone() && file("/a") == file("/a"));
        assert!(fixed != file("/a") && file("/a") != file("/b"));
        assert_eq!((fixed.type_name(), format!("{:?}", file("/a"))), ("fixed", "Config { path: \"/a\" }".to_owned()));
    }
}
