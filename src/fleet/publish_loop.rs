//! Publishes what the leader's pollers observe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::kv::Store;
use tokio::sync::{mpsc, watch};

use super::Ended;
use super::manifest_writer::{HeartbeatInfo, ManifestWriter, Stop};
use crate::model::{Instance, Name, Selector};
use crate::provider::nats::connection::{Error, Session};
use crate::provider::{self, Observation};
use crate::status::{self, ApiUsage, Published};

/// How long readers wait for a heartbeat at most: while polls fail or are widened, the last one is repeated. Longer than the
/// default interval of 15 s with its jitter of 10 % and a poll: each poll writes its own heartbeat, and no other is
/// needed.
const HEARTBEAT: Duration = Duration::from_secs(18);

/// Before what could not be stored is tried again: an election among NATS' servers takes some seconds, and the next poll
/// may be minutes away.
const AGAIN: Duration = Duration::from_secs(1);

/// Publishes what the leader's pollers observe, until the lead is lost.
pub(super) struct PublishLoop<'a> {
    pub session: &'a Session,
    pub store: &'a Store,
    pub select: &'a Selector,
    pub states: BTreeMap<Name, ProviderState>,
    pub observations: mpsc::Receiver<Observation>,
    pub confirmations: watch::Receiver<Instant>,
    pub hold: Duration,
    pub report: &'a watch::Sender<Arc<status::Publisher>>,
}

/// What is known of publishing one provider.
pub(super) struct ProviderState {
    writer: ManifestWriter,
    /// What was observed and is not published yet.
    unpublished: Option<(Vec<Instance>, SystemTime)>,
    /// Why there is nothing newer, for the heartbeat.
    error: Option<String>,
    /// When the next heartbeat is due.
    due: Instant,
}

impl From<ManifestWriter> for ProviderState {
    fn from(writer: ManifestWriter) -> Self {
        Self { writer, unpublished: None, error: None, due: Instant::now() }
    }
}

impl PublishLoop<'_> {
    pub async fn run(mut self) -> Result<Ended, Error> {
        while let Some((next, state)) = self.states.iter().min_by_key(|(_, state)| state.due) {
            let name = tokio::select! {
                observation = self.observations.recv() => match observation {
                    Some(observation) => self.take(observation),
                    None => break,
                },
                () = tokio::time::sleep_until(state.due.into()) => next.clone(),
            };
            match self.publish(&name).await {
                Ok(()) => {}
                Err(Stop::Deposed | Stop::Behind(_)) => break,
                Err(Stop::Failed(error)) => self.note(&name, |account| {
                    let message = error.to_string();
                    if account.error.as_ref() != Some(&message) {
                        tracing::warn!(provider = %name, error = message, "set not published");
                    }
                    account.error = Some(message);
                }),
            }
        }
        Ok(Ended::Deposed)
    }

    fn note(&self, name: &Name, change: impl FnOnce(&mut Published)) {
        note(self.report, name, change);
    }

    /// Takes note of a poll's result. Returns the provider's name.
    fn take(&mut self, observation: Observation) -> Name {
        let Observation { provider: name, at, cost, result, .. } = observation;
        let throttles = cost.throttles.max(u64::from(result.as_ref().is_err_and(provider::Error::is_throttled)));
        self.note(&name, |account| {
            account.polls += 1;
            account.failures += u64::from(result.is_err());
            account.usage += ApiUsage { throttles, ..cost };
            if let Err(error) = &result {
                let message = error.to_string();
                if account.error.as_ref() != Some(&message) {
                    tracing::warn!(provider = %name, error = message, "poll failed; the published set is kept");
                }
                account.error = Some(message);
            }
        });
        let Some(state) = self.states.get_mut(&name) else { return name };
        match result {
            Ok(mut instances) => {
                // A provider may return more than it was asked for.
                instances.retain(|instance| self.select.admits(instance).is_ok());
                (state.unpublished, state.error) = (Some((instances, at)), None);
            }
            Err(error) => state.error = Some(error.to_string()),
        }
        name
    }

    /// Publishes what is not published yet, or repeats the heartbeat.
    async fn publish(&mut self, name: &Name) -> Result<(), Stop> {
        // A process that was stopped for a while should not even try: the fence would refuse its writes.
        if self.confirmations.borrow().elapsed() > self.hold {
            return Err(Stop::Deposed);
        }
        let readers = self.session.readers(self.store).await.ok();
        self.report.send_modify(|report| Arc::make_mut(report).readers = readers);
        let (session, store) = (self.session, self.store);
        let Some(state) = self.states.get_mut(name) else { return Ok(()) };
        state.due = Instant::now() + AGAIN;
        let info = HeartbeatInfo { readers, every: HEARTBEAT, error: state.error.clone() };
        if let Some((instances, at)) = state.unpublished.take() {
            match state.writer.publish(session, store, &instances, at, &info).await {
                Ok(bytes) => {
                    note(self.report, name, |account| {
                        account.instances = instances.len();
                        account.age_seconds = Some(at.min(SystemTime::now()).into());
                        account.sets += u64::from(bytes.is_some());
                        account.bytes += bytes.map_or(0, |bytes| bytes as u64);
                    });
                    if let Some(bytes) = bytes {
                        tracing::info!(provider = %name, instances = instances.len(), bytes, "set published");
                    }
                }
                Err(Stop::Failed(error @ Error::Content { .. })) => {
                    // Such a set will not fit next time either: readers should know why theirs is not renewed.
                    state.error = Some(error.to_string());
                    let info = HeartbeatInfo { error: state.error.clone(), ..info };
                    state.writer.heartbeat(session, store, &info).await?;
                    state.due = Instant::now() + HEARTBEAT;
                    return Err(Stop::Failed(error));
                }
                Err(stop) => {
                    state.unpublished = Some((instances, at));
                    return Err(stop);
                }
            }
        } else {
            state.writer.heartbeat(session, store, &info).await?;
        }
        state.due = Instant::now() + HEARTBEAT;
        note(self.report, name, |account| account.error.clone_from(&state.error));
        Ok(())
    }
}

fn note(report: &watch::Sender<Arc<status::Publisher>>, name: &Name, change: impl FnOnce(&mut Published)) {
    report.send_modify(|report| {
        if let Some(account) = Arc::make_mut(report).providers.get_mut(name) {
            change(account);
        }
    });
}
