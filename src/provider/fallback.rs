//! Polls a second provider while the first one hears nothing from its fleet: slowly, so that a whole fleet of sidecars
//! that do the same does not overload the source.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::poll::PollSchedule;
use super::rate_limiter::RateLimiter;
use super::{ApiUsage, BuildContext, Error, Provider};
use crate::model::{Instance, Name};
use crate::status;
use crate::sys::backoff::Jitter;
use crate::units::HumanDuration;

/// The size assumed of a fleet before it is known: rather too slow than too fast.
const UNKNOWN_SIZE: usize = 1000;

/// Which provider is polled while the fleet is silent, and how slowly.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    /// Another provider of the configuration.
    pub name: Name,
    /// How long the fleet may be silent before it is polled.
    pub after: Duration,
    /// The whole fleet together polls at most once in this time.
    pub spacing: Duration,
    /// How many sidecars there are, until the publishers report it.
    pub fleet_size: Option<usize>,
    /// That provider's own configuration, and how often it is polled at most.
    pub provider: Option<(super::Config, PollSchedule)>,
}

impl Fallback {
    /// Between two polls of one sidecar, so that the fleet stays within its budget.
    fn gap(&self, readers: Option<usize>, interval: Duration) -> Duration {
        let size = readers.filter(|readers| *readers > 0).or(self.fleet_size).unwrap_or(UNKNOWN_SIZE);
        self.spacing.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX)).max(interval)
    }
}

/// Why neither of the two has a set.
#[derive(Debug, thiserror::Error)]
#[error("{why}; and the fallback {name} fails: {source}")]
struct BothFailed {
    why: Error,
    name: Name,
    source: Error,
}

/// A provider with a fallback.
#[derive(Debug)]
pub struct WithFallback {
    inner: Box<dyn Provider>,
    /// The state of reading the fleet, according to `inner`.
    inner_reading: Option<watch::Receiver<Arc<status::Reader>>>,
    /// The same with what is to be said of the fallback.
    reading: watch::Sender<Arc<status::Reader>>,
    fallback: Fallback,
    provider: Box<dyn Provider>,
    interval: Duration,
    /// When the fallback is polled next, while the fleet is silent.
    due: Option<Instant>,
    /// The fallback's last set, while the fleet is silent.
    last: Option<(Vec<Instance>, SystemTime)>,
    polls: u64,
    /// When the set that was discovered last was observed, if it is the fallback's.
    observed: Option<SystemTime>,
}

impl WithFallback {
    /// Puts the fallback behind `inner`. Without the fallback's own configuration, `inner` is returned as it is.
    pub fn wrap(inner: Box<dyn Provider>, fallback: &Fallback, context: &BuildContext<'_>) -> Box<dyn Provider> {
        let Some((config, schedule)) = &fallback.provider else { return inner };
        let inner_reading = inner.fleet_reading();
        let reading = inner_reading.as_ref().map(|reading| Arc::clone(&reading.borrow())).unwrap_or_default();
        Box::new(Self {
            inner,
            inner_reading,
            reading: watch::Sender::new(reading),
            fallback: fallback.clone(),
            provider: config.build(context),
            interval: schedule.interval,
            due: None,
            last: None,
            polls: 0,
            observed: None,
        })
    }

    async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        let mut answer = self.inner.discover().await;
        let reading = self.inner_reading.as_ref().map(|reading| Arc::clone(&reading.borrow())).unwrap_or_default();
        let silent = reading.heard.is_none_or(|heard| Instant::from_std(heard).elapsed() > self.fallback.after);
        if answer.is_ok() {
            self.observed = None;
        }
        if !silent {
            (self.due, self.last) = (None, None);
        } else if let Err(why) = answer {
            answer = self.poll_fallback(reading.readers, why).await.map(|(instances, at)| {
                self.observed = Some(at);
                instances
            });
        }
        let mut reading = status::Reader::clone(&reading);
        reading.fallback = self.due.is_some().then(|| self.fallback.name.clone());
        reading.fallback_polls = self.polls;
        self.reading.send_replace(Arc::new(reading));
        answer
    }

    /// The fallback's set, after a poll of it if one is due. `why` is the error of `inner`.
    async fn poll_fallback(
        &mut self,
        readers: Option<usize>,
        why: Error,
    ) -> Result<(Vec<Instance>, SystemTime), Error> {
        let now = Instant::now();
        let gap = self.fallback.gap(readers, self.interval);
        // The first time is drawn from the whole gap, so that the fleet's polls are spread over it.
        let due = *self.due.get_or_insert_with(|| now + Jitter::Full { least: Duration::ZERO }.apply(gap));
        if now >= due {
            self.due = Some(now + gap);
            self.polls += 1;
            let name = &self.fallback.name;
            tracing::info!(fallback = %name, every = %HumanDuration(gap), "fleet silent; polling the fallback");
            match self.provider.discover().await {
                Ok(instances) => self.last = Some((instances, SystemTime::now())),
                Err(source) => {
                    let kind = source.kind();
                    return Err(Error::new(kind, BothFailed { why, name: name.clone(), source }));
                }
            }
        }
        self.last.clone().ok_or(why)
    }
}

