//! WebSocket (RFC 6455), one direction of one connection, with `permessage-deflate` (RFC 7692).
//!
//! ```text
//! for each frame: head (2 to 14 bytes) ─► payload ─► unmasked ─► inflated ─► message, once FIN came
//!                                            └ control frames lie between the frames of a message
//! ```
//!
//! A message that lies whole in one piece of the input, not masked and not compressed, is handed on
//! where it is. Any other is put together in a buffer. Nothing in the middle of a stream of frames
//! tells where the next one begins, so a gap that hides a frame's head ends the reading.

mod deflate;
mod frame;
#[cfg(test)]
mod tests;

pub use self::deflate::{Extensions, Unsupported};
use self::{
    deflate::Inflater,
    frame::{CONTROL_BYTES_MAX, Frame, HEAD_BYTES_MAX, Opcode},
};
use super::Field;
use crate::limits::{DECODED_BYTES_MAX, STREAM_BUFFER_KEPT_BYTES, STREAM_EVENT_BYTES_MAX};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, says its sender.
    Text,
    /// Anything.
    Binary,
}

/// Receives the messages of one direction.
pub trait Sink {
    /// A whole message.
    fn message(&mut self, kind: Kind, payload: &[u8]);
    /// A message was dropped: a gap of so many bytes hit it, or (0 then) it is longer than
    /// [`STREAM_EVENT_BYTES_MAX`].
    fn lost(&mut self, bytes: u64);
    /// This side sends nothing more; its reason, if it gave one.
    fn close(&mut self, code: Option<u16>);
}

/// Why bytes can't be read as WebSocket frames any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// A reserved bit without an extension that gives it a meaning.
    #[error("reserved bit")]
    Reserved,
    /// An opcode that has no meaning.
    #[error("unknown opcode")]
    Opcode,
    /// Clients mask and servers don't (RFC 6455 section 5.1).
    #[error("masked by the wrong side")]
    Mask,
    /// A length beyond 63 bits.
    #[error("bad length")]
    Length,
    /// A control frame that is long or fragmented.
    #[error("bad control frame")]
    Control,
    /// A continuation of nothing, or a new message inside another one.
    #[error("bad fragment")]
    Fragment,
    /// Compressed data that can't be decompressed.
    #[error("bad compressed data")]
    Deflate,
    /// A message expands beyond [`DECODED_BYTES_MAX`].
    #[error("message expands too far")]
    TooLarge,
    /// Where the next frame begins was lost in a gap.
    #[error("lost in a gap")]
    Gap,
}

/// A data message whose last frame has not ended.
#[derive(Clone, Copy, Debug)]
struct Open {
    kind: Kind,
    compressed: bool,
    /// It won't be handed on, but the inflater may need the rest of it.
    dropped: bool,
    /// What is left of its compressed data is of no use.
    broken: bool,
    decoded_bytes: usize,
}

#[derive(Debug)]
enum State {
    /// In a frame's head.
    Head,
    Payload(Frame),
    /// After the close frame, or an error.
    Over(Option<Malformed>),
}

/// Turns the bytes of one direction into messages.
#[derive(Debug)]
pub struct Decoder {
    /// This direction is the client's.
    masks: bool,
    state: State,
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    control: [u8; CONTROL_BYTES_MAX],
    control_bytes: usize,
    open: Option<Open>,
    /// The message under way, unmasked and decompressed.
    buffer: Vec<u8>,
    inflater: Option<Inflater>,
}

impl Decoder {
    /// A decoder for what the client sends after the opening handshake.
    pub fn client(extensions: &Extensions) -> Self {
        Self::new(true, extensions.deflate.map(|deflate| deflate.client_takes_over))
    }

    /// A decoder for what the server sends after the opening handshake.
    pub fn server(extensions: &Extensions) -> Self {
        Self::new(false, extensions.deflate.map(|deflate| deflate.server_takes_over))
    }

    fn new(masks: bool, deflate: Option<bool>) -> Self {
        Self {
            masks,
            state: State::Head,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            control: [0; CONTROL_BYTES_MAX],
            control_bytes: 0,
            open: None,
            buffer: Vec::new(),
            inflater: deflate.map(Inflater::new),
        }
    }

