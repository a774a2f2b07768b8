//! `application/vnd.amazon.eventstream`, in which Bedrock streams.
//!
//! ```text
//! u32 total length, u32 headers length, u32 CRC of these two
//! headers: u8 name length, name, u8 type, value
//! payload
//! u32 CRC of all before
//! ```
//!
//! All numbers are big-endian, and the CRC is that of gzip. The first CRC makes it possible to find
//! the next message after a loss.

use memchr::memchr_iter;

use crate::limits::{STREAM_BUFFER_KEPT_BYTES, STREAM_EVENT_BYTES_MAX};

const PRELUDE_BYTES: usize = 12;
const CRC_BYTES: usize = 4;

/// One message whose checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    headers: &'a [u8],
    /// Usually a JSON object.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The header `name`, if it is a string (`:message-type`, `:event-type`, `:exception-type` and
    /// `:content-type` are).
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut rest = self.headers;
        while let Some((&name_bytes, after)) = rest.split_first() {
            let (this, after) = after.split_at_checked(name_bytes.into())?;
            let (&kind, after) = after.split_first()?;
            let (length, after) = match kind {
                // True and false have no value bytes; then come integers of 1, 2, 4 and 8 bytes.
                0 | 1 => (0, after),
                2 => (1, after),
                3 => (2, after),
                4 => (4, after),
                // A timestamp is a long.
                5 | 8 => (8, after),
                // Bytes and strings say their length.
                6 | 7 => {
                    let (length, after) = after.split_first_chunk()?;
                    (u16::from_be_bytes(*length).into(), after)
                }
                // A UUID.
                9 => (16, after),
                _ => return None,
            };
            let (value, after) = after.split_at_checked(length)?;
            if this == name.as_bytes() {
                return (kind == 7).then_some(value);
            }
            rest = after;
        }
        None
    }
}

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The message so far, when it comes in pieces.
    buffer: Vec<u8>,
    state: State,
    skipped: u64,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// At or in a message.
    #[default]
    Message,
    /// In a message that is too long.
    Passing { remaining: usize },
    /// Where messages begin is not known.
    Skipping,
}

impl Decoder {
    /// Bytes held back.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Losses since the last call: messages longer than [`STREAM_EVENT_BYTES_MAX`], and gaps or
    /// corrupt messages after which others had to be passed over to find the next.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Takes the next bytes. A message that lies whole in them is handed on as it lies there.
    pub fn feed(&mut self, mut input: &[u8], on_message: &mut impl FnMut(Message<'_>)) {
        while !input.is_empty() {
            input = match self.state {
                State::Message => self.feed_message(input, on_message),
                State::Passing { remaining } => {
                    let here = remaining.min(input.len());
                    self.pass(remaining - here);
                    &input[here..]
                }
                State::Skipping => {
                    // The first byte of a length within the bound is 0, which JSON doesn't contain.
                    let begins = |&at: &usize| total_bytes(&input[at..]).is_some_and(|total| total.is_ok());
                    let Some(at) = memchr_iter(0, input).find(begins) else { return };
                    self.state = State::Message;
                    &input[at..]
                }
            };
        }
    }

    /// Bytes are missing here.
    pub fn gap(&mut self) {
        self.skip();
    }

    /// The stream ended. A message that is cut off can't be used; the decoder is new again.
    pub fn finish(&mut self) {
        if !self.buffer.is_empty() {
            self.skip();
        }
        self.state = State::Message;
    }

    fn feed_message<'a>(&mut self, input: &'a [u8], on_message: &mut impl FnMut(Message<'_>)) -> &'a [u8] {
        if self.buffer.is_empty() {
            let Some(total) = total_bytes(input) else {
                self.buffer.extend_from_slice(input);
                return &[];
            };
            return match total.map(|total| (total, input.split_at_checked(total))) {
                Ok((_, Some((message, rest)))) => {
                    self.take(message, on_message);
                    rest
                }
                Ok((total, None)) => self.begin_partial(total, input),
                Err(Corrupt) => {
                    self.skip();
                    &input[1..]
                }
            };
        }
        let want = match total_bytes(&self.buffer) {
            None => PRELUDE_BYTES,
            Some(Ok(total)) => total,
            Some(Err(Corrupt)) => {
                self.skip();
                return input;
            }
        };
        let (here, rest) = input.split_at(input.len().min(want - self.buffer.len()));
        self.buffer.extend_from_slice(here);
        match total_bytes(&self.buffer) {
            Some(Err(Corrupt)) => self.skip(),
            Some(Ok(total)) if total > STREAM_EVENT_BYTES_MAX => self.pass_rest(total, self.buffer.len()),
            Some(Ok(total)) if total == self.buffer.len() => {
                let mut message = std::mem::take(&mut self.buffer);
                self.take(&message, on_message);
                message.clear();
                message.shrink_to(STREAM_BUFFER_KEPT_BYTES);
                self.buffer = message;
            }
            _ => {}
        }
        rest
    }

    fn begin_partial<'a>(&mut self, total: usize, input: &'a [u8]) -> &'a [u8] {
        if total > STREAM_EVENT_BYTES_MAX {
            self.pass_rest(total, input.len());
        } else {
            self.buffer.extend_from_slice(input);
        }
        &[]
    }

