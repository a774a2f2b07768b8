//! `agentsight demo`: real clients speak to a mock of LLM APIs, and the spans that the engine makes of
//! it are held against what the mock served.
//!
//! ```text
//! talk ─► dialect ─► script ─┬─► clients ══TLS══ mock        what is said
//!                            └─► expected ─► verdict ◄─ receiver ◄─ engine
//! ```
//!
//! Nothing in here shares code with the engine's parsers or its encoder, so that it can't share their
//! mistakes; the integration tests use the same parts.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

pub mod catalogue;
pub mod clients;
pub mod dialect;
pub mod http;
pub mod mock;
pub mod points;
pub mod receiver;
pub mod report;
pub mod script;
pub mod talk;
pub mod verdict;

use clients::{Client, Sending};
use mock::Mock;
use receiver::{Receiver, Span};
use report::{Report, Row};

/// What the demo's clients send as their secret; it must not turn up anywhere.
pub const CANARY: &str = "Bearer sk-demo-canary-3f9a";

/// How long spans may take to arrive after the last reply.
const ARRIVAL_DURATION_MAX: Duration = Duration::from_secs(10);

/// What a capture tells when it is stopped.
pub struct Summary {
    /// Everything that was lost, by cause.
    pub drops: Vec<(String, u64)>,
}

/// Runs the demo and prints its outcome; true if every span is right.
///
/// `start` begins a capture that exports to the given base URL, returns once it is attached, and
/// gives back what stops the capture and flushes what it has.
pub fn run<Stop>(start: impl FnOnce(&str) -> anyhow::Result<Stop>) -> anyhow::Result<bool>
where
    Stop: FnOnce() -> anyhow::Result<Summary>,
{
    let clients = clients::found();
    if clients.is_empty() {
        bail!("this machine has none of the clients that the demo can use: install curl, python3 or openssl");
    }
    let folder = Folder::create()?;
    let receiver = Receiver::start()?;
    let scripts = catalogue::scripts();
    let mock = Mock::start(folder.path(), scripts.iter().cloned())?;
    progress(&format!("LLM APIs are served at https://{}, spans are received at {}", mock.address(), receiver.url()));
    let stop = start(&receiver.url())?;

    let mut sent = vec![];
    for client in &clients {
        progress(&format!("{} sends {} requests ({})", client.program.name(), scripts.len(), client.version));
        let sendings: Vec<Sending> = scripts.iter().map(Sending::of).collect();
        clients::send_all(client.program, &mock, &sendings, folder.path())?;
        sent.extend(sendings.into_iter().map(|sending| (client, sending)));
    }
    progress("waiting for the last spans");
    wait_for_spans(&receiver, &sent);
    let summary = stop()?;

    let rows = judge(&receiver.spans(), &sent);
    show(&rows, &summary)
}

/// Waits until every sending has its span, or for as long as that may take.
fn wait_for_spans(receiver: &Receiver, sent: &[(&Client, Sending)]) {
    let began = Instant::now();
    while began.elapsed() < ARRIVAL_DURATION_MAX {
        let spans = receiver.spans();
        let arrived =
            |(_, sending): &(&Client, Sending)| spans.iter().any(|span| span.trace_id == sending.trace.trace_id);
        if sent.iter().all(arrived) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn judge(spans: &[Span], sent: &[(&Client, Sending)]) -> Vec<Row> {
    sent.iter()
        .map(|(client, Sending { script, trace })| {
            let own: Vec<&Span> = spans.iter().filter(|span| span.trace_id == trace.trace_id).collect();
            let faults = match own[..] {
                [] => vec!["no span came".to_owned()],
                [span] => verdict::mismatches(span, &script.expected, trace),
                [..] => vec![format!("{} spans came instead of one", own.len())],
            };
            let span = own.first().map(|&span| span.clone());
            Row { client: client.program.name(), title: script.title.clone(), span, faults }
        })
        .collect()
}

fn show(rows: &[Row], summary: &Summary) -> anyhow::Result<bool> {
    let stdout = io::stdout().lock();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut report = Report::new(stdout, colour);
    report.table(rows)?;
    let wrong = rows.iter().filter(|row| !row.faults.is_empty()).count();
    let lost: Vec<String> =
        summary.drops.iter().filter(|(_, count)| *count > 0).map(|(cause, count)| format!("{cause} {count}")).collect();
    let right = wrong == 0;
    let mut text = match wrong {
        0 => format!("All {} exchanges gave one span each, and every span says what the mock served.", rows.len()),
        _ => format!("{wrong} of {} exchanges gave no span or a wrong one.", rows.len()),
    };
    if !lost.is_empty() {
        text.push_str(&format!(" Lost: {}.", lost.join(", ")));
    }
    report.conclusion(right, &text)?;
    Ok(right)
}

fn progress(text: &str) {
    // Where nobody reads it, nothing is missed.
    let _ = writeln!(io::stderr(), "agentsight demo: {text}");
}

/// A folder of this run's own, removed with everything in it at the end.
pub struct Folder(PathBuf);

impl Folder {
    /// Creates the folder, for this user only.
    pub fn create() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("agentsight-{}-{}", std::process::id(), verdict::TraceParent::random().parent_id);
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("can't create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is left to whoever clears the temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
