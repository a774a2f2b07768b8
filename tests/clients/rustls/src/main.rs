//! One client of the matrix (see `matrix.py`): tokio-rustls and hyper. The calls of a connection are
//! made in turn, connections at once, on several threads. A plan may also have `tls`, the one version of
//! TLS that is offered (`"1.2"`, `"1.3"`), `cipher`, a part of the names of the ciphers that are, and
//! `http2`.

use std::{env, error::Error, fs, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
    http::{Response, request::Builder},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> Outcome<()> {
    let file = env::args().nth(1).ok_or("usage: rustls-client PLAN | --idle")?;
    if file == "--idle" {
        return Ok(());
    }
    let plan: Value = serde_json::from_slice(&fs::read(file)?)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(text(&plan["ca"])?)?)?;
    let connector = TlsConnector::from(Arc::new(config(&plan, roots)?));
    let connections = plan["connections"].as_array().ok_or("no connections")?.iter();
    let tasks: Vec<_> = connections
        .map(|calls| {
            // A connection may have an address of its own.
            let first = if calls[0]["address"].is_null() { &plan } else { &calls[0] };
            let address = format!("{}:{}", first["address"].as_str().unwrap_or_default(), first["port"]);
            tokio::spawn(converse(connector.clone(), address, calls.clone()))
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// What the plan wants to be offered.
fn config(plan: &Value, roots: RootCertStore) -> Outcome<ClientConfig> {
    #[cfg(feature = "ring")]
    let mut provider = crypto::ring::default_provider();
    #[cfg(not(feature = "ring"))]
    let mut provider = crypto::aws_lc_rs::default_provider();
    let cipher = plan["cipher"].as_str().unwrap_or_default();
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains(cipher));
    let versions: &[_] = match plan["tls"].as_str() {
        Some("1.2") => &[&TLS12],
        Some("1.3") => &[&TLS13],
        _ => &[&TLS13, &TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    if plan["http2"] == true {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(config)
}

/// What requests are made with.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn send(&mut self, request: Builder, call: &Value, body: Full<Bytes>) -> Outcome<Response<Incoming>> {
        let (host, path) = (text(&call["host"])?, text(&call["path"])?);
        Ok(match self {
            Self::Http1(sender) => sender.send_request(request.uri(path).header("host", host).body(body)?).await?,
            Self::Http2(sender) => {
                sender.send_request(request.uri(format!("https://{host}{path}")).body(body)?).await?
            }
        })
    }
}

/// Makes calls in turn on one connection.
async fn converse(connector: TlsConnector, address: String, calls: Value) -> Outcome<()> {
    let calls = calls.as_array().ok_or("no calls")?;
    let Some(first) = calls.first() else { return Ok(()) };
    let name = ServerName::try_from(text(&first["host"])?.to_owned())?;
    let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (mut sender, driver) = if is_http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        (Sender::Http2(sender), tokio::spawn(connection))
    } else {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        (Sender::Http1(sender), tokio::spawn(connection))
    };
    for call in calls {
        let mut request = Request::builder().method("POST");
        for (name, value) in call["headers"].as_object().ok_or("no headers")? {
            request = request.header(name, text(value)?);
        }
        let body = Bytes::from(fs::read(text(&call["body"])?)?);
        let mut reply = sender.send(request, call, Full::new(body)).await?;
        while let Some(frame) = reply.body_mut().frame().await {
            frame?;
        }
        println!("{}", json!({"id": call["id"], "status": reply.status().as_u16()}));
    }
    drop(sender);
    driver.await??;
    Ok(())
}

fn text(value: &Value) -> Outcome<&str> {
    value.as_str().ok_or_else(|| format!("not a string: {value}").into())
}
