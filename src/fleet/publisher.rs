//! The publisher: follows, takes over, polls and publishes while it leads, and gives up when it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::kv::Store;
use jiff::Timestamp;
use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::book::{self, Book, Stop, Told};
use super::leader::{Follower, Found, Rules, Step, next_term};
use crate::model::fleet::{Published, Publishing};
use crate::model::{Name, Selector};
use crate::provider::nats::connection::{self, Error, Session};
use crate::provider::nats::format::{self, FORMAT, Leader, Stamp};
use crate::provider::poll::{self, Pace};
use crate::provider::{self, Observation};

/// How long readers wait for a beat at most: while polls fail or are widened, the last one is repeated.
const BEAT: Duration = Duration::from_secs(15);

/// The shortest and the longest `leader_ttl`.
const TTLS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_hours(1));

/// What is published, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bucket.
    pub connection: connection::Config,
    /// How soon after a leader's death another one leads.
    pub rules: Rules,
    /// How many servers keep the bucket, if we create it.
    pub replicas: usize,
    /// What is published of the instances that there are.
    pub select: Selector,
    /// The providers, by name.
    pub providers: BTreeMap<Name, (provider::Config, Pace)>,
}

/// The keys beside those of the connection, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// `leader_ttl = "10s"`
    #[serde(default, with = "compact::optional")]
    pub leader_ttl: Option<Duration>,
    /// `replicas = 3`
    pub replicas: Option<usize>,
    /// `providers = ["prod"]`
    pub providers: Option<Vec<Name>>,
}

impl Raw {
    /// Judges what is written; `all` are the configuration's providers, without what is known of those that have faults
    /// themselves. `None`: there is no `connection` to go with it.
    ///
    /// # Errors
    ///
    /// All faults at once, each beginning with its key.
    pub fn resolve(
        self,
        connection: Option<connection::Config>,
        select: Selector,
        all: &BTreeMap<Name, Option<(provider::Config, Pace)>>,
    ) -> Result<Option<Config>, Vec<String>> {
        let mut faults = Vec::new();
        let named = self.providers.is_some();
        let mut providers = BTreeMap::new();
        for name in self.providers.unwrap_or_else(|| all.keys().cloned().collect()) {
            match all.get(&name) {
                Some(Some((provider::Config::Nats(_), _))) if named => faults.push(format!(
                    "providers: {name} is of type nats itself: what was published is not published again"
                )),
                Some(Some((provider::Config::Nats(_), _)) | None) => {}
                Some(Some(found)) => drop(providers.insert(name, found.clone())),
                None => faults.push(format!("providers: there is no provider {name:?}")),
            }
        }
        if providers.is_empty() && faults.is_empty() && all.values().all(Option::is_some) {
            faults.push("providers: there is none to publish: write [providers.NAME]".to_owned());
        }
        let bound = self.leader_ttl.unwrap_or(Duration::from_secs(10));
        if !(TTLS.0..=TTLS.1).contains(&bound) {
            faults.push(format!("leader_ttl: {bound:?} is not between 2s and 1h"));
        }
        let replicas = self.replicas.unwrap_or(1);
        // What JetStream takes (NATS documentation, "Streams", Replicas: at most 5).
        if !(1..=5).contains(&replicas) {
            faults.push(format!("replicas: {replicas} is not between 1 and 5"));
        }
        if faults.is_empty() {
            let rules = Rules { bound };
            Ok(connection.map(|connection| Config { connection, rules, replicas, select, providers }))
        } else {
            Err(faults)
        }
    }
}

