//! The order of batches on disk.

use std::{collections::VecDeque, fs, io, time::Duration};

use super::{
    Bounds, Encoding, Settings, Stamp, Sync,
    cursor::Cursor,
    folder::Folder,
    record::{HEADER_BYTES, Header},
    segment::Segment,
};
use crate::{limits::SPOOL_SEGMENT_BYTES_MIN, sys::disk::Appender};

/// A batch to keep.
#[derive(Clone, Debug)]
pub struct Batch<B> {
    /// Grows from batch to batch, from [`Store::next_id`] on.
    pub id: u64,
    /// Spans in it.
    pub spans: u32,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The encoded request.
    pub body: B,
}

/// The batch whose turn it is.
pub type Front = Batch<Vec<u8>>;

/// What was lost since the last time, in spans but for the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Dropped to make room for others.
    pub full: u64,
    /// Too old.
    pub expired: u64,
    /// In records that were damaged or torn, as far as their number is known.
    pub damaged: u64,
    /// Bytes of those records.
    pub damaged_bytes: u64,
}

impl Losses {
    /// All spans.
    pub fn spans(&self) -> u64 {
        self.full + self.expired + self.damaged
    }
}

/// What is kept right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Spans that are not done.
    pub spans: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// How old the oldest batch is.
    pub age: Duration,
}

/// Batches in files, done in the order in which they came.
pub struct Store {
    folder: Folder,
    bounds: Bounds,
    sync: Sync,
    /// A segment that has this many bytes is followed by another.
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// The last segment is this run's and can be appended to.
    tail_is_open: bool,
    next_number: u64,
    next_id: u64,
    cursor: Cursor,
    appender: Appender,
    /// A batch that is being delivered.
    out: Option<Out>,
    oldest: Option<Stamp>,
    losses: Losses,
    /// Something was passed over that the cursor doesn't know of.
    passed_over: bool,
    unsynced: bool,
    now: fn() -> Stamp,
}

#[derive(Clone, Copy)]
struct Out {
    id: u64,
    spans: u64,
    /// The number of its segment, unless that was removed meanwhile.
    segment: Option<u64>,
}

impl Store {
    /// Opens what is in the folder. `now` tells the time.
    ///
    /// # Errors
    /// When the folder or a file in it can't be read or the cursor can't be written.
    pub fn open(folder: Folder, settings: &Settings, appender: Appender, now: fn() -> Stamp) -> io::Result<Self> {
        let cursor = Cursor::open(folder.open_file("cursor")?);
        let mut store = Self {
            bounds: settings.bounds,
            sync: settings.sync,
            segment_bytes: (settings.bounds.bytes_max / 16).max(SPOOL_SEGMENT_BYTES_MIN),
            segments: VecDeque::new(),
            tail_is_open: false,
            next_number: 1,
            next_id: cursor.next(),
            cursor,
            appender,
            out: None,
            oldest: None,
            losses: Losses::default(),
            passed_over: false,
            unsynced: false,
            now,
            folder,
        };
        store.open_segments()?;
        store.settle()?;
        Ok(store)
    }

