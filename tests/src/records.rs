//! What is said on a connection as the records of a ring, and the spans that come of them, without a
//! kernel.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentsight::{
    demo::receiver::Span,
    exchange::Exchange,
    flow::{IdSource, Outlet, Pipeline, Roles, Settings, describe_by_comm},
    genai,
    metrics::Metrics,
    output::{Lines, Style},
    ring::Record,
    sys::clock::UnixOffset,
};
use agentsight_abi::{
    Direction::{self, Read, Write as Sent},
    Kind, RecordHeader,
};
use bumpalo::Bump;

use crate::engine::span;

/// Records of one connection that carries `bytes` in their order, of the lengths that `cut` gives; no
/// two are at the same time.
pub fn records(bytes: &[(Direction, Vec<u8>)], mut cut: impl FnMut() -> usize) -> Vec<(RecordHeader, Vec<u8>)> {
    let mut offsets = [0_u64; 2];
    let mut records = vec![];
    let mut push = |kind: Kind, direction: Direction, payload: &[u8], offsets: &mut [u64; 2]| {
        let header = RecordHeader {
            conn: 1,
            ktime_ns: 1_000_000 + 1_000 * records.len() as u64,
            offset: if kind == Kind::Close { offsets[Read as usize] } else { offsets[direction as usize] },
            lost: if kind == Kind::Close { offsets[Sent as usize] } else { 0 },
            tgid: 7,
            tid: 7,
            len: u32::try_from(payload.len()).expect("a short record"),
            kind: kind as u8,
            direction: direction as u8,
            flags: 0,
        };
        offsets[direction as usize] += payload.len() as u64;
        records.push((header, payload.to_vec()));
    };
    push(Kind::Open, Sent, &[0; 32], &mut offsets);
    offsets = [0; 2];
    for (direction, bytes) in bytes {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cut().clamp(1, rest.len()));
            push(Kind::Data, *direction, piece, &mut offsets);
            rest = after;
        }
    }
    push(Kind::Close, Sent, &[], &mut offsets);
    records
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Printed {
    lines: Lines,
    ignored: bool,
}

impl Outlet for Printed {
    fn finished(&mut self, exchange: Exchange) {
        self.lines.write(&exchange);
    }

    fn ignore(&mut self, _conn: u64) {
        self.ignored = true;
    }

    fn arena(&mut self) -> Option<Box<Bump>> {
        None
    }
}

/// What came of some records.
pub struct Outcome {
    /// The spans, in the order in which they ended.
    pub spans: Vec<Span>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// The connection was given up as of no use.
    pub ignored: bool,
}

/// Runs the records of one connection, which has to end, through a pipeline that captures content.
pub fn run(records: &[(RecordHeader, Vec<u8>)], roles: Roles) -> Outcome {
    let metrics = Arc::new(Metrics::default());
    let settings = Settings {
        roles,
        call: genai::Options { capture_content: true, ..genai::Options::default() },
        idle_ns: 60_000_000_000,
        clock: UnixOffset(1_700_000_000_000_000_000),
        ids: IdSource::fixed(1),
        describe: describe_by_comm,
        worker: 0,
    };
    let memory = Memory::default();
    let lines = Lines::new(Style::Json, Box::new(memory.clone()), Arc::clone(&metrics)).expect("a writer");
    let mut outlet = Printed { lines, ignored: false };
    let mut pipeline = Pipeline::new(settings, Arc::clone(&metrics));
    for (header, payload) in records {
        pipeline.record(&Record { header: *header, payload }, &mut outlet);
    }
    assert_eq!(pipeline.connections(), 0);
    outlet.lines.finish(Duration::from_secs(10));
    let written = memory.0.lock().expect("nobody panics");
    let spans = String::from_utf8_lossy(&written).lines().map(span).collect();
    Outcome { spans, metrics, ignored: outlet.ignored }
}
