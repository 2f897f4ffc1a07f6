//! The publisher: follows, takes over, polls and publishes while it leads, and gives up when it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_nats::jetstream::kv::Store;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::leader::{Follower, Found, Rules, Step, next_term};
use super::manifest_writer::{self, ManifestWriter, Stop};
use super::publish_loop::PublishLoop;
use super::{Config, Ended};
use crate::provider::nats::connection::{self, Error, Session};
use crate::provider::nats::format::{self, FORMAT, Leader, Stamp};
use crate::provider::{self, poll};
use crate::status::{self, Published};
use crate::sys::backoff::Jitter;
use crate::sys::unconfined::Unconfined;

/// Reports who leads, or that the bucket will be created. Nothing is written, so that missing permissions to write are
/// not found.
///
/// # Errors
///
/// The bucket cannot be read.
pub async fn check(config: &Config) -> Result<String, Error> {
    let session = Session::open(&config.connection, "elasticd doctor").await?;
    let bucket = &config.connection.bucket;
    let store = match session.bucket().await {
        Err(Error::NoBucket { .. }) => return Ok(format!("the first publisher will create the bucket {bucket}")),
        other => other?,
    };
    let (_, leader) =
        manifest_writer::read::<Leader>(&session, &store, format::LEADER, &config.connection.fleet).await?;
    Ok(match leader.filter(|leader| !leader.released) {
        Some(leader) => format!("the bucket {bucket} can be read; {} was the last to lead", leader.host),
        None => format!("the bucket {bucket} can be read; no publisher leads"),
    })
}

/// A publisher: leads and publishes, or follows the one that leads.
#[derive(Debug)]
pub struct Publisher {
    config: Config,
    id: String,
    host: String,
    /// The highest term ever seen.
    known: u64,
    refresh: watch::Receiver<u64>,
    unconfined: Unconfined,
    report: watch::Sender<Arc<status::Publisher>>,
}

/// The lead.
#[derive(Debug)]
struct Lead {
    record: Leader,
    revision: u64,
    /// When the last renewal that came through was begun.
    confirmed: Instant,
}

impl Publisher {
    /// Not yet connected. `refresh` changing asks for a poll at once.
    pub fn new(config: Config, refresh: watch::Receiver<u64>, unconfined: Unconfined) -> Self {
        let host =
            nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned());
        let report = status::Publisher {
            fleet: config.connection.fleet.clone(),
            bucket: config.connection.bucket.clone(),
            providers: config.providers.keys().map(|name| (name.clone(), Published::default())).collect(),
            ..Default::default()
        };
        let id = format!("{host}-{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self { config, id, host, known: 0, refresh, unconfined, report: watch::Sender::new(Arc::new(report)) }
    }

    /// The state of publishing.
    pub fn report(&self) -> watch::Receiver<Arc<status::Publisher>> {
        self.report.subscribe()
    }

