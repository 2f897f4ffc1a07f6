//! `http`: instances as a server answers with them, in Prometheus' `http_sd` form or in ours.

mod config;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};

pub use config::{Authorization, Config, Raw};

use super::poll::inner_timeout;
use super::{BuildContext, Configuration, Context, ErrorKind, Provider, format};
use crate::model::{FieldFault, Instance};
use crate::sys::https::{self, Answer, Client, FileError, Progress, TlsFiles, beginning, remedy};
use crate::units::HumanDuration;

impl Configuration for Config {
    const TYPE: &'static str = "http";

    type Raw = Raw;

    fn resolve(raw: Raw, context: &Context<'_>) -> Result<Self, Vec<FieldFault>> {
        raw.resolve(context.timeout)
    }

    fn build(&self, _context: &BuildContext<'_>) -> Box<dyn Provider> {
        Box::new(Http::new(self))
    }
}

/// Why a server yielded no set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the configuration cannot be used.
    #[error("`{key}` {}: {reason}; correct the file or the provider's `{key}`, and let elasticd's user read it", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why. Nothing of its content.
        reason: String,
    },
    /// There are no certificates of authorities to trust.
    #[error("this system has no certificates of authorities: install `ca-certificates`, or set `ca_file` ({reason})")]
    NoRoots {
        /// Why, if the system says.
        reason: String,
    },
    /// There is no connection.
    #[error(
        "cannot connect to {url}: {source}; see whether the server runs there and can be reached from here, or correct the provider's `url`"
    )]
    Connect {
        /// The URL.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("no TLS with {url}: {source}; {}", remedy(source, host))]
    Tls {
        /// The URL.
        url: String,
        /// The name its certificate has to be for.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The answer was incomplete.
    #[error("incomplete response from {url}: {reason}; {got}; see the server's log, and that of any proxy between")]
    Broken {
        /// The URL.
        url: String,
        /// What happened.
        reason: String,
        /// What had come by then.
        got: Progress,
    },
    /// The answer was not complete in time.
    #[error(
        "incomplete response from {url} in time; {got}; see why the server is slow, or raise the provider's `timeout` ({})",
        HumanDuration(*timeout)
    )]
    Late {
        /// The URL.
        url: String,
        /// What had come by then.
        got: Progress,
        /// The provider's `timeout`.
        timeout: Duration,
    },
    /// It answered with something else than a set.
    #[error("{url} answered {got}, which {}", refusal(*status, *retry_after, said))]
    Status {
        /// The URL.
        url: String,
        /// How it answered.
        status: StatusCode,
        /// The seconds after which it may be asked again, if it says; 0 for a date.
        retry_after: Option<u32>,
        /// Where it redirects to, or the beginning of the answer.
        said: String,
        /// What came.
        got: Progress,
    },
    /// The answer is larger than it may be.
    #[error("{url} answers with more than {max} bytes: make the answer smaller, or raise the provider's `max_bytes`")]
    TooLarge {
        /// The URL.
        url: String,
        /// How large it may be, in bytes.
        max: usize,
    },
    /// The answer is encoded, which was not asked for.
    #[error("{url} answers with the encoding {encoding:?}, which was not asked for: have the server send it plainly")]
    Encoded {
        /// The URL.
        url: String,
        /// As the server calls it.
        encoding: String,
    },
    /// What it answered is no set.
    #[error("{source} ({came})")]
    Content {
        /// What came, and its beginning.
        came: String,
        /// What is wrong with it.
        source: format::Error,
    },
}

impl Error {
    /// Whether the server asked for fewer calls: `429`, or `503` with `Retry-After` (RFC 9110, section 10.2.3).
    pub fn is_throttled(&self) -> bool {
        match self {
            Self::Status { status: StatusCode::TOO_MANY_REQUESTS, .. } => true,
            Self::Status { status: StatusCode::SERVICE_UNAVAILABLE, retry_after, .. } => retry_after.is_some(),
            _ => false,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        let FileError { key, path, reason } = error;
        Self::File { key, path, reason }
    }
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            error if error.is_throttled() => ErrorKind::Throttled,
            Error::File { .. } | Error::NoRoots { .. } => ErrorKind::Failed,
            Error::Connect { source, .. } => source.into(),
            Error::Tls { .. } => ErrorKind::Unreachable,
            Error::Late { .. } => ErrorKind::Timeout,
            Error::Status { status, .. } if matches!(status.as_u16(), 401 | 403 | 407) => ErrorKind::Denied,
            Error::Status { status, .. } if status.is_server_error() => ErrorKind::Failed,
            Error::Status { .. }
            | Error::Broken { .. }
            | Error::TooLarge { .. }
            | Error::Encoded { .. }
            | Error::Content { .. } => ErrorKind::Invalid,
        };
        Self::new(kind, error)
    }
}

/// What a status means, and the remedy.
fn refusal(status: StatusCode, retry_after: Option<u32>, said: &str) -> String {
    let again = retry_after.map_or_else(String::new, |seconds| format!(" for {seconds} s"));
    match status.as_u16() {
        300..=399 if !said.is_empty() => {
            format!("redirects to {said:?}: elasticd does not follow, set the provider's `url` to the final address")
        }
        401 | 403 | 407 => format!(
            "refuses us: correct `bearer_file`, `authorization_file`, `headers` or the client certificate; it said {said:?}"
        ),
        404 | 410 => "is not there: correct the provider's `url`".to_owned(),
        429 => format!("asks for fewer calls{again}: elasticd slows down; raise the provider's `interval`"),
        503 if retry_after.is_some() => {
            format!("asks not to be called{again}: elasticd slows down; see the server's log")
        }
        200..=299 | 304 => "is no set, but what only other requests are answered with: correct the server".to_owned(),
        _ => format!("is no set: see the server's log; it said {said:?}"),
    }
}

