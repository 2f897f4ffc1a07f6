//! `nats`: what publishers put into a NATS JetStream bucket, as one more complete observation.
//!
//! A task watches the bucket; what it assembled last, whole, is what a poll answers with, at the time at which the
//! publisher observed it. While the fleet is silent for long, another provider may be polled instead, slowly.

pub mod connection;
pub mod format;
mod reader;
pub mod set_assembler;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::poll::PollSchedule;
use super::rate_limiter::RateLimiter;
use super::{ApiUsage, ErrorKind, Provider};
use crate::model::fleet::Reading;
use crate::model::{FieldFault, Instance, Name, Selector};
use crate::sys::backoff::Jitter;
pub use reader::Problem;
use reader::{Reader, View};
use set_assembler::SetAssembler;

/// For how many sidecars the fallback's budget is divided before the fleet's size is known: rather too slow than too fast.
const UNKNOWN_SIZE: usize = 1000;

/// Where a set is published, and what is done while it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bucket.
    pub connection: connection::Config,
    /// The provider's name at the publishers.
    pub provider: Name,
    /// What is polled while the fleet is silent.
    pub fallback: Option<Fallback>,
    /// Where the highest position seen is kept across restarts.
    pub state: Option<PathBuf>,
}

/// What is polled while the fleet is silent, and how slowly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Another provider of the configuration.
    pub name: Name,
    /// Its configuration; the section that `name` names.
    pub config: Option<Box<super::Config>>,
    /// Never polled more often than this.
    pub interval: Duration,
    /// How long the fleet may be silent before.
    pub after: Duration,
    /// The whole fleet together polls at most once in this time.
    pub spacing: Duration,
    /// How many sidecars there are, until the publishers tell.
    pub fleet_size: Option<usize>,
}

/// The keys beside those of the connection, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// `provider = "prod"`
    pub provider: Option<Name>,
    /// `fallback = "direct"`
    pub fallback: Option<Name>,
    /// `fallback_after = "60s"`
    #[serde(default, with = "compact::optional")]
    pub fallback_after: Option<Duration>,
    /// `fallback_spacing = "1s"`
    #[serde(default, with = "compact::optional")]
    pub fallback_spacing: Option<Duration>,
    /// `fleet_size = 300`
    pub fleet_size: Option<usize>,
}

