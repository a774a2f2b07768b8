//! Collectors behind a proxy. Their names exist nowhere, so nothing gets to them in another way.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentsight::{
    export::config::{self, Flags, Settings},
    metrics::Cause,
};

use crate::support::{
    self, Collector, Exported, ok,
    tls::{self, Folder, identity},
};

const SPANS: u64 = 15;

fn settings(endpoint: &str, variables: &[(&str, String)]) -> Settings {
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let configured = config::settings(&Flags { endpoint: Some(endpoint.to_owned()) }, &env).unwrap();
    assert_eq!(configured.warnings, [""; 0]);
    let mut settings = configured.settings.unwrap();
    settings.batch.spans_max = 10;
    settings.retry.total_timeout = Some(Duration::from_millis(500));
    settings.retry.pause_initial = Duration::from_millis(50);
    settings
}

fn export(settings: Settings) -> Exported {
    support::export(settings, SPANS, Duration::from_secs(10)).unwrap()
}

#[test]
fn requests_without_tls_are_made_by_the_proxy() {
    // A proxy sees what a collector would, but for the first line.
    let proxy = Collector::start(vec![ok()]);
    let url = format!("http://user:pass%20word@{}", proxy.address);
    let done = export(settings("http://collector.test:4318", &[("http_proxy", url)]));
    assert_eq!((done.report.exported, done.report.losses), (SPANS, vec![]), "{:?}", done.log);
    let received = proxy.received();
    assert_eq!(received.len(), 2);
    for request in received {
        assert_eq!(request.connection, 0);
        let first = "POST http://collector.test:4318/v1/traces HTTP/1.1\r\n";
        assert!(request.head.starts_with(first), "{}", request.head);
        assert_eq!(request.header("host"), Some("collector.test:4318"));
        // base64("user:pass word")
        assert_eq!(request.header("proxy-authorization"), Some("Basic dXNlcjpwYXNzIHdvcmQ="));
    }
}

#[test]
fn a_proxy_is_spoken_to_in_tls_if_its_url_says_so() {
    let folder = Folder::new("secure-proxy");
    let own = identity("localhost");
    let proxy = tls::collector(&own, None);
    let url = format!("https://user@localhost:{}", proxy.address.port());
    let mut settings = settings("http://collector.test", &[("HTTP_PROXY", url)]);
    settings.tls.authorities = folder.file("ca.pem", &own.cert.pem());
    let done = export(settings);
    assert_eq!((done.report.exported, done.report.losses), (SPANS, vec![]), "{:?}", done.log);
    let first = "POST http://collector.test/v1/traces HTTP/1.1\r\n";
    assert!(proxy.received().iter().all(|request| request.head.starts_with(first)));
}

/// What a client says before TLS begins, up to an empty line.
fn head(stream: &mut TcpStream) -> String {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn tls_goes_through_a_tunnel() {
    let folder = Folder::new("tunnel");
    let own = identity("collector.test");
    let config = tls::server(&own, None);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    let proxy = Collector::start_with(vec![ok()], move |mut stream| {
        heads.lock().unwrap().push(head(&mut stream));
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        tls::accept(&config, stream)
    });
    let mut settings = settings(
        "https://collector.test",
        &[("HTTPS_PROXY", format!("http://user:s3cret@{}", proxy.address)), ("NO_PROXY", "other.test".to_owned())],
    );
    settings.headers.0.push(("api-key".parse().unwrap(), "k3y".parse().unwrap()));
    settings.tls.authorities = folder.file("ca.pem", &own.cert.pem());
    let done = export(settings);
    assert_eq!((done.report.exported, done.report.losses), (SPANS, vec![]), "{:?}", done.log);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "one connection: {asked:?}");
    assert!(asked[0].starts_with("CONNECT collector.test:443 HTTP/1.1\r\n"), "{}", asked[0]);
    // base64("user:s3cret")
    assert!(asked[0].contains("Basic dXNlcjpzM2NyZXQ=") && !asked[0].contains("k3y"), "{}", asked[0]);
    for request in proxy.received() {
        assert!(request.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!((request.header("api-key"), request.header("proxy-authorization")), (Some("k3y"), None));
    }
}

#[test]
fn a_tunnel_by_socks() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let targets = Arc::clone(&asked);
    let proxy = Collector::start_with(vec![ok()], move |mut stream| {
        // RFC 1928: version, methods; then version, connect, a name, and a port.
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).unwrap();
        stream.read_exact(&mut vec![0; greeting[1].into()]).unwrap();
        stream.write_all(&[5, 0]).unwrap();
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request[..4], [5, 1, 0, 3]);
        let mut target = vec![0; usize::from(request[4]) + 2];
        stream.read_exact(&mut target).unwrap();
        targets.lock().unwrap().push(target);
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        stream
    });
    let done = export(settings("http://collector.test", &[("ALL_PROXY", format!("socks5h://{}", proxy.address))]));
    assert_eq!((done.report.exported, done.report.losses), (SPANS, vec![]), "{:?}", done.log);
    assert_eq!(*asked.lock().unwrap(), [[b"collector.test".as_slice(), &80_u16.to_be_bytes()].concat()]);
    assert!(proxy.received().iter().all(|request| request.head.starts_with("POST /v1/traces HTTP/1.1\r\n")));
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let check = |endpoint: &str, answer: &'static str, said: &str| {
        let proxy = Collector::start_with(vec![ok()], move |mut stream| {
            head(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            stream
        });
        let url = format!("http://user:s3cret@{}", proxy.address);
        let done = export(settings(endpoint, &[("ALL_PROXY", url)]));
        assert_eq!((done.report.exported, done.report.losses), (0, vec![(Cause::ExportRetriesExhausted, SPANS)]));
        let log = done.log.join("\n");
        assert!(log.contains(&format!("through http://{}", proxy.address)), "{log}");
        assert!(log.contains(said) && !log.contains("s3cret"), "{log}");
    };
    check("https://collector.test", "HTTP/1.1 407 X\r\n\r\n", "authorization required");
    check("https://collector.test", "HTTP/1.1 403 X\r\n\r\n", "unsuccessful");
    check("https://collector.test", "rubbish\r\n\r\n", "unsuccessful");
}

#[test]
fn exceptions_and_this_host_are_reached_directly() {
    let collector = Collector::start(vec![ok()]);
    let nobody = ("HTTP_PROXY", "http://proxy.test:1".to_owned());
    let done =
        export(settings(&format!("http://localhost:{}", collector.address.port()), std::slice::from_ref(&nobody)));
    assert_eq!((done.report.exported, done.report.losses), (SPANS, vec![]), "{:?}", done.log);
    // The name is not found, and the proxy is not asked either.
    let exempt = ("NO_PROXY", ".test:4318".to_owned());
    let done = export(settings("http://collector.test:4318", &[nobody, exempt]));
    assert_eq!(done.report.exported, 0);
    assert!(!done.log[0].contains("proxy.test"), "{:?}", done.log);
}
