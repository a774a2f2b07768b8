//! Serves the metrics to whoever scrapes them.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    str::FromStr,
    sync::Arc,
    thread,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};

use super::prometheus;
use crate::{limits::SCRAPES_MAX, metrics::Metrics};

/// How long a connection may be without a request.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// An address to listen on: `ADDRESS:PORT`, or a port alone, which is one of loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = || Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), text.parse().ok()?));
        let address = text.parse().ok().or_else(port);
        address.map(Self).ok_or("an address and a port, such as 127.0.0.1:9464 or [::1]:9464, or a port of loopback")
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<Infallible>,
}

impl Server {
    /// Listens, then serves `/metrics` and `/healthz` on a thread of its own.
    ///
    /// # Errors
    /// When the address can't be had, or there is no thread.
    pub fn start(listen: Listen, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen.0)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel::<Infallible>();
        thread::Builder::new().name("agentsight-http".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, metrics) => {}
                }
            });
        })?;
        Ok(Self { address, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, metrics: Arc<Metrics>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let permits = Arc::new(Semaphore::new(SCRAPES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: not a reason to spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics))));
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX).max_buf_size(16 * 1024);
            // Whoever scrapes and goes away in the middle is of no interest.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, media_type, body) = match request.uri().path() {
        _ if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned()),
        "/metrics" => (StatusCode::OK, prometheus::MEDIA_TYPE, prometheus::text(metrics)),
        "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "there are /metrics and /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if !is_read {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;
    use crate::metrics::Total;

    fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    #[test]
    fn metrics_and_health_are_served() {
        let metrics = Arc::new(Metrics::default());
        metrics.add(Total::Requests, 5);
        let server = Server::start("127.0.0.1:0".parse().unwrap(), Arc::clone(&metrics)).unwrap();
        let response = get(server.address(), "GET /metrics");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{response}");
        assert!(response.contains("\nagentsight_requests_total 5\n"), "{response}");
        metrics.add(Total::Requests, 1);
        assert!(get(server.address(), "GET /metrics").contains("\nagentsight_requests_total 6\n"));
        assert!(get(server.address(), "GET /healthz").ends_with("\r\n\r\nok\n"));
        assert!(get(server.address(), "GET /").starts_with("HTTP/1.1 404 "));
        assert!(get(server.address(), "POST /metrics").starts_with("HTTP/1.1 405 "));
        assert!(get(server.address(), "nonsense").starts_with("HTTP/1.1 400 "));
        let taken = Server::start(Listen(server.address()), metrics).err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        let check = |text: &str, address: Option<&str>| {
            let parsed = text.parse::<Listen>().ok().map(|listen| listen.0.to_string());
            assert_eq!(parsed.as_deref(), address, "{text}");
        };
        check("9464", Some("127.0.0.1:9464"));
        check("0.0.0.0:9464", Some("0.0.0.0:9464"));
        check("[::1]:9464", Some("[::1]:9464"));
        check("localhost", None);
        check("99999", None);
        check("", None);
    }
}
