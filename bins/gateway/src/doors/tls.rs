//! TLS by rustls. Certificates may change while the gateway runs: who comes from then on gets the new ones.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::{Listen, read_bounded};

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Certificates that cannot be used. Nothing of the key is ever shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("listen.tls_cert and listen.tls_key: give both, or neither for plain ws://")]
    Half,
    #[error("{key}: cannot read {}: {error}", path.display())]
    Read { key: &'static str, path: PathBuf, error: std::io::Error },
    #[error("listen.tls_cert: {}: no certificate in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    #[error("listen.tls_key: {}: no private key in PEM (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    #[error("listen.tls_cert and listen.tls_key cannot be used together: {0}")]
    Unusable(rustls::Error),
}

/// The present certificate.
pub struct Tls(RwLock<Arc<ServerConfig>>);

impl Tls {
    /// Reads certificate and key; `None` if the listener is a plain one.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(listen: &Listen) -> Result<Option<Self>, TlsError> {
        Ok(server_config(listen)?.map(|config| Self(RwLock::new(config))))
    }

    /// Reads them anew.
    ///
    /// # Errors
    /// [`TlsError`]; then the old ones stay.
    pub(super) fn reload(&self, listen: &Listen) -> Result<(), TlsError> {
        let config = server_config(listen)?.ok_or(TlsError::Half)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

fn server_config(listen: &Listen) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let (cert_path, key_path) = match (&listen.tls_cert, &listen.tls_key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        _ => return Err(TlsError::Half),
    };
    let read = |key, path: &PathBuf| {
        read_bounded(path, FILE_BYTES_MAX).map_err(|error| TlsError::Read { key, path: path.clone(), error })
    };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read("listen.tls_cert", cert_path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::NoCertificate(cert_path.clone()))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(cert_path.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read("listen.tls_key", key_path)?)
        .map_err(|_| TlsError::NoKey(key_path.clone()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(TlsError::Unusable)?;
    // WebSockets begin in HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}
