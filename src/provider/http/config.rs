//! The configuration of an `http` provider.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::FieldFault;
use crate::provider::format;
use crate::provider::instance_spec::Text;
use crate::sys::https::Url;
use crate::units::ByteSize;

/// Headers that are elasticd's own to write: they frame the request, or ask for what it could not read.
const OWN: &[HeaderName] = &[
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
    header::RANGE,
    header::ACCEPT_ENCODING,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];

/// The URL, what is sent with the request, and its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The URL.
    pub url: Url,
    /// What is sent with it.
    pub headers: HeaderMap,
    /// Where the value of `Authorization` is, which may change at any time.
    pub authorization: Option<Authorization>,
    /// Certificates of authorities that are trusted beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate with its chain, and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How large an answer may be, in bytes.
    pub max_bytes: usize,
    /// The provider's `timeout`, of which it uses all but a twentieth.
    pub timeout: Duration,
}

/// Where the value of `Authorization` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// What is in this file, after `Bearer `.
    Bearer(PathBuf),
    /// What is in this file.
    Whole(PathBuf),
}

impl Authorization {
    /// The key it is configured by, the file, and what is sent before its content.
    pub fn parts(&self) -> (&'static str, &Path, &'static str) {
        match self {
            Self::Bearer(path) => ("bearer_file", path, "Bearer "),
            Self::Whole(path) => ("authorization_file", path, ""),
        }
    }
}

/// Instances that an HTTP server answers with, as JSON or YAML.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// What is asked for: `http://host:port/path`, `https://host/path`, or over a Unix socket
    /// `http://unix:/run/x.sock:/path`. Its query is in no message.
    pub url: String,
    /// Headers that are sent with it.
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
    /// The file with the token that is sent as `Authorization: Bearer TOKEN`; absolute. It is read at each poll, and is in no message.
    pub bearer_file: Option<PathBuf>,
    /// The file with the whole value of `Authorization`, such as `Basic dXNlcjpwYXNz`; absolute. It
    /// is read at each poll, and is in no message.
    pub authorization_file: Option<PathBuf>,
    /// Certificates of authorities that are trusted beside the system's, PEM; absolute.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate with its chain, PEM; absolute.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate, PEM; absolute.
    pub key_file: Option<PathBuf>,
    /// How large an answer may be: up to 1GiB.
    #[serde(default = "format::default_max_bytes")]
    pub max_bytes: ByteSize,
}

impl Raw {
    /// The valid configuration. The files may appear later.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(self, timeout: Duration) -> Result<Config, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let url = self.url.parse::<Url>().map_err(|fault| faults.push(FieldFault::new("url", fault))).ok();
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            match pair(&name, &value.0) {
                Ok((name, value)) => _ = headers.insert(name, value),
                Err(fault) => faults.push(FieldFault::new("headers", format!("{name}: {fault}"))),
            }
        }
        let files = [
            ("bearer_file", &self.bearer_file),
            ("authorization_file", &self.authorization_file),
            ("ca_file", &self.ca_file),
            ("cert_file", &self.cert_file),
            ("key_file", &self.key_file),
        ];
        for (key, path) in files.iter().filter_map(|(key, path)| Some((key, path.as_ref()?))) {
            if !path.is_absolute() {
                faults.push(FieldFault::new(*key, format!("{path:?} is not an absolute path: start it with `/`")));
            }
        }
        if let Some(url) = url.as_ref().filter(|url| !url.tls) {
            for (key, path) in &files[2..] {
                if path.is_some() {
                    faults.push(FieldFault::new(
                        *key,
                        format!("is for TLS alone, and {url} has none: write https://, or remove it"),
                    ));
                }
            }
        }
        let authorization = match (self.bearer_file, self.authorization_file) {
            (Some(_), Some(_)) => {
                faults
                    .push(FieldFault::new("authorization_file", "there is a `bearer_file` already: keep one of them"));
                None
            }
            (Some(bearer), None) => Some(Authorization::Bearer(bearer)),
            (None, whole) => whole.map(Authorization::Whole),
        };
        if authorization.is_some() && headers.contains_key(header::AUTHORIZATION) {
            faults.push(FieldFault::new("headers", "authorization: is in a file already: keep one of them"));
        }
        let identity = match (self.cert_file, self.key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                faults.push(FieldFault::new("key_file", "is missing: it holds the key of `cert_file`"));
                None
            }
            (None, Some(_)) => {
                faults.push(FieldFault::new("cert_file", "is missing: it holds the certificate of `key_file`"));
                None
            }
        };
        let max_bytes = format::max_bytes(self.max_bytes).map_err(|fault| faults.push(fault)).unwrap_or_default();
        match url {
            Some(url) if faults.is_empty() => {
                Ok(Config { url, headers, authorization, ca_file: self.ca_file, identity, max_bytes, timeout })
            }
            _ => Err(faults),
        }
    }
}

fn pair(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name: HeaderName = name.parse().map_err(|_| "is not the name of a header".to_owned())?;
    if OWN.contains(&name) {
        return Err("is elasticd's own to send: remove it".to_owned());
    }
    let mut value: HeaderValue = value.parse().map_err(|_| "its value holds what no header may".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn raw(text: &str) -> Raw {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn all_faults_come_at_once() {
        let faults =
            raw(r#"{"url": "http://a/", "headers": {"Range": "x", "a b": "x", "ok": "a\nb", "Authorization": "x"},
                "bearer_file": "x", "authorization_file": "/y", "ca_file": "/z", "cert_file": "/c", "max_bytes": 0}"#)
            .resolve(TIMEOUT)
            .unwrap_err();
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        for expected in [
            "headers: Range: is elasticd's own",
            "headers: a b: is not the name",
            "headers: ok: its value",
            "bearer_file: \"x\" is not an absolute path",
            "ca_file: is for TLS alone, and http://a/ has none",
            "cert_file: is for TLS alone",
            "authorization_file: there is a `bearer_file`",
            "key_file: is missing",
            "max_bytes: 0B is not between",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:#?}");
        }
        assert_eq!(faults.len(), 9);
        let faults = raw(r#"{"url": "https://a/", "key_file": "/k"}"#).resolve(TIMEOUT).unwrap_err();
        assert_eq!(faults[0].field, "cert_file");
        assert!(faults[0].message.starts_with("is missing"));
        let twice = r#"{"url": "https://a/", "headers": {"authorization": "x"}, "bearer_file": "/b"}"#;
        assert!(raw(twice).resolve(TIMEOUT).unwrap_err()[0].message.contains("is in a file already"));
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let config = raw(r#"{"url": "https://a/", "headers": {"X-Token": "hush"}}"#).resolve(TIMEOUT).unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        assert_eq!(config.headers["x-token"], "hush");
    }
}
