//! A connection to a NATS server, and the fleet's bucket there. One [`Session`] lasts until the connection is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::{self, kv, stream};
use async_nats::{Client, ConnectOptions, Event, ServerError};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::format;
use crate::sys::backoff::{Backoff, Jitter};
use crate::sys::text::chain;

mod config;
mod error;

pub(crate) use config::with_connection_keys;
pub use config::{Config, Raw};
pub use error::Error;

/// How long one request may take.
pub const REQUEST: Duration = Duration::from_secs(2);

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How often the server is pinged; the connection is given up after the second ping without an answer.
const PING: Duration = Duration::from_secs(5);

/// The first pause after a failed session and the longest one; each is drawn at random from 0 to what it doubled to, so
/// that sidecars which lost the same server do not come back as one herd.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What the server reports of the connection.
#[derive(Debug, Clone, Default)]
struct Link {
    lost: Option<String>,
    denied: Option<String>,
}

/// One connection, until it is lost.
#[derive(Debug, Clone)]
pub struct Session {
    config: Config,
    client: Client,
    jetstream: jetstream::Context,
    link: watch::Receiver<Link>,
}

impl Session {
    /// Connects. `name` is shown in the server's list of connections.
    ///
    /// # Errors
    ///
    /// No connection.
    pub async fn open(config: &Config, name: &str) -> Result<Self, Error> {
        let (link, link_changes) = watch::channel(Link::default());
        let link = Arc::new(link);
        let connected = Arc::new(AtomicBool::new(false));
        let options = options(config).await?.name(name).event_callback({
            let link = Arc::clone(&link);
            move |event| {
                let link = Arc::clone(&link);
                async move { note(&link, event) }
            }
        });
        let again = Arc::clone(&connected);
        // The client would reconnect by itself, and keep subscriptions over a store that may have been emptied meanwhile.
        // A lost connection ends the session instead, so that what comes next starts from what is there; what is left
        // of the client tries once more, late, and ends.
        let options = options.max_reconnects(config.urls.len()).reconnect_delay_callback(move |_| {
            if again.load(Ordering::Relaxed) {
                Jitter::Full { least: Duration::from_secs(2) }.apply(Duration::from_secs(5))
            } else {
                Duration::ZERO
            }
        });
        let servers: Vec<async_nats::ServerAddr> = config.urls.iter().filter_map(|url| url.parse().ok()).collect();
        let client = match tokio::time::timeout(CONNECT * 2, options.connect(servers)).await {
            Ok(connected) => connected.map_err(|error| Error::unconnected(config, &error))?,
            Err(_) => return Err(Error::Unreachable { urls: config.places(), why: "it does not answer".to_owned() }),
        };
        connected.store(true, Ordering::Relaxed);
        let jetstream = jetstream::ContextBuilder::new().timeout(REQUEST).build(client.clone());
        Ok(Self { config: config.clone(), client, jetstream, link: link_changes })
    }

    /// Returns when the connection is lost.
    pub async fn lost(&self) -> Error {
        let mut link = self.link.clone();
        let why = match link.wait_for(|link| link.lost.is_some()).await {
            Ok(link) => link.lost.clone().unwrap_or_default(),
            Err(_) => "closed".to_owned(),
        };
        Error::Lost { urls: self.config.places(), why }
    }

    /// What a message may hold, in bytes.
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// The bucket.
    ///
    /// # Errors
    ///
    /// There is none, or it is not to be had.
    pub async fn bucket(&self) -> Result<kv::Store, Error> {
        let what = "open the bucket";
        let get = self.jetstream.get_key_value(&self.config.bucket);
        self.ask(what, get).await.map_err(|error| match &error {
            Error::Request { why, .. } if why.contains("10059") || why.contains("stream not found") => {
                Error::NoBucket { bucket: self.config.bucket.clone() }
            }
            _ => error,
        })
    }

