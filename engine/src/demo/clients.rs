//! Real clients: the programs of this machine that speak HTTP over the system's TLS library.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{mock::Mock, script::Script, verdict::TraceParent};

/// A client that takes longer is ended.
const CLIENT_DURATION_MAX: Duration = Duration::from_secs(60);

/// Programs that the demo knows how to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// curl over HTTP/1.1.
    Curl,
    /// Python's `http.client` over its `ssl` module.
    Python,
    /// `openssl s_client`.
    Openssl,
}

/// A program that this machine has.
#[derive(Clone, Debug)]
pub struct Client {
    /// Which one.
    pub program: Program,
    /// What it says about its version.
    pub version: String,
}

/// One request to be sent.
#[derive(Clone, Debug)]
pub struct Sending {
    /// The exchange.
    pub script: Script,
    /// Sent along, so that the span can be told from all others.
    pub trace: TraceParent,
}

impl Sending {
    /// A sending of `script` with a trace of its own.
    pub fn of(script: &Script) -> Self {
        Self { script: script.clone(), trace: TraceParent::random() }
    }
}

impl Program {
    /// The name of its executable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Python => "python3",
            Self::Openssl => "openssl",
        }
    }

    fn version(self) -> Option<String> {
        let mut command = Command::new(self.name());
        match self {
            Self::Curl => command.arg("--version"),
            Self::Python => command.args(["-c", "import ssl, sys; print(sys.version.split()[0], ssl.OPENSSL_VERSION)"]),
            Self::Openssl => command.arg("version"),
        };
        let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
        let line = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
        // What follows in brackets are the versions of libraries.
        Some(line.split(" (").next().unwrap_or_default().trim().to_owned())
    }
}

/// The clients that this machine has.
pub fn found() -> Vec<Client> {
    let programs = [Program::Curl, Program::Python, Program::Openssl];
    let client = |program: Program| Some(Client { program, version: program.version()? });
    programs.into_iter().filter_map(client).collect()
}

/// Sends everything, one after the other; `folder` is for request bodies and what the client says.
///
/// It fails if the client didn't get the reply that the mock was to send.
pub fn send_all(program: Program, mock: &Mock, sendings: &[Sending], folder: &Path) -> anyhow::Result<()> {
    let outcomes = match program {
        Program::Curl => curl(mock, sendings, folder)?,
        Program::Python => python(mock, sendings, folder)?,
        Program::Openssl => sendings.iter().map(|sending| openssl(mock, sending)).collect::<anyhow::Result<_>>()?,
    };
    ensure!(outcomes.len() == sendings.len(), "{}: {} replies of {}", program.name(), outcomes.len(), sendings.len());
    for (sending, outcome) in sendings.iter().zip(outcomes) {
        let (id, status) = (&sending.script.id, sending.script.reply.status);
        ensure!(outcome == Some(status), "{}: {id} was answered {outcome:?}, not {status}", program.name());
    }
    Ok(())
}

/// One curl process, so that the transfers to one host share a connection.
fn curl(mock: &Mock, sendings: &[Sending], folder: &Path) -> anyhow::Result<Vec<Option<u16>>> {
    let scheme = if mock.ca_pem().is_some() { "https" } else { "http" };
    let mut config = String::new();
    for (index, Sending { script, trace }) in sendings.iter().enumerate() {
        let request = &script.request;
        if index > 0 {
            config.push_str("next\n");
        }
        let body = body_file(script, folder)?;
        let mut line = |option: &str, value: &str| {
            // A curl config quotes like a C string, as far as these values need it.
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            writeln!(config, "{option} = \"{value}\"")
        };
        line("url", &format!("{scheme}://{}{}", request.host, request.path))?;
        line("connect-to", &format!("::{}", mock.address()))?;
        line("request", request.method)?;
        line("data-binary", &format!("@{}", body.display()))?;
        if let Some(ca) = mock.ca_pem() {
            line("cacert", &ca.display().to_string())?;
        }
        line("noproxy", "*")?;
        line("output", "/dev/null")?;
        line("write-out", "%{response_code}\\n")?;
        line("header", &format!("traceparent: {}", trace.header()))?;
        line("header", &format!("x-demo-id: {}", script.id))?;
        for (name, value) in &request.headers {
            line("header", &format!("{name}: {value}"))?;
        }
        config.push_str("http1.1\nsilent\n");
    }
    // `-q` keeps the user's own configuration out. The exit code is that of the last transfer.
    let output = run(Command::new("curl").args(["-q", "-K", "-"]), config.as_bytes())?;
    Ok(output.lines().map(|line| line.parse().ok()).collect())
}

