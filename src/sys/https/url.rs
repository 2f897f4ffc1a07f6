//! Where something is asked over HTTP, with TLS or without.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::header::HeaderValue;

use crate::sys::endpoint::Endpoint;

/// What is asked for. Its text leaves out the query, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether over TLS.
    pub tls: bool,
    /// Where it is asked.
    pub endpoint: Endpoint,
    /// The value of `Host`.
    pub authority: HeaderValue,
    /// The name its certificate has to be for; an IPv6 address has no brackets.
    pub host: String,
    /// Path and query.
    pub target: Uri,
    shown: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

impl FromStr for Url {
    type Err = String;

    /// `http://host:port/path?query`, `https://…`, and as nginx writes it, `http://unix:/run/x.sock:/path`.
    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.split(['?', '#']).next().unwrap_or_default().to_owned();
        let refused = |why: &str| {
            format!("{why}: write http://host:port/path, https://host/path or http://unix:/path/of/socket:/path")
        };
        if let Some(rest) = text.strip_prefix("http://unix:") {
            let (socket, target) = rest.split_once(":/").unwrap_or((rest, ""));
            let target = format!("/{target}").parse().map_err(|_| refused("the path after the socket's is none"))?;
            if !socket.starts_with('/') {
                return Err(refused("the socket's path does not begin with `/`"));
            }
            let (endpoint, authority) = (Endpoint::Unix(socket.into()), HeaderValue::from_static("localhost"));
            return Ok(Self { tls: false, endpoint, authority, host: String::new(), target, shown });
        }
        let uri: Uri = text.parse().map_err(|_| refused("is no URL"))?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(refused("is neither an http nor an https URL")),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| refused("names no host"))?;
        if authority.as_str().contains('@') {
            return Err("holds a user or a password: put them into `authorization_file`".to_owned());
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("" | ":") => port,
            _ => authority.port_u16().filter(|port| *port > 0).ok_or_else(|| refused("has no port from 1 to 65535"))?,
        };
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self {
            tls,
            endpoint: Endpoint::Tcp(format!("{}:{port}", authority.host())),
            authority: authority.as_str().parse().map_err(|_| refused("names no host"))?,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            target: target.parse().map_err(|_| refused("has no path"))?,
            shown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_people_write_it() {
        for (text, tls, endpoint, authority, target) in [
            ("http://a", false, "a:80", "a", "/"),
            ("https://a.b/x?y=z", true, "a.b:443", "a.b", "/x?y=z"),
            ("https://a:8443?y", true, "a:8443", "a:8443", "/?y"),
            ("http://[2001:db8::1]:81/", false, "[2001:db8::1]:81", "[2001:db8::1]:81", "/"),
            ("http://unix:/run/x.sock:/v1/t?a=b", false, "/run/x.sock", "localhost", "/v1/t?a=b"),
            ("http://unix:/run/x.sock", false, "/run/x.sock", "localhost", "/"),
        ] {
            let url: Url = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let read = (url.tls, url.endpoint.to_string(), url.authority.to_str().unwrap(), url.target.to_string());
            assert_eq!(read, (tls, endpoint.to_owned(), authority, target.to_owned()), "{text}");
            assert!(!url.to_string().contains('?'), "a query may hold a secret");
        }
        for text in
            ["", "/x", "a:80", "ftp://a", "http://", "http://:80", "http://a:0/", "http://a:99999/", "http://a b"]
        {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains("write http://"), "{text}: {error}");
        }
        assert!("http://u:p@a/".parse::<Url>().unwrap_err().contains("authorization_file"));
        assert!("http://unix:run:/".parse::<Url>().unwrap_err().contains("begin with `/`"));
    }
}