    /// Publishes until cancelled. The lead is then given away.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let error = match self.session(&stop, &mut failures).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            };
            self.update(|report| {
                if report.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "publishing failed");
                }
                (report.is_leader, report.error) = (false, Some(error));
            });
            stop.run_until_cancelled(tokio::time::sleep(connection::pause(failures, None))).await;
            failures += 1;
        }
    }

    fn update(&self, change: impl FnOnce(&mut status::Publisher)) {
        self.report.send_modify(|report| change(Arc::make_mut(report)));
    }

    /// Follows and leads until the connection is lost, or until cancelled.
    async fn session(&mut self, stop: &CancellationToken, failures: &mut u32) -> Result<(), Error> {
        let session = Session::open(&self.config.connection, "elasticd publisher").await?;
        let store = session.bucket_or_new(self.config.replicas).await?;
        let work = async {
            while !stop.is_cancelled() {
                let Some(mut lead) =
                    stop.run_until_cancelled(self.follow(&session, &store, failures)).await.transpose()?
                else {
                    return Ok(());
                };
                tracing::info!(term = lead.record.term, "became leader");
                let ended = self.lead(&session, &store, &mut lead, stop).await;
                self.update(|report| report.is_leader = false);
                match ended {
                    Ok(Ended::Stopped) => {
                        lead.record.released = true;
                        let value = format::encode(&lead.record);
                        // Without it others wait out the silence.
                        let _ =
                            manifest_writer::compare_and_set(&session, &store, format::LEADER, value, lead.revision)
                                .await;
                        return Ok(());
                    }
                    Ok(Ended::Deposed) => tracing::warn!("lost leadership"),
                    Err(error) => {
                        tracing::warn!(%error, "lost leadership");
                        return Err(error);
                    }
                }
            }
            Ok(())
        };
        tokio::select! {
            done = work => done,
            lost = session.lost() => Err(lost),
        }
    }

    /// Waits until the lead is ours.
    async fn follow(&mut self, session: &Session, store: &Store, failures: &mut u32) -> Result<Lead, Error> {
        let rules = self.config.rules;
        let mut follower = Follower::new(rules, self.id.clone());
        loop {
            let fleet = &self.config.connection.fleet;
            let (revision, leader) = manifest_writer::read::<Leader>(session, store, format::LEADER, fleet).await?;
            self.known = self.known.max(leader.as_ref().map_or(0, |leader| leader.term));
            *failures = 0;
            let readers = session.readers(store).await.ok();
            self.update(|report| {
                let leader = leader.as_ref().filter(|leader| !leader.released);
                report.error = None;
                report.leader = leader.map(|leader| leader.host.clone());
                report.leader_age_seconds = leader.map(|leader| format::system_time(leader.since).into());
                report.term = leader.map_or(0, |leader| leader.term);
                report.readers = readers;
            });
            if let Step::Take { expected } = follower.check(&Found { revision, leader }, Instant::now())
                && let Some(lead) = self.take(session, store, expected).await?
            {
                return Ok(lead);
            }
            // Jittered, so that several that wait do not try at the same instant for ever.
            tokio::time::sleep(Jitter::PlusMinus { percent: 20 }.apply(rules.tick())).await;
        }
    }

    async fn take(&mut self, session: &Session, store: &Store, expected: u64) -> Result<Option<Lead>, Error> {
        let since = Timestamp::now();
        let clock = u64::try_from(since.as_millisecond()).unwrap_or(0);
        let record = Leader {
            stamp: Stamp { format: FORMAT, fleet: self.config.connection.fleet.clone() },
            term: next_term(self.known, clock),
            id: self.id.clone(),
            host: self.host.clone(),
            since,
            renewals: 0,
            released: false,
        };
        let begun = Instant::now();
        let revision =
            manifest_writer::compare_and_set(session, store, format::LEADER, format::encode(&record), expected).await?;
        Ok(revision.map(|revision| Lead { record, revision, confirmed: begun }))
    }

    /// Leads: fences, then polls and publishes, and renews meanwhile.
    async fn lead(
        &mut self,
        session: &Session,
        store: &Store,
        lead: &mut Lead,
        stop: &CancellationToken,
    ) -> Result<Ended, Error> {
        self.known = lead.record.term;
        let mut states = BTreeMap::new();
        for name in self.config.providers.keys() {
            let writer = match ManifestWriter::fence(session, store, &lead.record, name).await {
                Ok(writer) => writer,
                Err(Stop::Deposed) => return Ok(Ended::Deposed),
                Err(Stop::Behind(term)) => {
                    // The next attempt is above it.
                    self.known = term;
                    return Ok(Ended::Deposed);
                }
                Err(Stop::Failed(error)) => return Err(error),
            };
            states.insert(name.clone(), writer.into());
        }
        self.update(|report| {
            report.is_leader = true;
            report.takeovers += 1;
            report.error = None;
            report.leader = Some(self.host.clone());
            report.leader_age_seconds = Some(format::system_time(lead.record.since).into());
            report.term = lead.record.term;
        });
        let (sender, observations) = mpsc::channel(1);
        // Dropped, and with them every poll under way, when the lead ends in whatever way.
        let mut pollers = JoinSet::new();
        for (name, (config, pace)) in &self.config.providers {
            let built = config.build(&provider::BuildContext {
                selectors: std::slice::from_ref(&self.config.select),
                unconfined: &self.unconfined,
            });
            let (refresh, sender) = (self.refresh.clone(), sender.clone());
            pollers.spawn(poll::run(name.clone(), built, *pace, refresh, sender, stop.child_token()));
        }
        drop(sender);
        let (confirmed, confirmations) = watch::channel(lead.confirmed);
        let hold = self.config.rules.hold();
        let (select, report) = (&self.config.select, &self.report);
        let publish_loop = PublishLoop { session, store, select, states, observations, confirmations, hold, report };
        tokio::select! {
            ended = renew(session, store, lead, self.config.rules, &confirmed) => ended,
            ended = publish_loop.run() => ended,
            // A panic of a poller is passed on.
            Some(Err(error)) = pollers.join_next(), if !pollers.is_empty() => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(Ended::Deposed),
            },
            () = stop.cancelled() => Ok(Ended::Stopped),
        }
    }
}

/// Renews the lead until that fails.
async fn renew(
    session: &Session,
    store: &Store,
    lead: &mut Lead,
    rules: Rules,
    confirmed: &watch::Sender<Instant>,
) -> Result<Ended, Error> {
    loop {
        tokio::time::sleep(rules.tick()).await;
        lead.record.renewals += 1;
        let begun = Instant::now();
        let limit = (lead.confirmed + rules.hold()).saturating_duration_since(begun);
        let renewal = manifest_writer::compare_and_set(
            session,
            store,
            format::LEADER,
            format::encode(&lead.record),
            lead.revision,
        );
        match tokio::time::timeout(limit, renewal).await {
            Err(_) => return Ok(Ended::Deposed),
            Ok(Ok(Some(revision))) => {
                lead.revision = revision;
                lead.confirmed = begun;
                confirmed.send_replace(begun);
            }
            Ok(Ok(None)) => {
                // A renewal that seemed to have failed may have come through.
                let fleet = &lead.record.stamp.fleet;
                let (revision, found) = manifest_writer::read::<Leader>(session, store, format::LEADER, fleet).await?;
                match found {
                    Some(found)
                        if found.id == lead.record.id && found.term == lead.record.term && revision > lead.revision =>
                    {
                        lead.revision = revision;
                    }
                    _ => return Ok(Ended::Deposed),
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "leadership not renewed"),
        }
    }
}
