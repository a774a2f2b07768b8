//! Export to a collector behind TLS: whom we trust, and who we are.

use std::{path::Path, time::Duration};

use agentsight::{
    export::{
        config::{self, Flags, Settings, Tls},
        exporter::{Report, SpawnError},
    },
    metrics::Cause,
};
use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};

use crate::support::{
    self,
    tls::{Folder, collector, identity},
};

const SPANS: u64 = 3;

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
    let exported = support::export(settings, SPANS, Duration::from_secs(10))?;
    Ok((exported.report, exported.log))
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

/// Trying again is of no use until somebody does something, and that is said in one line.
#[test]
fn a_stranger_gets_nothing() {
    let folder = Folder::new("stranger");
    let check = |server: CertifiedKey<KeyPair>, trusted: &str, remedy: &str| {
        let collector = collector(&server, None);
        let authorities = folder.file("ca.pem", trusted);
        let (report, log) = export(settings(collector.address.port(), Tls { authorities, ..Tls::default() })).unwrap();
        assert_eq!((report.exported, report.losses), (0, vec![(Cause::ExportRetriesExhausted, SPANS)]));
        let about: Vec<_> = log.iter().filter(|line| line.contains("will not work by itself")).collect();
        assert!(about.len() == 1 && about[0].contains(remedy) && about[0].contains("certificate"), "{log:?}");
        assert_eq!(collector.received().len(), 0);
    };
    check(identity("localhost"), &identity("localhost").cert.pem(), "OTEL_EXPORTER_OTLP_CERTIFICATE");
    let elsewhere = identity("elsewhere");
    let trusted = elsewhere.cert.pem();
    check(elsewhere, &trusted, "a name that the collector's certificate is for");
    for (years, remedy) in [((2001, 2002), "a new certificate"), ((2200, 2201), "clock")] {
        let signing_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let cert = params.self_signed(&signing_key).unwrap();
        let trusted = cert.pem();
        check(CertifiedKey { cert, signing_key }, &trusted, remedy);
    }
}

#[test]
fn a_collector_that_asks_who_we_are_is_told() {
    let folder = Folder::new("mutual");
    let (server, client) = (identity("localhost"), identity("agent"));
    let collector = collector(&server, Some(&client));
    let authorities = folder.file("ca.pem", &server.cert.pem());
    let nameless = Tls { authorities, ..Tls::default() };
    let (report, log) = export(settings(collector.address.port(), nameless.clone())).unwrap();
    assert_eq!(report.exported, 0);
    assert!(log[0].contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"), "{log:?}");
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