    /// The bucket, which is created if it is not there.
    ///
    /// # Errors
    ///
    /// There is none, and none can be created.
    pub async fn bucket_or_new(&self, replicas: usize) -> Result<kv::Store, Error> {
        match self.bucket().await {
            Err(Error::NoBucket { .. }) => {}
            other => return other,
        }
        // What `nats kv add` makes (NATS' ADR-8). The client's own way asks for the account's limits first, which is one
        // permission more, and an answer that it cannot read of servers older than 2.10.
        let config = stream::Config {
            name: format!("KV_{}", self.config.bucket),
            description: Some(format!("elasticd, fleet {}", self.config.fleet)),
            subjects: vec![format!("$KV.{}.>", self.config.bucket)],
            max_messages_per_subject: 1,
            num_replicas: replicas,
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..stream::Config::default()
        };
        self.ask("create the bucket", self.jetstream.create_stream(config)).await?;
        tracing::info!(bucket = self.config.bucket, replicas, "the bucket was created");
        self.bucket().await
    }

    /// Waits for an answer, or for the server to deny the request.
    ///
    /// # Errors
    ///
    /// The request failed; whether it was done may be unknown.
    pub async fn ask<T, E: std::error::Error + 'static>(
        &self,
        what: &'static str,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        let mut link = self.link.clone();
        let before = link.borrow_and_update().denied.clone();
        let denied = async {
            let denial = link.wait_for(|link| link.denied.is_some() && link.denied != before).await;
            match denial.ok().and_then(|link| link.denied.clone()) {
                Some(denied) => denied,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = tokio::time::timeout(REQUEST + REQUEST / 2, request) => match result {
                Ok(Ok(done)) => Ok(done),
                // Said before we began to listen: the same is denied again.
                Ok(Err(error)) => Err(match before.filter(|_| is_late(&error)) {
                    Some(denied) => Error::Denied(denied),
                    None => Error::Request { what, why: chain(&error) },
                }),
                Err(_) => Err(match before {
                    Some(denied) => Error::Denied(denied),
                    None => Error::Request { what, why: "no answer in time".to_owned() },
                }),
            },
            denied = denied => Err(Error::Denied(denied)),
        }
    }

    /// An error in what the bucket holds.
    pub fn content(&self, source: format::Error) -> Error {
        Error::Content { bucket: self.config.bucket.clone(), source }
    }

    /// How many consumers the bucket has: one for each sidecar that watches.
    ///
    /// # Errors
    ///
    /// The server does not say.
    pub async fn readers(&self, store: &kv::Store) -> Result<usize, Error> {
        Ok(self.ask("count the consumers", store.stream.get_info()).await?.state.consumer_count)
    }

    /// Each matching key's last value, and then what follows, in the order in which it was written.
    ///
    /// # Errors
    ///
    /// It cannot be watched.
    pub async fn watch(&self, store: &kv::Store, keys: &str) -> Result<Watch, Error> {
        let config = push::OrderedConfig {
            // With a name, what is watched is part of the request's subject, so that it can be permitted by itself.
            name: Some(format!("elasticd-{:016x}", fastrand::u64(..))),
            deliver_subject: self.client.new_inbox(),
            filter_subject: format!("{}{keys}", store.prefix),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..push::OrderedConfig::default()
        };
        let consumer = self.ask("watch the bucket", store.stream.create_consumer(config)).await?;
        let is_empty = consumer.cached_info().num_pending == 0;
        let messages = self.ask("watch the bucket", consumer.messages()).await?;
        Ok(Watch { is_empty, messages, prefix: store.prefix.clone() })
    }

    /// Removes the values that `subject` of the bucket had up to a revision, and leaves no trace of them.
    ///
    /// # Errors
    ///
    /// It was not done, as far as is known.
    pub async fn purge(&self, store: &kv::Store, key: &str, up_to: u64) -> Result<(), Error> {
        let purge = store.stream.purge().sequence(up_to.saturating_add(1)).filter(format!("{}{key}", store.prefix));
        let purge: stream::Purge<_, _> = purge;
        self.ask("purge old chunks", purge.into_future()).await.map(drop)
    }
}

