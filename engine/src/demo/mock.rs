//! A mock of LLM APIs: an HTTPS (or plain HTTP) server on loopback that answers by script.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};

use super::{
    http::{Received, read_request},
    script::{Framing, Reply, Script},
};

/// Connections that stay silent for longer are given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The names that the mock's certificate is for; whoever else is meant needs a name of their own here.
const NAMES: [&str; 6] =
    ["localhost", "*.openai.com", "*.anthropic.com", "*.openai.azure.com", "*.example.com", "127.0.0.1"];

/// The running server. It ends when this is dropped.
pub struct Mock {
    address: SocketAddr,
    shared: Arc<Shared>,
    ca_pem: Option<PathBuf>,
}

struct Shared {
    scripts: Mutex<HashMap<String, Arc<Script>>>,
    served: Mutex<Vec<Served>>,
    tls: Option<Arc<ServerConfig>>,
    stopping: AtomicBool,
}

/// A request that the mock answered.
#[derive(Clone, Debug)]
pub struct Served {
    /// `x-demo-id` of the request.
    pub id: String,
    /// Its `traceparent`.
    pub traceparent: Option<String>,
    /// Whether method, target and body arrived just as the script has them.
    pub intact: bool,
}

impl Mock {
    /// Starts an HTTPS mock whose certificate is written into `folder` for the clients to trust.
    pub fn start(folder: &Path, scripts: impl IntoIterator<Item = Script>) -> anyhow::Result<Self> {
        let names: Vec<String> = NAMES.map(str::to_owned).into();
        let certified = rcgen::generate_simple_self_signed(names).context("can't make a certificate")?;
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
        let ca_pem = folder.join("mock-ca.pem");
        std::fs::write(&ca_pem, certified.cert.pem()).with_context(|| format!("can't write {}", ca_pem.display()))?;
        Self::listen(Some(Arc::new(tls)), Some(ca_pem), scripts)
    }

    /// Starts a mock that speaks HTTP without TLS.
    pub fn start_plain(scripts: impl IntoIterator<Item = Script>) -> anyhow::Result<Self> {
        Self::listen(None, None, scripts)
    }

    fn listen(
        tls: Option<Arc<ServerConfig>>,
        ca_pem: Option<PathBuf>,
        scripts: impl IntoIterator<Item = Script>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("can't listen on loopback")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            scripts: Mutex::default(),
            served: Mutex::default(),
            tls,
            stopping: AtomicBool::new(false),
        });
        let mock = Self { address, shared: Arc::clone(&shared), ca_pem };
        mock.add(scripts);
        thread::Builder::new().name("demo-mock".to_owned()).spawn(move || accept(&listener, &shared))?;
        Ok(mock)
    }

    /// Adds scripts; one with an id that is known already takes its place.
    pub fn add(&self, scripts: impl IntoIterator<Item = Script>) {
        let scripts = scripts.into_iter().map(|script| (script.id.clone(), Arc::new(script)));
        self.shared.scripts.lock().unwrap_or_else(PoisonError::into_inner).extend(scripts);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that clients must trust, unless it speaks plain HTTP.
    pub fn ca_pem(&self) -> Option<&Path> {
        self.ca_pem.as_deref()
    }

    /// What has been asked of it so far.
    pub fn served(&self) -> Vec<Served> {
        self.shared.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes the thread that waits in `accept`.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        // Set before the connection that woke this thread was made, so seen after it.
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let shared = Arc::clone(shared);
        // Without a thread to serve it the connection is closed, which the client can tell.
        let _ = thread::Builder::new().name("demo-mock-conn".to_owned()).spawn(move || {
            // A client that goes away early is not the mock's fault.
            let _ = serve(connection, &shared);
        });
    }
}

fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    socket.set_write_timeout(Some(SILENCE_MAX))?;
    let stream = match &shared.tls {
        None => Stream::Plain(socket),
        Some(config) => {
            let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
        }
    };
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let go_on = |stream: &mut BufReader<Stream>| stream.get_mut().send(b"HTTP/1.1 100 Continue\r\n\r\n");
    while let Some(received) = read_request(&mut stream, go_on)? {
        let Some(script) = script_for(&received, shared) else {
            stream.get_mut().send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        send(stream.get_mut(), &script.reply)?;
        if script.reply.cut_after.is_some() {
            return stream.get_mut().socket().shutdown(Shutdown::Both);
        }
        if script.reply.close || script.reply.framing == Framing::UntilClose || received.closes() {
            break;
        }
    }
    stream.get_mut().close()
}

fn script_for(received: &Received, shared: &Shared) -> Option<Arc<Script>> {
    let id = received.header("x-demo-id")?;
    let script = Arc::clone(shared.scripts.lock().unwrap_or_else(PoisonError::into_inner).get(id)?);
    let request = &script.request;
    let served = Served {
        id: id.to_owned(),
        traceparent: received.header("traceparent").map(str::to_owned),
        intact: received.method == request.method && received.target == request.path && received.body == request.body,
    };
    shared.served.lock().unwrap_or_else(PoisonError::into_inner).push(served);
    Some(script)
}

fn send(stream: &mut Stream, reply: &Reply) -> io::Result<()> {
    thread::sleep(reply.delay);
    for (index, bytes) in reply.writes().iter().enumerate() {
        if index > 1 {
            thread::sleep(reply.pause);
        }
        stream.send(bytes)?;
    }
    Ok(())
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Ends the connection the proper way.
    fn close(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.socket().shutdown(Shutdown::Write)?;
        // Closing with bytes unread would reset the connection and take the reply's end with it.
        self.socket().set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut rest = [0; 4096];
        while matches!(self.read(&mut rest), Ok(1..)) {}
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}