impl Provider for WithFallback {
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, Error>> {
        Box::pin(Self::discover(self))
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        self.inner.changed()
    }

    fn observed_at(&self) -> SystemTime {
        self.observed.unwrap_or_else(|| self.inner.observed_at())
    }

    fn usage(&mut self) -> ApiUsage {
        let mut usage = self.inner.usage();
        usage += self.provider.usage();
        usage
    }

    /// The fallback's: it is the one that asks a source with a quota.
    fn rate_limiter(&self) -> RateLimiter {
        self.provider.rate_limiter()
    }

    fn check_events(&self) -> Option<BoxFuture<'_, Result<&'static str, Error>>> {
        self.inner.check_events()
    }

    fn set_read_only(&mut self) {
        self.inner.set_read_only();
        self.provider.set_read_only();
    }

    fn fleet_reading(&self) -> Option<watch::Receiver<Arc<status::Reader>>> {
        Some(self.reading.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{ErrorKind, fixed};

    fn fallback(fleet_size: Option<usize>) -> Fallback {
        let fixed = fixed::Config { instances: vec![Instance::new("direct")] };
        let schedule = PollSchedule { interval: Duration::from_secs(15), timeout: Duration::from_secs(1) };
        Fallback {
            name: "direct".parse().expect("a name"),
            after: Duration::from_secs(60),
            spacing: Duration::from_secs(2),
            fleet_size,
            provider: Some((super::super::Config::new(fixed), schedule)),
        }
    }

    #[test]
    fn the_fleet_shares_one_budget() {
        let interval = Duration::from_secs(15);
        let gap = |fleet_size, readers| fallback(fleet_size).gap(readers, interval);
        for readers in [10, 100, 1000, 100_000] {
            let polls_per_hour = 3600.0 / gap(Some(10), Some(readers)).as_secs_f64() * readers as f64;
            assert!((polls_per_hour - 1800.0).abs() < 0.1, "{readers}");
        }
        assert_eq!(gap(Some(10), Some(1)), interval, "never more often than its own interval");
        assert_eq!(gap(Some(10), None).as_secs(), 20);
        assert_eq!(gap(None, Some(0)).as_secs(), 2000);
    }

    /// A reader of a fleet that fails.
    #[derive(Debug)]
    struct Failing(watch::Sender<Arc<status::Reader>>);

    impl Provider for Failing {
        fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, Error>> {
            Box::pin(std::future::ready(Err(Error::new(ErrorKind::Unreachable, "silent"))))
        }

        fn fleet_reading(&self) -> Option<watch::Receiver<Arc<status::Reader>>> {
            Some(self.0.subscribe())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_answers_while_the_fleet_is_silent_and_no_longer() {
        let heard_now = || Arc::new(status::Reader { heard: Some(Instant::now().into_std()), ..Default::default() });
        let fleet = watch::Sender::new(heard_now());
        let context = BuildContext { selectors: &[], unconfined: &crate::sys::unconfined::Unconfined::default() };
        let mut provider = WithFallback::wrap(Box::new(Failing(fleet.clone())), &fallback(Some(10)), &context);
        let reading = provider.fleet_reading().expect("it reads one");
        let standing = || (reading.borrow().fallback.is_some(), reading.borrow().fallback_polls);

        assert_eq!(provider.discover().await.expect_err("silent").to_string(), "silent");
        assert_eq!(standing(), (false, 0));
        tokio::time::advance(Duration::from_secs(61)).await;
        // The first poll is due within one gap of 20 s, at a time that is drawn.
        let _ = provider.discover().await;
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(provider.discover().await.expect("the fallback's")[0].id, "direct");
        assert_eq!(provider.discover().await.expect("the same, not polled again").len(), 1);
        assert!(matches!(standing(), (true, 1 | 2)), "{:?}", standing());
        fleet.send_replace(heard_now());
        assert_eq!(provider.discover().await.expect_err("heard again").to_string(), "silent");
        assert!(!standing().0);
    }
}