impl Raw {
    /// Judges what is written; `own` is the section's name. `None`: there is no `connection` to go with it.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(
        self,
        connection: Option<connection::Config>,
        own: &Name,
    ) -> Result<Option<Config>, Vec<FieldFault>> {
        let mut faults = Vec::new();
        if self.fallback.is_none() {
            let of_no_use = [
                ("fallback_after", self.fallback_after.is_some()),
                ("fallback_spacing", self.fallback_spacing.is_some()),
                ("fleet_size", self.fleet_size.is_some()),
            ];
            for (key, _) in of_no_use.iter().filter(|(_, written)| *written) {
                faults.push(FieldFault::new(
                    *key,
                    "is of no use without `fallback`, the provider polled while the fleet is silent",
                ));
            }
        }
        if self.fallback.as_ref() == Some(own) {
            faults.push(FieldFault::new("fallback", "is this provider itself: name another one"));
        }
        for (key, zero) in [
            ("fallback_spacing", self.fallback_spacing.is_some_and(|d| d.is_zero())),
            ("fleet_size", self.fleet_size == Some(0)),
        ] {
            if zero {
                faults.push(FieldFault::new(key, "must be more than 0"));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let fallback = self.fallback.map(|name| Fallback {
            name,
            config: None,
            interval: Duration::ZERO,
            after: self.fallback_after.unwrap_or(Duration::from_secs(60)),
            spacing: self.fallback_spacing.unwrap_or(Duration::from_secs(1)),
            fleet_size: self.fleet_size,
        });
        let provider = self.provider.unwrap_or_else(|| own.clone());
        Ok(connection.map(|connection| Config { connection, provider, fallback, state: None }))
    }
}

impl Config {
    /// Tells the fallback what the rest of the configuration, `all` its providers, says of it.
    ///
    /// # Errors
    ///
    /// It cannot be one.
    pub fn bind(&mut self, all: &BTreeMap<Name, Option<(super::Config, PollSchedule)>>) -> Result<(), String> {
        let Some(fallback) = &mut self.fallback else { return Ok(()) };
        match all.get(&fallback.name) {
            None => Err(format!("there is no provider {:?}", fallback.name)),
            // It has faults of its own.
            Some(None) => Ok(()),
            Some(Some((super::Config::Nats(_), _))) => {
                Err("is of type nats as well: name one that is polled directly".to_owned())
            }
            Some(Some((config, pace))) => {
                fallback.config = Some(Box::new(config.clone()));
                fallback.interval = pace.interval;
                Ok(())
            }
        }
    }
}

/// Why there is nothing to answer with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS, or what it holds, is of no use.
    #[error("{0}")]
    Nats(Problem),
    /// The publisher polls in vain.
    #[error("{0}")]
    Publisher(String),
    /// Nobody publishes.
    #[error("no publisher was heard of in NATS' bucket {bucket} for {} s: see `elasticd fleet` on the publishers, or start one", silent.as_secs())]
    Silent {
        /// The bucket.
        bucket: String,
        /// For how long.
        silent: Duration,
    },
    /// The fallback failed, too.
    #[error("{why}; and the fallback {name} fails: {source}")]
    Fallback {
        /// Why it was polled.
        why: String,
        /// Its name.
        name: Name,
        /// Its own words.
        source: Box<super::Error>,
    },
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Nats(problem) => problem.kind,
            Error::Publisher(_) => ErrorKind::Failed,
            Error::Silent { .. } => ErrorKind::Unreachable,
            Error::Fallback { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// Answers with the set published last.
#[derive(Debug)]
pub struct Nats {
    config: Config,
    view: watch::Receiver<View>,
    reading: watch::Sender<Arc<Reading>>,
    /// The task's part, until it is started.
    idle: Option<Reader>,
    task: Option<JoinHandle<()>>,
    observed: Option<SystemTime>,
    fallback: Option<Direct>,
}

#[derive(Debug)]
struct Direct {
    config: Fallback,
    provider: Box<dyn Provider>,
    due: Option<Instant>,
    last: Option<(Vec<Instance>, SystemTime)>,
    polls: u64,
}

impl Drop for Nats {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Nats {
    /// Not yet connected: the first poll does that.
    pub fn new(config: &Config, selectors: &[Selector]) -> Self {
        let reading = Arc::new(Reading {
            fleet: config.connection.fleet.clone(),
            bucket: config.connection.bucket.clone(),
            provider: config.provider.to_string(),
            ..Reading::default()
        });
        let view = watch::Sender::new(View {
            set: None,
            heard: Instant::now(),
            patience: reader::least_patience(),
            problem: None,
            failing: None,
            reading: Arc::clone(&reading),
        });
        let fallback = config.fallback.as_ref().and_then(|fallback| {
            let provider = fallback.config.as_ref()?.build(selectors);
            Some(Direct { config: fallback.clone(), provider, due: None, last: None, polls: 0 })
        });
        Self {
            config: config.clone(),
            view: view.subscribe(),
            reading: watch::Sender::new(reading),
            idle: Some(Reader {
                connection: config.connection.clone(),
                provider: config.provider.clone(),
                state: config.state.clone(),
                keeps: true,
                assembler: SetAssembler::default(),
                view,
            }),
            task: None,
            observed: None,
            fallback,
        }
    }

    fn start(&mut self) {
        if let Some(reader) = self.idle.take() {
            reader.view.send_modify(|view| view.heard = Instant::now());
            self.task = Some(tokio::spawn(reader.run()));
        }
    }

    fn answer(&mut self, view: &View) -> Result<Vec<Instance>, Error> {
        let silent = view.heard.elapsed();
        if let Some(problem) = &view.problem {
            return Err(Error::Nats(problem.clone()));
        }
        if silent > view.patience {
            return Err(Error::Silent { bucket: self.config.connection.bucket.clone(), silent });
        }
        if let Some(failing) = &view.failing {
            return Err(Error::Publisher(failing.clone()));
        }
        let set = view.set.as_ref().ok_or_else(|| Error::Nats(Problem::unanswered()))?;
        self.observed = view.reading.observed;
        Ok(set.to_vec())
    }

    fn publish(&self, view: &View) {
        let mut reading = Reading::clone(&view.reading);
        if let Some(direct) = &self.fallback {
            reading.fallback = direct.due.is_some().then(|| direct.config.name.clone());
            reading.fallback_polls = direct.polls;
        }
        self.reading.send_replace(Arc::new(reading));
    }
}

impl Direct {
    /// What the fallback knows, polled if it is its turn. `why` is what it stands in for.
    async fn answer(&mut self, readers: Option<usize>, why: Error) -> Result<(Vec<Instance>, SystemTime), Error> {
        let now = Instant::now();
        let gap = gap(&self.config, readers);
        // The first time is drawn from the whole gap, so that the fleet's polls are spread over it.
        let due = *self.due.get_or_insert_with(|| now + Jitter::Full { least: Duration::ZERO }.apply(gap));
        if now >= due {
            self.due = Some(now + gap);
            self.polls += 1;
            let name = &self.config.name;
            tracing::info!(provider = %name, every = ?gap, "the fleet is silent: polling directly");
            match self.provider.discover().await {
                Ok(instances) => self.last = Some((instances, SystemTime::now())),
                Err(source) => {
                    return Err(Error::Fallback { why: why.to_string(), name: name.clone(), source: Box::new(source) });
                }
            }
        }
        self.last.clone().ok_or(why)
    }
}

/// Between two polls of one sidecar, so that the fleet stays within its budget.
fn gap(config: &Fallback, readers: Option<usize>) -> Duration {
    let size = readers.filter(|readers| *readers > 0).or(config.fleet_size).unwrap_or(UNKNOWN_SIZE);
    config.spacing.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX)).max(config.interval)
}

impl Nats {
    /// The set published last, or the fallback's.
    ///
    /// # Errors
    ///
    /// [`Error`]: what [`Provider::discover`] fails with, as this module's own type.
    pub async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        self.start();
        let is_settled = |view: &View| view.set.is_some() || view.problem.is_some();
        let _ = tokio::time::timeout(reader::FIRST, self.view.wait_for(is_settled)).await;
        let view = self.view.borrow_and_update().clone();
        let mut answer = self.answer(&view);
        if let Some(direct) = &mut self.fallback {
            if view.heard.elapsed() <= direct.config.after {
                (direct.due, direct.last) = (None, None);
            } else if let Err(why) = answer {
                answer = direct.answer(view.reading.readers, why).await.map(|(instances, at)| {
                    self.observed = Some(at);
                    instances
                });
            }
        }
        self.publish(&view);
        answer
    }
}

