//! `http`: instances as a server answers with them, in Prometheus' `http_sd` form or in ours.

mod answer;
mod config;
mod tls;

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use answer::{Answer, Progress};
pub use config::{Authorization, Config, Raw, Url};

use super::{Configuration, Context, ErrorKind, Provider, format};
use crate::model::{FieldFault, Instance, Selector};
use crate::sys::http::exchange_with;

impl Configuration for Config {
    const TYPE: &'static str = "http";

    type Raw = Raw;

    fn resolve(raw: Raw, context: &Context<'_>) -> Result<Self, Vec<FieldFault>> {
        raw.resolve(context.timeout)
    }

    fn build(&self, _selectors: &[Selector]) -> Box<dyn Provider> {
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
    /// There is nobody to trust.
    #[error("this system has no certificates of authorities: install `ca-certificates`, or set `ca_file` ({reason})")]
    NoRoots {
        /// Why, if the system says.
        reason: String,
    },
    /// Nobody could be asked.
    #[error(
        "cannot connect to {url}: {source}; see whether the server runs there and can be reached from here, or correct the provider's `url`"
    )]
    Connect {
        /// What was asked for.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The server could not prove who it is, or would not talk to us.
    #[error("no TLS with {url}: {source}; {}", tls::remedy(source, host))]
    Tls {
        /// What was asked for.
        url: String,
        /// The name its certificate has to be for.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No whole answer came.
    #[error("no whole answer from {url}: {reason}; {got}; see the server's log, and that of any proxy between")]
    Broken {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
        /// What had come by then.
        got: Progress,
    },
    /// No whole answer came in time.
    #[error(
        "no whole answer from {url} in time; {got}; see why the server is slow, or raise the provider's `timeout` ({timeout:?})"
    )]
    Late {
        /// What was asked for.
        url: String,
        /// What had come by then.
        got: Progress,
        /// The provider's `timeout`.
        timeout: Duration,
    },
    /// It answered with something else than a set.
    #[error("{url} answered {got}, which {}", refusal(*status, *retry_after, said))]
    Status {
        /// What was asked for.
        url: String,
        /// How it answered.
        status: StatusCode,
        /// The seconds after which it wants to be asked again, if it says; none, if it says a date.
        retry_after: Option<u32>,
        /// Where it redirects to, or the beginning of the answer.
        said: String,
        /// What came.
        got: Progress,
    },
    /// The answer is larger than it may be.
    #[error("{url} answers with more than {max} bytes: make the answer smaller, or raise the provider's `max_bytes`")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// How large it may be, in bytes.
        max: usize,
    },
    /// The answer is encoded, which was not asked for.
    #[error("{url} answers with the encoding {encoding:?}, which was not asked for: have the server send it plainly")]
    Encoded {
        /// What was asked for.
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
pub struct Http {
    config: Config,
    /// What TLS needs from files, until a poll fails.
    tls: Option<TlsConnector>,
    last: Option<Last>,
}

/// The last whole set of a server that can tell whether it has changed.
#[derive(Debug)]
struct Last {
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
    instances: Vec<Instance>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("config", &self.config).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Http {
    /// A provider of what the server answers whenever it is asked.
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), tls: None, last: None }
    }
}

