//! What is attached while something is measured: nothing, empty probes, agentsight, or somebody else.

use std::{
    fmt,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{probes::Empty, process, sink::Sink};

/// A kind of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing is attached.
    Nothing,
    /// Programs that do nothing are on the functions.
    Empty,
    /// agentsight captures and exports.
    Agentsight,
    /// The command of `--peer` runs.
    Peer,
}

impl Kind {
    /// Those of a measurement, with the peer when there is one.
    pub fn all(peer: bool) -> Vec<Self> {
        let mut all = vec![Self::Nothing, Self::Empty, Self::Agentsight];
        all.extend(peer.then_some(Self::Peer));
        all
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "nothing",
            Self::Empty => "empty probes",
            Self::Agentsight => "agentsight",
            Self::Peer => "peer",
        })
    }
}

/// How to start what is attached.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The agentsight to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub agentsight: Option<PathBuf>,
    /// More flags for `agentsight trace`, separated by spaces
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    pub agentsight_flags: String,
    /// Another tracer to measure beside it: a shell command that runs until it is sent SIGINT
    #[arg(long, value_name = "COMMAND")]
    pub peer: Option<String>,
    /// How long the peer takes until it captures
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub peer_start: u64,
}

/// Something that is attached.
pub enum Attached {
    /// Nothing.
    Nothing,
    /// Empty probes, which are there as long as this is.
    Empty {
        /// Their descriptors.
        _probes: Empty,
    },
    /// A running agentsight.
    Agentsight(Box<Engine>),
    /// A running peer.
    Peer(Child),
}

impl Attached {
    /// Attaches, and returns when it is.
    pub fn start(kind: Kind, options: &Options, folder: &Path) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Nothing => Self::Nothing,
            Kind::Empty => Self::Empty { _probes: Empty::attach()? },
            Kind::Agentsight => Self::Agentsight(Box::new(Engine::start(options, folder, &[])?)),
            Kind::Peer => {
                let command = options.peer.as_deref().context("no --peer")?;
                let peer = Command::new("sh").args(["-c", &format!("exec {command}")]).stdout(Stdio::null()).spawn()?;
                thread::sleep(Duration::from_secs(options.peer_start));
                Self::Peer(peer)
            }
        })
    }

    /// Seconds of CPU that it has used so far, in its own process.
    pub fn cpu_seconds(&self) -> Option<f64> {
        match self {
            Self::Nothing | Self::Empty { .. } => None,
            Self::Agentsight(engine) => process::cpu_seconds(engine.pid()),
            Self::Peer(peer) => process::cpu_seconds(peer.id()),
        }
    }

    /// Detaches; what agentsight says of itself.
    pub fn stop(self) -> anyhow::Result<Option<Value>> {
        match self {
            Self::Nothing | Self::Empty { .. } => Ok(None),
            Self::Agentsight(engine) => engine.stop().map(Some),
            Self::Peer(mut peer) => {
                process::interrupt(peer.id());
                process::wait_for_end(&mut peer, Duration::from_secs(10))?;
                Ok(None)
            }
        }
    }
}

/// A running agentsight that exports to a receiver in this process.
pub struct Engine {
    child: Child,
    stats: PathBuf,
    /// Where its spans go.
    pub sink: Sink,
    notes: thread::JoinHandle<Vec<(Instant, String)>>,
}

impl Engine {
    /// Starts `agentsight trace` and returns when it captures. It captures every process, like that of a
    /// user who gives no filter; the calls are those that the gateway answers.
    pub fn start(options: &Options, folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let program = match &options.agentsight {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("agentsight"),
        };
        let sink = Sink::start()?;
        let stats = folder.join(format!("stats-{}.json", sink.address().port()));
        let mut child = Command::new(&program)
            .args(["trace", "--role", "server", "--otel", "--otel-endpoint", &format!("http://{}", sink.address())])
            .arg("--stats")
            .arg(&stats)
            .args(options.agentsight_flags.split_whitespace())
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't start {}: build it with cargo build --release", program.display()))?;
        let mut stderr = BufReader::new(child.stderr.take().context("no stderr")?);
        let (mut said, mut line) = (Vec::new(), String::new());
        while !line.starts_with("agentsight: ready") {
            line.clear();
            if stderr.read_line(&mut line)? == 0 {
                child.wait()?;
                bail!("agentsight doesn't capture here:\n{}", said.concat());
            }
            said.push(line.clone());
        }
        // Read on, or the engine would wait for somebody to read its notes.
        let notes =
            thread::spawn(move || stderr.lines().map_while(Result::ok).map(|line| (Instant::now(), line)).collect());
        Ok(Self { child, stats, sink, notes })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it; its statistics, with what it said under `notes`.
    pub fn stop(mut self) -> anyhow::Result<Value> {
        process::interrupt(self.child.id());
        let status = process::wait_for_end(&mut self.child, Duration::from_secs(30))?;
        ensure!(status.success(), "agentsight ended with {status}");
        let notes = self.notes.join().unwrap_or_default();
        let mut stats: Value = serde_json::from_reader(File::open(&self.stats)?)?;
        stats["notes"] = notes.iter().map(|(_, line)| Value::from(line.as_str())).collect();
        stats["spans_received"] = self.sink.counter().spans().into();
        Ok(stats)
    }
}
