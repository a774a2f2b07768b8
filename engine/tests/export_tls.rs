//! Export to a collector behind TLS: whom we trust, and who we are.

mod support;

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use agentsight::{
    export::{
        config::{self, Flags, Settings, Tls},
        exporter::{Exporter, Inlet, Outputs, Report, SpawnError},
    },
    metrics::{Cause, Metrics},
};
use crossbeam_queue::ArrayQueue;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
};
use support::{Collector, exchange, ok};

const SPANS: u64 = 3;

/// A directory that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agentsight-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> Option<PathBuf> {
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

fn identity(name: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([name.to_owned()]).unwrap()
}

/// A collector with a certificate, which asks for the client's if there is one to expect.
fn collector(own: &CertifiedKey<KeyPair>, client: Option<&CertifiedKey<KeyPair>>) -> Collector {
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
    let config = Arc::new(config.with_single_cert(vec![own.cert.der().clone()], key).unwrap());
    Collector::start_with(vec![ok()], move |stream: TcpStream| {
        StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream)
    })
}

fn settings(port: u16, tls: Tls) -> Settings {
    let endpoint = Some(format!("https://localhost:{port}"));
    let mut settings = config::settings(&Flags { endpoint }, &|_| None).unwrap().settings.unwrap();
    settings.tls = tls;
    settings.retry.total_timeout = Some(Duration::from_millis(300));
    settings.retry.pause_initial = Duration::from_millis(50);
    settings
}

/// Exports a few spans and tells what became of them, and what was logged.
fn export(settings: Settings) -> Result<(Report, Vec<String>), SpawnError> {
    let queue = Arc::new(ArrayQueue::new(10));
    for index in 0..SPANS {
        assert!(queue.push(exchange(index)).is_ok());
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let exporter = Exporter::spawn(
        Inlet { exchanges: queue, arenas: vec![] },
        Outputs { otlp: Some(settings), ..Outputs::default() },
        Arc::new(Metrics::default()),
        Arc::new(move |line: &str| lines.lock().unwrap().push(line.to_owned())),
    )?;
    let report = exporter.shutdown(Duration::from_secs(10));
    let log = log.lock().unwrap().clone();
    Ok((report, log))
}

fn start_error(tls: Tls) -> String {
    export(settings(1, tls)).unwrap_err().to_string()
}

#[test]
fn a_certificate_that_is_trusted_lets_spans_through() {
    let folder = Folder::new("trusted");
    let server = identity("localhost");
    let collector = collector(&server, None);
    let authorities = folder.file("ca.pem", &server.cert.pem());
    let (report, log) = export(settings(collector.address.port(), Tls { authorities, ..Tls::default() })).unwrap();
    assert_eq!((report.exported, report.losses), (SPANS, vec![]), "{log:?}");
    assert_eq!(collector.received().len(), 1);
}

#[test]
fn a_stranger_gets_nothing() {
    let folder = Folder::new("stranger");
    let check = |server: CertifiedKey<KeyPair>, trusted: &str| {
        let collector = collector(&server, None);
        let authorities = folder.file("ca.pem", trusted);
        let (report, log) = export(settings(collector.address.port(), Tls { authorities, ..Tls::default() })).unwrap();
        assert_eq!((report.exported, report.losses), (0, vec![(Cause::ExportRetriesExhausted, SPANS)]));
        assert!(log[0].contains("certificate"), "{log:?}");
        assert_eq!(collector.received().len(), 0);
    };
    check(identity("localhost"), &identity("localhost").cert.pem());
    let elsewhere = identity("elsewhere");
    let trusted = elsewhere.cert.pem();
    check(elsewhere, &trusted);
}

#[test]
fn a_collector_that_asks_who_we_are_is_told() {
    let folder = Folder::new("mutual");
    let (server, client) = (identity("localhost"), identity("agent"));
    let collector = collector(&server, Some(&client));
    let authorities = folder.file("ca.pem", &server.cert.pem());
    let nameless = Tls { authorities, ..Tls::default() };
    let (report, _) = export(settings(collector.address.port(), nameless.clone())).unwrap();
    assert_eq!(report.exported, 0);
    assert_eq!(collector.received().len(), 0);

    let known = Tls {
        client_certificate: folder.file("client.pem", &client.cert.pem()),
        client_key: folder.file("client.key", &client.signing_key.serialize_pem()),
        ..nameless
    };
    let (report, log) = export(settings(collector.address.port(), known)).unwrap();
    assert_eq!((report.exported, report.losses), (SPANS, vec![]), "{log:?}");
}

#[test]
fn files_that_can_not_be_used_are_named_at_the_start() {
    let folder = Folder::new("files");
    let check = |tls, expected: &str| {
        let error = start_error(tls);
        assert!(error.contains(expected), "{error}");
    };
    let authorities = |path| Tls { authorities: path, ..Tls::default() };
    check(authorities(Some(Path::new("/nowhere/ca.pem").to_owned())), "/nowhere/ca.pem");
    check(authorities(folder.file("empty.pem", "")), "empty.pem: no certificate");
    check(authorities(folder.file("broken.pem", "-----BEGIN CERTIFICATE-----\nrubbish")), "broken.pem");
    let identity = identity("localhost");
    let certificate = folder.file("ca.pem", &identity.cert.pem());
    let half = Tls { client_certificate: certificate.clone(), ..authorities(certificate.clone()) };
    check(half.clone(), "need each other");
    check(Tls { client_key: folder.file("wrong.key", "secret"), ..half }, "wrong.key");
}
