//! What a fuzzer does with the whole way from records to exchanges.

use std::sync::Arc;

use agentsight_abi::{Direction, Kind, RecordHeader, flags};
use bumpalo::Bump;

use super::{IdSource, Outlet, Pipeline, Roles, Settings, describe_by_comm};
use crate::{
    exchange::Exchange,
    genai,
    metrics::{Metrics, Total},
    ring::Record,
    sys::clock::UnixOffset,
};

/// Records: a byte that says what and which way, one or two for a length, and the payload. Panics when
/// following them does, when what was gathered is not given back, or when cutting records differently
/// changes what is said.
pub fn flow(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else { return };
    let (mut transfers, mut is_broken) = (vec![], false);
    while let &[what, length, ref after @ ..] = rest {
        let length = if what & 0x10 == 0 { usize::from(length) } else { usize::from(length) << 4 };
        let (payload, after) = after.split_at(length.min(after.len()));
        let direction = if what & 1 == 0 { Direction::Write } else { Direction::Read };
        // Some of it is lost.
        let lost = if what & 0x0e == 0x0e { u64::from(what >> 5) + 1 } else { 0 };
        is_broken |= lost > 0;
        transfers.push((direction, payload, lost));
        rest = after;
    }
    let whole = run(first, &transfers);
    if is_broken || first & 1 == 1 {
        return;
    }
    let cut_at = usize::from(first >> 2).max(24);
    let cut: Vec<_> = transfers
        .iter()
        .flat_map(|(direction, payload, _)| payload.chunks(cut_at).map(|piece| (*direction, piece, 0)))
        .collect();
    let cut = run(first, &cut);
    if let (Some(whole), Some(cut)) = (whole, cut) {
        assert_eq!(whole, cut);
    }
}

/// The calls that come of a connection, or `None` when something was lost or not understood.
fn run(options: u8, transfers: &[(Direction, &[u8], u64)]) -> Option<Vec<String>> {
    let metrics = Arc::new(Metrics::default());
    let settings = Settings {
        roles: Roles::Both,
        call: genai::Options { capture_content: options & 2 != 0, ..genai::Options::default() },
        idle_ns: 1,
        clock: UnixOffset(0),
        ids: IdSource::fixed(1),
        describe: describe_by_comm,
        worker: 0,
    };
    let mut pipeline = Pipeline::new(settings, Arc::clone(&metrics));
    let mut calls = Calls::default();
    let mut header = RecordHeader {
        conn: 1,
        ktime_ns: 1,
        offset: 0,
        lost: 0,
        tgid: 1,
        tid: 1,
        len: 0,
        kind: Kind::Open as u8,
        direction: Direction::Write as u8,
        flags: if options & 1 == 1 { flags::MIDWAY } else { 0 },
    };
    pipeline.record(&Record { header, payload: &[] }, &mut calls);
    let mut offsets = [0; 2];
    for (direction, payload, lost) in transfers {
        header.kind = Kind::Data as u8;
        header.direction = *direction as u8;
        header.ktime_ns += 1;
        header.len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        header.offset = offsets[*direction as usize];
        header.lost = *lost;
        offsets[*direction as usize] += payload.len() as u64 + lost;
        pipeline.record(&Record { header, payload }, &mut calls);
    }
    pipeline.finish(&mut calls);
    assert_eq!(pipeline.shared.pools.gathered(), 0, "bytes of bodies that are gone");
    let understood = metrics.all_losses().next().is_none() && metrics.total(Total::ConnectionsUnrecognised) == 0;
    understood.then_some(calls.0)
}

/// What was said, without its times.
#[derive(Default)]
struct Calls(Vec<String>);

impl Outlet for Calls {
    fn finished(&mut self, exchange: Exchange) {
        let (lost, incomplete) = (exchange.lost_bytes, exchange.incomplete);
        self.0.push(exchange.call.with(|call| format!("{lost} {incomplete} {call:?}")));
    }

    fn ignore(&mut self, _: u64) {}

    fn arena(&mut self) -> Option<Box<Bump>> {
        None
    }
}

#[cfg(test)]
#[test]
fn the_seeds_of_the_fuzzer() {
    crate::wire::exercise::replay("flow", flow, 0);
}
