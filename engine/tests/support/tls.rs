//! Certificates of our own making.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
};

use super::{Collector, ok};

/// A directory that goes away with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agentsight-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str, content: &str) -> Option<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        Some(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn identity(name: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([name.to_owned()]).unwrap()
}

/// How a server with this certificate speaks TLS, which asks for the client's if there is one to expect.
pub fn server(own: &CertifiedKey<KeyPair>, client: Option<&CertifiedKey<KeyPair>>) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let config = match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.cert.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    Arc::new(config.with_single_cert(vec![own.cert.der().clone()], key).unwrap())
}

/// TLS on a connection that was accepted.
pub fn accept(config: &Arc<ServerConfig>, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream)
}

/// A collector behind TLS.
pub fn collector(own: &CertifiedKey<KeyPair>, client: Option<&CertifiedKey<KeyPair>>) -> Collector {
    let config = server(own, client);
    Collector::start_with(vec![ok()], move |stream| accept(&config, stream))
}