    /// Bytes held: of the message under way, and the inflater's window.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.inflater.as_ref().map_or(0, Inflater::held_bytes)
    }

    /// No message is under way.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && (self.head_bytes == 0 || matches!(self.state, State::Over(_)))
    }

    /// Takes the next bytes. After an error nothing more can be read, and every further call says so
    /// again.
    pub fn feed(&mut self, mut input: &[u8], sink: &mut impl Sink) -> Result<(), Malformed> {
        while !input.is_empty() {
            let fed = match &self.state {
                State::Head => self.feed_head(input, sink),
                State::Payload(_) => self.feed_payload(input, sink),
                State::Over(error) => return error.map_or(Ok(()), Err),
            };
            match fed {
                Ok(rest) => input = rest,
                Err(error) => return self.give_up(error),
            }
        }
        Ok(())
    }

    /// `lost` bytes are missing here. An error when where the next frame begins was among them.
    pub fn gap(&mut self, lost: u64, sink: &mut impl Sink) -> Result<(), Malformed> {
        match &mut self.state {
            State::Over(error) => error.map_or(Ok(()), Err),
            State::Payload(frame) if lost <= frame.remaining => {
                frame.skip(lost);
                let (is_over, is_data) = (frame.remaining == 0, !frame.opcode.is_control());
                if is_data && !self.drop_open(lost, sink) {
                    return self.give_up(Malformed::Gap);
                }
                if is_over {
                    return self.end_frame(sink).or_else(|error| self.give_up(error));
                }
                Ok(())
            }
            State::Head | State::Payload(_) => {
                if self.open.is_some_and(|open| !open.dropped) {
                    sink.lost(lost);
                }
                self.give_up(Malformed::Gap)
            }
        }
    }

    fn give_up(&mut self, error: Malformed) -> Result<(), Malformed> {
        self.state = State::Over(Some(error));
        self.open = None;
        self.buffer = Vec::new();
        self.inflater = None;
        Err(error)
    }

    /// A gap hit the message under way; false when later ones can't be read without it.
    fn drop_open(&mut self, lost: u64, sink: &mut impl Sink) -> bool {
        let Some(open) = &mut self.open else { return true };
        if !std::mem::replace(&mut open.dropped, true) {
            sink.lost(lost);
        }
        open.broken = true;
        self.buffer.clear();
        !(open.compressed && self.inflater.as_ref().is_some_and(Inflater::takes_over))
    }

    /// Bytes of a frame's head.
    fn feed_head<'a>(&mut self, input: &'a [u8], sink: &mut impl Sink) -> Result<&'a [u8], Malformed> {
        let mut rest = input;
        loop {
            let have = self.head.get(..self.head_bytes).unwrap_or_default();
            let missing = frame::head_bytes(have).saturating_sub(self.head_bytes);
            if missing == 0 {
                break;
            }
            let (here, after) = rest.split_at(missing.min(rest.len()));
            if here.is_empty() {
                return Ok(rest);
            }
            if let Some(to) = self.head.get_mut(self.head_bytes..self.head_bytes + here.len()) {
                to.copy_from_slice(here);
            }
            self.head_bytes += here.len();
            rest = after;
        }
        let head = self.head.get(..std::mem::take(&mut self.head_bytes)).unwrap_or_default();
        let frame = Frame::parse(head, self.masks)?;
        self.begin_frame(frame, sink)?;
        Ok(rest)
    }

    fn begin_frame(&mut self, frame: Frame, sink: &mut impl Sink) -> Result<(), Malformed> {
        // RFC 7692 section 6: the bit stands on the first frame of a compressed message only.
        if frame.compressed && (self.inflater.is_none() || !frame.opcode.begins_message()) {
            return Err(Malformed::Reserved);
        }
        match (frame.opcode, &self.open) {
            (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Malformed::Fragment),
            (Opcode::Text | Opcode::Binary, None) => {
                let kind = if frame.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
                let compressed = frame.compressed;
                self.open = Some(Open { kind, compressed, dropped: false, broken: false, decoded_bytes: 0 });
            }
            _ => self.control_bytes = 0,
        }
        let is_over = frame.remaining == 0;
        self.state = State::Payload(frame);
        if is_over { self.end_frame(sink) } else { Ok(()) }
    }

    /// Bytes of a frame's payload.
    fn feed_payload<'a>(&mut self, input: &'a [u8], sink: &mut impl Sink) -> Result<&'a [u8], Malformed> {
        let State::Payload(frame) = &mut self.state else { return Ok(input) };
        let here = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = input.split_at(here);
        let before = *frame;
        frame.skip(here as u64);
        let is_over = frame.remaining == 0;
        if before.opcode.is_control() {
            if let Some(to) = self.control.get_mut(self.control_bytes..self.control_bytes + here) {
                to.copy_from_slice(payload);
                before.unmask(to);
                self.control_bytes += here;
            }
        } else if is_over && before.is_alone() && self.takes_as_it_is(payload, sink) {
            return Ok(rest);
        } else {
            self.take(payload, before)?;
        }
        if is_over {
            self.end_frame(sink)?;
        }
        Ok(rest)
    }

    /// Hands on a message that is whole in the input and needs nothing done to it.
    fn takes_as_it_is(&mut self, payload: &[u8], sink: &mut impl Sink) -> bool {
        let plain = |open: &Open| !self.masks && !open.compressed && !open.dropped && self.buffer.is_empty();
        let Some(open) = self.open.filter(plain) else { return false };
        self.open = None;
        self.state = State::Head;
        if payload.len() > STREAM_EVENT_BYTES_MAX {
            sink.lost(0);
        } else {
            sink.message(open.kind, payload);
        }
        true
    }

    /// Adds payload to the message under way.
    fn take(&mut self, payload: &[u8], frame: Frame) -> Result<(), Malformed> {
        let Some(open) = &mut self.open else { return Ok(()) };
        match &mut self.inflater {
            Some(inflater) if open.compressed => {
                if open.broken {
                    return Ok(());
                }
                inflater.run(payload, frame, &mut |bytes| open.keep(&mut self.buffer, bytes))
            }
            _ => {
                let before = self.buffer.len();
                open.keep(&mut self.buffer, payload)?;
                if let Some(kept) = self.buffer.get_mut(before..) {
                    frame.unmask(kept);
                }
                Ok(())
            }
        }
    }

    fn end_frame(&mut self, sink: &mut impl Sink) -> Result<(), Malformed> {
        let State::Payload(frame) = std::mem::replace(&mut self.state, State::Head) else { return Ok(()) };
        if frame.opcode == Opcode::Close {
            self.state = State::Over(None);
            let code = self.control.get(..self.control_bytes).and_then(|bytes| bytes.first_chunk());
            sink.close(code.map(|code| u16::from_be_bytes(*code)));
        }
        if frame.opcode.is_control() || !frame.is_last {
            return Ok(());
        }
        if let (Some(open), Some(inflater)) = (&mut self.open, &mut self.inflater)
            && open.compressed
        {
            inflater.end_message(open.broken, &mut |bytes| open.keep(&mut self.buffer, bytes))?;
        }
        if let Some(open) = self.open.take() {
            match (open.dropped, open.broken) {
                (false, _) => sink.message(open.kind, &self.buffer),
                (true, false) => sink.lost(0),
                // It was said when the gap came.
                (true, true) => {}
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(STREAM_BUFFER_KEPT_BYTES);
        Ok(())
    }
}

impl Open {
    /// Adds to the message in `buffer`, as far as a message may be long.
    fn keep(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Malformed> {
        self.decoded_bytes = self.decoded_bytes.saturating_add(bytes.len());
        if self.compressed && self.decoded_bytes > DECODED_BYTES_MAX {
            return Err(Malformed::TooLarge);
        }
        if self.decoded_bytes > STREAM_EVENT_BYTES_MAX {
            self.dropped = true;
            buffer.clear();
        }
        if !self.dropped {
            buffer.extend_from_slice(bytes);
        }
        Ok(())
    }
}

/// Whether the value of a comma-separated field has this token, in any case.
pub fn has_token(fields: &[Field<'_>], name: &str, token: &str) -> bool {
    let mut tokens = super::fields(fields, name).flat_map(|value| value.split(|&byte| byte == b','));
    tokens.any(|known| known.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
