//! What all runtime APIs have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::frontend::digest::Digest;
use crate::sys::endpoint::{Connection, Endpoint};
use crate::sys::output_file::Store;
use crate::sys::unconfined::Unconfined;

/// A runtime API, by its protocol. The three operations are those of [`super::Runtime`].
pub(super) trait RuntimeApi: Sync {
    fn compare<'a>(
        &self,
        access: &'a Access,
        wanted: &'a Wanted<'a>,
        last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<Comparison, Error>>;

    /// Whether [`apply`](Self::apply) does anything.
    fn takes_changes(&self) -> bool {
        false
    }

    /// Whether [`apply`](Self::apply) makes a part of a change, if that is asked for, without the outputs being in place.
    fn applies_in_part(&self) -> bool {
        false
    }

    fn apply<'a>(
        &self,
        _access: &'a Access,
        _wanted: &'a Wanted<'a>,
        _last: Option<&'a Evidence>,
    ) -> BoxFuture<'a, Result<LiveUpdate, Error>> {
        Box::pin(ready(Ok(LiveUpdate::NotNeeded)))
    }

    fn state_before_reload<'a>(&self, _access: &'a Access) -> BoxFuture<'a, Result<Option<Evidence>, Error>> {
        Box::pin(ready(Ok(None)))
    }
}

/// How a runtime API is reached and used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub endpoint: Endpoint,
    /// The file with the secret that the API asks for, where it does.
    pub secret_file: Option<PathBuf>,
    /// The frontend's own main configuration, for APIs that load it by its path.
    pub config: Option<PathBuf>,
    /// How long one request and its answer may take.
    pub timeout: Duration,
}

/// What a frontend should run.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Its outputs, which are in place on disk: path and content.
    pub outputs: Vec<(&'a Path, &'a str)>,
    /// The digest of all outputs.
    pub digest: &'a Digest,
    /// When the outputs were swapped in, in ticks since boot ([`crate::sys::ticks::now_ticks`]); 0: not on record.
    pub swapped_at: u64,
    /// Where the previous versions of the outputs are kept.
    pub store: &'a Store,
    /// Where processes are examined.
    pub unconfined: &'a Unconfined,
    /// What elasticd has applied since the frontend last agreed with the first of them: contents in the order of the
    /// outputs. What was the same in all of these, and differs now, was changed by others. None: that is not known.
    pub earlier: Vec<&'a [String]>,
    /// Where a part of the change is to be applied if the whole cannot be: the addresses of all backends. `None`: all or
    /// nothing.
    pub in_part: Option<BTreeSet<SocketAddr>>,
}

impl<'a> Wanted<'a> {
    /// With nothing known of what was applied before, and as a whole.
    pub const fn new(
        outputs: Vec<(&'a Path, &'a str)>,
        digest: &'a Digest,
        swapped_at: u64,
        store: &'a Store,
        unconfined: &'a Unconfined,
    ) -> Self {
        Self { outputs, digest, swapped_at, store, unconfined, earlier: Vec::new(), in_part: None }
    }

    /// The same with what elasticd has applied before.
    pub fn after(mut self, earlier: impl IntoIterator<Item = &'a [String]>) -> Self {
        self.earlier = earlier.into_iter().collect();
        self
    }

    /// The same, where applying a part is better than nothing. `backends`: the addresses of all that are wanted.
    pub fn in_part(mut self, backends: BTreeSet<SocketAddr>) -> Self {
        self.in_part = Some(backends);
        self
    }
}

/// What a later comparison needs to recognise the process that was proven. It is kept in the apply record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The process that was found to run the outputs, in a form of the protocol's own.
    #[serde(rename = "instance", default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The digest of what only a reload can change, or of all that the comparison rests on.
    #[serde(rename = "fixed", default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What others have changed over the runtime API and is left as it is: in words, by the name that the frontend has for
    /// it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, String>,
    /// What else the protocol knows of the process, in a form of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

/// The result of comparing what a frontend runs with what it should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    Runs(Evidence),
    /// The difference, in words.
    Differs(String),
}

/// The result of applying a change over a runtime API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveUpdate {
    Applied,
    /// The reason for which this change cannot be made at run time.
    NeedsReload(String),
    /// The API takes no changes: the frontend reads its outputs when it is reloaded, or by itself.
    NotNeeded,
}

/// Why a runtime API could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nothing listens at {0}; is the frontend running, and does `api` name its runtime API?")]
    Absent(Endpoint),
    /// The management process answers, and the frontend itself does not run.
    #[error("{1} ({0})")]
    NotServing(Endpoint, &'static str),
    /// The message names the cause and the remedy.
    #[error("cannot use the runtime API at {endpoint}: {message}")]
    Unusable { endpoint: Endpoint, message: String },
    /// With the frontend's own words.
    #[error("the frontend refuses the new configuration: {0}")]
    Refused(String),
}

impl Error {
    /// Whether the frontend does not run at present; other errors mean that something is set up wrongly.
    pub const fn is_not_running(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::NotServing(..))
    }
}

impl Access {
    pub(super) async fn connect(&self) -> Result<Connection, Error> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        self.endpoint.connect(self.timeout).await.map_err(|error| match error.kind() {
            NotFound | ConnectionRefused => Error::Absent(self.endpoint.clone()),
            PermissionDenied => self.unusable("permission denied; make elasticd's user a member of the socket's group"),
            _ => self.unusable(error.to_string()),
        })
    }

    pub(super) fn unusable(&self, message: impl Into<String>) -> Error {
        Error::Unusable { endpoint: self.endpoint.clone(), message: message.into() }
    }
}
