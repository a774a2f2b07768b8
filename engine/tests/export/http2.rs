//! A collector that offers HTTP/2, and one that offers HTTP/1.1 only.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use agentsight::export::config::{self, Flags, Settings, Tls};
use h2::server;
use hyper::{Response, body::Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use rcgen::{CertifiedKey, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{
    self,
    tls::{self, Folder, identity},
};

/// A request as it arrived: which connection, its path, and its body.
type Requests = Arc<Mutex<Vec<(usize, String, Vec<u8>)>>>;

/// A server for HTTP/2 alone, which answers the first `busy` requests with 503.
fn collector(own: &CertifiedKey<KeyPair>, busy: usize) -> (SocketAddr, Requests) {
    let mut config = Arc::unwrap_or_clone(tls::server(own, None));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let requests = Requests::default();
    let (sender, receiver) = std::sync::mpsc::channel();
    let seen = Arc::clone(&requests);
    // Ends with the process.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = acceptor.accept(stream).await.unwrap();
                tokio::spawn(serve(server::handshake(stream).await.unwrap(), number, busy, Arc::clone(&seen)));
            }
        });
    });
    (receiver.recv().unwrap(), requests)
}

async fn serve<S>(mut connection: server::Connection<S, Bytes>, number: usize, busy: usize, seen: Requests)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let path = request.uri().path().to_owned();
            assert_eq!(request.headers()["content-type"], "application/x-protobuf");
            let mut stream = request.into_body();
            let mut body = vec![];
            while let Some(data) = stream.data().await {
                let data = data.unwrap();
                stream.flow_control().release_capacity(data.len()).unwrap();
                body.extend_from_slice(&data);
            }
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.push((number, path, body));
                seen.len()
            };
            let status = if count <= busy { 503 } else { 200 };
            let response = Response::builder().status(status).body(()).unwrap();
            respond.send_response(response, true).unwrap();
        });
    }
}

fn settings(endpoint: String, authorities: Option<std::path::PathBuf>) -> Settings {
    let mut settings = config::settings(&Flags { endpoint: Some(endpoint) }, &|_| None).unwrap().settings.unwrap();
    settings.tls = Tls { authorities, ..Tls::default() };
    settings.batch.spans_max = 10;
    settings.retry.pause_initial = Duration::from_millis(10);
    settings
}

#[test]
fn http_2_is_used_where_it_is_offered() {
    let folder = Folder::new("http2");
    let own = identity("localhost");
    let (address, requests) = collector(&own, 1);
    let settings = settings(format!("https://localhost:{}", address.port()), folder.file("ca.pem", &own.cert.pem()));
    let done = support::export(settings, 35, Duration::from_secs(10)).unwrap();
    assert_eq!((done.report.exported, done.report.losses), (35, vec![]), "{:?}", done.log);
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 5, "four, and one of them twice");
    assert!(requests.iter().all(|(connection, path, _)| (*connection, path.as_str()) == (0, "/v1/traces")));
    let spans = requests.iter().flat_map(|(.., body)| {
        let request = ExportTraceServiceRequest::decode(&**body).unwrap();
        request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans)
    });
    assert_eq!(spans.map(|span| span.span_id).collect::<HashSet<_>>().len(), 35);
}

/// Large requests are beyond the window that HTTP/2 begins with.
#[test]
fn requests_beyond_the_window_get_through() {
    let folder = Folder::new("http2-large");
    let own = identity("localhost");
    let (address, requests) = collector(&own, 0);
    let mut settings =
        settings(format!("https://localhost:{}", address.port()), folder.file("ca.pem", &own.cert.pem()));
    settings.batch.spans_max = 5_000;
    let done = support::export(settings, 5_000, Duration::from_secs(10)).unwrap();
    assert_eq!((done.report.exported, done.report.losses), (5_000, vec![]), "{:?}", done.log);
    let requests = requests.lock().unwrap();
    assert!(requests.len() == 1 && requests[0].2.len() > 1 << 20, "{}", requests[0].2.len());
}