fn python(mock: &Mock, sendings: &[Sending], folder: &Path) -> anyhow::Result<Vec<Option<u16>>> {
    let job = |Sending { script, trace }: &Sending| {
        let request = &script.request;
        let mut headers: serde_json::Map<String, Value> =
            request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        headers.insert("traceparent".to_owned(), json!(trace.header()));
        headers.insert("x-demo-id".to_owned(), json!(script.id));
        Ok(json!({"id": script.id, "method": request.method, "host": request.host, "path": request.path,
            "body": body_file(script, folder)?, "headers": headers}))
    };
    let jobs: Vec<Value> = sendings.iter().map(job).collect::<anyhow::Result<_>>()?;
    let address = mock.address();
    let plan = json!({"address": address.ip(), "port": address.port(), "ca": mock.ca_pem(), "jobs": jobs});
    let output = run(Command::new("python3").args(["-c", include_str!("client.py")]), plan.to_string().as_bytes())?;
    let status = |line: &str| {
        let outcome: Value = serde_json::from_str(line).ok()?;
        u16::try_from(outcome["status"].as_u64()?).ok()
    };
    Ok(output.lines().map(status).collect())
}

fn openssl(mock: &Mock, Sending { script, trace }: &Sending) -> anyhow::Result<Option<u16>> {
    let ca = mock.ca_pem().context("the mock speaks no TLS")?;
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-connect", &mock.address().to_string()]);
    command.args(["-servername", &script.request.host]).arg("-CAfile").arg(ca);
    // s_client goes on until the server ends the connection.
    let request = script.request_bytes(&[("traceparent", &trace.header()), ("connection", "close")]);
    let output = run(&mut command, &request)?;
    Ok(output.split(' ').nth(1).and_then(|status| status.parse().ok()))
}

fn body_file(script: &Script, folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{}.body", script.id));
    fs::write(&path, &script.request.body).with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}

/// Runs `command` with `input`, within a bound, and returns what it printed. What it thinks of the
/// exchange is in there too, so its exit code says nothing more: a reply that is cut off is an error to it.
fn run(command: &mut Command, input: &[u8]) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("can't start {}", command.get_program().display()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    thread::scope(|scope| {
        let written = scope.spawn(move || {
            // A client that ends early is told by what it printed.
            let _ = stdin.map(|mut stdin| stdin.write_all(input));
        });
        let read = scope.spawn(move || {
            let mut output = vec![];
            stdout.map(|mut stdout| stdout.read_to_end(&mut output)).transpose().map(|_| output)
        });
        let ended = end(&mut child);
        let _ = written.join();
        let output = read.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        ended?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    })
}

fn end(child: &mut Child) -> anyhow::Result<()> {
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > CLIENT_DURATION_MAX {
            child.kill()?;
            child.wait()?;
            bail!("the client did not end within {} s", CLIENT_DURATION_MAX.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{Folder, catalogue};

    /// Every script of the demo reaches the mock unchanged and is answered as written.
    fn check(program: Program) {
        if program.version().is_none() {
            println!("skipped: this machine has no {}", program.name());
            assert!(std::env::var_os("CI").is_none(), "CI must have {}", program.name());
            return;
        }
        let folder = Folder::create().unwrap();
        let scripts = catalogue::scripts();
        let mock = Mock::start(folder.path(), scripts.iter().cloned()).unwrap();
        let sendings: Vec<Sending> = scripts.iter().map(Sending::of).collect();
        send_all(program, &mock, &sendings, folder.path()).unwrap();
        let served = mock.served();
        assert_eq!(served.len(), scripts.len());
        for (served, sending) in served.iter().zip(&sendings) {
            assert_eq!(served.id, sending.script.id);
            assert!(served.intact, "{} arrived otherwise than it was sent", served.id);
            assert_eq!(served.traceparent.as_deref(), Some(sending.trace.header().as_str()));
        }
    }

    #[test]
    fn curl_and_the_mock_understand_each_other() {
        check(Program::Curl);
    }

    #[test]
    fn python_and_the_mock_understand_each_other() {
        check(Program::Python);
    }

    #[test]
    fn openssl_and_the_mock_understand_each_other() {
        check(Program::Openssl);
    }
}
