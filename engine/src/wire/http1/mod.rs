//! HTTP/1.0 and 1.1 (RFC 9112), one direction of one connection, seen from outside.
//!
//! Bytes are pushed in as they were captured, in any pieces, and messages come out of a [`Sink`].
//! A head that lies whole in a piece is parsed where it is; one that comes in pieces is put
//! together in a buffer. Bodies are never kept: every run of body bytes is handed on as a slice of
//! the input.
//!
//! ```text
//! Head ──► Length / Chunked / UntilClose ──► Head …      one message after the other
//!   │            │ gap that hides where the message ends
//!   ▼            ▼
//! Skipping: until something that looks like the start of a head ──► Head, on probation
//! ```

mod chunked;
#[cfg(test)]
mod corpus;
mod framing;
mod head;
mod known;
mod resync;
#[cfg(test)]
mod tests;

use memchr::memchr;

use self::{
    chunked::{Chunked, Step as ChunkStep},
    framing::Framing,
    head::{HeadParser, StartLine, Step as HeadStep},
    resync::Found,
};
use super::{RequestHead, ResponseHead};
use crate::limits::{HEAD_BUFFER_KEPT_BYTES, HEAD_BYTES_MAX};

pub use self::{framing::transfer_codings, known::Heads};

/// Receives the messages of one direction.
pub trait Sink {
    /// A request began.
    fn request(&mut self, head: &RequestHead<'_>);
    /// A response began. Says what it answers, because that decides whether a body follows
    /// (RFC 9112 section 6.3). A 1xx other than 101 is interim: no body and no end follow, and the
    /// next response is to the same request.
    fn response(&mut self, head: &ResponseHead<'_>) -> Answers;
    /// Bytes of the current message's body. The transfer coding `chunked` is removed; other codings
    /// are still on.
    fn body(&mut self, bytes: &[u8]);
    /// Bytes of the current message's body that were lost, between those before and those to come.
    fn gap(&mut self, lost: u64);
    /// The current message ended.
    fn end(&mut self, end: End);
    /// The protocol was switched by the message that just ended: a 101, or a 2xx to CONNECT. It
    /// holds for both directions; the other one learns it by [`Decoder::switch_protocols`].
    fn upgrade(&mut self);
    /// Bytes of this direction behind [`upgrade`](Sink::upgrade), which are of the other protocol.
    fn switched(&mut self, _bytes: &[u8]) {}
    /// No other message can have begun behind the current one, however much was lost: for a response,
    /// because no other request was made. Then a chunked body that lost its framing in a gap can be
    /// taken up again at a later chunk; otherwise that could be a chunk of another message.
    fn is_alone(&self) -> bool {
        false
    }
    /// Heads that the next ones may be like.
    fn heads(&mut self) -> Option<&mut Heads> {
        None
    }
    /// Something that isn't HTTP/1, or whose framing can't be trusted. A message that is under way
    /// is then ended by [`End::Lost`], and the decoder looks for the next head.
    fn malformed(&mut self, error: Malformed);
}

/// What a response is to, as far as its framing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// A HEAD request: there is no body whatever the fields say.
    Head,
    /// A CONNECT request: a 2xx switches to a tunnel.
    Connect,
    /// Any other request, or an unknown one.
    Other,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where its framing says.
    Complete,
    /// The connection ended inside it.
    Cut,
    /// Given up, because where it ends was lost in a gap or its framing is malformed.
    Lost,
}

/// Why bytes can't be read as HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// No request line or status line where one has to be.
    #[error("not a start line")]
    StartLine,
    /// A start line of another major version.
    #[error("not HTTP/1")]
    Version,
    /// A field line without a valid name.
    #[error("bad field name")]
    FieldName,
    /// NUL or a bare CR in a field value or a reason phrase.
    #[error("bad field value")]
    FieldValue,
    /// Some lines of a head end in CRLF and some in LF.
    #[error("mixed line ends")]
    LineEnd,
    /// A folded line that continues no field.
    #[error("folded line without a field")]
    Fold,
    /// Longer than [`HEAD_BYTES_MAX`].
    #[error("head too long")]
    HeadTooLong,
    /// More fields than [`crate::limits::HEAD_FIELDS_MAX`].
    #[error("too many fields")]
    TooManyFields,
    /// Content-Length that isn't one number.
    #[error("bad content length")]
    ContentLength,
    /// Transfer-Encoding that doesn't say where a request ends.
    #[error("bad transfer coding")]
    TransferEncoding,
    /// Something else than a chunk's size.
    #[error("bad chunk size")]
    ChunkSize,
    /// Something else than a line end after a chunk.
    #[error("chunk without end")]
    ChunkEnd,
    /// Trailers with a bare CR, or too many of them.
    #[error("bad trailers")]
    Trailers,
}

