//! The program's spool under faults: what goes in is delivered once, by this run or the next, or counted.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use agentsight::{
    demo::{
        Folder,
        receiver::{Receiver, Span},
    },
    recording::Recorder,
    ring::Record,
    sys::{clock::UnixOffset, process::effective_user},
};
use agentsight_abi::{Direction, Kind, RecordHeader};
use serde_json::Value;

/// The program under test.
fn agentsight() -> &'static str {
    env!("CARGO_BIN_EXE_agentsight")
}

/// Reports that the running test is skipped, which is a failure where `CI` is set.
fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none(), "this test must not be skipped in CI: {reason}");
    println!("skipped: {reason}");
}

/// How long anything may take here.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Writes a recording of calls whose responses have these numbers as their ids.
fn recording(path: &Path, numbers: std::ops::Range<u64>) {
    let mut recorder = Recorder::create(path, UnixOffset::measure()).unwrap();
    let (mut offsets, mut now_ns) = ([0_u64; 2], 1_000_000);
    let mut put = |kind: Kind, direction: Direction, payload: &[u8]| {
        now_ns += 1_000;
        let offset = &mut offsets[direction as usize];
        let header = RecordHeader {
            conn: 1,
            ktime_ns: now_ns,
            offset: if kind == Kind::Data { *offset } else { 0 },
            tgid: 1_000,
            tid: 1_000,
            len: payload.len() as u32,
            kind: kind as u8,
            direction: direction as u8,
            ..RecordHeader::default()
        };
        if kind == Kind::Data {
            *offset += payload.len() as u64;
        }
        recorder.record(&Record { header, payload });
    };
    let mut info = [0; 32];
    info[..4].copy_from_slice(b"test");
    put(Kind::Open, Direction::Write, &info);
    for number in numbers {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"spool"}]}"#;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        put(Kind::Data, Direction::Write, request.as_bytes());
        let body = format!(
            r#"{{"id":"call-{number}","object":"chat.completion","model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"kept"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":1}}}}"#
        );
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        put(Kind::Data, Direction::Read, response.as_bytes());
    }
    recorder.finish().unwrap();
}

/// A place for one test, with everything that its runs share.
struct Place {
    folder: Folder,
}

/// One run of `replay`.
struct Run {
    child: Child,
    stats: PathBuf,
}

/// What became of it.
struct Ended {
    stats: Value,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        Self { folder: Folder::create().unwrap() }
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// The command that replays calls with these numbers to a collector. `more` are further flags.
    fn replay(&self, numbers: std::ops::Range<u64>, collector: &str, more: &[&str]) -> (Command, PathBuf) {
        let name = format!("{}-{}", numbers.start, numbers.end);
        let (file, stats) = (self.folder.path().join(&name), self.folder.path().join(format!("{name}.json")));
        recording(&file, numbers);
        let mut command = Command::new(agentsight());
        command.arg("replay").arg(&file).args(["--otel", "--otel-endpoint", collector]);
        command.arg("--stats").arg(&stats).args(more);
        if !more.contains(&"--spool") {
            command.arg("--spool").arg(self.spool());
        }
        command.env("OTEL_BSP_SCHEDULE_DELAY", "20");
        (command, stats)
    }

    fn start(&self, numbers: std::ops::Range<u64>, collector: &str, more: &[&str]) -> Run {
        let (command, stats) = self.replay(numbers, collector, more);
        Run::start(command, stats)
    }

    fn run(&self, numbers: std::ops::Range<u64>, collector: &str, more: &[&str]) -> Ended {
        self.start(numbers, collector, more).wait()
    }

    /// The newest segment.
    fn segment(&self) -> PathBuf {
        let entries = fs::read_dir(self.spool()).unwrap().map(|entry| entry.unwrap().path());
        let segments = entries.filter(|path| path.extension().is_some_and(|extension| extension == "spool"));
        segments.max().expect("there is a segment")
    }
}