impl Provider for Nats {
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, super::Error>> {
        Box::pin(async { Ok(Nats::discover(self).await?) })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(task) = &mut self.task else { return std::future::pending().await };
            tokio::select! {
                Ok(()) = self.view.changed() => {}
                // It never ends but by a panic, which is passed on.
                Err(error) = task => if let Ok(panic) = error.try_into_panic() { std::panic::resume_unwind(panic) },
            }
        })
    }

    fn observed_at(&self) -> SystemTime {
        self.observed.unwrap_or_else(SystemTime::now)
    }

    fn usage(&mut self) -> ApiUsage {
        self.fallback.as_mut().map(|direct| direct.provider.usage()).unwrap_or_default()
    }

    fn rate_limiter(&self) -> RateLimiter {
        self.fallback.as_ref().map(|direct| direct.provider.rate_limiter()).unwrap_or_default()
    }

    fn set_read_only(&mut self) {
        if let Some(reader) = &mut self.idle {
            reader.keeps = false;
        }
    }

    fn fleet_reading(&self) -> Option<watch::Receiver<Arc<Reading>>> {
        Some(self.reading.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<Config, Vec<String>> {
        let connection = serde_json::from_str::<connection::Raw>(r#"{"url": "nats://a:1", "fleet": "shop"}"#).unwrap();
        let own = "prod".parse().unwrap();
        serde_json::from_str::<Raw>(json)
            .unwrap()
            .resolve(Some(connection.resolve().unwrap()), &own)
            .map(Option::unwrap)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn takes_its_own_name_where_none_is_given() {
        assert_eq!(resolve("{}").unwrap().provider.as_str(), "prod");
        assert_eq!(resolve(r#"{"provider": "x"}"#).unwrap().provider.as_str(), "x");
        let faults = resolve(r#"{"fallback_after": "1s", "fleet_size": 0}"#).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(resolve(r#"{"fallback": "prod"}"#).unwrap_err()[0].contains("itself"));
    }

    #[test]
    fn the_fleet_shares_one_budget() {
        let mut config =
            resolve(r#"{"fallback": "x", "fallback_spacing": "2s", "fleet_size": 10}"#).unwrap().fallback.unwrap();
        config.interval = Duration::from_secs(15);
        let polled_per_hour = |readers| 3600.0 / gap(&config, Some(readers)).as_secs_f64() * readers as f64;
        for readers in [10, 100, 1000, 100_000] {
            assert!((polled_per_hour(readers) - 1800.0).abs() < 0.1, "{readers}");
        }
        assert_eq!(gap(&config, Some(1)), config.interval);
        assert_eq!(gap(&config, None).as_secs(), 20);
        assert_eq!(gap(&Fallback { fleet_size: None, ..config }, Some(0)).as_secs(), 2000);
    }

    #[test]
    fn what_it_falls_back_to_is_polled_directly() {
        let mut config = resolve(r#"{"fallback": "direct"}"#).unwrap();
        let all = |found| [("direct".parse().unwrap(), found)].into();
        assert!(config.bind(&BTreeMap::new()).unwrap_err().contains("\"direct\""));
        let pace = PollSchedule { interval: Duration::from_secs(9), timeout: Duration::from_secs(1) };
        let other = crate::provider::Config::Nats(resolve("{}").unwrap());
        assert!(config.bind(&all(Some((other, pace)))).unwrap_err().contains("directly"));
        let fixed = crate::provider::Config::Fixed(crate::provider::fixed::Config { instances: Vec::new() });
        config.bind(&all(Some((fixed, pace)))).unwrap();
        assert_eq!(config.fallback.unwrap().interval.as_secs(), 9);
    }
}