/// Watches the writes to some keys.
#[expect(missing_debug_implementations, reason = "the stream of messages has none")]
pub struct Watch {
    /// Whether there was no value when it began.
    pub is_empty: bool,
    messages: push::Ordered,
    prefix: String,
}

/// One write to a key.
#[derive(Debug)]
pub struct KeyUpdate {
    /// The key.
    pub key: String,
    /// What was written; none if the key was deleted.
    pub value: Option<Vec<u8>>,
}

impl Watch {
    /// The next write. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The watch is at its end.
    pub async fn next(&mut self) -> Result<KeyUpdate, Error> {
        let over = |why: String| Error::Request { what: "go on with the watch", why };
        let message = self.messages.next().await.ok_or_else(|| over("it ended".to_owned()))?;
        let message = message.map_err(|error| over(chain(&error)))?;
        let key = message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned();
        let is_deleted = message.headers.as_ref().is_some_and(|headers| headers.get("KV-Operation").is_some());
        Ok(KeyUpdate { key, value: (!is_deleted).then(|| message.payload.to_vec()) })
    }
}

/// The pause before the next session, after so many that failed in a row. The larger the fleet, the longer: a server that
/// comes back is met by a thousand in a second, and not by all of them.
pub fn pause(failures: u32, readers: Option<usize>) -> Duration {
    let crowd = Duration::from_millis(readers.and_then(|readers| readers.try_into().ok()).unwrap_or(0));
    let jitter = Jitter::Full { least: Duration::ZERO };
    let backoff = Backoff::new(PAUSES.0.max(crowd), PAUSES.1.max(crowd), jitter);
    backoff.expect("the longest pause is longer than the first one").delay_after(failures)
}

async fn options(config: &Config) -> Result<ConnectOptions, Error> {
    let unusable = |file: &PathBuf, why: String| Error::File { file: file.display().to_string(), why };
    let read =
        async |file: &PathBuf| tokio::fs::read_to_string(file).await.map_err(|error| unusable(file, error.to_string()));
    let mut options = ConnectOptions::new();
    if let Some(file) = &config.credentials_file {
        let text = read(file).await?;
        options = options.credentials(&text).map_err(|_| unusable(file, "it holds no credentials".to_owned()))?;
    }
    if let Some(file) = &config.nkey_file {
        let text = read(file).await?;
        let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
        let seed = seed.ok_or_else(|| unusable(file, "it holds no user's seed, which starts with SU".to_owned()))?;
        options = options.nkey(seed.to_owned());
    }
    if let Some(file) = &config.ca_file {
        read(file).await?;
        options = options.add_root_certificates(file.clone());
    }
    if config.tls {
        options = options.require_tls(true);
    }
    Ok(options
        .connection_timeout(CONNECT)
        .request_timeout(Some(REQUEST))
        .ping_interval(PING)
        .ignore_discovered_servers())
}

fn note(link: &watch::Sender<Link>, event: Event) {
    match event {
        Event::Disconnected | Event::Closed => {
            link.send_modify(|link| {
                link.lost.get_or_insert_with(|| "the server closed it, or is gone".to_owned());
            });
        }
        Event::ServerError(ServerError::Other(text)) if text.to_lowercase().starts_with("permissions violation") => {
            link.send_modify(|link| link.denied = Some(text));
        }
        Event::ServerError(error) => link.send_modify(|link| link.lost = Some(error.to_string())),
        _ => {}
    }
}

fn is_late(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error).contains("timed out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_drawn() {
        let drawn: Vec<_> = (0..200).map(|_| pause(30, None)).collect();
        assert!(drawn.iter().all(|pause| *pause <= PAUSES.1));
        assert!(drawn.iter().max() > Some(&(PAUSES.1 / 2)) && drawn.iter().min() < Some(&(PAUSES.1 / 2)));
        assert!((0..200).all(|_| pause(0, None) <= PAUSES.0));
        assert!((0..200).any(|_| pause(0, Some(100_000)) > PAUSES.1));
    }
}
