//! HTTP/2 (RFC 9113), one direction of one connection, seen from outside.
//!
//! ```text
//! Preface ──► FrameHeader ──► Data / Collect / Skip ──► FrameHeader …
//!                 ▲                  │ gap beyond the frame, or no frame
//!                 └── a boundary ◄── Skipping
//! ```
//!
//! DATA is handed on as slices of the input. A field block that lies whole in one frame and one piece
//! is decoded where it is; else it is put together in a buffer. Flow control and priorities mean
//! nothing to an observer. Neither does SETTINGS: the size of the HPACK table is announced again in
//! the blocks, see [`super::hpack`].

mod frame;
mod head;
mod role;
#[cfg(test)]
mod tests;

pub use self::role::is_request_direction;
use self::{
    frame::{Frame, HEADER_BYTES, Kind},
    head::Section,
};
use super::{Field, RequestHead, ResponseHead, hpack};
use crate::limits::{HEAD_BUFFER_KEPT_BYTES, HEAD_BYTES_MAX, STREAMS_MAX};

/// What a client says first (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream of the connection; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

impl StreamId {
    /// Opened by the client, not promised by the server (section 5.1.1).
    fn is_from_client(self) -> bool {
        self.0 % 2 == 1
    }
}

/// Receives the messages of one direction.
pub trait Sink {
    /// A request began. With `unknown_fields`, so many fields were lost with an earlier field block;
    /// then method and target may be empty.
    fn request(&mut self, stream: StreamId, head: &RequestHead<'_>, unknown_fields: usize);
    /// A response began, or an interim one (1xx), which has no body and no end of its own. With
    /// `unknown_fields`, the status may be [`super::STATUS_UNKNOWN`].
    fn response(&mut self, stream: StreamId, head: &ResponseHead<'_>, unknown_fields: usize);
    /// Bytes of a message's body.
    fn body(&mut self, stream: StreamId, bytes: &[u8]);
    /// Bytes of a message's body that may have been lost, at most so many: it isn't known how many of
    /// those that are missing were this stream's. 0 when the amount isn't known at all.
    fn gap(&mut self, stream: StreamId, lost_max: u64);
    /// Fields behind a body. The message's end follows.
    fn trailers(&mut self, stream: StreamId, fields: &[Field<'_>]);
    /// A message ended. It is called once for each that began.
    fn end(&mut self, stream: StreamId, end: End);
    /// The stream is over in both directions; the decoder of the other one learns it by
    /// [`Decoder::forget`]. The message of this direction, if it was under way, has ended before.
    fn reset(&mut self, stream: StreamId, error_code: u32);
    /// Streams above `last` are not served, and no new ones are.
    fn go_away(&mut self, last: StreamId, error_code: u32);
    /// Something that isn't HTTP/2, or whose meaning was lost. Messages under way may go on when the decoder has found the next
    /// frame.
    fn malformed(&mut self, error: Malformed);
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By END_STREAM.
    Complete,
    /// By RST_STREAM.
    Reset,
    /// The connection ended inside it.
    Cut,
    /// Given up: more than [`STREAMS_MAX`] were under way, or the fields of it were lost.
    Lost,
}

/// Why bytes can't be read as HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// A client that doesn't begin with the preface.
    #[error("no preface")]
    Preface,
    /// A frame of impossible length, or on an impossible stream: the boundaries are lost.
    #[error("impossible frame")]
    Frame,
    /// Padding longer than its frame.
    #[error("bad padding")]
    Padding,
    /// A field block that isn't continued, or a continuation of none.
    #[error("broken field block")]
    Continuation,
    /// A field block longer than [`HEAD_BYTES_MAX`].
    #[error("field block too long")]
    TooLong,
    /// A field block that isn't HPACK.
    #[error("field block: {0}")]
    Block(hpack::Error),
    /// Pseudo-fields that make neither a head nor trailers.
    #[error("bad pseudo-fields")]
    Head,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Preface {
        matched: usize,
    },
    FrameHeader,
    /// At the first byte of padded DATA.
    PadLength {
        frame: Frame,
    },
    /// In the data of DATA.
    Data {
        stream: StreamId,
        remaining: u32,
        padding: u32,
        ends_stream: bool,
    },
    /// In what is passed over.
    Skip {
        remaining: u32,
    },
    /// In a payload that is needed whole.
    Collect {
        frame: Frame,
    },
    /// Where frames begin is not known.
    Skipping,
}

/// A field block whose end is still to come.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    /// The frame that began it.
    frame: Frame,
    /// Some of it was lost.
    lost: bool,
}

/// Turns the bytes of one direction into messages.
#[derive(Debug)]
pub struct Decoder {
    is_request: bool,
    state: State,
    hpack: hpack::Decoder,
    /// A frame header or payload that comes in pieces.
    payload: Vec<u8>,
    /// A field block in more than one frame.
    block: Vec<u8>,
    unfinished: Option<Unfinished>,
    /// Messages under way in this direction, in the order in which they began.
    open: Vec<StreamId>,
}

impl Decoder {
    /// A decoder for the client's direction, from its preface on.
    pub fn requests() -> Self {
        Self::new(true, State::Preface { matched: 0 })
    }

    /// A decoder for the server's direction.
    pub fn responses() -> Self {
        Self::new(false, State::FrameHeader)
    }

    fn new(is_request: bool, state: State) -> Self {
        let hpack = hpack::Decoder::new();
        let (payload, block, open) = (Vec::new(), Vec::new(), Vec::new());
        Self { is_request, state, hpack, payload, block, unfinished: None, open }
    }

    /// The same for a connection that was met in the middle.
    #[must_use]
    pub fn midway(mut self) -> Self {
        self.state = State::Skipping;
        self.hpack.lose();
        self
    }

    /// Bytes held back.
    pub fn buffered(&self) -> usize {
        self.payload.len() + self.block.len()
    }

    /// No message is under way in this direction.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.unfinished.is_none()
    }

    /// The stream is over, which the other direction said.
    pub fn forget(&mut self, stream: StreamId, sink: &mut impl Sink) {
        self.end(stream, End::Reset, sink);
    }

    /// Takes the next bytes of the direction.
    pub fn feed(&mut self, mut input: &[u8], sink: &mut impl Sink) {
        let mut piece_start = true;
        while !input.is_empty() {
            input = match self.state {
                State::Preface { matched } => self.feed_preface(matched, input, sink),
                State::FrameHeader => self.feed_frame_header(input, sink),
                State::PadLength { frame } => {
                    self.begin_data(frame, u32::from(input[0]), 1, sink);
                    &input[1..]
                }
                State::Data { stream, remaining, padding, ends_stream } => {
                    let (data, rest) = split(input, remaining);
                    if self.open.contains(&stream) {
                        sink.body(stream, data);
                    }
                    self.continue_data(stream, remaining - data.len() as u32, padding, ends_stream, sink);
                    rest
                }
                State::Skip { remaining } => {
                    let (skipped, rest) = split(input, remaining);
                    self.skip(remaining - skipped.len() as u32);
                    rest
                }
                State::Collect { frame } => self.collect(frame, input, sink),
                State::Skipping => {
                    let Some(at) = frame::find_boundary(input, piece_start) else { return };
                    self.state = State::FrameHeader;
                    &input[at..]
                }
            };
            piece_start = false;
        }
    }

    /// `lost` bytes of the direction are missing here.
    pub fn gap(&mut self, lost: u64, sink: &mut impl Sink) {
        if lost == 0 {
            return;
        }
        let remaining = match self.state {
            State::Data { remaining, .. } | State::Skip { remaining } => u64::from(remaining),
            State::Collect { frame } => u64::from(frame.length).saturating_sub(self.payload.len() as u64),
            _ => 0,
        };
        if lost > remaining {
            return self.lose_boundaries(lost, sink);
        }
        let after = (remaining - lost) as u32;
        match self.state {
            State::Data { stream, padding, ends_stream, .. } => {
                if self.open.contains(&stream) {
                    sink.gap(stream, lost);
                }
                self.continue_data(stream, after, padding, ends_stream, sink);
            }
            State::Skip { .. } => self.skip(after),
            State::Collect { frame } => {
                self.lose_payload(frame, sink);
                self.skip(after);
            }
            _ => {}
        }
    }

    /// The direction ended.
    pub fn close(&mut self, sink: &mut impl Sink) {
        for stream in std::mem::take(&mut self.open) {
            sink.end(stream, End::Cut);
        }
        self.clear_buffers();
        self.unfinished = None;
    }

    fn feed_preface<'a>(&mut self, matched: usize, input: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        let expect = &PREFACE[matched..];
        let here = expect.len().min(input.len());
        if input[..here] != expect[..here] {
            self.desync(Malformed::Preface, sink);
            return input;
        }
        let matched = matched + here;
        self.state = if matched == PREFACE.len() { State::FrameHeader } else { State::Preface { matched } };
        &input[here..]
    }

