//! TLS towards the collector.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use super::{
    config::{Settings, Tls},
    route::Route,
};

/// Certificates or keys that can't be used. A file is named, its content never shown.
#[derive(Debug, thiserror::Error)]
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

/// How TLS is spoken with the endpoint. Files are only read where they are needed.
pub(super) fn config(settings: &Settings) -> Result<ClientConfig, TlsError> {
    let https = |uri: &Uri| uri.scheme_str() == Some("https");
    let to_collector = https(&settings.endpoint);
    let needed = to_collector || settings.proxy.as_ref().is_some_and(|proxy| https(proxy.uri()));
    let roots = if needed { roots(&settings.tls)? } else { RootCertStore::empty() };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match (&settings.tls.client_certificate, &settings.tls.client_key) {
        (Some(certificate), Some(key)) if to_collector => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| file_error(key, source))?;
            config.with_client_auth_cert(certificates(certificate)?, key)?
        }
        (Some(_), None) | (None, Some(_)) if to_collector => return Err(TlsError::HalfAnIdentity),
        _ => config.with_no_client_auth(),
    })
}

/// A connector for the endpoint's scheme over `route`.
pub(super) fn connector(config: ClientConfig, route: Route) -> HttpsConnector<Route> {
    HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_all_versions().wrap_connector(route)
}

/// The error of TLS somewhere behind `error`, if there is one.
pub(super) fn error_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An `io::Error` names as its source not what is in it, but the source of that.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What a person has to do about an error that will not go away by itself.
pub(super) fn remedy(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};
    Some(match error {
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "the collector needs a new certificate, if this host's clock is right"
        }
        Tls::InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => {
            "look whether this host's clock is right"
        }
        Tls::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "use an endpoint with a name that the collector's certificate is for"
        }
        Tls::InvalidCertificate(_) => {
            "name the certificate of the authority to trust with OTEL_EXPORTER_OTLP_CERTIFICATE"
        }
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::HandshakeFailure,
        ) => {
            "it wants a certificate of ours that it trusts: set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and \
             OTEL_EXPORTER_OTLP_CLIENT_KEY"
        }
        Tls::InvalidMessage(_) => "it does not speak TLS there: use another port, or an endpoint with http://",
        Tls::PeerIncompatible(_) => "it has to allow TLS 1.2 or 1.3",
        _ => return None,
    })
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
