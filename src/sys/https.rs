//! A client of an HTTP server elsewhere, with TLS or without: one request on a connection of its own, bounded in size.
//!
//! For programs on this machine see [`super::http`].

mod answer;
mod tls;
mod url;

use std::error::Error as _;
use std::io;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

pub use answer::{Answer, Progress, beginning};
pub use tls::{FileError, TlsFiles, read_file, remedy};
pub use url::Url;

use super::http::exchange_with;
use super::text::chain;

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that TLS needs cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are no certificates of authorities to trust, for this reason, if the system gives one.
    #[error("no certificates of authorities: {0}")]
    NoRoots(String),
    /// There is no connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The server could not prove who it is, or refused us.
    #[error("no TLS: {0}")]
    Tls(io::Error),
}

/// A client of one URL.
#[derive(Clone)]
pub struct Client {
    url: Url,
    files: TlsFiles,
    max_bytes: usize,
    /// What TLS needs from files, until it is [forgotten](Self::forget_files).
    connector: Option<TlsConnector>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of `url`, which takes answers of at most `max_bytes`. Nothing is read yet.
    pub const fn new(url: Url, files: TlsFiles, max_bytes: usize) -> Self {
        Self { url, files, max_bytes, connector: None }
    }

    /// What is asked for.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Has the files that TLS needs read again before the next request: they may have been the reason why the last one
    /// failed, and may have been replaced.
    pub fn forget_files(&mut self) {
        self.connector = None;
    }

    /// Asks with `GET` and these headers. `Host` and `User-Agent` need not be among them, and are replaced if they are.
    /// `progress` says how far the answer has come if this future is dropped. The time is up to the caller.
    ///
    /// # Errors
    ///
    /// There is no connection. An answer that ends too early is [`Answer::Broken`].
    pub async fn get(&mut self, headers: HeaderMap, progress: &mut Progress) -> Result<Answer, Error> {
        let connector = self.connector().await?;
        let request = self.request(headers);
        let stream = self.url.endpoint.connect(std::time::Duration::MAX).await.map_err(Error::Connect)?;
        let max = self.max_bytes;
        let exchanged = match connector {
            None => exchange_with(stream, request, |response| answer::read(response, max, progress)).await,
            Some(connector) => {
                let name = ServerName::try_from(self.url.host.clone());
                let name = name.map_err(|error| Error::Tls(io::Error::other(error)))?;
                let stream = connector.connect(name, stream).await.map_err(Error::Tls)?;
                exchange_with(stream, request, |response| answer::read(response, max, progress)).await
            }
        };
        exchanged.or_else(|error| {
            let causes = std::iter::successors(error.source(), |&error| error.source());
            // With TLS 1.3 a server refuses a client only after the handshake.
            match causes.filter_map(|error| error.downcast_ref()).find_map(tls::of_tls) {
                Some(refusal) => Err(Error::Tls(io::Error::other(refusal.clone()))),
                None => Ok(Answer::Broken(chain(&error))),
            }
        })
    }

    async fn connector(&mut self) -> Result<Option<TlsConnector>, Error> {
        if self.url.tls && self.connector.is_none() {
            let files = self.files.clone();
            let read = tokio::task::spawn_blocking(move || tls::connector(&files)).await;
            self.connector = Some(match read {
                Ok(Ok(connector)) => connector,
                Ok(Err(tls::Unusable::File(error))) => return Err(error.into()),
                Ok(Err(tls::Unusable::NoRoots(reason))) => return Err(Error::NoRoots(reason)),
                Err(error) => return Err(Error::Connect(io::Error::other(error))),
            });
        }
        Ok(self.connector.clone())
    }

    fn request(&self, more: HeaderMap) -> Request<Full<Bytes>> {
        const AGENT: &str = concat!("elasticd/", env!("CARGO_PKG_VERSION"));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, self.url.authority.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        headers.extend(more);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.url.target.clone();
        *request.headers_mut() = headers;
        request
    }
}