/// Answers with what the server does.
#[derive(Debug)]
pub struct Http {
    config: Config,
    client: Client,
    last: Option<Last>,
}

/// The last complete set of a server that sends validators with it.
#[derive(Debug)]
struct Last {
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
    instances: Vec<Instance>,
}

impl Http {
    /// A provider that requests the URL at each poll.
    pub fn new(config: &Config) -> Self {
        let files = TlsFiles { ca_file: config.ca_file.clone(), identity: config.identity.clone() };
        let client = Client::new(config.url.clone(), files, config.max_bytes);
        Self { config: config.clone(), client, last: None }
    }

    /// Asks the server.
    ///
    /// # Errors
    ///
    /// [`Error`]: what [`Provider::discover`] fails with, as this module's own type.
    pub async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        let mut got = Progress::default();
        let limit = inner_timeout(self.config.timeout);
        let result = tokio::time::timeout(limit, self.ask(&mut got)).await;
        let result = result.unwrap_or_else(|_| Err(Error::Late { url: self.url(), got, timeout: self.config.timeout }));
        if result.is_err() {
            self.client.forget_files();
        }
        result
    }
}

impl Provider for Http {
    fn discover(&mut self) -> BoxFuture<'_, Result<Vec<Instance>, super::Error>> {
        Box::pin(async { Ok(Http::discover(self).await?) })
    }
}

impl Http {
    fn url(&self) -> String {
        self.config.url.to_string()
    }

    async fn ask(&mut self, got: &mut Progress) -> Result<Vec<Instance>, Error> {
        let headers = self.headers().await?;
        let answer = self.client.get(headers, got).await.map_err(|error| self.not_asked(error))?;
        match answer {
            Answer::NotModified => match &self.last {
                Some(last) => Ok(last.instances.clone()),
                None => Err(self.refused(StatusCode::NOT_MODIFIED, None, String::new(), got)),
            },
            Answer::Status { status, retry_after, said } => Err(self.refused(status, retry_after, said, got)),
            Answer::TooLarge => Err(Error::TooLarge { url: self.url(), max: self.config.max_bytes }),
            Answer::Encoded(encoding) => Err(Error::Encoded { url: self.url(), encoding }),
            Answer::Broken(reason) => Err(Error::Broken { url: self.url(), reason, got: got.clone() }),
            Answer::Content { etag, modified, body } => {
                let origin = self.url();
                // Parsing may take long enough to hold up everything else.
                let parsed = tokio::task::spawn_blocking(move || {
                    format::json(&origin, &body).map_err(|source| (beginning(&body), source))
                });
                let instances = match parsed.await {
                    Ok(Ok(instances)) => instances,
                    Ok(Err((begin, source))) => {
                        let came = format!("{got}, beginning with {begin:?}");
                        return Err(Error::Content { came, source });
                    }
                    Err(error) => {
                        return Err(Error::Broken { url: self.url(), reason: error.to_string(), got: got.clone() });
                    }
                };
                let has_validator = etag.is_some() || modified.is_some();
                self.last = has_validator.then(|| Last { etag, modified, instances: instances.clone() });
                Ok(instances)
            }
        }
    }

    fn refused(&self, status: StatusCode, retry_after: Option<u32>, said: String, got: &Progress) -> Error {
        Error::Status { url: self.url(), status, retry_after, said, got: got.clone() }
    }

    fn not_asked(&self, error: https::Error) -> Error {
        match error {
            https::Error::File(error) => error.into(),
            https::Error::NoRoots(reason) => Error::NoRoots { reason },
            https::Error::Connect(source) => Error::Connect { url: self.url(), source },
            https::Error::Tls(source) => Error::Tls { url: self.url(), host: self.config.url.host.clone(), source },
        }
    }

    async fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.extend(self.config.headers.clone());
        let last = self.last.as_ref();
        for (name, value) in [
            (header::AUTHORIZATION, self.authorization().await?),
            (header::IF_NONE_MATCH, last.and_then(|last| last.etag.clone())),
            (header::IF_MODIFIED_SINCE, last.and_then(|last| last.modified.clone())),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        Ok(headers)
    }

    /// The value of `Authorization`, as its file says now.
    async fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let Some(from) = self.config.authorization.clone() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || authorization(&from)).await;
        let failed = |error| Err(Error::Connect { url: self.url(), source: io::Error::other(error) });
        read.unwrap_or_else(failed).map(Some)
    }
}

fn authorization(from: &Authorization) -> Result<HeaderValue, Error> {
    let (key, path, before) = from.parts();
    let refused = |reason: &str| Error::File { key, path: path.to_owned(), reason: reason.to_owned() };
    let content = https::read_file(key, path)?;
    let secret = content.trim_ascii();
    if secret.is_empty() {
        return Err(refused("it is empty"));
    }
    let value = [before.as_bytes(), secret].concat();
    let mut value =
        HeaderValue::from_bytes(&value).map_err(|_| refused("it holds what no header may, such as a second line"))?;
    value.set_sensitive(true);
    Ok(value)
}
