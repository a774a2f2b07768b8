//! HTTP/2 peers that replay a plan of [`crate::corpus`].

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use crate::{
    certificate,
    corpus::{self, Planned},
    gate::skip,
    program::{agentsight, root},
};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Node's own, with the OpenSSL in Node.
    Node,
    /// Node's own without TLS, by prior knowledge (RFC 9113 section 3.3).
    NodePlain,
    /// httpx, with the system's libssl.
    Httpx,
}

/// A server and a client of it, both Node's or the latter Python's.
pub struct Peers {
    server: Peer,
    client: Peer,
}

struct Peer {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Peers {
    /// Starts both, and returns when the client waits for its first phase; none where this machine
    /// has not got what they need.
    pub fn start(client: Client, plan: &[Planned], folder: &Path) -> Option<Self> {
        let python = if client == Client::Httpx { Some(python()?) } else { None };
        if Command::new("node").arg("--version").output().is_err() {
            skip("this machine has no node");
            return None;
        }
        let plan_file = folder.join("plan");
        corpus::write(plan, &plan_file);
        let (cert, key) = certificate::make(folder, "http2");
        let cert = if client == Client::NodePlain { PathBuf::from("-") } else { cert };
        let script = |name: &str| root().join("tests/clients").join(name);
        let mut server =
            Peer::start(Command::new("node").arg(script("http2.mjs")).arg("serve").args([&plan_file, &cert, &key]));
        let port = server.line();
        let mut client = match &python {
            None => Command::new("node"),
            Some(python) => Command::new(python),
        };
        match &python {
            None => client.arg(script("http2.mjs")).arg("send"),
            Some(_) => client.arg(script("http2.py")),
        };
        let mut client = Peer::start(client.args([&plan_file, &cert]).arg(port));
        assert_eq!(client.line(), "waiting", "the client starts");
        Some(Self { server, client })
    }

    /// The client's process.
    pub fn client_pid(&self) -> u32 {
        self.client.child.id()
    }

    /// The server's process.
    pub fn server_pid(&self) -> u32 {
        self.server.child.id()
    }

    /// Lets the client send the next phase, and waits until all of it is answered.
    pub fn send_phase(&mut self) {
        self.client.child.stdin.as_mut().expect("stdin is a pipe").write_all(b"go\n").expect("the client reads");
        assert_eq!(self.client.line(), "done", "every request is answered");
    }
}

impl Peer {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the peer's output");
        line.trim_end().to_owned()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for peer in [&mut self.client, &mut self.server] {
            // One that has ended needs no killing.
            let _ = peer.child.kill();
            let _ = peer.child.wait();
        }
    }
}

/// A Python with httpx and the h2 package, installed once below the target folder; none where it can't be had.
pub fn python() -> Option<PathBuf> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(install).clone()
}

fn install() -> Option<PathBuf> {
    // TARGET/PROFILE/agentsight
    let venv = agentsight().ancestors().nth(2)?.join("venv-http2");
    let python = venv.join("bin/python3");
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if run(Command::new(&python).args(["-c", "import httpx, h2"])) {
        return Some(python);
    }
    let installed = run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
        && run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "httpx[http2]"]));
    if !installed {
        skip("httpx[http2] can't be installed from PyPI");
        return None;
    }
    Some(python)
}