impl Http {
    /// Asks the server.
    ///
    /// # Errors
    ///
    /// [`Error`]: what [`Provider::discover`] fails with, as this module's own type.
    pub async fn discover(&mut self) -> Result<Vec<Instance>, Error> {
        let mut got = Progress::default();
        let limit = super::inner_timeout(self.config.timeout);
        let result = tokio::time::timeout(limit, self.ask(&mut got)).await;
        let result = result.unwrap_or_else(|_| Err(Error::Late { url: self.url(), got, timeout: self.config.timeout }));
        if result.is_err() {
            // Certificates may have been the reason, and may have been replaced by the next poll.
            self.tls = None;
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
        let (authorization, tls) = self.read_files().await?;
        let request = self.request(authorization);
        let answer = self.exchange(request, tls, got).await?;
        match answer {
            Answer::Same => match &self.last {
                Some(last) => Ok(last.instances.clone()),
                None => Err(self.refused(StatusCode::NOT_MODIFIED, None, String::new(), got)),
            },
            Answer::Refused { status, retry_after, said } => Err(self.refused(status, retry_after, said, got)),
            Answer::TooLarge => Err(Error::TooLarge { url: self.url(), max: self.config.max_bytes }),
            Answer::Encoded(encoding) => Err(Error::Encoded { url: self.url(), encoding }),
            Answer::Broken(reason) => Err(Error::Broken { url: self.url(), reason, got: got.clone() }),
            Answer::Set { etag, modified, body } => {
                let origin = self.url();
                // Parsing may take long enough to hold up everything else.
                let parsed = tokio::task::spawn_blocking(move || {
                    format::json(&origin, &body).map_err(|source| (answer::begin(&body), source))
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
                let tells = etag.is_some() || modified.is_some();
                self.last = tells.then(|| Last { etag, modified, instances: instances.clone() });
                Ok(instances)
            }
        }
    }

    fn refused(&self, status: StatusCode, retry_after: Option<u32>, said: String, got: &Progress) -> Error {
        Error::Status { url: self.url(), status, retry_after, said, got: got.clone() }
    }

    /// What the files say now: the secret, and what TLS needs.
    async fn read_files(&mut self) -> Result<(Option<HeaderValue>, Option<TlsConnector>), Error> {
        let (config, known) = (self.config.clone(), self.tls.clone());
        let read = tokio::task::spawn_blocking(move || {
            let authorization = config.authorization.as_ref().map(authorization).transpose()?;
            let tls = match known {
                None if config.url.tls => Some(tls::connector(&config)?),
                known => known,
            };
            Ok((authorization, tls))
        });
        let (authorization, tls) = read
            .await
            .unwrap_or_else(|error| Err(Error::Connect { url: self.url(), source: io::Error::other(error) }))?;
        self.tls.clone_from(&tls);
        Ok((authorization, tls))
    }

    fn request(&self, authorization: Option<HeaderValue>) -> Request<Full<hyper::body::Bytes>> {
        const AGENT: &str = concat!("elasticd/", env!("CARGO_PKG_VERSION"));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, self.config.url.authority.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.extend(self.config.headers.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let last = self.last.as_ref();
        for (name, value) in [
            (header::AUTHORIZATION, authorization),
            (header::IF_NONE_MATCH, last.and_then(|last| last.etag.clone())),
            (header::IF_MODIFIED_SINCE, last.and_then(|last| last.modified.clone())),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.config.url.target.clone();
        *request.headers_mut() = headers;
        request
    }

    async fn exchange(
        &self,
        request: Request<Full<hyper::body::Bytes>>,
        tls: Option<TlsConnector>,
        got: &mut Progress,
    ) -> Result<Answer, Error> {
        let url = &self.config.url;
        let stream = url.endpoint.connect(self.config.timeout).await;
        let stream = stream.map_err(|source| Error::Connect { url: self.url(), source })?;
        let failed = |source| Error::Tls { url: self.url(), host: url.host.clone(), source };
        let max = self.config.max_bytes;
        let exchanged = match tls {
            None => exchange_with(stream, request, |response| answer::read(response, max, got)).await,
            Some(connector) => {
                let name = ServerName::try_from(url.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
                let stream = connector.connect(name, stream).await.map_err(failed)?;
                exchange_with(stream, request, |response| answer::read(response, max, got)).await
            }
        };
        exchanged.or_else(|error| {
            let causes = std::iter::successors(error.source(), |&error| error.source());
            // With TLS 1.3 a server refuses a client only after the handshake.
            match causes.filter_map(|error| error.downcast_ref()).find_map(tls::of_tls) {
                Some(refusal) => Err(failed(io::Error::other(refusal.clone()))),
                None => Ok(Answer::Broken(super::chain(&error))),
            }
        })
    }
}

/// The secret, as it is now.
fn authorization(from: &Authorization) -> Result<HeaderValue, Error> {
    let (key, path, before) = from.parts();
    let refused = |reason: &str| Error::File { key, path: path.to_owned(), reason: reason.to_owned() };
    let content = tls::read(key, path)?;
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
