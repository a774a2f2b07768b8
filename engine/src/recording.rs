//! Raw records in a file, and the same pipeline on them without privileges.
//!
//! A recording is a header of 24 bytes (magic, offset to the time of day, zero) and then frames: a
//! length of 4 bytes and a record as it lay in the ring, both in the byte order of the machine.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use agentsight_abi::{Direction, Kind, RecordHeader, pieces::PIECE_BYTES, record::HEADER_BYTES};

use crate::{
    flow::{KIND_PROCESS, process_payload},
    ring::Record,
    sys::{clock::UnixOffset, process},
};

const MAGIC: &[u8; 8] = b"agntrec1";
const FILE_HEADER_BYTES: usize = 24;

/// A record is at most a piece and its header.
const FRAME_BYTES_MAX: usize = PIECE_BYTES + HEADER_BYTES;

/// A file that can't be read as a recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be opened, read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It doesn't begin like one.
    #[error("not a recording that `agentsight record` made on this kind of machine")]
    NotARecording,
    /// It stops inside a frame, or a frame contradicts itself.
    #[error("the recording is damaged at byte {at}; what came before it was used")]
    Damaged {
        /// Offset in the file.
        at: u64,
    },
}

/// Writes records to a file.
pub struct Recorder {
    out: BufWriter<File>,
    /// Connections that are open, with their processes.
    open: HashSet<(u32, u64)>,
    written: u64,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Creates the file, readable by its owner alone: it holds everything that was said.
    ///
    /// # Errors
    /// What open(2) or write(2) says.
    pub fn create(path: &Path, clock: UnixOffset) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(MAGIC)?;
        out.write_all(&clock.0.to_ne_bytes())?;
        out.write_all(&[0; 8])?;
        Ok(Self { out, open: HashSet::new(), written: 0, failed: None })
    }

    /// Appends a record. After the first failure nothing is written any more, and `finish` says so.
    pub fn record(&mut self, record: &Record<'_>) {
        self.append(record);
        let header = &record.header;
        match Kind::from_u8(header.kind) {
            Some(Kind::Open) => {
                self.open.insert((header.tgid, header.conn));
                let payload = process_payload(&process::describe(header.tgid));
                let header = RecordHeader { kind: KIND_PROCESS, len: payload.len() as u32, ..*header };
                self.append(&Record { header, payload: &payload });
            }
            Some(Kind::Close) => {
                self.open.remove(&(header.tgid, header.conn));
            }
            _ => {}
        }
    }

    /// Writes the ends of the connections that these processes left open.
    pub fn processes_ended(&mut self, pids: &[u32], now_ns: u64) {
        let left: Vec<_> = self.open.iter().copied().filter(|(pid, _)| pids.contains(pid)).collect();
        for (tgid, conn) in left {
            self.open.remove(&(tgid, conn));
            let header = RecordHeader {
                conn,
                tgid,
                ktime_ns: now_ns,
                kind: Kind::Close as u8,
                direction: Direction::Write as u8,
                flags: agentsight_abi::flags::PEER_CLOSED,
                ..RecordHeader::default()
            };
            self.append(&Record { header, payload: &[] });
        }
    }

    fn append(&mut self, record: &Record<'_>) {
        if self.failed.is_some() {
            return;
        }
        let len = (HEADER_BYTES + record.payload.len()) as u32;
        let written = self
            .out
            .write_all(&len.to_ne_bytes())
            .and_then(|()| self.out.write_all(&record.header_bytes()))
            .and_then(|()| self.out.write_all(record.payload));
        match written {
            Ok(()) => self.written += 1,
            Err(error) => self.failed = Some(error),
        }
    }

    /// True when the file takes no more.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Ends the file; returns how many records it holds.
    ///
    /// # Errors
    /// The first failure since it was created.
    pub fn finish(&mut self) -> io::Result<u64> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush().map(|()| self.written),
        }
    }
}

