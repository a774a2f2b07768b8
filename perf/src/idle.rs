//! What the engine costs when little or nothing goes on: many processes that do nothing, many streams
//! that are open, and what a second worker is good for.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use agentsight::{
    exchange::Exchange,
    flow::{IdSource, Outlet, Pipeline, Roles, Settings, describe_by_comm},
    genai,
    metrics::Metrics,
    ring::Record,
    sys::clock::UnixOffset,
};
use agentsight_abi::{Direction, Kind, RecordHeader};
use anyhow::{Context as _, ensure};
use bumpalo::Bump;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    attached::{self, Engine},
    facts,
    gateway::Gateway,
    load::{self, Load},
    numbers::median,
    overhead::certified_folder,
    page::Page,
    process,
    reply::{Shape, Source},
    rings::Watcher,
};

/// Flags of `idle`.
#[derive(Args)]
#[command(after_help = "\
Three figures: the share of a core that the engine takes while processes with a TLS library do nothing; the memory \
that it takes for streams that are open and pause, besides its rings; and how many times the exchanges two workers \
get through that one does, each with its own connections, as when they drain the rings of two cores.

Needs root. Takes about two minutes.")]
pub struct Options {
    /// Processes that do nothing
    #[arg(long, default_value_t = 1_000)]
    pub processes: usize,
    /// Seconds to look at them
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// Streams that are open at once
    #[arg(long, default_value_t = 10_000)]
    pub streams: usize,
    /// Turns of one worker and two
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write a page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub attached: attached::Options,
}

/// All figures.
pub struct Measured {
    processes: usize,
    idle_share: f64,
    streams: u64,
    stream_memory: u64,
    empty_memory: u64,
    workers_ratio: f64,
}

/// Measures, prints, and writes the page.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let measured = measure(options)?;
    if let Some(path) = &options.html {
        fs::write(path, measured.page().html())?;
    }
    if options.json {
        println!("{:#}", measured.json())
    } else {
        println!("{}", measured.table())
    }
    Ok(())
}

/// Measures all three.
pub fn measure(options: &Options) -> anyhow::Result<Measured> {
    process::allow_descriptors(32_768);
    eprintln!("perf: {} processes that do nothing", options.processes);
    let idle_share = idle_share(options)?;
    eprintln!("perf: {} streams that are open", options.streams);
    let (streams, stream_memory, empty_memory) = open_streams(options)?;
    let ratios = (0..options.rounds).map(|round| {
        eprintln!("perf: one worker and two, round {} of {}", round + 1, options.rounds);
        workers_ratio()
    });
    let workers_ratio = median(ratios.collect::<Vec<_>>());
    Ok(Measured { processes: options.processes, idle_share, streams, stream_memory, empty_memory, workers_ratio })
}

/// The share of one core that the engine takes.
fn idle_share(options: &Options) -> anyhow::Result<f64> {
    let folder = certified_folder()?;
    let sleepers = Sleepers::start(options.processes)?;
    let engine = Engine::start(&options.attached, folder.path(), &[])?;
    // What it does at its start is over.
    thread::sleep(Duration::from_secs(3));
    let cpu = || process::cpu_seconds(engine.pid()).context("the engine has ended");
    let (began, before) = (Instant::now(), cpu()?);
    thread::sleep(Duration::from_secs_f64(options.seconds));
    let share = (cpu()? - before) / began.elapsed().as_secs_f64();
    drop(sleepers);
    engine.stop()?;
    Ok(share)
}

/// Processes with the system's TLS library, children of one that forks.
struct Sleepers(Child);

impl Sleepers {
    fn start(count: usize) -> anyhow::Result<Self> {
        let mut command = process::again(&["sleepers", &count.to_string()])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "not so many processes can be had");
        Ok(Self(child))
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        // The end of its input ends it, and with it its children.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The process that forks `count` others: waits for the end of its input, and ends them.
#[expect(unsafe_code, reason = "fork(2) of a process with one thread")]
pub fn sleep(count: usize) -> anyhow::Result<()> {
    // Mapped before the forks, so that each child has it mapped as well.
    let _version = crate::openssl::version()?;
    let _library = crate::openssl::map()?;
    let mut children = Vec::with_capacity(count);
    for _ in 0..count {
        // SAFETY: there is one thread, and the child calls nothing that needs what it shares.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: integers only, and no return from the loop: the parent's end ends it.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    loop {
                        libc::pause();
                    }
                }
            }
            pid if pid > 0 => children.push(pid),
            _ => break,
        }
    }
    println!("{}", if children.len() == count { "ready" } else { "too few" });
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    for pid in children {
        process::signal(pid.unsigned_abs(), libc::SIGKILL);
        // SAFETY: a child of this process; nobody asks for its status.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    Ok(())
}

