//! `nats`: the sets that publishers put into a NATS JetStream bucket.
//!
//! A task watches the bucket; a poll answers with the last complete set that it assembled, as of the time at which the
//! publisher observed it. While the fleet is silent for long, another provider may be polled instead: see
//! [`fallback`](super::fallback).

pub mod connection;
pub mod format;
mod reader;
pub mod set_assembler;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::fallback::{Fallback, WithFallback};
use super::poll::PollSchedule;
use super::{BuildContext, Configuration, Context, ErrorKind, Provider};
use crate::model::{FieldFault, Instance, Name};
use crate::status;
use crate::units::TimeSpan;
pub use reader::Problem;
use reader::{Reader, View};
use set_assembler::SetAssembler;

/// Where a set is published, and which provider is polled while it is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The bucket.
    pub connection: connection::Config,
    /// The provider's name at the publishers.
    pub provider: Name,
    /// What is polled while the fleet is silent.
    pub fallback: Option<Fallback>,
    /// The file in which the highest position seen is kept across restarts.
    pub state: Option<PathBuf>,
}

connection::with_connection_keys! {
    /// The sets that publishers of a fleet put into NATS JetStream.
    pub struct Raw {
        /// The provider's name at the publishers; the section's own, if left out.
        pub provider: Option<Name>,
        /// The provider that is polled while the fleet is silent.
        pub fallback: Option<Name>,
        /// For how long the fleet must be silent before the fallback is polled. Left out: `"60s"`.
        pub fallback_after: Option<TimeSpan>,
        /// The whole fleet together polls the fallback at most once in this time: each sidecar at most once in this time
        /// multiplied by the number of sidecars, and never more often than the fallback's `interval`. Left out: `"1s"`.
        pub fallback_spacing: Option<TimeSpan>,
        /// How many sidecars there are, until the publishers report it. Left out: 1,000.
        pub fleet_size: Option<usize>,
    }
}

impl Raw {
    /// The fallback, if one is named.
    fn fallback(&self, own: &Name, faults: &mut Vec<FieldFault>) -> Option<Fallback> {
        if self.fallback.is_none() {
            let useless = [
                ("fallback_after", self.fallback_after.is_some()),
                ("fallback_spacing", self.fallback_spacing.is_some()),
                ("fleet_size", self.fleet_size.is_some()),
            ];
            let useless = useless.iter().filter(|(_, written)| *written);
            let message = "is of no use without `fallback`, the provider polled while the fleet is silent";
            faults.extend(useless.map(|(key, _)| FieldFault::new(*key, message)));
        }
        if self.fallback.as_ref() == Some(own) {
            faults.push(FieldFault::new("fallback", "is this provider itself: name another one"));
        }
        let zero = [
            ("fallback_spacing", self.fallback_spacing.is_some_and(|spacing| spacing.is_zero())),
            ("fleet_size", self.fleet_size == Some(0)),
        ];
        let zero = zero.iter().filter(|(_, is_zero)| *is_zero);
        faults.extend(zero.map(|(key, _)| FieldFault::new(*key, "must be more than 0")));
        self.fallback.clone().map(|name| Fallback {
            name,
            after: self.fallback_after.map_or(Duration::from_secs(60), Into::into),
            spacing: self.fallback_spacing.map_or(Duration::from_secs(1), Into::into),
            fleet_size: self.fleet_size,
            provider: None,
        })
    }
}

impl Configuration for Config {
    const TYPE: &'static str = "nats";

    type Raw = Raw;

    fn resolve(raw: Raw, context: &Context<'_>) -> Result<Self, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let connection = raw.connection().resolve().map_err(|wrong| faults.extend(wrong)).ok();
        let fallback = raw.fallback(context.name, &mut faults);
        let provider = raw.provider.unwrap_or_else(|| context.name.clone());
        let state = context.state_dir.map(|directory| directory.join(format!("fleet-{}.json", context.name)));
        match connection {
            Some(connection) if faults.is_empty() => Ok(Self { connection, provider, fallback, state }),
            _ => Err(faults),
        }
    }

    fn build(&self, context: &BuildContext<'_>) -> Box<dyn Provider> {
        let reader = Box::new(Nats::new(self));
        match &self.fallback {
            Some(fallback) => WithFallback::wrap(reader, fallback, context),
            None => reader,
        }
    }

