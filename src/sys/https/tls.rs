//! TLS with the system's authorities, and those and the identity that files hold.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error as Rustls, RootCertStore};

/// The largest file of certificates or with a secret, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The files that TLS needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of authorities that are trusted beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate with its chain, and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` {}: {reason}", path.display())]
pub struct FileError {
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why. Nothing of its content.
    pub reason: String,
}

/// Why there can be no TLS.
#[derive(Debug)]
pub(super) enum Unusable {
    File(FileError),
    NoRoots(String),
}

impl From<FileError> for Unusable {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Reads what TLS needs from the files as they are now. It takes milliseconds, and may wait for a disk.
pub(super) fn connector(files: &TlsFiles) -> Result<TlsConnector, Unusable> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // Among the many of a system a few may be too old to be read.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = &files.ca_file {
        for certificate in certificates("ca_file", path)? {
            roots.add(certificate).map_err(|error| unusable("ca_file", path, error))?;
        }
    }
    if roots.is_empty() {
        let errors: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
        return Err(Unusable::NoRoots(errors.join("; ")));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions that rustls does")
        .with_root_certificates(roots);
    let mut client = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates("cert_file", cert)?;
            let pem = read_file("key_file", key)?;
            let secret = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable("key_file", key, error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| unusable("key_file", key, error))?
        }
    };
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(client)))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let pem = read_file(key, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| unusable(key, path, error))?;
    if all.is_empty() { Err(unusable(key, path, "it holds no certificate (PEM)")) } else { Ok(all) }
}

fn unusable(key: &'static str, path: &Path, reason: impl ToString) -> FileError {
    FileError { key, path: path.to_owned(), reason: reason.to_string() }
}

/// Reads a small file, which `key` of the configuration names.
///
/// # Errors
///
/// It cannot be read, is not a regular file, or is too large. Its content is in no message.
pub fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
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
pub fn remedy(error: &io::Error, host: &str) -> String {
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

/// The error of TLS, if it was not the network's.
pub(super) fn of_tls(error: &io::Error) -> Option<&Rustls> {
    error.get_ref()?.downcast_ref()
}