/// Which messages a direction carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Requests,
    Responses,
}

#[derive(Debug)]
enum State {
    /// Between messages, or inside a head.
    Head,
    /// Inside a body of known length.
    Length { remaining: u64 },
    /// Inside a chunked body.
    Chunked(Chunked),
    /// Inside a chunked body, at a chunk that isn't known. It may have ended, too.
    ChunksLost,
    /// Inside a body that ends with the connection.
    UntilClose,
    /// Where messages begin is not known.
    Skipping,
    /// Another protocol took over.
    Switched,
}

/// Turns the bytes of one direction into messages.
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    state: State,
    head: HeadParser,
    /// The head so far, when it comes in pieces or has folded lines; else empty.
    buffer: Vec<u8>,
    /// The head under way was found by skipping, so it may turn out to be none.
    probation: bool,
}

impl Decoder {
    /// A decoder for the direction that carries requests.
    pub fn requests() -> Self {
        Self::new(Side::Requests)
    }

    /// A decoder for the direction that carries responses.
    pub fn responses() -> Self {
        Self::new(Side::Responses)
    }

    fn new(side: Side) -> Self {
        Self { side, state: State::Head, head: HeadParser::new(side), buffer: Vec::new(), probation: false }
    }

    /// The same for a connection that was met in the middle: skips to the next message.
    #[must_use]
    pub fn midway(mut self) -> Self {
        self.state = State::Skipping;
        self
    }

    /// The connection carries another protocol from here on: all bytes to come
    /// go to [`Sink::switched`].
    pub fn switch_protocols(&mut self) {
        self.reset_head();
        self.state = State::Switched;
    }

    /// Bytes held back.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// No message is under way: the connection may end here without cutting one off.
    pub fn is_idle(&self) -> bool {
        match self.state {
            State::Head => self.buffer.is_empty(),
            State::Skipping | State::Switched => true,
            State::Length { .. } | State::Chunked(_) | State::ChunksLost | State::UntilClose => false,
        }
    }

    /// Takes the next bytes of the direction.
    pub fn feed(&mut self, mut input: &[u8], sink: &mut impl Sink) {
        // What a process hands to one write often starts with a head, so after a loss the start of
        // a piece is a better place to look for one than the middle.
        let mut piece_start = true;
        while !input.is_empty() {
            input = match &mut self.state {
                State::Head if self.buffer.is_empty() => self.feed_head(input, sink),
                State::Head => self.feed_buffered_head(input, sink),
                State::Length { remaining } => {
                    let here = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                    let (body, rest) = input.split_at(here);
                    *remaining -= here as u64;
                    let ended = *remaining == 0;
                    sink.body(body);
                    if ended {
                        self.end(End::Complete, sink);
                    }
                    rest
                }
                State::Chunked(_) => self.feed_chunked(input, sink),
                State::UntilClose => {
                    sink.body(input);
                    return;
                }
                State::ChunksLost => match resync::find_chunk_or_head(self.side, input, piece_start, sink.is_alone()) {
                    Some(Found::Chunk(at)) => {
                        self.state = State::Chunked(Chunked::new(false));
                        &input[at..]
                    }
                    Some(Found::Head(at)) => {
                        self.end(End::Lost, sink);
                        self.probation = true;
                        &input[at..]
                    }
                    None => return,
                },
                State::Skipping => {
                    let Some(at) = resync::find_head(self.side, input, piece_start) else { return };
                    self.probation = true;
                    self.state = State::Head;
                    &input[at..]
                }
                State::Switched => return sink.switched(input),
            };
            piece_start = false;
        }
    }

