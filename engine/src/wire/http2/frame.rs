//! Frame headers (RFC 9113 section 4.1), and whether bytes can be one.

use memchr::memchr_iter;

use super::{Malformed, StreamId};

pub(super) const HEADER_BYTES: usize = 9;

/// Frames in a row that prove a boundary.
const CHAIN_FRAMES: usize = 3;

/// The largest frame without SETTINGS_MAX_FRAME_SIZE (section 6.5.2). Peers do raise it, but when
/// looking for a boundary a larger length is more likely to be something else.
const USUAL_BYTES_MAX: u32 = 16_384;

/// The type of a frame (section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension, to be ignored (section 5.5).
    Other,
}

/// A frame header. Flags are asked for by name, since what a bit means depends on the type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub length: u32,
    pub kind: Kind,
    pub stream: StreamId,
    flags: u8,
}

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

impl Frame {
    pub fn parse(header: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = *header;
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::ResetStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Other,
        };
        // The highest bit is reserved and to be ignored.
        let stream = StreamId(u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff);
        Self { length: u32::from_be_bytes([0, a, b, c]), kind, stream, flags }
    }

    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    pub fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

    pub fn is_padded(&self) -> bool {
        self.flags & PADDED != 0
    }

    pub fn has_priority(&self) -> bool {
        self.flags & PRIORITY != 0
    }

    /// What the definitions of section 6 say on lengths and streams. A frame that breaks them is a
    /// connection error for its receiver, so it is no frame, or one of which the start was missed.
    pub fn check(&self) -> Result<(), Malformed> {
        let on_stream = self.stream.0 != 0;
        let possible = match self.kind {
            Kind::Data | Kind::Headers | Kind::Continuation => on_stream,
            Kind::PushPromise => on_stream && self.length >= 4,
            Kind::Priority => on_stream && self.length == 5,
            Kind::ResetStream => on_stream && self.length == 4,
            Kind::Settings if self.flags & ACK != 0 => !on_stream && self.length == 0,
            Kind::Settings => !on_stream && self.length.is_multiple_of(6),
            Kind::Ping => !on_stream && self.length == 8,
            Kind::GoAway => !on_stream && self.length >= 8,
            Kind::WindowUpdate => self.length == 4,
            Kind::Other => true,
        };
        if possible { Ok(()) } else { Err(Malformed::Frame) }
    }

    /// Stricter: what a frame usually looks like, for finding one among other bytes.
    fn is_plausible(&self) -> bool {
        let flags = match self.kind {
            Kind::Data => END_STREAM | PADDED,
            Kind::Headers => END_STREAM | END_HEADERS | PADDED | PRIORITY,
            Kind::Settings | Kind::Ping => ACK,
            Kind::PushPromise => END_HEADERS | PADDED,
            Kind::Continuation => END_HEADERS,
            Kind::Priority | Kind::ResetStream | Kind::GoAway | Kind::WindowUpdate => 0,
            Kind::Other => return false,
        };
        self.check().is_ok() && self.flags & !flags == 0 && self.length <= USUAL_BYTES_MAX && self.stream.0 < 1 << 24
    }
}

/// Where in `input` a frame begins, after a loss. One plausible header is enough where a piece of the
/// direction starts; elsewhere the headers after it have to fit too.
pub(super) fn find_boundary(input: &[u8], piece_start: bool) -> Option<usize> {
    if piece_start && chain(input) > 0 {
        return Some(0);
    }
    // The first byte of a usual length is 0, which text doesn't contain.
    memchr_iter(0, input).find(|&at| chain(&input[at..]) >= CHAIN_FRAMES)
}

/// How many frames in a row begin here: all that begin in `input` have to be plausible. Frames that
/// end where the input ends count as a full chain.
fn chain(mut input: &[u8]) -> usize {
    for frames in 0..CHAIN_FRAMES {
        let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return frames };
        let frame = Frame::parse(header);
        if !frame.is_plausible() {
            return 0;
        }
        match rest.split_at_checked(frame.length as usize) {
            Some((_, [])) => return CHAIN_FRAMES,
            Some((_, rest)) => input = rest,
            None => return frames + 1,
        }
    }
    CHAIN_FRAMES
}
