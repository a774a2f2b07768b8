//! TLS towards the collector.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use thiserror::Error;

use super::config::{Settings, Tls};

/// Certificates or keys that can't be used. A file is named, its content never shown.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read, or is not what it should be.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file for authorities or our own certificate has no certificate in it.
    #[error("{0}: no certificate in it")]
    NoCertificate(PathBuf),
    /// The system has no authorities that it trusts.
    #[error("no trusted certificates found on this system; name a file with OTEL_EXPORTER_OTLP_CERTIFICATE")]
    NoAuthorities,
    /// A certificate without its key, or a key without its certificate.
    #[error("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY need each other")]
    HalfAnIdentity,
    /// They do not fit together, or are of a kind that is not supported.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A connector for the endpoint's scheme. Files are only read where they are needed.
pub(super) fn connector(settings: &Settings) -> Result<HttpsConnector<HttpConnector>, TlsError> {
    let tls = settings.endpoint.scheme_str() == Some("https");
    let roots = if tls { roots(&settings.tls)? } else { RootCertStore::empty() };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match (&settings.tls.client_certificate, &settings.tls.client_key) {
        (Some(certificate), Some(key)) if tls => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| file_error(key, source))?;
            config.with_client_auth_cert(certificates(certificate)?, key)?
        }
        (Some(_), None) | (None, Some(_)) if tls => return Err(TlsError::HalfAnIdentity),
        _ => config.with_no_client_auth(),
    };
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build())
}

fn roots(tls: &Tls) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match &tls.authorities {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
        }
        None => {
            // Some of what systems keep can't be parsed; the rest serves.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
    }
    Ok(roots)
}

/// All certificates of a file, of which there is at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|source| file_error(path, source))?;
    if certificates.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(certificates) }
}

fn file_error(path: &Path, source: pem::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), source }
}