    /// `lost` bytes of the direction are missing here. True when the messages are still known one
    /// by one; false when any number of them may have begun or ended in the gap.
    pub fn gap(&mut self, lost: u64, sink: &mut impl Sink) -> bool {
        if lost == 0 {
            return true;
        }
        match &mut self.state {
            State::Length { remaining } => {
                let inside = lost.min(*remaining);
                let kept = lost <= *remaining;
                *remaining -= inside;
                let ended = *remaining == 0;
                sink.gap(inside);
                if ended {
                    self.end(End::Complete, sink);
                }
                if !kept {
                    self.state = State::Skipping;
                }
                kept
            }
            State::Chunked(chunked) => {
                let kept = chunked.gap(lost);
                sink.gap(lost);
                kept || self.lose_chunks(sink)
            }
            State::ChunksLost => {
                sink.gap(lost);
                self.lose_chunks(sink)
            }
            State::UntilClose => {
                sink.gap(lost);
                true
            }
            State::Head => {
                self.reset_head();
                self.state = State::Skipping;
                false
            }
            State::Skipping => false,
            State::Switched => true,
        }
    }

    /// The framing of a chunked body is lost; true if the message can still be held on to.
    fn lose_chunks(&mut self, sink: &mut impl Sink) -> bool {
        let alone = sink.is_alone();
        if alone {
            self.state = State::ChunksLost;
        } else {
            self.end(End::Lost, sink);
            self.state = State::Skipping;
        }
        alone
    }

    /// The direction ended.
    pub fn close(&mut self, sink: &mut impl Sink) {
        match &self.state {
            State::Length { .. } => self.end(End::Cut, sink),
            // RFC 9112 section 8: complete once the last chunk came, trailers or not.
            State::Chunked(chunked) if chunked.saw_last_chunk() => self.end(End::Complete, sink),
            State::Chunked(_) => self.end(End::Cut, sink),
            State::ChunksLost => self.end(End::Lost, sink),
            State::UntilClose => self.end(End::Complete, sink),
            State::Head | State::Skipping | State::Switched => {}
        }
        self.reset_head();
    }

