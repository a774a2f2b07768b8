//! Everything between the ring and the span, without a kernel: the bytes of the demo's exchanges as
//! records, cut anywhere, on connections that take turns.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentsight::{
    demo::{
        catalogue,
        clients::Sending,
        receiver::{KIND_CLIENT, Span},
        script::{Framing, Script},
        talk::{Dialect, Talk},
    },
    exchange::Exchange,
    flow::{IdSource, Outlet, Pipeline, Roles, Settings, describe_by_comm},
    genai,
    metrics::Metrics,
    output::{Lines, Style},
    ring::Record,
    sys::clock::UnixOffset,
};
use agentsight_abi::{Direction, Kind, RecordHeader, flags};
use agentsight_tests::{corpus, engine::span, live::judge};
use bumpalo::Bump;
use proptest::prelude::*;

/// One record, as a ring would hold it.
struct Made {
    header: RecordHeader,
    payload: Vec<u8>,
}

/// Makes the records of one connection.
struct Connection {
    id: u64,
    now_ns: u64,
    offsets: [u64; 2],
    records: Vec<Made>,
}

impl Connection {
    fn new(id: u64) -> Self {
        let mut connection = Self { id, now_ns: 1_000_000, offsets: [0; 2], records: vec![] };
        let mut info = [0; 32];
        info[..4].copy_from_slice(b"test");
        connection.push(Kind::Open, Direction::Write, info.to_vec(), 0, 0);
        connection
    }

    fn push(&mut self, kind: Kind, direction: Direction, payload: Vec<u8>, lost: u64, flags: u16) {
        self.now_ns += 1_000;
        let header = RecordHeader {
            conn: self.id,
            ktime_ns: self.now_ns,
            offset: if kind == Kind::Close { self.offsets[1] } else { self.offsets[direction as usize] },
            lost,
            tgid: 1000,
            tid: 1000,
            len: u32::try_from(payload.len()).unwrap(),
            kind: kind as u8,
            direction: direction as u8,
            flags,
        };
        self.records.push(Made { header, payload });
    }

    /// Transfers `bytes` in calls of the lengths that `cut` gives.
    fn transfer(&mut self, direction: Direction, mut bytes: &[u8], cut: &mut impl FnMut(usize) -> usize) {
        while !bytes.is_empty() {
            let (call, rest) = bytes.split_at(cut(bytes.len()).clamp(1, bytes.len()));
            self.push(Kind::Data, direction, call.to_vec(), 0, 0);
            self.offsets[direction as usize] += call.len() as u64;
            bytes = rest;
        }
    }

    fn exchange(&mut self, sending: &Sending, cut: &mut impl FnMut(usize) -> usize) {
        let request = sending.script.request_bytes(&[("traceparent", &sending.trace.header())]);
        self.transfer(Direction::Write, &request, cut);
        let reply = &sending.script.reply;
        self.now_ns += u64::try_from(reply.delay.as_nanos()).unwrap();
        self.transfer(Direction::Read, &reply.writes().concat(), cut);
    }

    fn close(&mut self, by_peer: bool) {
        let (written, flags) = (self.offsets[0], if by_peer { flags::PEER_CLOSED } else { 0 });
        self.push(Kind::Close, Direction::Write, vec![], written, flags);
    }
}

/// The records of all connections, each of which carries one list of exchanges, in turn.
fn records(connections: &[&[Sending]], mut cut: impl FnMut(usize) -> usize) -> Vec<Made> {
    let mut queues: Vec<_> = vec![];
    for (number, sendings) in connections.iter().enumerate() {
        let mut connection = Connection::new(number as u64 + 1);
        for sending in *sendings {
            connection.exchange(sending, &mut cut);
            let reply = &sending.script.reply;
            if reply.framing == Framing::UntilClose || reply.cut_after.is_some() {
                connection.close(true);
                // The next exchange goes over a new one.
                let (records, now_ns) = (std::mem::take(&mut connection.records), connection.now_ns);
                connection = Connection::new(connection.id + 1_000);
                connection.now_ns = now_ns;
                connection.records.splice(0..0, records);
            }
        }
        connection.close(false);
        queues.push(connection.records.into_iter());
    }
    let mut taken = vec![];
    while !queues.is_empty() {
        queues.retain_mut(|queue| match queue.next() {
            Some(record) => {
                taken.push(record);
                true
            }
            None => false,
        });
    }
    taken
}

/// Writes finished exchanges as lines of JSON.
struct Printed {
    lines: Lines,
}

impl Outlet for Printed {
    fn finished(&mut self, exchange: Exchange) {
        let intervals = exchange.chunk_intervals;
        assert!(intervals.is_empty() || exchange.first_chunk_nano.is_some() || exchange.incomplete);
        assert!(intervals.sum_nano <= exchange.duration_nano(), "chunks come one after the other");
        self.lines.write(&exchange);
    }

