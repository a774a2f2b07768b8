//! One client of the matrix (see `matrix.py`): tokio-rustls and hyper. The calls of a connection are
//! made in turn, connections at once, on several threads.

use std::{env, error::Error, fs, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
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
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let connections = plan["connections"].as_array().ok_or("no connections")?.iter();
    let tasks: Vec<_> = connections
        .map(|calls| tokio::spawn(converse(connector.clone(), calls.clone())))
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Makes calls in turn on one connection.
async fn converse(connector: TlsConnector, calls: Value) -> Outcome<()> {
    let calls = calls.as_array().ok_or("no calls")?;
    let Some(first) = calls.first() else { return Ok(()) };
    let address = format!("{}:{}", text(&first["address"])?, first["port"]);
    let name = ServerName::try_from(text(&first["host"])?.to_owned())?;
    let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    for call in calls {
        let mut request = Request::post(text(&call["path"])?).header("host", text(&call["host"])?);
        for (name, value) in call["headers"].as_object().ok_or("no headers")? {
            request = request.header(name, text(value)?);
        }
        let body = Bytes::from(fs::read(text(&call["body"])?)?);
        let mut reply = sender.send_request(request.body(Full::new(body))?).await?;
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
