//! Frontends that are asked what they run, and most of which can be told over the same API, without a reload.
//!
//! The outputs stay what counts: an API is brought to agree with them, so that a restarted frontend comes up right.
//! One file a protocol, with two functions: `compare` compares what the frontend runs with the outputs, and `apply`
//! gives it what differs.

mod apache;
mod caddy;
mod caddyfile;
mod envoy;
mod haproxy;
mod prometheus;
mod traefik;
mod varnish;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::sys::endpoint::{Connection, Endpoint};
use crate::sys::{http, text};

/// What is spoken at a frontend's runtime API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Apache's `mod_status`: for the proof alone.
    Apache,
    /// Caddy's admin API, over which the upstreams of its JSON configuration are replaced.
    Caddy,
    /// The same API, over which Caddy is told to read its Caddyfile anew.
    Caddyfile,
    /// Envoy's admin interface: for the proof alone.
    Envoy,
    /// HAProxy's runtime API, on a `stats socket` of level admin.
    Haproxy,
    /// Prometheus' HTTP API: for the proof alone.
    Prometheus,
    /// Traefik's API: for the proof alone.
    Traefik,
    /// Varnish's management interface (`varnishd -T`).
    Varnish,
}

impl Protocol {
    /// Whether a frontend can be told a change this way; otherwise it can only be asked.
    pub const fn takes_changes(self) -> bool {
        match self {
            Self::Caddy | Self::Caddyfile | Self::Haproxy | Self::Varnish => true,
            Self::Apache | Self::Envoy | Self::Prometheus | Self::Traefik => false,
        }
    }
}

/// A frontend's runtime API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The file with the secret shared with it, where it wants one.
    pub secret_file: Option<PathBuf>,
    /// The frontend's own main configuration, where the API needs to be told of it.
    pub config: Option<PathBuf>,
    /// How long one exchange may take.
    pub limit: Duration,
}

/// What a frontend should run.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Its outputs, in place on disk: path and content.
    pub outputs: Vec<(&'a Path, &'a str)>,
    /// The digest of all of them.
    pub digest: &'a Digest,
    /// When they were swapped in, in ticks since boot (as [`crate::sys::ticks::now_ticks`] counts); 0 if before that.
    pub swapped_at: u64,
}

/// What makes a frontend known again, as its protocol needs it. Kept in the apply record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The process that was found to run the outputs, in the protocol's own terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The part of the outputs that only a reload can change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Digest>,
}

/// How a frontend stands to what it should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// It runs that.
    Runs(Evidence),
    /// It does not; in words.
    Differs(String),
}

/// How a frontend took what it should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveUpdate {
    /// It was told, and has it.
    Applied,
    /// This change cannot be told: it needs a reload; why.
    NeedsReload(String),
    /// Nothing can be told over this API: the frontend reads its outputs when it is reloaded, or by itself.
    NotNeeded,
}

/// Why a frontend could not be asked or told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("nothing listens at {0}; is the frontend running, and does `api` name its runtime API?")]
    Absent(Endpoint),
    /// What listens there says that nothing serves.
    #[error("{1} ({0})")]
    NotServing(Endpoint, &'static str),
    /// The API could not be reached or understood, or did not admit us.
    #[error("cannot use the runtime API at {endpoint}: {message}")]
    Unusable {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// The frontend refuses what it is told, in its own words.
    #[error("the frontend refuses the new configuration: {0}")]
    Refused(String),
}

impl Error {
    /// Whether it means that the frontend does not run at present, rather than that something is set up wrongly.
    pub const fn is_not_running(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::NotServing(..))
    }
}

