//! A response body that comes event by event, whichever way its events are told apart.

use crate::{
    genai::BodyKind,
    wire::{eventstream, json_array, ndjson, sse},
};

/// Cuts a body into events.
pub(super) enum Cutter {
    /// Server-sent events.
    Events(Box<sse::Decoder>),
    /// A JSON document a line.
    Lines(Box<ndjson::Decoder>),
    /// A JSON array, element by element.
    Elements(Box<json_array::Decoder>),
    /// AWS event stream messages.
    Messages(Box<eventstream::Decoder>),
}

impl Cutter {
    /// A cutter for bodies of `kind`; `None` when they aren't cut.
    pub fn new(kind: BodyKind) -> Option<Self> {
        match kind {
            BodyKind::EventStream => Some(Self::Events(Box::default())),
            BodyKind::NdJson => Some(Self::Lines(Box::default())),
            BodyKind::JsonArray => Some(Self::Elements(Box::default())),
            BodyKind::AwsEventStream => Some(Self::Messages(Box::default())),
            BodyKind::Json | BodyKind::Skip => None,
        }
    }

    /// The kind of body that this cuts.
    pub fn kind(&self) -> BodyKind {
        match self {
            Self::Events(_) => BodyKind::EventStream,
            Self::Lines(_) => BodyKind::NdJson,
            Self::Elements(_) => BodyKind::JsonArray,
            Self::Messages(_) => BodyKind::AwsEventStream,
        }
    }

    /// Takes the next bytes; each event is handed on with its name, if it has one.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
        match self {
            Self::Events(decoder) => decoder.feed(bytes, &mut |event| each(event.name, event.data)),
            Self::Lines(decoder) => decoder.feed(bytes, &mut |line| each(b"", line)),
            Self::Elements(decoder) => decoder.feed(bytes, &mut |element| each(b"", element)),
            Self::Messages(decoder) => decoder.feed(bytes, &mut |message| each(name(&message), message.payload)),
        }
    }

    /// Bytes are missing here.
    pub fn gap(&mut self) {
        match self {
            Self::Events(decoder) => decoder.gap(),
            Self::Lines(decoder) => decoder.gap(),
            Self::Elements(decoder) => decoder.gap(),
            Self::Messages(decoder) => decoder.gap(),
        }
    }

    /// The body ended: an unfinished last event is handed on. Returns how many events were lost. The
    /// cutter is as new afterwards.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8], &[u8])) -> u64 {
        match self {
            Self::Events(decoder) => {
                decoder.finish(&mut |event| each(event.name, event.data));
                decoder.take_skipped()
            }
            Self::Lines(decoder) => {
                decoder.finish(&mut |line| each(b"", line));
                decoder.take_skipped()
            }
            Self::Elements(decoder) => {
                decoder.finish(&mut |element| each(b"", element));
                decoder.take_skipped()
            }
            Self::Messages(decoder) => {
                decoder.finish();
                decoder.take_skipped()
            }
        }
    }
}

/// What an AWS message is: an event, an exception or an error, each with a header of its own.
fn name<'a>(message: &eventstream::Message<'a>) -> &'a [u8] {
    [":event-type", ":exception-type", ":error-code"]
        .into_iter()
        .find_map(|header| message.header(header))
        .unwrap_or_default()
}
