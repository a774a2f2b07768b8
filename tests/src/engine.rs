//! A running `agentsight trace`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agentsight::demo::receiver::{KIND_CLIENT, STATUS_ERROR, Span};
use serde_json::Value;

use crate::program::agentsight;

/// How long the program may take to be attached.
const READY_DURATION_MAX: Duration = Duration::from_secs(30);
/// How long the program may take to drain and end.
const END_DURATION_MAX: Duration = Duration::from_secs(30);

/// What the program prints on stderr once everything is attached.
const READY: &str = "agentsight: ready";

/// The running program.
pub struct Engine {
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    stats: PathBuf,
}

#[derive(Default)]
struct Output {
    text: Mutex<Text>,
    grown: Condvar,
}

#[derive(Default)]
struct Text {
    stdout: Vec<String>,
    stderr: Vec<String>,
}

/// What a program left behind that ended by itself or by a polite signal.
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// The lines of stdout.
    pub stdout: Vec<String>,
    /// What it said on stderr.
    pub stderr: String,
    /// What it wrote to the file of `--stats`.
    pub stats: Option<Value>,
}

impl Engine {
    /// Starts `agentsight trace --json --stats FILE` with `options` and waits until it is attached.
    pub fn start(folder: &Path, options: &[&str]) -> Self {
        let mut engine = Self::spawn(folder, &[&["trace", "--json"], options].concat());
        engine.wait_until_ready();
        engine
    }

    /// Starts `agentsight` with `arguments`, the first of which is a subcommand that knows `--stats`.
    pub fn spawn(folder: &Path, arguments: &[&str]) -> Self {
        Self::spawn_command(folder, Command::new(agentsight()), arguments)
    }

    /// The same by `launcher`, a command that becomes the program that its further arguments name.
    pub fn spawn_by(folder: &Path, launcher: &[&str], arguments: &[&str]) -> Self {
        let (program, own) = launcher.split_first().expect("a program");
        let mut command = Command::new(program);
        command.args(own).arg(agentsight());
        Self::spawn_command(folder, command, arguments)
    }

    fn spawn_command(folder: &Path, mut command: Command, arguments: &[&str]) -> Self {
        let stats = folder.join("stats.json");
        let (subcommand, arguments) = arguments.split_first().expect("a subcommand");
        let mut child = command
            .arg(subcommand)
            .arg("--stats")
            .arg(&stats)
            .args(arguments)
            .env_remove("CI")
            // What it finds in files stays with the test.
            .env("CACHE_DIRECTORY", folder.join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("agentsight starts");
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let readers =
            vec![read(stdout, &output, |text| &mut text.stdout), read(stderr, &output, |text| &mut text.stderr)];
        Self { child, output, readers, stats }
    }

    /// Waits until everything is attached.
    pub fn wait_until_ready(&mut self) {
        let began = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("the program can be waited for");
            if self.output.wait(|text| text.stderr.iter().any(|line| line.starts_with(READY))) {
                return;
            }
            let stderr = self.output.stderr();
            assert!(ended.is_none(), "agentsight ended before it was ready: {ended:?}\n{stderr}");
            assert!(began.elapsed() < READY_DURATION_MAX, "agentsight is not ready in time\n{stderr}");
        }
    }

    /// Waits until it says that its probes are on `file`.
    pub fn wait_until_attached(&self, file: &Path) {
        assert!(self.attaches_within(file, READY_DURATION_MAX), "not to {}\n{}", file.display(), self.output.stderr());
    }

    /// Starts a program, again if it has ended before it was seen, until the probes are on `file` in it.
    pub fn start_until_attached(&self, file: &Path, start: &mut Command) {
        let began = Instant::now();
        start.stdin(Stdio::null()).stdout(Stdio::null());
        loop {
            let status = start.status().expect("it starts");
            assert!(status.success(), "{start:?}: {status}");
            if self.attaches_within(file, Duration::from_secs(3)) {
                return;
            }
            let said = self.output.stderr();
            assert!(began.elapsed() < READY_DURATION_MAX, "not attached to {}\n{said}", file.display());
        }
    }