/// Reads a recording.
pub struct Recording<R = BufReader<File>> {
    input: R,
    clock: UnixOffset,
    frame: Vec<u8>,
    at: u64,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    /// When it can't be read, or isn't one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::read(BufReader::with_capacity(1 << 20, File::open(path)?))
    }
}

impl<R: Read> Recording<R> {
    /// A recording that comes from somewhere else.
    ///
    /// # Errors
    /// As those of [`Recording::open`].
    pub fn read(mut input: R) -> Result<Self, Error> {
        let mut header = [0; FILE_HEADER_BYTES];
        input.read_exact(&mut header).map_err(|_| Error::NotARecording)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        let clock = rest.first_chunk::<8>().map(|bytes| UnixOffset(i64::from_ne_bytes(*bytes)));
        match clock {
            Some(clock) if magic == MAGIC => Ok(Self { input, clock, frame: Vec::new(), at: FILE_HEADER_BYTES as u64 }),
            _ => Err(Error::NotARecording),
        }
    }

    /// What makes its record times the time of day.
    pub fn clock(&self) -> UnixOffset {
        self.clock
    }

    /// The next record, or `None` at the end.
    ///
    /// # Errors
    /// When the file is damaged or can't be read.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Error> {
        let damaged = Error::Damaged { at: self.at };
        let mut len = [0; 4];
        match read_or_end(&mut self.input, &mut len)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(damaged),
        }
        let len = u32::from_ne_bytes(len) as usize;
        if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&len) {
            return Err(damaged);
        }
        self.frame.resize(len, 0);
        if read_or_end(&mut self.input, &mut self.frame)? != len {
            return Err(damaged);
        }
        self.at += 4 + len as u64;
        match Record::parse(&self.frame) {
            Some(record) => Ok(Some(record)),
            None => Err(damaged),
        }
    }
}

/// Fills `buffer` as far as the input goes.
fn read_or_end(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What a fuzzer does with a recording: it is read to its end. Panics when that does, when it has no end, or when a
/// record isn't as long as it says.
#[cfg(any(test, feature = "fuzz"))]
pub fn exercise(data: &[u8]) {
    let header = [&MAGIC[..], &[0; 16]].concat();
    // As it is, and with a beginning that is right.
    for mut recording in
        [Recording::read(data.chain(&[][..])), Recording::read((&*header).chain(data))].into_iter().flatten()
    {
        let mut count = 0;
        while let Ok(Some(record)) = recording.next_record() {
            assert_eq!(record.payload.len(), record.header.len as usize);
            count += 1;
            assert!(count <= data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_the_fuzzer() {
        crate::wire::exercise::replay("recording", exercise, 0);
    }

    #[test]
    fn what_is_recorded_is_read_back() {
        let path = std::env::temp_dir().join(format!("agentsight-recording-{}", std::process::id()));
        let mut recorder = Recorder::create(&path, UnixOffset(42)).unwrap();
        let header = RecordHeader { conn: 7, len: 3, kind: Kind::Data as u8, ..RecordHeader::default() };
        recorder.record(&Record { header, payload: b"abc" });
        assert_eq!(recorder.finish().unwrap(), 1);
        let mut recording = Recording::open(&path).unwrap();
        assert_eq!(recording.clock(), UnixOffset(42));
        let record = recording.next_record().unwrap().unwrap();
        assert_eq!((record.header, record.payload), (header, &b"abc"[..]));
        assert!(recording.next_record().unwrap().is_none());

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let damaged = Recording::open(&path).unwrap().next_record().map(|_| ()).unwrap_err();
        assert!(matches!(damaged, Error::Damaged { at: 24 }), "{damaged}");
        std::fs::write(&path, b"something else that is long enough").unwrap();
        assert!(matches!(Recording::open(&path), Err(Error::NotARecording)));
        std::fs::remove_file(&path).unwrap();
    }
}