    fn open_segments(&mut self) -> io::Result<()> {
        let mut found = vec![];
        for entry in fs::read_dir(self.folder.path())? {
            let entry = entry?;
            found.extend(Segment::parse_name(&entry.file_name()).map(|name| (name, entry.path())));
        }
        found.sort();
        for (name, path) in found {
            self.next_number = self.next_number.max(name.0.saturating_add(1));
            match Segment::open(path, name, self.cursor.next(), &mut self.losses) {
                Ok((segment, id_end)) => {
                    self.next_id = self.next_id.max(id_end);
                    self.segments.push_back(segment);
                }
                // A symbolic link or a folder of that name is not ours.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What does the writing.
    pub fn backend(&self) -> &'static str {
        self.appender.backend()
    }

    /// Where it is.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The id that the next batch may have, or any above it.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Keeps batches, whose ids grow. `out` is the id of one of them that is being delivered
    /// already. Tells how many were dealt with: kept, or too large to ever be kept, and counted.
    ///
    /// # Errors
    /// When the disk fails. Those that were dealt with before that stay so.
    pub fn append<B: AsRef<[u8]>>(&mut self, batches: &[Batch<B>], out: Option<u64>) -> (usize, io::Result<()>) {
        let mut done = 0;
        while done < batches.len() {
            let mut bytes = 0;
            let group = batches[done..].iter().take_while(|batch| {
                let first = bytes == 0;
                bytes += record_bytes(batch);
                first || bytes <= self.segment_bytes
            });
            let count = group.count();
            if let Err(error) = self.append_group(&batches[done..done + count], out) {
                return (done, Err(error));
            }
            done += count;
        }
        (done, Ok(()))
    }

    fn append_group<B: AsRef<[u8]>>(&mut self, batches: &[Batch<B>], out: Option<u64>) -> io::Result<()> {
        let bytes: u64 = batches.iter().map(record_bytes).sum();
        if bytes > self.bounds.bytes_max {
            // A group that large is a single batch.
            self.losses.full += batches.iter().map(|batch| u64::from(batch.spans)).sum::<u64>();
            return Ok(());
        }
        self.make_room(bytes)?;
        self.open_tail()?;
        let written = (self.now)();
        let tail = self.segments.back_mut().expect("there is a tail");
        let mut spans = tail.spans_written();
        let mut headers = Vec::with_capacity(batches.len());
        for batch in batches {
            let body = batch.body.as_ref();
            let header = Header {
                encoding: batch.encoding,
                body_len: body.len() as u32,
                spans: batch.spans,
                spans_before: spans,
                id: batch.id,
                written,
                body_crc: crc32c::crc32c(body),
            };
            spans = spans.saturating_add(batch.spans);
            headers.push(header.encode(tail.mark));
        }
        let parts: Vec<&[u8]> =
            headers.iter().zip(batches).flat_map(|(header, batch)| [&header[..], batch.body.as_ref()]).collect();
        let (at, number) = (tail.len, tail.number);
        if let Err(error) = self.appender.append(tail.file()?, at, &parts, self.sync == Sync::Always) {
            // What is there of it must not be read later. If it can't be cut off, nothing is
            // written behind it either.
            self.tail_is_open = tail.file().and_then(|file| file.set_len(at)).is_ok();
            return Err(error);
        }
        tail.len += bytes;
        tail.spans += batches.iter().map(|batch| u64::from(batch.spans)).sum::<u64>();
        self.oldest = self.oldest.or(Some(written));
        self.unsynced |= self.sync == Sync::Interval;
        for batch in batches {
            self.next_id = self.next_id.max(batch.id.saturating_add(1));
            if out == Some(batch.id) {
                self.out = Some(Out { id: batch.id, spans: batch.spans.into(), segment: Some(number) });
            }
        }
        Ok(())
    }

    /// Sees to it that the last segment can be appended to.
    fn open_tail(&mut self) -> io::Result<()> {
        if self.tail_is_open && self.segments.back().is_some_and(|tail| tail.len < self.segment_bytes) {
            return Ok(());
        }
        self.sync()?;
        if self.segments.len() > 1
            && let Some(last) = self.segments.back_mut()
        {
            last.close();
        }
        let segment = Segment::create(self.folder.path(), self.next_number)?;
        self.next_number += 1;
        self.segments.push_back(segment);
        self.tail_is_open = true;
        // Else the file's name may be lost where its content is not.
        if self.sync == Sync::Never { Ok(()) } else { self.folder.sync() }
    }

    /// Drops the oldest segments until there is room for `bytes`.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        while self.bytes() + bytes > self.bounds.bytes_max
            && let Some(oldest) = self.segments.front()
        {
            oldest.remove()?;
            let (number, mut spans) = (oldest.number, oldest.spans);
            if let Some(out) = self.out.as_mut().filter(|out| out.segment == Some(number)) {
                out.segment = None;
                spans = spans.saturating_sub(out.spans);
            }
            self.losses.full += spans;
            self.remove_front();
        }
        Ok(())
    }

    fn remove_front(&mut self) {
        self.segments.pop_front();
        self.tail_is_open &= !self.segments.is_empty();
        self.oldest = None;
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Passes what is done, too old or damaged, and gives the header of the first batch behind it.
    fn settle(&mut self) -> io::Result<Option<Header>> {
        let now = (self.now)();
        while let Some(segment) = self.segments.front_mut() {
            let damaged_bytes = self.losses.damaged_bytes;
            let looked = segment.look(&mut self.losses)?;
            self.passed_over |= self.losses.damaged_bytes > damaged_bytes;
            let Some(header) = looked else {
                // The file that is appended to goes too: an empty spool is an empty folder. One that
                // can't be removed is passed by its ids when it is found again.
                let _ = segment.remove();
                self.remove_front();
                continue;
            };
            let is_out = self.out.is_some_and(|out| out.id == header.id);
            if header.id >= self.cursor.next() {
                if is_out || now.since(header.written) <= self.bounds.age_max {
                    self.oldest = Some(header.written);
                    if std::mem::take(&mut self.passed_over) {
                        // Where that can't be written, the next run counts it once more.
                        let _ = self.cursor.advance(header.id, self.sync == Sync::Always);
                    }
                    return Ok(Some(header));
                }
                self.losses.expired += u64::from(header.spans);
                self.passed_over = true;
            }
            segment.pass(&header);
        }
        self.oldest = None;
        Ok(None)
    }

    /// The batch whose turn it is. It stays until it is done or released.
    ///
    /// # Errors
    /// When files can't be opened or removed.
    pub fn front(&mut self) -> io::Result<Option<Front>> {
        while let Some(header) = self.settle()? {
            let segment = self.segments.front_mut().expect("where the header is from");
            if let Some(body) = segment.body(&header)? {
                self.out = Some(Out { id: header.id, spans: header.spans.into(), segment: Some(segment.number) });
                return Ok(Some(Front { id: header.id, spans: header.spans, encoding: header.encoding, body }));
            }
            self.losses.damaged += u64::from(header.spans);
            self.losses.damaged_bytes += header.record_len();
            self.passed_over = true;
            segment.pass(&header);
        }
        Ok(None)
    }

    /// The batch with this id, and all before it, are done.
    ///
    /// # Errors
    /// When that can't be written down. It is so nevertheless, for this run.
    pub fn done(&mut self, id: u64) -> io::Result<()> {
        self.out = None;
        let written = self.cursor.advance(id.saturating_add(1), self.sync == Sync::Always);
        self.settle()?;
        written
    }

    /// The batch that was being delivered was not. If there was no room for it meanwhile it is lost.
    pub fn release(&mut self) {
        if let Some(Out { spans, segment: None, .. }) = self.out.take() {
            self.losses.full += spans;
        }
    }

    /// Drops what is too old, and syncs what was written.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn tick(&mut self) -> io::Result<()> {
        self.settle()?;
        self.sync()
    }

    /// Brings to the disk what was written, where that is wanted at all.
    pub fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unsynced)
            && self.tail_is_open
            && let Some(tail) = self.segments.back_mut()
        {
            tail.file()?.sync_data()?;
        }
        Ok(())
    }

    /// What is kept.
    pub fn left(&self) -> Left {
        Left {
            spans: self.segments.iter().map(|segment| segment.spans).sum(),
            bytes: self.bytes(),
            age: self.oldest.map(|oldest| (self.now)().since(oldest)).unwrap_or_default(),
        }
    }

    /// What was lost since this was last asked.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }
}

fn record_bytes<B: AsRef<[u8]>>(batch: &Batch<B>) -> u64 {
    (HEADER_BYTES + batch.body.as_ref().len()) as u64
}
