//! Where the bucket is and who we are there, as the configuration says.

use std::path::PathBuf;

use crate::model::FieldFault;

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

/// The keys of a connection, as written.
#[derive(Debug, Clone, Default)]
pub struct Raw {
    /// One server.
    pub url: Option<String>,
    /// More servers.
    pub urls: Vec<String>,
    /// See [`Config::tls`].
    pub tls: bool,
    /// See [`Config::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// See [`Config::credentials_file`].
    pub credentials_file: Option<PathBuf>,
    /// See [`Config::nkey_file`].
    pub nkey_file: Option<PathBuf>,
    /// See [`Config::bucket`].
    pub bucket: Option<String>,
    /// See [`Config::fleet`].
    pub fleet: Option<String>,
}

/// Defines the keys of a section that has those of a connection beside its own. serde's `flatten` would do the same, but
/// could neither refuse unknown keys nor say where a fault is.
macro_rules! with_connection_keys {
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($own)*
            /// A server, such as `"tls://nats.internal:4222"`. Any of `url` and `urls` will do.
            pub url: Option<String>,
            /// More servers, such as `["tls://a.internal:4222", "tls://b.internal:4222"]`.
            #[serde(default)]
            pub urls: Vec<String>,
            /// Never talk without TLS, whatever the URLs say.
            #[serde(default)]
            pub tls: bool,
            /// Certificates to trust instead of the system's, PEM.
            pub ca_file: Option<std::path::PathBuf>,
            /// A credentials file, as `nsc` writes it.
            pub credentials_file: Option<std::path::PathBuf>,
            /// A file with an nkey's seed.
            pub nkey_file: Option<std::path::PathBuf>,
            /// The bucket; `"elasticd"`, if left out.
            pub bucket: Option<String>,
            /// The fleet, named the same on publishers and sidecars: 1 to 63 bytes.
            pub fleet: Option<String>,
        }

        impl $name {
            /// The keys of the connection.
            fn connection(&self) -> $crate::provider::nats::connection::Raw {
                $crate::provider::nats::connection::Raw {
                    url: self.url.clone(),
                    urls: self.urls.clone(),
                    tls: self.tls,
                    ca_file: self.ca_file.clone(),
                    credentials_file: self.credentials_file.clone(),
                    nkey_file: self.nkey_file.clone(),
                    bucket: self.bucket.clone(),
                    fleet: self.fleet.clone(),
                }
            }
        }
    };
}
pub(crate) use with_connection_keys;

impl Raw {
    /// The valid connection.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn resolve(self) -> Result<Config, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let urls: Vec<String> = self.url.into_iter().chain(self.urls).collect();
        if urls.is_empty() {
            faults.push(FieldFault::new("url", "missing: write url = \"nats://HOST:4222\", or tls:// with TLS"));
        }
        for url in &urls {
            let scheme = ["nats://", "tls://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            if without_password(url) != *url {
                faults.push(FieldFault::new(
                    "url",
                    "holds a name or password, which the client would ignore: use credentials_file or nkey_file",
                ));
            }
            // async-nats takes ws:// and bare hosts, too; the one is not built in, the other hides what is meant.
            if scheme.is_none_or(str::is_empty) || url.parse::<async_nats::ServerAddr>().is_err() {
                faults.push(FieldFault::new(
                    "url",
                    format!("{:?} is not nats://HOST:PORT or tls://HOST:PORT", without_password(url)),
                ));
            }
        }
        let files =
            [("ca_file", &self.ca_file), ("credentials_file", &self.credentials_file), ("nkey_file", &self.nkey_file)];
        for (key, file) in files {
            if file.as_ref().is_some_and(|file| !file.is_absolute()) {
                faults.push(FieldFault::new(key, "is not an absolute path: start it with `/`"));
            }
        }
        if self.credentials_file.is_some() && self.nkey_file.is_some() {
            faults.push(FieldFault::new(
                "nkey_file",
                "the credentials_file says already who we are: leave one of them out",
            ));
        }
        let bucket = self.bucket.unwrap_or_else(|| "elasticd".to_owned());
        if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            faults.push(FieldFault::new(
                "bucket",
                format!("{bucket:?} is not made of ASCII letters, digits, `_` and `-` alone"),
            ));
        }
        let fleet = self.fleet.unwrap_or_default();
        if fleet.is_empty() || fleet.len() > 63 || fleet.contains(char::is_control) {
            faults.push(FieldFault::new(
                "fleet",
                "missing: name the fleet, the same on publishers and sidecars (1 to 63 bytes)",
            ));
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

impl Config {
    /// The servers, without passwords.
    pub(super) fn places(&self) -> String {
        self.urls.iter().map(|url| without_password(url)).collect::<Vec<_>>().join(", ")
    }
}

fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    with_connection_keys! {
        pub struct Keys {}
    }

    fn raw(json: &str) -> Result<Config, Vec<String>> {
        let keys: Keys = serde_json::from_str(json).expect("readable");
        keys.connection().resolve().map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())
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
}
