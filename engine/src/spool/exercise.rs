//! What a fuzzer does with what another run has left on disk.

use std::{fs, path::Path, time::Duration};

use super::{Batch, Bounds, Encoding, Folder, HEADER_BYTES, Settings, Stamp, Store, Sync, record::Header};
use crate::sys::disk::Appender;

const MARK: u64 = 0x5eed_5eed_5eed_5eed;
/// Ids of records that are whole; what is made up by the fuzzer has others.
const FIRST_ID: u64 = 1_000;

fn now() -> Stamp {
    Stamp { unix_ns: 2, since_boot_ns: 2, boot: 1 }
}

/// Segments and a cursor of these pieces: a byte that says what, one for a length, and the payload. Records that are
/// whole, headers that lie about what follows, bytes as they are, and beginnings of segments and of the cursor.
/// Panics when opening, draining, appending or opening again does, when a batch comes out changed, or when there is no end.
pub fn spool(data: &[u8]) {
    // In memory where that is to be had.
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let path = place.join(format!("agentsight-fuzz-spool-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    let Ok(claimed) = Folder::claim(&path) else { return };
    let (mut segments, mut cursor) = (vec![vec![]], vec![]);
    let mut whole: Vec<Vec<u8>> = vec![];
    let (mut in_cursor, mut spans_before, mut rest) = (false, 0_u32, data);
    while let &[what, length, ref after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let segment = segments.last_mut().expect("there is one");
        match what & 7 {
            0..=3 => {
                let header = Header {
                    encoding: if what & 8 == 0 { Encoding::Protobuf } else { Encoding::Json },
                    body_len: payload.len() as u32,
                    spans: u32::from(what >> 4),
                    spans_before,
                    id: FIRST_ID + whole.len() as u64,
                    written: Stamp { unix_ns: 1, since_boot_ns: 1, boot: 1 },
                    body_crc: crc32c::crc32c(payload),
                };
                spans_before = spans_before.saturating_add(header.spans);
                segment.extend(header.encode(MARK));
                segment.extend(payload);
                whole.push(payload.to_vec());
            }
            4 => {
                // Sound as a header, and wrong about everything else.
                let byte = |at: usize| u64::from(payload.get(at).copied().unwrap_or(0));
                let header = Header {
                    encoding: Encoding::Protobuf,
                    body_len: (byte(0) << 16 | byte(1) << 8 | byte(2)) as u32,
                    spans: (byte(3) << 24 | byte(4)) as u32,
                    spans_before: (byte(5) << 24 | byte(6)) as u32,
                    id: byte(7) << 56 | byte(8),
                    written: Stamp { unix_ns: byte(9) << 56, since_boot_ns: byte(10) << 56, boot: byte(11) as u32 },
                    body_crc: byte(12) as u32,
                };
                segment.extend(header.encode(MARK));
            }
            5 if in_cursor => cursor.extend_from_slice(payload),
            5 => segment.extend_from_slice(payload),
            6 => {
                segments.push(vec![]);
                spans_before = 0;
            }
            _ => in_cursor = !in_cursor,
        }
    }
    for (number, segment) in segments.iter().enumerate() {
        let _ = fs::write(path.join(format!("{number:016x}-{MARK:016x}.spool")), segment);
    }
    let _ = fs::write(path.join("cursor"), cursor);
    drop(claimed);
    // What these runs put in themselves; its ids may be those of records that were torn.
    let mut owns: Vec<(u64, [u8; HEADER_BYTES])> = vec![];
    // Twice: what the first run leaves, the second one reads.
    for turn in 0..2 {
        let Ok(claimed) = Folder::claim(&path) else { return };
        let bounds = Bounds { bytes_max: 1 << 20, age_max: Duration::from_secs(1) };
        let settings = Settings { folder: path.clone(), bounds, sync: Sync::Never };
        let Ok(mut store) = Store::open(claimed, &settings, Appender::plain(), now) else { return };
        let _ = store.tick();
        let own = Batch { id: store.next_id(), spans: 3, encoding: Encoding::Json, body: vec![turn; HEADER_BYTES] };
        owns.push((own.id, [turn; HEADER_BYTES]));
        let _ = store.append(&[own], None);
        let mut given = 0;
        while let Ok(Some(front)) = store.front() {
            given += 1;
            // Each costs a header at least, so there can't be more than the bytes have room for.
            assert!(given <= 2 + data.len(), "no end");
            let is_own = owns.iter().any(|(id, body)| *id == front.id && front.body == body);
            if !is_own
                && let Some(put) = usize::try_from(front.id.wrapping_sub(FIRST_ID)).ok().and_then(|at| whole.get(at))
            {
                assert_eq!(front.body, *put, "batch {} has changed", front.id);
            }
            if turn == 0 && given > 2 {
                store.release();
                break;
            }
            let _ = store.done(front.id);
        }
        let _ = (store.take_losses().spans(), store.left(), store.sync());
    }
    let _ = fs::remove_dir_all(&path);
}

#[cfg(test)]
#[test]
fn the_seeds_of_the_fuzzer() {
    crate::wire::exercise::replay("spool", spool, 1);
}
