//! TLS: the certificate and its key, which are reloaded when their files change.
//!
//! - S1  Files that are invalid or do not match each other change nothing: a renewal takes effect when both
//!       files are written.
//! - S2  The only cryptography provider is ring, as for connections to databases.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// A certificate and its key, as PEM files.
#[derive(Debug)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    looked_at: Mutex<Texts>,
    current: Arc<Current>,
}

/// The contents of the files when they were last read, or why they could not be read.
type Texts = Result<(Vec<u8>, Vec<u8>), String>;

/// The certificate in force.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl TlsFiles {
    /// Reads a certificate, followed by those of its issuers, and its key.
    ///
    /// # Errors
    /// Why they cannot be read or do not match.
    pub fn read(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, String> {
        let (certificate, key) = (certificate.into(), key.into());
        let texts = texts(&certificate, &key)?;
        let certified = certified(&certificate, &key, &texts)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certified))));
        Ok(Self { certificate, key, looked_at: Mutex::new(Ok(texts)), current })
    }

    /// The acceptor that performs the TLS handshake on sockets.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let versions = versions.expect("ring has the suites of TLS 1.2 and 1.3");
        let mut config = versions.with_no_client_auth().with_cert_resolver(Arc::clone(&self.current) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Reloads the files if they have changed. Invalid files are reported once.
    pub(crate) fn reload(&self) {
        let texts = texts(&self.certificate, &self.key);
        let mut before = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == texts {
            return;
        }
        let made = texts.as_ref().map_err(Clone::clone);
        match made.and_then(|texts| certified(&self.certificate, &self.key, texts)) {
            Ok(certified) => {
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                tracing::info!("the certificate was read again from {}", self.certificate.display());
            }
            Err(problem) => tracing::error!("{problem}. The certificate read before stays in use"),
        }
        *before = texts;
    }
}

fn texts(certificate: &Path, key: &Path) -> Texts {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    Ok((read(certificate)?, read(key)?))
}

fn certified(certificate: &Path, key: &Path, texts: &(Vec<u8>, Vec<u8>)) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&texts.0).collect();
    let chain = chain.map_err(|error| format!("{}: {error}", certificate.display()))?;
    if chain.is_empty() {
        return Err(format!("{}: has no certificate in PEM", certificate.display()));
    }
    let private = PrivateKeyDer::from_pem_slice(&texts.1);
    let private =
        private.map_err(|error| format!("{}: has no private key in PEM: {error}", key.display()))?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
        format!("{} and {} are not a certificate and its key: {error}", certificate.display(), key.display())
    })
}
