//! Where another program listens on this machine: a Unix socket, or a TCP address.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A connection to an [`Endpoint`].
pub type Connection = Either<UnixStream, TcpStream>;

/// Where a program listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket at this absolute path.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl Endpoint {
    /// Connects.
    ///
    /// # Errors
    ///
    /// No program listens there, we have no permission, or it takes longer than `limit` ([`io::ErrorKind::TimedOut`]).
    pub async fn connect(&self, limit: Duration) -> io::Result<Connection> {
        let connecting = async {
            match self {
                Self::Unix(path) => UnixStream::connect(path).await.map(Either::Left),
                Self::Tcp(address) => TcpStream::connect(address.as_str()).await.map(Either::Right),
            }
        };
        tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The value of an HTTP `Host` header for it: empty for a Unix socket, which has no authority (RFC 9110, section
    /// 7.2), and with which Caddy's admin API refuses any other.
    pub fn authority(&self) -> &str {
        match self {
            Self::Unix(_) => "",
            Self::Tcp(address) => address,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// As people write them: `/run/x.sock`, `unix:/run/x.sock`, `unix//run/x.sock`, `host:port`, `http://host:port/`.
    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").or_else(|| text.strip_prefix("unix/")).unwrap_or(text);
        if path.starts_with('/') {
            let path = path.trim_start_matches("//");
            let path = if path.starts_with('/') { PathBuf::from(path) } else { Path::new("/").join(path) };
            return Ok(Self::Unix(path));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if matches!(port, Some(Ok(1..))) && !address.contains('/') {
            return Ok(Self::Tcp(address.to_owned()));
        }
        Err(format!("{text:?} is neither the absolute path of a Unix socket nor an address such as \"127.0.0.1:2019\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_people_write_it() {
        for text in ["/run/x.sock", "unix:/run/x.sock", "unix//run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(text.parse(), Ok(Endpoint::Unix("/run/x.sock".into())), "{text}");
        }
        for text in ["localhost:2019", "http://localhost:2019", "http://localhost:2019/"] {
            assert_eq!(text.parse(), Ok(Endpoint::Tcp("localhost:2019".into())), "{text}");
        }
        assert_eq!("[::1]:80".parse(), Ok(Endpoint::Tcp("[::1]:80".into())));
        for text in
            ["", "x.sock", "localhost", ":80", "localhost:0", "localhost:x", "https://x:443", "http://x:80/path"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