    /// A head from its first byte on.
    fn feed_head<'a>(&mut self, input: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        // RFC 9112 section 2.2: empty lines before a request line are ignored.
        let before = input.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        let input = &input[before..];
        if input.is_empty() {
            return input;
        }
        if let Some(bytes) = sink.heads().and_then(|heads| heads.read(input, &mut self.head)) {
            let (head, rest) = input.split_at(bytes);
            self.begin_message(head, sink);
            return rest;
        }
        match self.head.advance(input) {
            Ok(HeadStep::Done { bytes }) => {
                let (head, rest) = input.split_at(bytes);
                if let Some(heads) = sink.heads() {
                    heads.keep(head, &self.head);
                }
                self.begin_message(head, sink);
                rest
            }
            Ok(HeadStep::More) if input.len() > HEAD_BYTES_MAX => {
                self.bad_head(Malformed::HeadTooLong, sink);
                input
            }
            Ok(HeadStep::More) => {
                self.buffer.extend_from_slice(input);
                &[]
            }
            Ok(HeadStep::Fold) => {
                let (before, rest) = input.split_at(self.head.parsed_bytes());
                self.buffer.extend_from_slice(before);
                rest
            }
            Err(error) => {
                self.bad_head(error, sink);
                // At least one byte is skipped, so the loop in `feed` moves on.
                &input[1..]
            }
        }
    }

    /// The next line of a head whose beginning is in the buffer.
    fn feed_buffered_head<'a>(&mut self, input: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        let line_bytes = memchr(b'\n', input).map_or(input.len(), |at| at + 1);
        let (line, rest) = input.split_at(line_bytes);
        if self.buffer.len() + line.len() > HEAD_BYTES_MAX {
            self.bad_head(Malformed::HeadTooLong, sink);
            return input;
        }
        self.buffer.extend_from_slice(line);
        match self.advance_buffered(line.ends_with(b"\n")) {
            Ok(HeadStep::Done { .. }) => {
                let head = std::mem::take(&mut self.buffer);
                self.begin_message(&head, sink);
                self.buffer = head;
                self.clear_buffer();
            }
            Ok(HeadStep::More | HeadStep::Fold) => {}
            Err(error) => self.bad_head(error, sink),
        }
        rest
    }

    fn advance_buffered(&mut self, line_is_whole: bool) -> Result<HeadStep, Malformed> {
        if !line_is_whole {
            // The parser would look through the line again each time a piece of it comes.
            return self.head.check_beginning(&self.buffer).map(|()| HeadStep::More);
        }
        loop {
            match self.head.advance(&self.buffer)? {
                HeadStep::Fold => self.head.unfold(&mut self.buffer)?,
                step => return Ok(step),
            }
        }
    }

    #[inline(always)]
    fn feed_chunked<'a>(&mut self, mut input: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        let State::Chunked(chunked) = &mut self.state else { return input };
        loop {
            match chunked.next(&mut input) {
                Ok(ChunkStep::Data(bytes)) => sink.body(bytes),
                Ok(ChunkStep::More) => return input,
                Ok(ChunkStep::End) => {
                    self.end(End::Complete, sink);
                    return input;
                }
                Err(error) => {
                    sink.malformed(error);
                    self.end(End::Lost, sink);
                    self.state = State::Skipping;
                    return input;
                }
            }
        }
    }

    /// A whole head is there and parsed.
    fn begin_message(&mut self, head: &[u8], sink: &mut impl Sink) {
        let framing = match Framing::of(&self.head, head, self.side) {
            Ok(framing) => framing,
            Err(error) => return self.bad_head(error, sink),
        };
        let state = match self.head.start_line() {
            StartLine::Request { method, target } => {
                let (method, target) = (method.of(head), target.of(head));
                self.head.with_fields(head, |fields| {
                    sink.request(&RequestHead { method, target, authority: None, protocol: None, fields });
                });
                framing.of_request()
            }
            StartLine::Response { status } => {
                let answers = self.head.with_fields(head, |fields| sink.response(&ResponseHead { status, fields }));
                framing.of_response(status, answers)
            }
        };
        let bare_line_feeds = self.head.has_bare_line_feeds();
        self.head.reset();
        self.probation = false;
        match state {
            framing::Body::None | framing::Body::Length(0) => self.end(End::Complete, sink),
            framing::Body::Length(remaining) => self.state = State::Length { remaining },
            framing::Body::Chunked => self.state = State::Chunked(Chunked::new(bare_line_feeds)),
            framing::Body::UntilClose => self.state = State::UntilClose,
            framing::Body::Interim => self.state = State::Head,
            framing::Body::Switch => {
                self.end(End::Complete, sink);
                self.state = State::Switched;
                sink.upgrade();
            }
        }
    }

    fn end(&mut self, end: End, sink: &mut impl Sink) {
        self.state = State::Head;
        sink.end(end);
    }

    fn bad_head(&mut self, error: Malformed, sink: &mut impl Sink) {
        if !self.probation {
            sink.malformed(error);
        }
        self.reset_head();
        self.state = State::Skipping;
    }

    fn reset_head(&mut self) {
        self.head.reset();
        self.clear_buffer();
        self.probation = false;
    }

    fn clear_buffer(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(HEAD_BUFFER_KEPT_BYTES);
    }
}