/// How many streams were open at once, the most memory that the engine had while they were, and what
/// it had before.
fn open_streams(options: &Options) -> anyhow::Result<(u64, u64, u64)> {
    let folder = certified_folder()?;
    let gateway = Gateway::start(folder.path(), None)?;
    let engine = Engine::start(&options.attached, folder.path(), &[])?;
    let before = process::memory_bytes(engine.pid()).map_or(0, |(_, own)| own);
    let watcher = Watcher::start(engine.pid());
    // Every stream pauses in its middle until all have been asked for.
    let load = Load {
        port: gateway.port,
        connections: options.streams,
        shape: Shape { events: 20, bytes: 60, hold_ms: 8_000 },
        request_bytes: 2048,
        rate: None,
        duration: Duration::from_secs(60),
        requests_max: 1,
        core: None,
    };
    let outcome = load::run(load, folder.path(), || {})?;
    let seen = watcher.stop();
    engine.stop()?;
    ensure!(outcome.calls > 0, "no stream came to its end");
    Ok((outcome.calls, seen.memory_max, before))
}

/// Takes exchanges, and gives their arenas back.
#[derive(Default)]
struct Count {
    exchanges: usize,
    #[expect(clippy::vec_box, reason = "exchanges give and take boxes")]
    arenas: Vec<Box<Bump>>,
}

impl Outlet for Count {
    fn finished(&mut self, exchange: Exchange) {
        self.exchanges += 1;
        self.arenas.push(exchange.call.into_arena());
    }

    fn ignore(&mut self, _: u64) {}

    fn arena(&mut self) -> Option<Box<Bump>> {
        self.arenas.pop()
    }
}

/// Exchanges of one turn of one worker.
const TURN_EXCHANGES: usize = 2_000;

/// Goes through streamed exchanges on a connection of its own; how long that took.
fn work(conn: u64, start: &Barrier) -> Duration {
    let shape = Shape { events: 20, bytes: 60, hold_ms: 0 };
    let (request, mut source) = (shape.request(1024), Source::default());
    let settings = Settings {
        roles: Roles::Both,
        call: genai::Options::default(),
        idle_ns: u64::MAX,
        clock: UnixOffset(0),
        ids: IdSource::fixed(1),
        describe: describe_by_comm,
        worker: 0,
    };
    let mut pipeline = Pipeline::new(settings, Arc::new(Metrics::default()));
    let mut count = Count::default();
    let mut header = RecordHeader { conn, kind: Kind::Open as u8, ..RecordHeader::default() };
    pipeline.record(&Record { header, payload: &[] }, &mut count);
    let mut offsets = [0; 2];
    let mut record = |pipeline: &mut Pipeline, count: &mut Count, direction: Direction, payload: &[u8]| {
        header.kind = Kind::Data as u8;
        header.direction = direction as u8;
        header.ktime_ns += 1_000;
        header.len = payload.len() as u32;
        header.offset = offsets[direction as usize];
        offsets[direction as usize] += payload.len() as u64;
        pipeline.record(&Record { header, payload }, count);
    };
    start.wait();
    let began = Instant::now();
    for _ in 0..TURN_EXCHANGES {
        record(&mut pipeline, &mut count, Direction::Write, &request);
        let mut index = 0;
        while let Some(piece) = source.piece(shape, index) {
            record(&mut pipeline, &mut count, Direction::Read, piece);
            index += 1;
        }
    }
    let elapsed = began.elapsed();
    assert_eq!(count.exchanges, TURN_EXCHANGES, "the pipeline lost exchanges");
    elapsed
}

/// Exchanges a second of two workers at once as a multiple of those of one.
fn workers_ratio() -> f64 {
    let turn = |workers: u64| {
        let start = Barrier::new(workers as usize);
        thread::scope(|scope| {
            let start = &start;
            let threads: Vec<_> = (1..=workers).map(|conn| scope.spawn(move || work(conn, start))).collect();
            let longest = threads.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default();
            workers as f64 / longest.as_secs_f64()
        })
    };
    let one = turn(1);
    turn(2) / one
}

impl Measured {
    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "machine": facts::json(),
            "processes": self.processes,
            "idle_share_of_a_core": self.idle_share,
            "streams": self.streams,
            "memory_bytes_with_streams": self.stream_memory,
            "memory_bytes_before": self.empty_memory,
            "two_workers_against_one": self.workers_ratio,
        })
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "{} processes that do nothing: {:.3}% of a core\n\
             {} streams open at once: {:.1} MiB besides the rings ({:.1} MiB before)\n\
             two workers against one: {:.2} times the exchanges\n",
            self.processes,
            self.idle_share * 100.0,
            self.streams,
            mib(self.stream_memory),
            mib(self.empty_memory),
            self.workers_ratio
        )
    }

    /// As a page.
    pub fn page(&self) -> Page {
        let mut page = Page::new("When little goes on");
        page.text(&facts::text());
        page.preformatted(&self.table());
        page
    }
}