impl Run {
    fn start(mut command: Command, stats: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap(), stats }
    }

    fn wait(mut self) -> Ended {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {stderr}");
        let stats = fs::read(&self.stats).unwrap();
        Ended { stats: serde_json::from_slice(&stats).unwrap(), stderr }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail once it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    fn number(&self, name: &str) -> u64 {
        self.stats[name].as_u64().unwrap_or_else(|| panic!("{name} in {}", self.stats))
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        let drops = self.stats["drops"].as_object().unwrap();
        drops.iter().map(|(cause, count)| (cause.clone(), count.as_u64().unwrap())).collect()
    }

    /// What went in came out or was counted.
    fn balance(&self) {
        let out = self.number("exported") + self.number("spool_left") + self.drops().values().sum::<u64>();
        assert_eq!(self.number("spans") + self.number("spool_found"), out, "{}\n{}", self.stats, self.stderr);
    }
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn dead() -> String {
    format!("http://{}", nobody())
}

/// A value of `/metrics`, once it is served.
fn scrape(address: SocketAddr, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let line = response.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

fn wait_for_metric(address: SocketAddr, name: &str, enough: u64) -> u64 {
    let began = Instant::now();
    loop {
        match scrape(address, name) {
            Some(value) if value >= enough => return value,
            value => assert!(began.elapsed() < WAIT_MAX, "{name} is {value:?}, not {enough}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The numbers of the calls whose spans arrived, in the order of their arrival.
fn numbers(spans: &[Span]) -> Vec<u64> {
    let number = |span: &Span| span.attributes["gen_ai.response.id"].as_str()?.strip_prefix("call-")?.parse().ok();
    spans.iter().map(|span| number(span).expect("an id of these tests")).collect()
}

#[test]
fn a_killed_engine_s_spans_are_sent_by_the_next_one() {
    let place = Place::new();
    let metrics = nobody();
    let run = place.start(0..3_000, &dead(), &["--metrics-listen", &metrics.to_string()]);
    wait_for_metric(metrics, "agentsight_spool_spans", 3_000);
    run.kill();
    let receiver = Receiver::start().unwrap();
    let ended = place.run(3_000..3_100, &receiver.url(), &[]);
    ended.balance();
    assert_eq!((ended.number("spool_found"), ended.number("exported")), (3_000, 3_100), "{}", ended.stderr);
    assert_eq!(numbers(&receiver.spans()), (0..3_100).collect::<Vec<_>>(), "each once and in order");
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_on_disk() {
    let place = Place::new();
    // Which share of it is on disk depends on the moment; the torn rest was never said to be kept.
    for (round, enough) in [1, 2_000, 9_000].into_iter().enumerate() {
        let metrics = nobody();
        let more = ["--metrics-listen", &metrics.to_string(), "--repeat", "100", "--spool-fsync", "never"];
        let run = place.start(0..500, &dead(), &more);
        let kept = wait_for_metric(metrics, "agentsight_spool_spans", enough);
        run.kill();
        let receiver = Receiver::start().unwrap();
        let ended = place.run(500..510, &receiver.url(), &[]);
        ended.balance();
        let spans = receiver.spans();
        assert!(spans.len() as u64 >= kept + 10, "round {round}: {} of {kept}\n{}", spans.len(), ended.stderr);
        // Every run makes the same ids for its first connection, so those of the two runs meet.
        let mut ids: Vec<_> = spans.iter().zip(numbers(&spans)).map(|(span, number)| (&span.span_id, number)).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), spans.len(), "round {round}: none comes twice");
    }
}

#[test]
fn a_torn_and_damaged_spool_costs_what_is_counted() {
    let place = Place::new();
    let ended = place.run(0..2_048, &dead(), &["--spool-fsync", "always"]);
    ended.balance();
    assert_eq!(ended.number("spool_left"), 2_048, "{}", ended.stderr);
    assert!(ended.stderr.contains("kept in the spool for the next run"), "{}", ended.stderr);
    let segment = place.segment();
    let mut bytes = fs::read(&segment).unwrap();
    bytes.truncate(bytes.len() - 100);
    // Somewhere in the first batch.
    bytes[1_000] ^= 0x10;
    fs::write(&segment, bytes).unwrap();

    let receiver = Receiver::start().unwrap();
    let ended = place.run(2_048..2_050, &receiver.url(), &[]);
    let spans = numbers(&receiver.spans());
    assert!(spans.is_sorted() && spans.len() as u64 == ended.number("exported"), "{}", ended.stderr);
    let damaged = ended.drops()["spool_damaged"];
    assert_eq!(damaged + ended.number("exported"), 2_050, "{}\n{}", ended.stats, ended.stderr);
    assert!(damaged > 0 && damaged <= 1_024, "{damaged}");
    assert!(ended.stderr.contains("damaged bytes"), "{}", ended.stderr);
}

/// In a mount namespace of its own, which goes with the program.
fn mounted(place: &Place, options: &str, numbers: std::ops::Range<u64>, collector: &str) -> Option<Ended> {
    if effective_user() != 0 {
        skip("not root: nothing can be mounted");
        return None;
    }
    fs::create_dir(place.spool()).unwrap();
    let (replay, stats) = place.replay(numbers, collector, &[]);
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, options]).arg(place.spool());
    command.arg(replay.get_program()).args(replay.get_args());
    command.envs(replay.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(Run::start(command, stats).wait())
}

#[test]
fn a_full_disk_leaves_memory() {
    let place = Place::new();
    let receiver = Receiver::start_refusing([503, 503]).unwrap();
    let Some(ended) = mounted(&place, "size=1m,mode=0700", 0..12_000, &receiver.url()) else { return };
    ended.balance();
    assert!(ended.number("spooled") > 0, "{}", ended.stats);
    assert_eq!(ended.stderr.matches("No space left on device").count(), 1, "{}", ended.stderr);
    assert_eq!(ended.number("exported"), 12_000, "{}", ended.stats);
    assert_eq!(numbers(&receiver.spans()), (0..12_000).collect::<Vec<_>>(), "in order");
}

#[test]
fn a_read_only_disk_leaves_memory() {
    let place = Place::new();
    let receiver = Receiver::start_refusing([503, 503]).unwrap();
    let Some(ended) = mounted(&place, "ro,mode=0700", 0..1_000, &receiver.url()) else { return };
    ended.balance();
    assert_eq!(ended.number("spooled"), 0);
    assert_eq!(ended.stderr.matches("Read-only file system").count(), 1, "{}", ended.stderr);
    assert_eq!(numbers(&receiver.spans()), (0..1_000).collect::<Vec<_>>(), "in order");
}

/// The time of day as a program sees it that is run under this.
struct Clock {
    library: PathBuf,
    shift: PathBuf,
}

impl Clock {
    /// None, with the reason told, where there is no C compiler.
    fn new(place: &Place) -> Option<Self> {
        let folder = place.folder.path();
        let clock = Self { library: folder.join("libclock.so"), shift: folder.join("shift") };
        let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&clock.library).arg(source);
        if !command.status().is_ok_and(|status| status.success()) {
            skip("no C compiler");
            return None;
        }
        clock.jump(0);
        Some(clock)
    }

    /// From now on it is so many seconds ahead of the real one.
    fn jump(&self, seconds: i64) {
        let next = self.shift.with_extension("next");
        fs::write(&next, seconds.to_string()).unwrap();
        fs::rename(next, &self.shift).unwrap();
    }

    fn start(&self, (mut command, stats): (Command, PathBuf)) -> Run {
        command.env("LD_PRELOAD", &self.library).env("CLOCK_SHIFT_FILE", &self.shift);
        Run::start(command, stats)
    }
}

const YEAR: i64 = 365 * 24 * 3600;

#[test]
fn a_clock_that_jumps_makes_nothing_old() {
    let place = Place::new();
    let Some(clock) = Clock::new(&place) else { return };
    let shifted = |numbers: std::ops::Range<u64>, collector: &str, seconds: i64| {
        clock.jump(seconds);
        clock.start(place.replay(numbers, collector, &["--spool-max-age", "1h"])).wait()
    };
    for (round, [first, second]) in [[0, 20 * YEAR], [20 * YEAR, 0], [0, -30 * YEAR]].into_iter().enumerate() {
        let start = round as u64 * 200;
        let ended = shifted(start..start + 100, &dead(), first);
        assert_eq!(ended.number("spool_left"), 100, "{}", ended.stderr);
        let receiver = Receiver::start().unwrap();
        let ended = shifted(start + 100..start + 200, &receiver.url(), second);
        ended.balance();
        assert_eq!(numbers(&receiver.spans()), (start..start + 200).collect::<Vec<_>>(), "{}", ended.stderr);
    }
}

/// Ahead and back while spans wait for the next attempt, on disk and in memory.
#[test]
fn a_clock_that_jumps_while_it_runs_loses_nothing() {
    for spool in [true, false] {
        let place = Place::new();
        let Some(clock) = Clock::new(&place) else { return };
        // Two attempts fail, with a pause after each.
        let receiver = Receiver::start_refusing([503; 2]).unwrap();
        let metrics = nobody();
        let address = metrics.to_string();
        let mut more = vec!["--spool-max-age", "1h", "--metrics-listen", &address];
        if !spool {
            more.extend(["--spool", "off"]);
        }
        let run = clock.start(place.replay(0..1_500, &receiver.url(), &more));
        for (attempts, seconds) in [(1, 20 * YEAR), (2, -30 * YEAR)] {
            wait_for_metric(metrics, "agentsight_export_attempts_total", attempts);
            clock.jump(seconds);
        }
        let ended = run.wait();
        assert_eq!(ended.drops(), BTreeMap::new(), "spool: {spool}\n{}", ended.stderr);
        assert_eq!(ended.number("exported"), 1_500, "spool: {spool}\n{}", ended.stderr);
        assert_eq!(ended.number("spooled") > 0, spool, "{}", ended.stats);
        assert_eq!(
            numbers(&receiver.spans()),
            (0..1_500).collect::<Vec<_>>(),
            "spool: {spool}: each once and in order"
        );
    }
}

#[test]
fn nothing_is_made_where_nothing_is_asked_for() {
    let place = Place::new();
    let file = place.folder.path().join("recording");
    recording(&file, 0..3);
    let state = place.folder.path().join("state");
    for more in [&["--json"][..], &["--otel", "--otel-endpoint", &dead()]] {
        let status = Command::new(agentsight())
            .arg("replay")
            .arg(&file)
            .args(more)
            .env("XDG_STATE_HOME", &state)
            .env("STATE_DIRECTORY", &state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        assert!(!state.exists(), "{more:?}");
    }
    let output = Command::new(agentsight()).arg("replay").arg(&file).args(["--spool", "/tmp/x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--spool /tmp/x needs --otel"));
}

#[test]
fn a_busy_port_is_told() {
    let place = Place::new();
    let file = place.folder.path().join("recording");
    recording(&file, 0..3);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        Command::new(agentsight()).arg("replay").arg(&file).args(["--metrics-listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&address) && stderr.contains("in use"), "{stderr}");
}
