//! A connection to a NATS server, and the fleet's bucket there. One [`Session`] lasts until the connection is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::{self, kv, stream};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::watch;

use super::format;

/// How long one request may take.
pub const REQUEST: Duration = Duration::from_secs(2);

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How often the server is asked whether it is still there; it is given up on after the second silence.
const PING: Duration = Duration::from_secs(5);

/// The first pause after a failed session and the longest one; each is drawn at random from 0 to what it doubled to, so
/// that sidecars which lost the same server do not come back as one herd.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// Where the bucket is, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The servers, any of which will do.
    pub urls: Vec<String>,
    /// Never talk without TLS, whatever the URLs say.
    pub tls: bool,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A credentials file, as `nsc` writes it.
    pub credentials_file: Option<PathBuf>,
    /// A file with an nkey's seed.
    pub nkey_file: Option<PathBuf>,
    /// The bucket.
    pub bucket: String,
    /// The fleet whose bucket it is.
    pub fleet: String,
}

/// The same, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// `url = "tls://nats.internal:4222"`
    pub url: Option<String>,
    /// `urls = ["tls://a.internal:4222", "tls://b.internal:4222"]`
    #[serde(default)]
    pub urls: Vec<String>,
    /// `tls = true`
    #[serde(default)]
    pub tls: bool,
    /// `ca_file = "/etc/elasticd/nats-ca.pem"`
    pub ca_file: Option<PathBuf>,
    /// `credentials_file = "/etc/elasticd/nats.creds"`
    pub credentials_file: Option<PathBuf>,
    /// `nkey_file = "/etc/elasticd/nats.nk"`
    pub nkey_file: Option<PathBuf>,
    /// `bucket = "elasticd"`
    pub bucket: Option<String>,
    /// `fleet = "shop"`
    pub fleet: Option<String>,
}

impl Raw {
    /// Its keys.
    pub const KEYS: &[&str] = &["url", "urls", "tls", "ca_file", "credentials_file", "nkey_file", "bucket", "fleet"];

    /// Judges what is written.
    ///
    /// # Errors
    ///
    /// All faults at once, each beginning with its key.
    pub fn resolve(self) -> Result<Config, Vec<String>> {
        let mut faults = Vec::new();
        let urls: Vec<String> = self.url.into_iter().chain(self.urls).collect();
        if urls.is_empty() {
            faults.push("url: missing: write url = \"nats://HOST:4222\", or tls:// with TLS".to_owned());
        }
        for url in &urls {
            let scheme = ["nats://", "tls://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            if without_password(url) != *url {
                faults.push(
                    "url: holds a name or password, which the client would ignore: use credentials_file or nkey_file"
                        .to_owned(),
                );
            }
            // async-nats takes ws:// and bare hosts, too; the one is not built in, the other hides what is meant.
            if scheme.is_none_or(str::is_empty) || url.parse::<async_nats::ServerAddr>().is_err() {
                faults.push(format!("url: {:?} is not nats://HOST:PORT or tls://HOST:PORT", without_password(url)));
            }
        }
        let files =
            [("ca_file", &self.ca_file), ("credentials_file", &self.credentials_file), ("nkey_file", &self.nkey_file)];
        for (key, file) in files {
            if file.as_ref().is_some_and(|file| !file.is_absolute()) {
                faults.push(format!("{key}: is not an absolute path: start it with `/`"));
            }
        }
        if self.credentials_file.is_some() && self.nkey_file.is_some() {
            faults.push("nkey_file: the credentials_file says already who we are: leave one of them out".to_owned());
        }
        let bucket = self.bucket.unwrap_or_else(|| "elasticd".to_owned());
        if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            faults.push(format!("bucket: {bucket:?} is not made of ASCII letters, digits, `_` and `-` alone"));
        }
        let fleet = self.fleet.unwrap_or_default();
        if fleet.is_empty() || fleet.len() > 63 || fleet.contains(char::is_control) {
            faults
                .push("fleet: missing: name the fleet, the same on publishers and sidecars (1 to 63 bytes)".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Config {
            urls,
            tls: self.tls,
            ca_file: self.ca_file,
            credentials_file: self.credentials_file,
            nkey_file: self.nkey_file,
            bucket,
            fleet,
        })
    }
}