    /// Whether it says in time that its probes are on `file`.
    fn attaches_within(&self, file: &Path, duration_max: Duration) -> bool {
        let began = Instant::now();
        let said = format!("attached to {} (", file.display());
        while !self.output.wait(|text| text.stderr.iter().any(|line| line.contains(&said))) {
            if began.elapsed() >= duration_max {
                return false;
            }
        }
        true
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The spans printed so far.
    pub fn spans(&self) -> Vec<Span> {
        let text = self.output.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.stdout.iter().map(|line| span(line)).collect()
    }

    /// Waits until `enough` is true of the spans printed so far, or for `duration_max`.
    pub fn wait_for_spans(&self, duration_max: Duration, enough: impl Fn(&[Span]) -> bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < duration_max {
            if enough(&self.spans()) {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        enough(&self.spans())
    }

    /// Sends a signal by its name, as `kill -NAME` does.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Asks it to drain and end, and waits for that.
    pub fn stop(self) -> Finished {
        self.signal("INT");
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Finished {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the program can be waited for") {
                break status;
            }
            assert!(began.elapsed() < END_DURATION_MAX, "agentsight does not end\n{}", self.output.stderr());
            thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("reading never panics");
        }
        let text = std::mem::take(&mut *self.output.text.lock().unwrap_or_else(PoisonError::into_inner));
        let stats = fs::read(&self.stats).ok().map(|stats| serde_json::from_slice(&stats).expect("stats are JSON"));
        Finished { status, stdout: text.stdout, stderr: text.stderr.join("\n"), stats }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // After `wait` both fail, and nothing is owed to a test that has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// The spans that it printed.
    pub fn spans(&self) -> Vec<Span> {
        self.stdout.iter().map(|line| span(line)).collect()
    }

    /// Every cause that something was dropped for, with its count.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let stats = self.stats.as_ref().expect("stats were written");
        let drops = stats["drops"].as_object().expect("stats have drops by cause");
        let counted = drops.iter().map(|(cause, count)| (cause.clone(), count.as_u64().expect("a count")));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

impl Output {
    /// Waits a little for more output, until `enough` is true of it.
    fn wait(&self, enough: impl Fn(&Text) -> bool) -> bool {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.grown.wait_timeout_while(text, Duration::from_millis(100), |text| !enough(text));
        let (text, _) = waited.unwrap_or_else(PoisonError::into_inner);
        enough(&text)
    }

    fn stderr(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).stderr.join("\n")
    }
}

fn read(
    stream: impl Read + Send + 'static,
    output: &Arc<Output>,
    lines: fn(&mut Text) -> &mut Vec<String>,
) -> JoinHandle<()> {
    let output = Arc::clone(output);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines(&mut output.text.lock().unwrap_or_else(PoisonError::into_inner)).push(line);
            output.grown.notify_all();
        }
    })
}

/// Sends a signal to a process that the tests started, by the signal's name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -$0 $1", name, &pid.to_string()]).status();
    assert!(status.expect("sh runs").success(), "can't send {name} to {pid}");
}

/// The span that a line of `--json` stands for.
pub fn span(line: &str) -> Span {
    let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"));
    Span {
        name: text("name"),
        kind: match json["kind"].as_str() {
            Some("CLIENT") => KIND_CLIENT,
            Some("SERVER") => KIND_SERVER,
            _ => panic!("no kind in {line}"),
        },
        trace_id: text("trace_id"),
        span_id: text("span_id"),
        parent_span_id: text("parent_span_id"),
        start_unix_nano: number("start_unix_nano"),
        end_unix_nano: number("end_unix_nano"),
        status: match json["status"].as_str() {
            Some("ERROR") => STATUS_ERROR,
            Some("UNSET") => 0,
            _ => panic!("no status in {line}"),
        },
        attributes: json["attributes"].as_object().expect("attributes").clone().into_iter().collect(),
        resource: BTreeMap::new(),
    }
}

/// The kind of a SERVER span on the wire.
pub const KIND_SERVER: i32 = 2;
