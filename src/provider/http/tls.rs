//! TLS as the `http` provider speaks it: the system's authorities and those of the configuration.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error as Rustls, RootCertStore};

use super::Error;
use super::config::Config;

/// The largest file of certificates or with a secret, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Reads what TLS needs from the files as they are now. It takes milliseconds, and may wait for a disk.
pub(super) fn connector(config: &Config) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // Among a system's many a few may be too old for anybody to read.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = &config.ca_file {
        for certificate in certificates("ca_file", path)? {
            roots.add(certificate).map_err(|error| unusable("ca_file", path, error))?;
        }
    }
    if roots.is_empty() {
        let errors: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
        return Err(Error::NoRoots { reason: errors.join("; ") });
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions that rustls does")
        .with_root_certificates(roots);
    let mut client = match &config.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates("cert_file", cert)?;
            let pem = read("key_file", key)?;
            let secret = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable("key_file", key, error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| unusable("key_file", key, error))?
        }
    };
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(client)))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(key, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| unusable(key, path, error))?;
    if all.is_empty() { Err(unusable(key, path, "it holds no certificate (PEM)")) } else { Ok(all) }
}

fn unusable(key: &'static str, path: &Path, reason: impl ToString) -> Error {
    Error::File { key, path: path.to_owned(), reason: reason.to_string() }
}

/// Reads a small file. Its content is in no message.
pub(super) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let result = fs::metadata(path).and_then(|metadata| {
        // Before opening: to open a pipe would wait for its writer.
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)
    });
    match result {
        Ok(length) if length as u64 > MAX_FILE => Err(unusable(key, path, "it is too large")),
        Ok(_) => Ok(content),
        Err(error) => Err(unusable(key, path, error)),
    }
}

/// What to do about a handshake that failed, as far as it can be told.
pub(super) fn remedy(error: &io::Error, host: &str) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match of_tls(error) {
        // The latter if another authority has the name of the one who did.
        Some(Rustls::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            "neither the system nor `ca_file` knows who signed its certificate: name that authority's in `ca_file`"
                .into()
        }
        Some(Rustls::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            format!("its certificate is not for {host:?}: write in `url` a name that it is for")
        }
        Some(Rustls::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })) => {
            "renew its certificate, or correct this machine's clock".into()
        }
        Some(Rustls::InvalidCertificate(_)) => "have its certificate corrected".into(),
        Some(Rustls::AlertReceived(_)) => {
            "it refused us: if it wants a certificate of ours, set `cert_file` and `key_file`".into()
        }
        Some(Rustls::InvalidMessage(_)) => "it seems to speak no TLS there: correct the port, or write http://".into(),
        _ => "see whether it speaks TLS there, and the server's log".into(),
    }
}

/// What TLS says, if it was not the network.
pub(super) fn of_tls(error: &io::Error) -> Option<&Rustls> {
    error.get_ref()?.downcast_ref()
}