impl Runtime {
    /// Compares what the frontend runs with what it should. `last` is the evidence of what it was last proven to run.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub async fn compare(&self, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<Comparison, Error> {
        match self.protocol {
            Protocol::Apache => apache::compare(self, wanted, last).await,
            Protocol::Caddy => caddy::compare(self, wanted).await,
            Protocol::Caddyfile => caddyfile::compare(self, wanted, last).await,
            Protocol::Envoy => envoy::compare(self, wanted).await,
            Protocol::Haproxy => haproxy::compare(self, wanted, last).await,
            Protocol::Prometheus => prometheus::compare(self, wanted).await,
            Protocol::Traefik => traefik::compare(self, wanted).await,
            Protocol::Varnish => varnish::compare(self, wanted).await,
        }
    }

    /// Tells the frontend what it should run, where its API can. What it runs already costs it nothing.
    ///
    /// # Errors
    ///
    /// It cannot be told, or refuses.
    pub async fn apply(&self, wanted: &Wanted<'_>, last: Option<&Evidence>) -> Result<LiveUpdate, Error> {
        match self.protocol {
            Protocol::Haproxy => haproxy::apply(self, wanted, last).await,
            Protocol::Varnish => varnish::apply(self, wanted).await,
            Protocol::Caddy => caddy::apply(self, wanted).await,
            Protocol::Caddyfile => caddyfile::apply(self).await,
            Protocol::Apache | Protocol::Envoy | Protocol::Prometheus | Protocol::Traefik => Ok(LiveUpdate::NotNeeded),
        }
    }

    /// What shows after a reload that it came later than this moment. `None`: the frontend's API needs no such mark.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub async fn mark(&self) -> Result<Option<Evidence>, Error> {
        match self.protocol {
            Protocol::Apache => apache::mark(self).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Whether anybody listens there, and admits us.
    ///
    /// # Errors
    ///
    /// Nobody does.
    pub async fn probe(&self) -> Result<(), Error> {
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        self.endpoint.connect(self.limit).await.map_err(|error| match error.kind() {
            NotFound | ConnectionRefused => Error::Absent(self.endpoint.clone()),
            PermissionDenied => self.unusable("permission denied; make elasticd's user a member of the socket's group"),
            _ => self.unusable(error.to_string()),
        })
    }

    /// An HTTP request to the API, with a body of some type if there is one: the answer, whatever its status.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let sent = http::send(&self.endpoint, method, path, body, self.limit).await;
        sent.map_err(|error| {
            if error.is_absent() { Error::Absent(self.endpoint.clone()) } else { self.unusable(error.to_string()) }
        })
    }

    /// The body of an answer with status 200. `None`: there is nothing at that path.
    async fn find(&self, path: &str) -> Result<Option<Bytes>, Error> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(self.unusable(format!("GET {path}: {status}: {}", excerpt(&body)))),
        }
    }

    /// The same where there must be something.
    async fn get(&self, path: &str) -> Result<Bytes, Error> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, body) => Err(self.unusable(format!("GET {path}: {status}: {}", excerpt(&body)))),
        }
    }

    /// An answer in JSON.
    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.understood(path, &self.get(path).await?)
    }

    /// A body in JSON of what was asked at that path.
    fn understood<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, Error> {
        let wrong =
            |error| self.unusable(format!("the answer to {path} is not understood: {error}: {}", excerpt(body)));
        serde_json::from_slice(body).map_err(wrong)
    }

    /// What an output holds, as the frontend reads it: YAML if its name says so, JSON otherwise.
    fn parse<T: DeserializeOwned>(&self, (path, text): (&Path, &str)) -> Result<T, Error> {
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let parsed = if is_yaml {
            serde_saphyr::from_str(text).map_err(|error| error.to_string())
        } else {
            serde_json::from_str(text).map_err(|error| error.to_string())
        };
        let path = path.display();
        parsed.map_err(|error| {
            let remedy = "mend its template, or set proof = \"none\"";
            self.unusable(format!("{path} cannot be compared with what the frontend runs: {error}; {remedy}"))
        })
    }

    fn unusable(&self, message: impl Into<String>) -> Error {
        Error::Unusable { endpoint: self.endpoint.clone(), message: message.into() }
    }
}

/// In what way that which runs differs from what is wanted. `None`: in none.
fn difference<T: Ord + Display>(wanted: &BTreeSet<T>, running: &BTreeSet<T>) -> Option<String> {
    const SHOWN: usize = 3;
    let list = |items: Vec<&T>| {
        let shown: Vec<_> = items.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = items.len().checked_sub(SHOWN).filter(|more| *more > 0);
        shown.join(", ") + &more.map_or_else(String::new, |more| format!(" and {more} more"))
    };
    let (lacking, left): (Vec<_>, Vec<_>) =
        (wanted.difference(running).collect(), running.difference(wanted).collect());
    match (lacking.is_empty(), left.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("it lacks {}", list(lacking))),
        (true, false) => Some(format!("it still has {}", list(left))),
        (false, false) => Some(format!("it lacks {} and still has {}", list(lacking), list(left))),
    }
}

/// The beginning of an answer, for a message.
fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 500;
    text::shorten(String::from_utf8_lossy(body).trim(), LONGEST)
}

/// The words of a line of HAProxy's configuration, for the test of what was escaped for it.
#[cfg(test)]
pub fn haproxy_words(line: &str) -> Vec<String> {
    haproxy::words(line)
}

/// Tells HAProxy's master process to reload, and waits until it has, or says that it could not.
///
/// # Errors
///
/// It cannot be told, or its new worker did not come up.
pub async fn reload_by_master(endpoint: &Endpoint, limit: Duration) -> Result<(), Error> {
    haproxy::reload_by_master(endpoint, limit).await
}
