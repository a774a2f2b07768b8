//! What is observed: an HTTPS server on the system's libssl that answers like an inference gateway,
//! with sockets that never block, as nginx or Envoy have it. It runs as a process of its own.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, RawFd},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

use crate::{
    openssl::{Moved, Server, Session},
    process,
    reply::{Shape, Source},
};

/// Writes of one connection before the next one has its turn.
const TURN_WRITES: usize = 32;
/// What a request's head may have; the load generator's are far smaller.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Flags of the server's process.
#[derive(Args)]
pub struct Options {
    /// Where cert.pem and key.pem are
    folder: PathBuf,
    /// The core to run on
    #[arg(long)]
    core: Option<usize>,
}

/// A running server.
pub struct Gateway {
    child: Child,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Gateway {
    /// Starts it, on one core if there are several.
    pub fn start(folder: &Path, core: Option<usize>) -> anyhow::Result<Self> {
        let mut command = process::again(&["gateway"])?;
        command.arg(folder).stdout(Stdio::piped());
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let port = line.trim().parse().context("the gateway doesn't start: is there a libssl.so.3?")?;
        Ok(Self { child, port })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the server until it is killed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    process::allow_descriptors(32_768);
    if let Some(core) = options.core {
        process::pin(core);
    }
    let server = Server::load(&options.folder)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let mut serving = Serving {
        epoll: Epoll::new()?,
        server: &server,
        conns: HashMap::new(),
        ready: VecDeque::new(),
        held: Vec::new(),
        source: Source::default(),
        buffer: vec![0; 16 * 1024],
    };
    serving.epoll.watch(listener.as_raw_fd())?;
    let mut events = Vec::new();
    loop {
        let timeout = if serving.ready.is_empty() { 20 } else { 0 };
        serving.epoll.wait(&mut events, if serving.held.is_empty() && timeout > 0 { -1 } else { timeout });
        for &fd in &events {
            if fd == listener.as_raw_fd() { serving.accept(&listener) } else { serving.go_on(fd) }
        }
        for _ in 0..serving.ready.len() {
            let Some(fd) = serving.ready.pop_front() else { break };
            serving.go_on(fd);
        }
        serving.release();
    }
}

/// A connection. The session goes before the socket that it is on.
struct Conn<'server> {
    session: Session<'server>,
    _socket: TcpStream,
    is_open: bool,
    /// Of a request that has not arrived in full.
    inbox: Vec<u8>,
    /// The reply under way: its shape, the next piece, and how much of that has gone.
    reply: Option<(Shape, usize, usize)>,
    held_until: Option<Instant>,
}

struct Serving<'server> {
    epoll: Epoll,
    server: &'server Server,
    conns: HashMap<RawFd, Conn<'server>>,
    /// Connections that can write on.
    ready: VecDeque<RawFd>,
    /// Connections whose reply pauses.
    held: Vec<RawFd>,
    source: Source,
    buffer: Vec<u8>,
}

impl Serving<'_> {
    fn accept(&mut self, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept() {
            let fd = socket.as_raw_fd();
            let _ = (socket.set_nonblocking(true), socket.set_nodelay(true));
            let Some(session) = self.server.session(fd) else { continue };
            if self.epoll.watch(fd).is_ok() {
                let conn =
                    Conn { session, _socket: socket, is_open: false, inbox: vec![], reply: None, held_until: None };
                self.conns.insert(fd, conn);
            }
        }
    }

    /// Does what can be done on a connection, and drops it when it is over.
    fn go_on(&mut self, fd: RawFd) {
        let Some(conn) = self.conns.get_mut(&fd) else { return };
        let step = conn.step(&mut self.source, &mut self.buffer);
        match step {
            Step::Waits => {}
            Step::HasMore => self.ready.push_back(fd),
            Step::Pauses => self.held.push(fd),
            Step::Over => {
                self.conns.remove(&fd);
            }
        }
    }

    /// Lets replies go on whose pause is over.
    fn release(&mut self) {
        let now = Instant::now();
        let conns = &mut self.conns;
        let over: Vec<RawFd> = self
            .held
            .extract_if(.., |fd| conns.get_mut(fd).is_none_or(|conn| conn.held_until.is_none_or(|until| until <= now)))
            .collect();
        for fd in over {
            self.go_on(fd);
        }
    }
}

/// How far a connection came.
enum Step {
    /// The socket has to become ready.
    Waits,
    /// Others had to have their turn.
    HasMore,
    /// The reply pauses.
    Pauses,
    /// It has ended.
    Over,
}

impl Conn<'_> {
    fn step(&mut self, source: &mut Source, buffer: &mut [u8]) -> Step {
        if !self.is_open {
            match self.session.handshake() {
                Moved::Bytes(_) => self.is_open = true,
                Moved::WantRead | Moved::WantWrite => return Step::Waits,
                Moved::Over => return Step::Over,
            }
        }
        loop {
            if self.reply.is_some() {
                match self.write(source) {
                    Some(step) => return step,
                    None => continue,
                }
            }
            match self.session.read(buffer) {
                Moved::Bytes(len) => self.inbox.extend_from_slice(&buffer[..len]),
                Moved::WantRead | Moved::WantWrite => return Step::Waits,
                Moved::Over => return Step::Over,
            }
            match Shape::of_request(&self.inbox) {
                Some((shape, used)) => {
                    self.inbox.drain(..used);
                    self.reply = Some((shape, 0, 0));
                }
                None if self.inbox.len() > HEAD_BYTES_MAX + (64 << 20) => return Step::Over,
                None => {}
            }
        }
    }

    /// Writes on; `None` when the reply is complete.
    fn write(&mut self, source: &mut Source) -> Option<Step> {
        let (shape, mut index, mut gone) = self.reply?;
        if self.held_until.is_some_and(|until| until > Instant::now()) {
            return Some(Step::Waits);
        }
        self.held_until = None;
        for _ in 0..TURN_WRITES {
            let Some(piece) = source.piece(shape, index) else {
                self.reply = None;
                return None;
            };
            match self.session.write(&piece[gone..]) {
                Moved::Bytes(len) => gone += len,
                Moved::WantRead | Moved::WantWrite => return Some(Step::Waits),
                Moved::Over => return Some(Step::Over),
            }
            if gone == piece.len() {
                (index, gone) = (index + 1, 0);
            }
            self.reply = Some((shape, index, gone));
            if gone == 0 && shape.hold_ms > 0 && index == shape.hold_after() {
                self.held_until = Some(Instant::now() + Duration::from_millis(shape.hold_ms));
                return Some(Step::Pauses);
            }
        }
        Some(Step::HasMore)
    }
}

/// epoll(7), edge-triggered.
struct Epoll(RawFd);

#[expect(unsafe_code, reason = "epoll(7)")]
impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    fn watch(&self, fd: RawFd) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP) as u32;
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: a valid structure; a descriptor that isn't open is refused.
        let done = unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Puts the descriptors on which something happened into `ready`; waits for `timeout_ms`, or
    /// without end if that is negative.
    fn wait(&self, ready: &mut Vec<RawFd>, timeout_ms: i32) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: the array is as long as said.
        let count = unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), events.len() as i32, timeout_ms) };
        ready.clear();
        ready.extend(events.iter().take(usize::try_from(count).unwrap_or(0)).map(|event| event.u64 as RawFd));
    }
}