/// Who leads, or that the bucket will be created; nothing is written. What may be written is not found out by that.
///
/// # Errors
///
/// The bucket cannot be read.
pub async fn examine(config: &Config) -> Result<String, Error> {
    let session = Session::open(&config.connection, "elasticd doctor").await?;
    let bucket = &config.connection.bucket;
    let store = match session.bucket().await {
        Err(Error::NoBucket { .. }) => return Ok(format!("the first publisher will create the bucket {bucket}")),
        other => other?,
    };
    let (_, leader) = book::read::<Leader>(&session, &store, format::LEADER, &config.connection.fleet).await?;
    Ok(match leader.filter(|leader| !leader.released) {
        Some(leader) => format!("the bucket {bucket} can be read; {} was the last to lead", leader.host),
        None => format!("the bucket {bucket} can be read; nobody leads"),
    })
}

/// Publishes, or stands by to.
#[derive(Debug)]
pub struct Publisher {
    config: Config,
    id: String,
    host: String,
    /// The highest term ever seen.
    known: u64,
    refresh: watch::Receiver<u64>,
    report: watch::Sender<Arc<Publishing>>,
}

/// How leading ended, if not by an error.
enum Ended {
    Deposed,
    Stopped,
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
    pub fn new(config: Config, refresh: watch::Receiver<u64>) -> Self {
        let host =
            nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned());
        let report = Publishing {
            fleet: config.connection.fleet.clone(),
            bucket: config.connection.bucket.clone(),
            providers: config.providers.keys().map(|name| (name.clone(), Published::default())).collect(),
            ..Publishing::default()
        };
        let id = format!("{host}-{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self { config, id, host, known: 0, refresh, report: watch::Sender::new(Arc::new(report)) }
    }

    /// How publishing stands.
    pub fn report(&self) -> watch::Receiver<Arc<Publishing>> {
        self.report.subscribe()
    }