    fn fallback(&self) -> Option<&Name> {
        self.fallback.as_ref().map(|fallback| &fallback.name)
    }

    fn set_fallback(&mut self, config: super::Config, schedule: PollSchedule) {
        if let Some(fallback) = &mut self.fallback {
            fallback.provider = Some((config, schedule));
        }
    }

    fn reads_fleet(&self) -> bool {
        true
    }
}

/// Why there is nothing to answer with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS cannot be used, or what is stored there.
    #[error("{0}")]
    Nats(Problem),
    /// The publisher's polls fail.
    #[error("{0}")]
    Publisher(String),
    /// No publisher is heard.
    #[error("no publisher has written to NATS' bucket {bucket} for {} s: run `elasticd fleet` on the publishers, or start one", silent.as_secs())]
    Silent {
        /// The bucket.
        bucket: String,
        /// For how long.
        silent: Duration,
    },
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Nats(problem) => problem.kind,
            Error::Publisher(_) => ErrorKind::Failed,
            Error::Silent { .. } => ErrorKind::Unreachable,
        };
        Self::new(kind, error)
    }
}

/// Answers with the set published last.
#[derive(Debug)]
pub struct Nats {
    config: Config,
    view: watch::Receiver<View>,
    reading: watch::Sender<Arc<status::Reader>>,
    /// The task's part, until it is started.
    idle: Option<Reader>,
    task: Option<JoinHandle<()>>,
    observed: Option<SystemTime>,
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
    pub fn new(config: &Config) -> Self {
        let reading = Arc::new(status::Reader {
            fleet: config.connection.fleet.clone(),
            bucket: config.connection.bucket.clone(),
            provider: config.provider.to_string(),
            ..Default::default()
        });
        let view = watch::Sender::new(View {
            set: None,
            heard: Instant::now(),
            patience: reader::least_patience(),
            problem: None,
            failing: None,
            reading: Arc::clone(&reading),
        });
        Self {
            config: config.clone(),
            view: view.subscribe(),
            reading: watch::Sender::new(reading),
            idle: Some(Reader {
                connection: config.connection.clone(),
                provider: config.provider.clone(),
                state: config.state.clone(),
                stores_position: true,
                assembler: SetAssembler::default(),
                view,
            }),
            task: None,
            observed: None,
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
        self.observed = view.reading.age_seconds.map(status::Age::time);
        Ok(set.to_vec())
    }
}

impl Nats {
    /// The set published last.
    ///
    /// # Errors
    ///
    /// [`Error`]: what [`Provider::discover`] fails with, as this module's own type.
    pub async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        self.start();
        let is_settled = |view: &View| view.set.is_some() || view.problem.is_some();
        let _ = tokio::time::timeout(reader::FIRST, self.view.wait_for(is_settled)).await;
        let view = self.view.borrow_and_update().clone();
        let mut reading = status::Reader::clone(&view.reading);
        reading.heard = Some(view.heard.into_std());
        self.reading.send_replace(Arc::new(reading));
        self.answer(&view)
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

    fn set_read_only(&mut self) {
        if let Some(reader) = &mut self.idle {
            reader.stores_position = false;
        }
    }

    fn fleet_reading(&self) -> Option<watch::Receiver<Arc<status::Reader>>> {
        Some(self.reading.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<Config, Vec<String>> {
        let mut keys = serde_json::json!({"url": "nats://a:1", "fleet": "shop"});
        let more: serde_json::Value = serde_json::from_str(json).unwrap();
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let context = Context { name: &"prod".parse().unwrap(), timeout: Duration::ZERO, state_dir: None };
        let resolved = Config::resolve(serde_json::from_value(keys).unwrap(), &context);
        resolved.map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn takes_its_own_name_where_none_is_given() {
        assert_eq!(resolve("{}").unwrap().provider.as_str(), "prod");
        assert_eq!(resolve(r#"{"provider": "x"}"#).unwrap().provider.as_str(), "x");
    }

    #[test]
    fn all_faults_come_at_once() {
        let faults = resolve(r#"{"fallback_after": "1s", "fleet_size": 0, "url": "a"}"#).unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(resolve(r#"{"fallback": "prod"}"#).unwrap_err()[0].contains("itself"));
    }
}
