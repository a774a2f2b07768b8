//! A segment: a file of records, read from the front.

use std::{
    ffi::OsStr,
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use memchr::memmem;

use super::{
    record::{HEADER_BYTES, Header},
    store::Losses,
};

/// Bytes that are looked through at once for the next record behind a damaged one.
const LOOK_BYTES: usize = 64 * 1024;

/// A file of records and how far it is read.
pub(super) struct Segment {
    path: PathBuf,
    /// Segments are read in the order of their numbers.
    pub number: u64,
    /// Stands before every record. Content is chosen by others, and must not be taken for a record
    /// when one of them is damaged; so the mark is random.
    pub mark: u64,
    /// Where the last sound record ends.
    pub len: u64,
    /// Where the first record begins that is not passed.
    read: u64,
    /// Spans in the records before that.
    spans_read: u32,
    /// Spans in the records from there on, those in damaged ones included as far as is known.
    pub spans: u64,
    /// Open while it is needed.
    file: Option<File>,
}

impl Segment {
    /// A new one, in a new file.
    pub fn create(folder: &Path, number: u64) -> io::Result<Self> {
        let mark = RandomState::new().hash_one(number);
        let path = folder.join(format!("{number:016x}-{mark:016x}.spool"));
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path)?;
        Ok(Self { path, number, mark, len: 0, read: 0, spans_read: 0, spans: 0, file: Some(file) })
    }

    /// Number and mark in the name of a segment's file.
    pub fn parse_name(name: &OsStr) -> Option<(u64, u64)> {
        let (number, mark) = name.to_str()?.strip_suffix(".spool")?.split_once('-')?;
        let parse = |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        Some((parse(number)?, parse(mark)?))
    }

    /// Opens what another run has left. Whatever it has done (below `next`) is passed, a torn end
    /// is cut off. Gives the segment and the id behind the largest in it.
    pub fn open(path: PathBuf, (number, mark): (u64, u64), next: u64, losses: &mut Losses) -> io::Result<(Self, u64)> {
        let mut segment = Self { path, number, mark, len: 0, read: 0, spans_read: 0, spans: 0, file: None };
        let file_len = segment.file()?.metadata()?.len();
        segment.len = file_len;
        let (mut done, mut spans_end, mut id_end) = ((0, 0), 0, 0);
        let mut sound_end = 0;
        // What is damaged is counted when it is its turn to be read.
        while let Some(header) = segment.look(&mut Losses::default())? {
            if segment.read + header.record_len() > file_len {
                // The last one, which was being written when the end came.
                losses.damaged += u64::from(header.spans);
                break;
            }
            if header.id == next {
                // What is damaged before the very batch whose turn it is has been counted.
                done = (segment.read, header.spans_before);
            }
            segment.pass(&header);
            (sound_end, spans_end) = (segment.read, segment.spans_read);
            id_end = id_end.max(header.id.saturating_add(1));
            if header.id < next {
                done = (segment.read, segment.spans_read);
            }
        }
        losses.damaged_bytes += file_len - sound_end;
        if sound_end < file_len {
            // Where it can't be cut, as on a read-only disk, it is only not read.
            let _ = segment.file()?.set_len(sound_end);
        }
        segment.len = sound_end;
        (segment.read, segment.spans_read) = done;
        segment.spans = u64::from(spans_end.saturating_sub(done.1));
        segment.file = None;
        Ok((segment, id_end))
    }

    /// The file, which is opened if it is not open.
    pub fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            let mut options = File::options();
            options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
            let file = options.open(&self.path).or_else(|_| options.write(false).open(&self.path))?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
            }
            self.file = Some(file);
        }
        Ok(self.file.as_ref().expect("opened above"))
    }

    /// The header of the first record that is not passed. Damaged ones before it are passed and
    /// counted. `None` at the end.
    ///
    /// # Errors
    /// When the file can't be opened. What can't be read counts as damaged.
    pub fn look(&mut self, losses: &mut Losses) -> io::Result<Option<Header>> {
        let (at, len, mark) = (self.read, self.len, self.mark);
        if at >= len {
            return Ok(None);
        }
        let file = self.file()?;
        let found = match header_at(file, at, len, mark) {
            Some(header) => return Ok(Some(header)),
            None => find(file, at + 1, len, mark),
        };
        let (next, spans_before) = found.map_or((len, None), |(at, header)| (at, Some(header.spans_before)));
        let spans = match spans_before {
            Some(before) => u64::from(before.saturating_sub(self.spans_read)),
            None => self.spans,
        };
        losses.damaged += spans;
        losses.damaged_bytes += next - at;
        self.spans_read = spans_before.unwrap_or_else(|| self.spans_written());
        self.spans = self.spans.saturating_sub(spans);
        self.read = next;
        Ok(found.map(|(_, header)| header))
    }

    /// The batch of the first record that is not passed, whose header this is; `None` if it is
    /// damaged.
    pub fn body(&mut self, header: &Header) -> io::Result<Option<Vec<u8>>> {
        let at = self.read + HEADER_BYTES as u64;
        let mut body = vec![0; header.body_len as usize];
        let read = self.file()?.read_exact_at(&mut body, at);
        Ok((read.is_ok() && crc32c::crc32c(&body) == header.body_crc).then_some(body))
    }

    /// Goes on behind the first record that is not passed, whose header this is.
    pub fn pass(&mut self, header: &Header) {
        self.read += header.record_len();
        self.spans_read = header.spans_before.saturating_add(header.spans);
        self.spans = self.spans.saturating_sub(u64::from(header.spans));
    }

    /// Spans in all its records.
    pub fn spans_written(&self) -> u32 {
        self.spans_read.saturating_add(u32::try_from(self.spans).unwrap_or(u32::MAX))
    }

    /// Closes the file until it is needed again.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Removes the file.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            // Somebody else did.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// The header at `at` in a file of which `len` bytes count.
fn header_at(file: &File, at: u64, len: u64, mark: u64) -> Option<Header> {
    let mut bytes = [0; HEADER_BYTES];
    (at + HEADER_BYTES as u64 <= len).then_some(())?;
    file.read_exact_at(&mut bytes, at).ok()?;
    Header::decode(&bytes, mark)
}

/// The first header from `at` on.
fn find(file: &File, mut at: u64, len: u64, mark: u64) -> Option<(u64, Header)> {
    let mark_bytes = mark.to_le_bytes();
    let finder = memmem::Finder::new(&mark_bytes);
    let mut bytes = vec![0; LOOK_BYTES];
    while at + HEADER_BYTES as u64 <= len {
        let count = file.read_at(&mut bytes, at).ok().filter(|count| *count >= mark_bytes.len())?;
        for found in finder.find_iter(&bytes[..count]) {
            let found = at + found as u64;
            if let Some(header) = header_at(file, found, len, mark) {
                return Some((found, header));
            }
        }
        // A mark may begin in the last bytes.
        at += (count - (mark_bytes.len() - 1)) as u64;
    }
    None
}