    /// Publishes until told to stop. The lead is then given away.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let error = match self.session(&stop, &mut failures).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            };
            self.tell(|report| {
                if report.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "nothing can be published");
                }
                (report.leads, report.error) = (false, Some(error));
            });
            stop.run_until_cancelled(tokio::time::sleep(connection::pause(failures, None))).await;
            failures += 1;
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Publishing)) {
        self.report.send_modify(|report| change(Arc::make_mut(report)));
    }

    /// Follows and leads until the connection is of no more use, or until told to stop.
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
                tracing::info!(term = lead.record.term, "this publisher leads");
                let ended = self.lead(&session, &store, &mut lead, stop).await;
                self.tell(|report| report.leads = false);
                match ended {
                    Ok(Ended::Stopped) => {
                        lead.record.released = true;
                        let value = format::encode(&lead.record);
                        // Without it others wait out the silence.
                        let _ = book::swap(&session, &store, format::LEADER, value, lead.revision).await;
                        return Ok(());
                    }
                    Ok(Ended::Deposed) => tracing::warn!("this publisher leads no more"),
                    Err(error) => {
                        tracing::warn!(%error, "this publisher leads no more");
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
            let (revision, leader) = book::read::<Leader>(session, store, format::LEADER, fleet).await?;
            self.known = self.known.max(leader.as_ref().map_or(0, |leader| leader.term));
            *failures = 0;
            let readers = session.readers(store).await.ok();
            self.tell(|report| {
                let leader = leader.as_ref().filter(|leader| !leader.released);
                report.error = None;
                report.leader = leader.map(|leader| leader.host.clone());
                report.since = leader.map(|leader| format::system_time(leader.since));
                report.term = leader.map_or(0, |leader| leader.term);
                report.readers = readers;
            });
            if let Step::Take { expected } = follower.look(&Found { revision, leader }, Instant::now())
                && let Some(lead) = self.take(session, store, expected).await?
            {
                return Ok(lead);
            }
            // Strayed, so that several that wait do not try at the same instant for ever.
            tokio::time::sleep(rules.tick().mul_f64(0.8 + 0.4 * fastrand::f64())).await;
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
        let revision = book::swap(session, store, format::LEADER, format::encode(&record), expected).await?;
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
        let mut books = BTreeMap::new();
        for name in self.config.providers.keys() {
            let book = match Book::fence(session, store, &lead.record, name).await {
                Ok(book) => book,
                Err(Stop::Deposed) => return Ok(Ended::Deposed),
                Err(Stop::Behind(term)) => {
                    // The next attempt is above it.
                    self.known = term;
                    return Ok(Ended::Deposed);
                }
                Err(Stop::Failed(error)) => return Err(error),
            };
            books.insert(name.clone(), book);
        }
        self.tell(|report| {
            report.leads = true;
            report.takeovers += 1;
            report.error = None;
            report.leader = Some(self.host.clone());
            report.since = Some(format::system_time(lead.record.since));
            report.term = lead.record.term;
        });
        let (sender, observations) = mpsc::channel(1);
        // Dropped, and with them every poll under way, when the lead ends in whatever way.
        let mut pollers = JoinSet::new();
        for (name, (config, pace)) in &self.config.providers {
            let built = config.build(std::slice::from_ref(&self.config.select));
            let (refresh, sender) = (self.refresh.clone(), sender.clone());
            pollers.spawn(poll::run(name.clone(), built, *pace, refresh, sender, stop.child_token()));
        }
        drop(sender);
        let (confirmed, confirmations) = watch::channel(lead.confirmed);
        let hold = self.config.rules.hold();
        let (select, report) = (&self.config.select, &self.report);
        let desk = Desk { session, store, select, books, observations, confirmations, hold, report };
        tokio::select! {
            ended = renew(session, store, lead, self.config.rules, &confirmed) => ended,
            ended = desk.run() => ended,
            // A panic of a poller is everybody's.
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
        let swap = book::swap(session, store, format::LEADER, format::encode(&lead.record), lead.revision);
        match tokio::time::timeout(limit, swap).await {
            Err(_) => return Ok(Ended::Deposed),
            Ok(Ok(Some(revision))) => {
                lead.revision = revision;
                lead.confirmed = begun;
                confirmed.send_replace(begun);
            }
            Ok(Ok(None)) => {
                // A renewal that seemed to have failed may have come through.
                let fleet = &lead.record.stamp.fleet;
                let (revision, found) = book::read::<Leader>(session, store, format::LEADER, fleet).await?;
                match found {
                    Some(found)
                        if found.id == lead.record.id && found.term == lead.record.term && revision > lead.revision =>
                    {
                        lead.revision = revision;
                    }
                    _ => return Ok(Ended::Deposed),
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "the lead was not renewed"),
        }
    }
}

/// Where a leader publishes what its pollers bring.
struct Desk<'a> {
    session: &'a Session,
    store: &'a Store,
    select: &'a Selector,
    books: BTreeMap<Name, Book>,
    observations: mpsc::Receiver<Observation>,
    confirmations: watch::Receiver<Instant>,
    hold: Duration,
    report: &'a watch::Sender<Arc<Publishing>>,
}

impl Desk<'_> {
    async fn run(mut self) -> Result<Ended, Error> {
        let mut last: BTreeMap<Name, (Instant, Option<String>)> = BTreeMap::new();
        loop {
            let due =
                self.books.keys().map(|name| last.get(name).map_or_else(Instant::now, |(at, _)| *at + BEAT)).min();
            let due = due.unwrap_or_else(Instant::now);
            let (name, result) = tokio::select! {
                observation = self.observations.recv() => match observation {
                    Some(observation) => {
                        let name = observation.provider.clone();
                        let (error, result) = self.take(observation).await;
                        last.insert(name.clone(), (Instant::now(), error));
                        (name, result)
                    }
                    None => return Ok(Ended::Deposed),
                },
                () = tokio::time::sleep_until(due.into()) => {
                    let silent = |name: &&Name| last.get(*name).is_none_or(|(at, _)| *at + BEAT <= Instant::now());
                    let Some(name) = self.books.keys().find(silent).cloned() else { continue };
                    let error = last.get(&name).and_then(|(_, error)| error.clone());
                    last.insert(name.clone(), (Instant::now(), error.clone()));
                    let result = self.beat(&name, error).await;
                    (name, result)
                }
            };
            match result {
                Ok(()) => {}
                Err(Stop::Deposed | Stop::Behind(_)) => return Ok(Ended::Deposed),
                Err(Stop::Failed(error)) => {
                    let message = error.to_string();
                    self.note(&name, |account| {
                        if account.error.as_ref() != Some(&message) {
                            tracing::warn!(provider = %name, error = message, "a set is not published");
                        }
                        account.error = Some(message);
                    });
                }
            }
        }
    }

    /// Who was stopped for a while should not even try: the fence would refuse it, but nobody need be asked.
    fn check(&self) -> Result<(), Stop> {
        if self.confirmations.borrow().elapsed() > self.hold { Err(Stop::Deposed) } else { Ok(()) }
    }

    fn note(&self, name: &Name, change: impl FnOnce(&mut Published)) {
        self.report.send_modify(|report| {
            if let Some(account) = Arc::make_mut(report).providers.get_mut(name) {
                change(account);
            }
        });
    }

    async fn told(&self, error: Option<String>) -> Told {
        let readers = self.session.readers(self.store).await.ok();
        self.report.send_modify(|report| Arc::make_mut(report).readers = readers);
        Told { readers, every: BEAT, error }
    }

    async fn beat(&mut self, name: &Name, error: Option<String>) -> Result<(), Stop> {
        self.check()?;
        let told = self.told(error).await;
        let (session, store) = (self.session, self.store);
        match self.books.get_mut(name) {
            Some(book) => book.beat(session, store, &told).await,
            None => Ok(()),
        }
    }

    /// Publishes what a poll brought. What readers are to be told is wrong, and how publishing went.
    async fn take(&mut self, observation: Observation) -> (Option<String>, Result<(), Stop>) {
        let Observation { provider: name, at, cost, result, .. } = observation;
        let throttles = cost.throttles.max(u64::from(result.as_ref().is_err_and(provider::Error::is_throttled)));
        self.note(&name, |account| {
            account.polls += 1;
            account.failures += u64::from(result.is_err());
            account.calls += cost.calls;
            account.pages += cost.pages;
            account.throttles += throttles;
        });
        let instances: Vec<_> = match result {
            // A provider may bring more than it was asked for.
            Ok(instances) => instances.into_iter().filter(|instance| self.select.admits(instance).is_ok()).collect(),
            Err(error) => {
                let message = error.to_string();
                self.note(&name, |account| {
                    if account.error.as_ref() != Some(&message) {
                        tracing::warn!(provider = %name, error = message, "a poll failed; what is published stands");
                    }
                    account.error = Some(message.clone());
                });
                return (Some(message.clone()), self.beat(&name, Some(message)).await);
            }
        };
        if let Err(stop) = self.check() {
            return (None, Err(stop));
        }
        let told = self.told(None).await;
        let (session, store) = (self.session, self.store);
        let Some(book) = self.books.get_mut(&name) else { return (None, Ok(())) };
        let published = book.publish(session, store, &instances, at, &told).await;
        match published {
            Ok(bytes) => {
                self.note(&name, |account| {
                    account.instances = instances.len();
                    account.observed = Some(at.min(SystemTime::now()));
                    account.sets += u64::from(bytes.is_some());
                    account.bytes += bytes.map_or(0, |bytes| bytes as u64);
                    account.error = None;
                });
                if let Some(bytes) = bytes {
                    tracing::info!(provider = %name, instances = instances.len(), bytes, "a new set is published");
                }
                (None, Ok(()))
            }
            Err(Stop::Failed(error @ Error::Content { .. })) => {
                // Such a set will not fit next time either: readers should know why theirs grows old.
                let message = error.to_string();
                let beat = self.beat(&name, Some(message.clone())).await;
                (Some(message), beat.and(Err(Stop::Failed(error))))
            }
            Err(stop) => (None, Err(stop)),
        }
    }
}