    fn feed_frame_header<'a>(&mut self, input: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        if let (true, Some((header, rest))) = (self.payload.is_empty(), input.split_first_chunk()) {
            self.begin_frame(Frame::parse(header), sink);
            return rest;
        }
        let (here, rest) = input.split_at(input.len().min(HEADER_BYTES.saturating_sub(self.payload.len())));
        self.payload.extend_from_slice(here);
        if let Some((header, _)) = self.payload.split_first_chunk() {
            let frame = Frame::parse(header);
            self.payload.clear();
            self.begin_frame(frame, sink);
        }
        rest
    }

    fn begin_frame(&mut self, frame: Frame, sink: &mut impl Sink) {
        if let Err(error) = frame.check() {
            return self.desync(error, sink);
        }
        // Nothing may come between the frames of a block (section 4.3).
        let continues = self.unfinished.map(|block| block.frame.stream);
        if continues != (frame.kind == Kind::Continuation).then_some(frame.stream) {
            // Met in the middle, or after a loss, this may be the rest of a block that wasn't seen.
            if continues.is_none() && self.hpack.is_lossy() {
                return self.skip(frame.length);
            }
            return self.desync(Malformed::Continuation, sink);
        }
        match frame.kind {
            Kind::Data if frame.is_padded() && frame.length == 0 => self.desync(Malformed::Padding, sink),
            Kind::Data if frame.is_padded() => self.state = State::PadLength { frame },
            Kind::Data => self.begin_data(frame, 0, 0, sink),
            Kind::Headers | Kind::Continuation | Kind::PushPromise | Kind::ResetStream | Kind::GoAway => {
                if frame.length as usize > HEAD_BYTES_MAX {
                    sink.malformed(Malformed::TooLong);
                    self.lose_payload(frame, sink);
                    self.skip(frame.length);
                } else if frame.length == 0 {
                    self.take_payload(frame, &[], sink);
                } else {
                    self.state = State::Collect { frame };
                }
            }
            Kind::Priority | Kind::Settings | Kind::Ping | Kind::WindowUpdate | Kind::Other => self.skip(frame.length),
        }
    }

    /// Behind the frame header, and behind the length of the padding if there is one.
    fn begin_data(&mut self, frame: Frame, padding: u32, pad_length_bytes: u32, sink: &mut impl Sink) {
        match (frame.length - pad_length_bytes).checked_sub(padding) {
            Some(remaining) => self.continue_data(frame.stream, remaining, padding, frame.ends_stream(), sink),
            None => self.desync(Malformed::Padding, sink),
        }
    }

    fn continue_data(
        &mut self,
        stream: StreamId,
        remaining: u32,
        padding: u32,
        ends_stream: bool,
        sink: &mut impl Sink,
    ) {
        if remaining > 0 {
            self.state = State::Data { stream, remaining, padding, ends_stream };
            return;
        }
        if ends_stream {
            self.end(stream, End::Complete, sink);
        }
        self.skip(padding);
    }

    fn skip(&mut self, remaining: u32) {
        self.state = if remaining == 0 { State::FrameHeader } else { State::Skip { remaining } };
    }

    fn collect<'a>(&mut self, frame: Frame, input: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        let (here, rest) = split(input, frame.length.saturating_sub(self.payload.len() as u32));
        if self.payload.is_empty() && here.len() == frame.length as usize {
            self.take_payload(frame, here, sink);
            return rest;
        }
        self.payload.extend_from_slice(here);
        if self.payload.len() == frame.length as usize {
            let payload = std::mem::take(&mut self.payload);
            self.take_payload(frame, &payload, sink);
            self.payload = payload;
            self.payload.clear();
            self.payload.shrink_to(HEAD_BUFFER_KEPT_BYTES);
        }
        rest
    }

    /// A whole payload.
    fn take_payload(&mut self, frame: Frame, payload: &[u8], sink: &mut impl Sink) {
        self.state = State::FrameHeader;
        match (frame.kind, payload) {
            (Kind::ResetStream, &[a, b, c, d]) => {
                self.end(frame.stream, End::Reset, sink);
                sink.reset(frame.stream, u32::from_be_bytes([a, b, c, d]));
            }
            (Kind::GoAway, &[a, b, c, d, e, f, g, h, ..]) => {
                let last = StreamId(u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff);
                sink.go_away(last, u32::from_be_bytes([e, f, g, h]));
            }
            (Kind::Headers | Kind::PushPromise | Kind::Continuation, _) => match fragment(frame, payload) {
                Ok(fragment) => self.take_fragment(frame, fragment, sink),
                Err(error) => self.desync(error, sink),
            },
            _ => {}
        }
    }

    fn take_fragment(&mut self, frame: Frame, fragment: &[u8], sink: &mut impl Sink) {
        let first = self.unfinished.unwrap_or(Unfinished { frame, lost: false });
        if first.lost {
            self.unfinished = (!frame.ends_headers()).then_some(first);
            return;
        }
        if frame.ends_headers() && self.block.is_empty() {
            self.unfinished = None;
            return self.take_block(first.frame, fragment, sink);
        }
        if self.block.len() + fragment.len() > HEAD_BYTES_MAX {
            sink.malformed(Malformed::TooLong);
            self.unfinished = Some(first);
            return self.lose_payload(frame, sink);
        }
        self.block.extend_from_slice(fragment);
        self.unfinished = Some(first);
        if frame.ends_headers() {
            self.unfinished = None;
            let block = std::mem::take(&mut self.block);
            self.take_block(first.frame, &block, sink);
            self.block = block;
            self.block.clear();
            self.block.shrink_to(HEAD_BUFFER_KEPT_BYTES);
        }
    }

    /// A whole field block, which `frame` began.
    fn take_block(&mut self, frame: Frame, block: &[u8], sink: &mut impl Sink) {
        let Self { hpack, open, is_request, .. } = self;
        let fields = match hpack.decode(block) {
            Ok(fields) => fields,
            Err(error) => {
                sink.malformed(Malformed::Block(error));
                return self.lose_section(frame, sink);
            }
        };
        // What a server pushes is no answer to a request that the client made.
        if frame.kind == Kind::PushPromise || !frame.stream.is_from_client() {
            return;
        }
        let follows_head = open.contains(&frame.stream);
        let begins = fields.with(|list| {
            Ok(match head::section(list, fields.unknown, *is_request, follows_head, frame.ends_stream())? {
                Section::Request(head) => {
                    sink.request(frame.stream, &head, fields.unknown);
                    true
                }
                Section::Response(head) => {
                    sink.response(frame.stream, &head, fields.unknown);
                    !(100..200).contains(&head.status)
                }
                Section::Trailers(list) => {
                    sink.trailers(frame.stream, list);
                    false
                }
            })
        });
        match begins {
            Ok(true) => self.open(frame.stream, sink),
            Ok(false) => {}
            Err(error) => sink.malformed(error),
        }
        if frame.ends_stream() {
            self.end(frame.stream, End::Complete, sink);
        }
    }

    fn open(&mut self, stream: StreamId, sink: &mut impl Sink) {
        if self.open.len() >= STREAMS_MAX {
            sink.end(self.open.remove(0), End::Lost);
        }
        self.open.push(stream);
    }

    /// Ends the message of the stream, if one is under way.
    fn end(&mut self, stream: StreamId, end: End, sink: &mut impl Sink) {
        // The order is kept: the oldest is the first to go.
        if let Some(at) = self.open.iter().position(|&open| open == stream) {
            self.open.remove(at);
            sink.end(stream, end);
        }
    }

    /// Some of a payload that is needed whole was lost; where it ends is still known.
    fn lose_payload(&mut self, frame: Frame, sink: &mut impl Sink) {
        self.payload.clear();
        if !matches!(frame.kind, Kind::Headers | Kind::PushPromise | Kind::Continuation) {
            return;
        }
        self.block.clear();
        self.hpack.lose();
        let first = self.unfinished.map_or(frame, |block| block.frame);
        self.unfinished = (!frame.ends_headers()).then_some(Unfinished { frame: first, lost: true });
        self.lose_section(first, sink);
    }

    /// The fields of a section are lost. As trailers they don't matter; as a head they do, and what
    /// follows on a stream that never began is passed over.
    fn lose_section(&mut self, frame: Frame, sink: &mut impl Sink) {
        if frame.ends_stream() {
            self.end(frame.stream, End::Complete, sink);
        }
    }

    fn lose_boundaries(&mut self, lost: u64, sink: &mut impl Sink) {
        for &stream in &self.open {
            sink.gap(stream, lost);
        }
        self.skip_to_boundary();
    }

    fn desync(&mut self, error: Malformed, sink: &mut impl Sink) {
        sink.malformed(error);
        for &stream in &self.open {
            sink.gap(stream, 0);
        }
        self.skip_to_boundary();
    }

    fn skip_to_boundary(&mut self) {
        self.hpack.lose();
        self.clear_buffers();
        self.unfinished = None;
        self.state = State::Skipping;
    }

    fn clear_buffers(&mut self) {
        for buffer in [&mut self.payload, &mut self.block] {
            buffer.clear();
            buffer.shrink_to(HEAD_BUFFER_KEPT_BYTES);
        }
    }
}

/// As much of `remaining` as is there, and the rest of the input.
fn split(input: &[u8], remaining: u32) -> (&[u8], &[u8]) {
    input.split_at(input.len().min(remaining as usize))
}

/// The part of a field block that a frame carries (sections 6.2, 6.6, 6.10).
fn fragment(frame: Frame, mut payload: &[u8]) -> Result<&[u8], Malformed> {
    if frame.kind == Kind::Continuation {
        return Ok(payload);
    }
    let mut padding = 0;
    if frame.is_padded() {
        let (&pad_length, rest) = payload.split_first().ok_or(Malformed::Padding)?;
        (padding, payload) = (usize::from(pad_length), rest);
    }
    let before = match frame.kind {
        // The promised stream.
        Kind::PushPromise => 4,
        // Dependency and weight.
        _ if frame.has_priority() => 5,
        _ => 0,
    };
    let end = payload.len().checked_sub(padding).ok_or(Malformed::Padding)?;
    payload.get(before..end).ok_or(Malformed::Padding)
}