    /// A message with all its bytes.
    fn take(&mut self, message: &[u8], on_message: &mut impl FnMut(Message<'_>)) {
        match parse(message) {
            Some(message) => on_message(message),
            None => self.skip(),
        }
    }

    fn pass_rest(&mut self, total: usize, here: usize) {
        self.skipped += 1;
        self.buffer.clear();
        self.pass(total.saturating_sub(here));
    }

    fn pass(&mut self, remaining: usize) {
        self.state = if remaining == 0 { State::Message } else { State::Passing { remaining } };
    }

    fn skip(&mut self) {
        self.skipped += 1;
        self.buffer.clear();
        self.buffer.shrink_to(STREAM_BUFFER_KEPT_BYTES);
        self.state = State::Skipping;
    }
}

#[derive(Clone, Copy, Debug)]
struct Corrupt;

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The CRC of gzip, eight bytes at a time. The vectorised one of the inflater takes microseconds for
/// messages as short as these, most of it for copying its tables to the stack.
fn checksum(bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(u32::MAX, |crc, eight| {
        let eight = u64::from_le_bytes(*eight) ^ u64::from(crc);
        let bytes = eight.to_le_bytes().into_iter();
        CRC_TABLES.iter().rev().zip(bytes).fold(0, |crc, (table, byte)| crc ^ table[usize::from(byte)])
    });
    !rest.iter().fold(crc, |crc, &byte| CRC_TABLES[0][usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

/// By how many bytes come behind it, then by byte; for the reflected polynomial of IEEE 802.3.
static CRC_TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[behind - 1][byte];
            tables[behind][byte] = tables[0][(crc & 0xff) as usize] ^ crc >> 8;
            byte += 1;
        }
        behind += 1;
    }
    tables
};

/// The length of the message that begins here; `None` while the prelude isn't whole.
fn total_bytes(input: &[u8]) -> Option<Result<usize, Corrupt>> {
    let prelude = input.first_chunk::<PRELUDE_BYTES>()?;
    let (total, headers) = (number(prelude, 0)? as usize, number(prelude, 4)? as usize);
    let fits = headers.checked_add(PRELUDE_BYTES + CRC_BYTES).is_some_and(|bytes| bytes <= total);
    let right = fits && number(prelude, 8)? == checksum(&prelude[..8]);
    Some(if right { Ok(total) } else { Err(Corrupt) })
}

fn parse(message: &[u8]) -> Option<Message<'_>> {
    let headers_bytes = number(message, 4)? as usize;
    let (checked, crc) = message.split_last_chunk::<CRC_BYTES>()?;
    if checksum(checked) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (headers, payload) = checked.get(PRELUDE_BYTES..)?.split_at_checked(headers_bytes)?;
    Some(Message { headers, payload })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(name: &str, value: &str) -> Vec<u8> {
        let mut out = vec![name.len() as u8];
        out.extend(name.bytes());
        out.push(7);
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(value.bytes());
        out
    }

    fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let total = headers.len() + payload.len() + PRELUDE_BYTES + CRC_BYTES;
        let mut out = (total as u32).to_be_bytes().to_vec();
        out.extend((headers.len() as u32).to_be_bytes());
        out.extend(checksum(&out).to_be_bytes());
        out.extend(headers);
        out.extend(payload);
        out.extend(checksum(&out).to_be_bytes());
        out
    }

    fn event(name: &str, payload: &str) -> Vec<u8> {
        message(&[header(":message-type", "event"), header(":event-type", name)].concat(), payload.as_bytes())
    }

    fn decode(pieces: &[&[u8]]) -> (Vec<String>, u64) {
        let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.feed(piece, &mut |message| {
                let name = message.header(":event-type").unwrap_or(b"-").escape_ascii();
                seen.push(format!("{name} {}", message.payload.escape_ascii()));
            });
        }
        decoder.finish();
        assert_eq!(decoder.buffered(), 0);
        (seen, decoder.take_skipped())
    }

    #[test]
    fn a_message_of_the_specification() {
        // The smallest one: no headers, no payload.
        let bytes = [0, 0, 0, 0x10, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        assert_eq!(message(b"", b""), bytes);
        assert_eq!(decode(&[&bytes]), (vec!["- ".into()], 0));
    }

    #[test]
    fn messages_are_cut_at_every_byte() {
        let input = [event("messageStart", "{a}"), message(b"", b""), event("metadata", "{b}")].concat();
        let expect = (vec!["messageStart {a}".into(), "- ".into(), "metadata {b}".into()], 0);
        for at in 0..=input.len() {
            let (a, b) = input.split_at(at);
            assert_eq!(decode(&[a, b]), expect, "cut at {at}");
        }
        assert_eq!(decode(&input.chunks(1).collect::<Vec<_>>()), expect);
        assert_eq!(decode(&[&input[..input.len() - 1]]).1, 1, "cut off");
    }

    #[test]
    fn headers_of_every_type_are_passed_over() {
        let mut headers = Vec::new();
        for (kind, bytes) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16)] {
            headers.extend([1, b'x', kind]);
            headers.extend(vec![0xff; bytes]);
        }
        headers.extend([1, b'x', 6, 0, 2, 1, 2]);
        headers.extend(header(":event-type", "chunk"));
        let message = Message { headers: &headers, payload: b"" };
        assert_eq!(message.header(":event-type"), Some(&b"chunk"[..]));
        assert_eq!((message.header("x"), message.header("y")), (None, None));
        for cut in 0..headers.len() {
            let message = Message { headers: &headers[..cut], payload: b"" };
            assert_eq!(message.header(":event-type"), None);
        }
        assert_eq!(Message { headers: &[1, b'x', 10], payload: b"" }.header("y"), None);
    }

    #[test]
    fn after_a_loss_the_next_prelude_is_found() {
        let (a, b) = (event("a", "{1}"), event("b", "{2}"));
        for at in 0..a.len() {
            let mut corrupt = a.clone();
            corrupt[at] ^= 0x40;
            let (seen, skipped) = decode(&[&corrupt, &b]);
            assert_eq!((seen.as_slice(), skipped), (&["b {2}".to_owned()][..], 1), "byte {at}");
        }
        let mut decoder = Decoder::default();
        let mut seen = 0;
        decoder.feed(&a[..20], &mut |_| seen += 1);
        decoder.gap();
        decoder.feed(&[&a[30..], &b].concat(), &mut |_| seen += 1);
        assert_eq!((seen, decoder.take_skipped()), (1, 1));
    }

    #[test]
    fn a_message_that_is_too_long_is_passed_over() {
        let long = message(b"", &vec![b'x'; STREAM_EVENT_BYTES_MAX]);
        for cut in [5, 100] {
            let (a, b) = long.split_at(cut);
            assert_eq!(decode(&[a, b, &event("b", "{2}")]), (vec!["b {2}".into()], 1));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_split_gives_the_same(payloads in proptest::collection::vec("[ -~]{0,20}", 0..4), cuts in proptest::collection::vec(0.0..1.0f64, 0..8)) {
            let input: Vec<u8> = payloads.iter().flat_map(|payload| event("e", payload)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * input.len() as f64) as usize).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
            let expect: Vec<String> = payloads.iter().map(|payload| format!("e {}", payload.as_bytes().escape_ascii())).collect();
            prop_assert_eq!(decode(&pieces), (expect, 0));
        }

        #[test]
        fn the_checksum_is_that_of_gzip(bytes: Vec<u8>) {
            let mut crc = flate2::Crc::new();
            crc.update(&bytes);
            prop_assert_eq!(checksum(&bytes), crc.sum());
        }

        #[test]
        fn hostile_bytes_never_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..6)) {
            decode(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