    fn ignore(&mut self, _conn: u64) {}

    fn arena(&mut self) -> Option<Box<Bump>> {
        None
    }
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs the pipeline over `records`.
fn spans(records: &[Made]) -> Vec<Span> {
    let metrics = Arc::new(Metrics::default());
    let settings = Settings {
        roles: Roles::Client,
        call: genai::Options::default(),
        idle_ns: 60_000_000_000,
        clock: UnixOffset(1_700_000_000_000_000_000),
        ids: IdSource::fixed(1),
        describe: describe_by_comm,
        worker: 0,
    };
    let memory = Memory::default();
    let lines = Lines::new(Style::Json, Box::new(memory.clone()), Arc::clone(&metrics)).unwrap();
    let mut outlet = Printed { lines };
    let mut pipeline = Pipeline::new(settings, metrics);
    for Made { header, payload } in records {
        pipeline.record(&Record { header: *header, payload }, &mut outlet);
    }
    assert_eq!(pipeline.connections(), 0, "every connection was closed");
    outlet.lines.finish(Duration::from_secs(10));
    let written = memory.0.lock().unwrap();
    String::from_utf8_lossy(&written).lines().map(span).collect()
}

/// Runs the pipeline over the exchanges and requires one right span for each, and no other.
fn check(connections: &[&[Sending]], cut: impl FnMut(usize) -> usize) {
    let spans = spans(&records(connections, cut));
    judge(&spans, &connections.concat());
    assert_eq!(spans.len(), connections.iter().map(|sendings| sendings.len()).sum::<usize>());
}

fn catalogue() -> Vec<Sending> {
    catalogue::scripts().iter().map(Sending::of).collect()
}

/// One small exchange of each kind of body, for cuts at every place.
fn small() -> Vec<Sending> {
    let scripts = catalogue::scripts().into_iter().filter(|script| script.request.body.len() < 10_000);
    scripts.map(|script| Sending::of(&script)).collect()
}

#[test]
fn whole_calls() {
    let sendings = catalogue();
    check(&[&sendings], |length| length);
}

#[test]
fn each_exchange_on_its_own_connection() {
    let sendings = catalogue();
    check(&sendings.chunks(1).collect::<Vec<_>>(), |length| length);
}

#[test]
fn records_of_one_size() {
    let sendings = catalogue();
    for size in [7, 100, 512, 4_096, 16_384] {
        check(&sendings.chunks(4).collect::<Vec<_>>(), |_| size);
    }
}

#[test]
fn single_bytes() {
    let sendings = small();
    check(&sendings.chunks(3).collect::<Vec<_>>(), |_| 1);
}

#[test]
fn a_streams_length_does_not_matter() {
    let long = Talk { answer: "word ".repeat(400_000), ..Talk::numbered(Dialect::Messages, 1).streamed() };
    let sendings = [Sending::of(&Script::new("long", "", &long).cut_into(3_000))];
    check(&[&sendings], |_| 16_384);
}

/// A record that was lost, as a full ring loses it: its bytes are missing and nothing says so but the
/// offset of the next one. What can't be known is absent, nothing is wrong, and the others are right.
#[test]
fn a_lost_record_spoils_no_other_exchange() {
    let sendings: Vec<Sending> = small().into_iter().filter(|sending| !sending.script.reply.close).collect();
    let count = records(&[&sendings], |_| 400).len();
    let mut incomplete = 0;
    for lost in 1..count {
        let mut left = records(&[&sendings], |_| 400);
        let Made { header, .. } = left.remove(lost);
        if header.kind != Kind::Data as u8 {
            continue;
        }
        let spans = spans(&left);
        let found = spans.len();
        let least = if header.direction == Direction::Write as u8 { sendings.len() - 1 } else { sendings.len() };
        assert!(found >= least, "record {lost}: {found} spans of {}", sendings.len());
        for sending in &sendings {
            let own: Vec<Span> = spans.iter().filter(|span| span.trace_id == sending.trace.trace_id).cloned().collect();
            assert!(own.len() <= 1, "record {lost}: {own:#?}");
            for span in own {
                if span.attributes.get("agentsight.capture.incomplete") == Some(&true.into()) {
                    incomplete += 1;
                    check_incomplete(&span, sending);
                } else {
                    judge(&[span], std::slice::from_ref(sending));
                }
            }
        }
    }
    assert!(incomplete > 0);
}

/// Whatever the span says is what was on the wire.
fn check_incomplete(span: &Span, sending: &Sending) {
    for (name, value) in &sending.script.expected.attributes {
        let Some(said) = span.attributes.get(*name) else { continue };
        // An error whose body was lost is known by its status alone; Anthropic's first count stands
        // until a later one is seen.
        let less = ["error.type", "agentsight.capture.incomplete", "gen_ai.usage.output_tokens"];
        let same = said == value || said.as_f64().is_some() && said.as_f64() == value.as_f64();
        assert!(same || less.contains(name), "{}: {name} is {said}, not {value}", sending.script.id);
    }
}

/// Every recorded exchange, coded and cut at seeded places, from the bytes of records to its span.
#[test]
fn recorded_exchanges_are_exact() {
    let Some(folder) = corpus::folder() else { return };
    let plan = corpus::plan(&folder, 7, 8, 1);
    let mut seeded = corpus::Seeded(7);
    let mut made = vec![];
    for number in 0..8 {
        let mut connection = Connection::new(number as u64 + 1);
        for planned in plan.iter().filter(|planned| planned.connection == number) {
            let (request, response) = planned.messages();
            connection.transfer(Direction::Write, &request, &mut |_| seeded.below(16_384) + 1);
            connection.transfer(Direction::Read, &response, &mut |_| seeded.below(16_384) + 1);
        }
        connection.close(false);
        made.append(&mut connection.records);
    }
    let score = corpus::judge(&spans(&made), KIND_CLIENT, &plan);
    assert_eq!((score.exact, score.absent), (plan.len(), 0), "{}", corpus::summary(&score.faults));
    assert!(plan.len() > 900, "the corpus has {} exchanges", plan.len());
}

/// Where one thread writes and another reads, records may change places: an answer that comes before its
/// request is nobody's, and none may be taken for another's.
#[test]
fn an_answer_before_its_request_makes_nothing_wrong() {
    let is_plain = |sending: &Sending| !sending.script.reply.close && sending.script.reply.cut_after.is_none();
    let sendings: Vec<Sending> = small().into_iter().filter(is_plain).take(5).collect();
    for early in 0..sendings.len() {
        let mut connection = Connection::new(1);
        for (number, sending) in sendings.iter().enumerate() {
            let request = sending.script.request_bytes(&[("traceparent", &sending.trace.header())]);
            let reply = sending.script.reply.writes().concat();
            let mut messages = [(Direction::Write, request), (Direction::Read, reply)];
            if number == early {
                messages.reverse();
            }
            for (direction, bytes) in messages {
                connection.now_ns += u64::try_from(sending.script.reply.delay.as_nanos()).unwrap();
                connection.transfer(direction, &bytes, &mut |length| length);
            }
        }
        connection.close(false);
        let spans = spans(&connection.records);
        for (number, sending) in sendings.iter().enumerate() {
            let own: Vec<Span> = spans.iter().filter(|span| span.trace_id == sending.trace.trace_id).cloned().collect();
            assert_eq!(own.len(), 1, "{early}: {own:#?}");
            if number == early {
                assert_eq!(own[0].attributes.get("agentsight.capture.incomplete"), Some(&true.into()));
                check_incomplete(&own[0], sending);
            } else {
                judge(&own, std::slice::from_ref(sending));
            }
        }
    }
}

/// Requests sent ahead of their answers, of which one is lost: no answer may be taken for another's.
#[test]
fn a_request_lost_among_pipelined_ones_makes_nothing_wrong() {
    let is_plain = |sending: &Sending| !sending.script.reply.close && sending.script.reply.cut_after.is_none();
    let sendings: Vec<Sending> = small().into_iter().filter(is_plain).take(4).collect();
    for lost in 0..=sendings.len() {
        let mut connection = Connection::new(1);
        for sending in &sendings {
            let request = sending.script.request_bytes(&[("traceparent", &sending.trace.header())]);
            connection.transfer(Direction::Write, &request, &mut |length| length);
        }
        for sending in &sendings {
            connection.now_ns += u64::try_from(sending.script.reply.delay.as_nanos()).unwrap();
            connection.transfer(Direction::Read, &sending.script.reply.writes().concat(), &mut |length| length);
        }
        connection.close(false);
        let mut made = connection.records;
        // The first record is the one that opens the connection; beyond the last, nothing is lost.
        if lost < sendings.len() {
            made.remove(1 + lost);
        }
        let spans = spans(&made);
        for span in &spans {
            let sending = sendings.iter().find(|sending| sending.trace.trace_id == span.trace_id).expect("a sending");
            if span.attributes.get("agentsight.capture.incomplete") == Some(&true.into()) {
                check_incomplete(span, sending);
            } else {
                judge(std::slice::from_ref(span), std::slice::from_ref(sending));
            }
        }
        let whole = lost == sendings.len();
        assert!(!whole || spans.len() == sendings.len(), "{} spans of {}", spans.len(), sendings.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same(lengths in proptest::collection::vec(1..3_000_usize, 1..200), connections in 1..6_usize) {
        let sendings = small();
        let mut lengths = lengths.into_iter().cycle();
        check(&sendings.chunks(sendings.len().div_ceil(connections)).collect::<Vec<_>>(), |_| lengths.next().unwrap());
    }
}