/// Why there is no use of the bucket. Every message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server answers.
    #[error("no NATS server answers at {urls}: {why}; check `url`, that the server runs, and what is between")]
    Unreachable {
        /// Where it was sought.
        urls: String,
        /// Why not.
        why: String,
    },
    /// The server does not know us.
    #[error(
        "NATS at {urls} refuses our credentials ({why}); check credentials_file or nkey_file and the server's users"
    )]
    Unauthorized {
        /// Where.
        urls: String,
        /// Its words.
        why: String,
    },
    /// TLS failed.
    #[error(
        "no TLS with NATS at {urls}: {why}; check that `url` names the host in the server's certificate, and that ca_file holds its issuer"
    )]
    Tls {
        /// Where.
        urls: String,
        /// Why.
        why: String,
    },
    /// A file of ours cannot be used.
    #[error("cannot use {file}: {why}; write it anew, readable for elasticd's user")]
    File {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// A permission is missing.
    #[error(
        "NATS does not permit us: {0}; grant the subject to our user (the README lists what publishers and sidecars need)"
    )]
    Denied(String),
    /// There is no bucket.
    #[error("NATS has no bucket {bucket:?}; start a publisher that may create it, or create it: nats kv add {bucket}")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// The connection broke.
    #[error("the connection to NATS at {urls} is lost: {why}")]
    Lost {
        /// Where it was.
        urls: String,
        /// Why.
        why: String,
    },
    /// A request failed.
    #[error("NATS did not {what}: {why}; see the server's log, and whether JetStream is enabled and has a quorum")]
    Request {
        /// What was asked.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// What the bucket holds is not for us.
    #[error("in NATS' bucket {bucket}: {source}")]
    Content {
        /// The bucket.
        bucket: String,
        /// What is wrong.
        source: format::Error,
    },
}

