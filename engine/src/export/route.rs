//! The way to the collector: directly, through a proxy that forwards requests, or through a tunnel.
//!
//! For `http` a proxy is given the whole URL and makes the request itself (RFC 9112 section 3.2.2);
//! for `https` it is asked to CONNECT (RFC 9110 section 9.3.6), and TLS runs through it from end to
//! end. SOCKS 5 proxies are asked for the same in their own way (RFC 1928).

use std::{
    error::Error,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{
    Uri,
    header::HeaderValue,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{
        Connected, Connection, HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::config::Proxy;

/// Where a SOCKS proxy listens by default (RFC 1928 section 3).
const SOCKS_PORT: u16 = 1080;

/// Connects to a proxy, in TLS if it wants that.
type Near = HttpsConnector<HttpConnector>;

/// Connects to the collector, or to something that takes its place. TLS with the collector is not
/// made here, but on top of the connection.
#[derive(Clone)]
pub(super) enum Route {
    /// There is no proxy.
    Direct(HttpConnector),
    /// A proxy that makes requests for us.
    Forwarded { proxy: Uri, near: Near },
    /// A proxy that only passes bytes on.
    Tunnelled(Tunnel<Near>),
    /// The same by SOCKS.
    Socks(SocksV5<Near>),
}

impl Route {
    /// The way to `endpoint`.
    pub(super) fn new(endpoint: &Uri, proxy: Option<&Proxy>, tls: Arc<ClientConfig>) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let Some(proxy) = proxy else { return Self::Direct(http) };
        let near = HttpsConnector::from((http, tls));
        let (uri, intercept) = (proxy.uri().clone(), &proxy.intercept);
        if uri.scheme_str().is_some_and(|scheme| scheme.starts_with("socks")) {
            let socks = SocksV5::new(as_http(&uri), near);
            return Self::Socks(match intercept.raw_auth() {
                Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
                None => socks,
            });
        }
        if endpoint.scheme_str() != Some("https") {
            return Self::Forwarded { proxy: uri, near };
        }
        let tunnel = Tunnel::new(uri, near);
        Self::Tunnelled(match intercept.basic_auth() {
            Some(credentials) => tunnel.with_auth(credentials.clone()),
            None => tunnel,
        })
    }

    /// What a proxy that makes requests for us wants to see on each of them.
    pub(super) fn credentials(&self, proxy: Option<&Proxy>) -> Option<HeaderValue> {
        match self {
            Self::Forwarded { .. } => proxy?.intercept.basic_auth().cloned(),
            _ => None,
        }
    }
}

/// The TCP address of a SOCKS proxy, as a connector for HTTP understands it.
fn as_http(socks: &Uri) -> Uri {
    let (host, port) = (socks.host().unwrap_or_default(), socks.port_u16().unwrap_or(SOCKS_PORT));
    // A host that came out of a URL goes into one.
    format!("http://{host}:{port}").parse().unwrap_or_default()
}

/// `uri` with the port that its scheme implies: tunnels would take 443 for both.
fn with_port(uri: Uri) -> Uri {
    let (Some(host), None, Some("http")) = (uri.host(), uri.port_u16(), uri.scheme_str()) else { return uri };
    format!("http://{host}:80/").parse().unwrap_or(uri)
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(http) => http.poll_ready(context).map_err(Into::into),
            Self::Forwarded { near, .. } => near.poll_ready(context),
            Self::Tunnelled(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
            Self::Socks(socks) => socks.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, collector: Uri) -> Self::Future {
        match self {
            Self::Direct(http) => {
                let connecting = http.call(collector);
                Box::pin(async move { Ok(Stream { io: MaybeHttpsStream::Http(connecting.await?), forwarded: false }) })
            }
            Self::Forwarded { proxy, near } => {
                let connecting = near.call(proxy.clone());
                Box::pin(async move { Ok(Stream { io: connecting.await?, forwarded: true }) })
            }
            Self::Tunnelled(tunnel) => {
                let connecting = tunnel.call(with_port(collector));
                Box::pin(async move { Ok(Stream { io: connecting.await?, forwarded: false }) })
            }
            Self::Socks(socks) => {
                let connecting = socks.call(with_port(collector));
                Box::pin(async move { Ok(Stream { io: connecting.await?, forwarded: false }) })
            }
        }
    }
}

/// A connection to the collector or to what takes its place.
pub(super) struct Stream {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Requests have to name the whole URL.
    forwarded: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.forwarded)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}