/// What the server says beside answers.
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
        let (link, told) = watch::channel(Link::default());
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
                Duration::from_secs_f64(2.0 + 3.0 * fastrand::f64())
            } else {
                Duration::ZERO
            }
        });
        let servers: Vec<async_nats::ServerAddr> = config.urls.iter().filter_map(|url| url.parse().ok()).collect();
        let client = match tokio::time::timeout(CONNECT * 2, options.connect(servers)).await {
            Ok(connected) => connected.map_err(|error| unconnected(config, &error))?,
            Err(_) => return Err(Error::Unreachable { urls: places(config), why: "it does not answer".to_owned() }),
        };
        connected.store(true, Ordering::Relaxed);
        let jetstream = jetstream::ContextBuilder::new().timeout(REQUEST).build(client.clone());
        Ok(Self { config: config.clone(), client, jetstream, link: told })
    }

    /// Returns when the connection is lost.
    pub async fn lost(&self) -> Error {
        let mut link = self.link.clone();
        let why = match link.wait_for(|link| link.lost.is_some()).await {
            Ok(link) => link.lost.clone().unwrap_or_default(),
            Err(_) => "closed".to_owned(),
        };
        Error::Lost { urls: places(&self.config), why }
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

    /// Waits for an answer, or for the server to say that we may not ask.
    ///
    /// # Errors
    ///
    /// What was asked was not done, as far as is known.
    pub async fn ask<T, E: std::error::Error>(
        &self,
        what: &'static str,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        let mut link = self.link.clone();
        let before = link.borrow_and_update().denied.clone();
        let denied = async {
            let told = link.wait_for(|link| link.denied.is_some() && link.denied != before).await;
            match told.ok().and_then(|link| link.denied.clone()) {
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
    /// The server does not tell.
    pub async fn readers(&self, store: &kv::Store) -> Result<usize, Error> {
        Ok(self.ask("tell its consumers", store.stream.get_info()).await?.state.consumer_count)
    }

    /// Each matching key's last value, and then what follows, in the order in which it was written.
    ///
    /// # Errors
    ///
    /// It cannot be watched.
    pub async fn watch(&self, store: &kv::Store, keys: &str) -> Result<Watch, Error> {
        let config = push::OrderedConfig {
            // With a name, what is watched is part of the subject asked on, so that it can be permitted by itself.
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

/// What is written to some keys.
#[expect(missing_debug_implementations, reason = "the stream of messages has none")]
pub struct Watch {
    /// Whether there was no value when it began.
    pub is_empty: bool,
    messages: push::Ordered,
    prefix: String,
}

/// One write to a key.
#[derive(Debug)]
pub struct Written {
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
    pub async fn next(&mut self) -> Result<Written, Error> {
        let over = |why: String| Error::Request { what: "go on with the watch", why };
        let message = self.messages.next().await.ok_or_else(|| over("it ended".to_owned()))?;
        let message = message.map_err(|error| over(chain(&error)))?;
        let key = message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned();
        let is_deleted = message.headers.as_ref().is_some_and(|headers| headers.get("KV-Operation").is_some());
        Ok(Written { key, value: (!is_deleted).then(|| message.payload.to_vec()) })
    }
}

/// The pause before the next session, after so many that failed in a row. The larger the fleet, the longer: a server that
/// comes back is met by a thousand in a second, and not by all of them.
pub fn pause(failures: u32, readers: Option<usize>) -> Duration {
    let crowd = Duration::from_millis(readers.and_then(|readers| readers.try_into().ok()).unwrap_or(0));
    let most = PAUSES.0.max(crowd).saturating_mul(1 << failures.min(10)).min(PAUSES.1.max(crowd));
    most.mul_f64(fastrand::f64())
}

/// The servers, without passwords.
fn places(config: &Config) -> String {
    config.urls.iter().map(|url| without_password(url)).collect::<Vec<_>>().join(", ")
}

fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://{host}"),
        None => url.to_owned(),
    }
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

fn unconnected(config: &Config, error: &async_nats::ConnectError) -> Error {
    let (urls, why) = (places(config), chain(error));
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            Error::Unauthorized { urls, why }
        }
        ConnectErrorKind::Tls => Error::Tls { urls, why },
        // rustls speaks through I/O errors.
        _ if ["certificate", "tls", "handshake", "InvalidContentType"].iter().any(|word| why.contains(word)) => {
            Error::Tls { urls, why }
        }
        _ => Error::Unreachable { urls, why },
    }
}

fn is_late(error: &dyn std::error::Error) -> bool {
    chain(error).contains("timed out")
}

/// An error and its causes, as far as one does not say the other.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Result<Config, Vec<String>> {
        serde_json::from_str::<Raw>(json).expect("readable").resolve()
    }

    #[test]
    fn names_every_fault_with_its_key() {
        let config = raw(r#"{"url": "tls://a:4222", "urls": ["nats://b"], "fleet": "shop"}"#).expect("good");
        assert_eq!((config.urls.len(), config.bucket.as_str()), (2, "elasticd"));
        let faults =
            raw(r#"{"urls": ["ws://a", "nats://u:secret@:x"], "nkey_file": "x", "bucket": "a.b"}"#).unwrap_err();
        let keys: Vec<_> = faults.iter().filter_map(|fault| fault.split_once(": ")).map(|(key, _)| key).collect();
        assert_eq!(keys, ["url", "url", "url", "nkey_file", "bucket", "fleet"]);
        assert!(!faults.concat().contains("secret"), "{faults:?}");
        assert!(raw("{}").unwrap_err()[0].contains("nats://HOST:4222"));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_drawn() {
        let drawn: Vec<_> = (0..200).map(|_| pause(30, None)).collect();
        assert!(drawn.iter().all(|pause| *pause <= PAUSES.1));
        assert!(drawn.iter().max() > Some(&(PAUSES.1 / 2)) && drawn.iter().min() < Some(&(PAUSES.1 / 2)));
        assert!((0..200).all(|_| pause(0, None) <= PAUSES.0));
        assert!((0..200).any(|_| pause(0, Some(100_000)) > PAUSES.1));
    }
}
