//! HTTP/2: exchanges are streams, and each says which one it is.

use std::collections::BTreeMap;

use super::{
    Outlet,
    context::Context,
    pending::Pending,
    tunnel::{Answer, Tunnels},
};
use crate::{
    genai::Ended,
    limits::STREAMS_MAX,
    metrics::Cause,
    wire::{
        Field, RequestHead, ResponseHead,
        http2::{Decoder, End, Malformed, Sink, StreamId},
    },
};

/// An HTTP/2 connection.
pub(super) struct Http2 {
    requests: Decoder,
    responses: Decoder,
    streams: Streams,
}

/// All exchanges under way on one connection.
#[derive(Default)]
struct Streams {
    /// In the order in which clients open them, which is that of their numbers.
    pending: BTreeMap<StreamId, Pending>,
    sequence: u64,
    tunnels: Tunnels,
    /// Streams that one direction ended for both.
    reset: Vec<StreamId>,
}

impl Http2 {
    /// A connection at its start, or one that was met in the middle.
    pub fn new(midway: bool) -> Self {
        let (requests, responses) = (Decoder::requests(), Decoder::responses());
        let (requests, responses) =
            if midway { (requests.midway(), responses.midway()) } else { (requests, responses) };
        Self { requests, responses, streams: Streams::default() }
    }

    /// A connection that begins behind an upgrade from HTTP/1: what `asked` for it is stream 1 (RFC 7540
    /// section 3.2), and `sequence` exchanges came before.
    pub fn upgraded(asked: Pending, sequence: u64) -> Self {
        let mut http = Self::new(false);
        http.streams.pending.insert(StreamId(1), asked);
        http.streams.sequence = sequence;
        http
    }

    /// Takes bytes of the direction that carries requests, or of the other one.
    pub fn feed<O: Outlet>(&mut self, of_requests: bool, bytes: &[u8], context: &mut Context<'_, O>) {
        let streams = &mut self.streams;
        if of_requests {
            self.requests.feed(bytes, &mut Requests { streams, context });
        } else {
            self.responses.feed(bytes, &mut Responses { streams, context });
        }
        self.forget(of_requests, context);
    }

    /// `lost` bytes of a direction are missing.
    pub fn gap<O: Outlet>(&mut self, of_requests: bool, lost: u64, context: &mut Context<'_, O>) {
        let streams = &mut self.streams;
        if of_requests {
            self.requests.gap(lost, &mut Requests { streams, context });
        } else {
            self.responses.gap(lost, &mut Responses { streams, context });
        }
    }

    /// What one direction has reset, the other one won't end.
    fn forget<O: Outlet>(&mut self, by_requests: bool, context: &mut Context<'_, O>) {
        while let Some(stream) = self.streams.reset.pop() {
            let streams = &mut self.streams;
            if by_requests {
                self.responses.forget(stream, &mut Responses { streams, context });
            } else {
                self.requests.forget(stream, &mut Requests { streams, context });
            }
        }
    }

    /// Nothing more comes: `unanswered` is said of exchanges without a response, `answered` of those
    /// with a part of one.
    pub fn close<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, context: &mut Context<'_, O>) {
        let streams = &mut self.streams;
        self.requests.close(&mut Requests { streams, context });
        let streams = &mut self.streams;
        self.responses.close(&mut Responses { streams, context });
        self.streams.reset.clear();
        self.streams.tunnels.end_all(unanswered, answered, context);
        while let Some((_, pending)) = self.streams.pending.pop_first() {
            let ended = if pending.answered { answered } else { unanswered };
            pending.finish(ended, context);
        }
    }

    /// No message is under way in this direction.
    pub fn is_idle(&self, of_requests: bool) -> bool {
        if of_requests { self.requests.is_idle() } else { self.responses.is_idle() }
    }

    /// Exchanges wait.
    pub fn has_pending(&self) -> bool {
        !self.streams.pending.is_empty() || self.streams.tunnels.has_pending()
    }
}

impl Streams {
    /// Finishes a stream whose both directions are done, or which is over at once.
    fn finish<O: Outlet>(&mut self, stream: StreamId, ended: Ended, context: &mut Context<'_, O>) {
        if let Some(pending) = self.pending.remove(&stream) {
            pending.finish(ended, context);
        }
    }

    /// Finishes a stream when both its request and its response have ended.
    fn finish_if_done<O: Outlet>(&mut self, stream: StreamId, context: &mut Context<'_, O>) {
        let done = |pending: &Pending| pending.is_asked_whole() && pending.is_answered_whole();
        if self.pending.get(&stream).is_some_and(done) {
            self.finish(stream, Ended::Complete, context);
        }
    }
}

/// Receives what the client's direction holds.
struct Requests<'a, 'c, O> {
    streams: &'a mut Streams,
    context: &'a mut Context<'c, O>,
}

impl<O: Outlet> Sink for Requests<'_, '_, O> {
    fn request(&mut self, stream: StreamId, head: &RequestHead<'_>, unknown_fields: usize) {
        if self.streams.pending.len() >= STREAMS_MAX
            && let Some((_, oldest)) = self.streams.pending.pop_first()
        {
            self.context.shared.metrics.lost(Cause::PipelineFull, 1);
            oldest.finish(Ended::Lost, self.context);
        }
        // Every message begins with the bytes at hand: frames of streams lie between each other.
        self.context.begun_ns = self.context.now_ns;
        // Without method or target, which were lost, the body's shape decides what this is.
        let mut head = *head;
        if unknown_fields > 0 {
            head.method = if head.method.is_empty() { b"POST" } else { head.method };
            head.target = if head.target.is_empty() { b"/" } else { head.target };
        }
        self.streams.tunnels.ask(stream, &head, self.context);
        let mut pending = Pending::begin(&head, self.streams.sequence, self.context);
        self.streams.sequence += 1;
        if unknown_fields > 0 {
            pending.lose_fields();
            if head.authority.is_none() {
                pending.lose_name();
            }
        }
        if let Some(stale) = self.streams.pending.insert(stream, pending) {
            // A number that is used twice: what was before it ended in a gap.
            stale.finish(Ended::Lost, self.context);
        }
    }

    fn response(&mut self, _: StreamId, _: &ResponseHead<'_>, _: usize) {}

    fn body(&mut self, stream: StreamId, bytes: &[u8]) {
        if let Some(pending) = self.streams.pending.get_mut(&stream) {
            pending.request_bytes(bytes, self.context.shared);
        } else {
            self.streams.tunnels.feed(stream, true, bytes, self.context);
        }
    }

    fn gap(&mut self, stream: StreamId, lost_max: u64) {
        self.streams.tunnels.gap(stream, true, self.context);
        if let Some(pending) = self.streams.pending.get_mut(&stream) {
            pending.request_gap(lost_max, self.context.shared);
        }
    }

    fn trailers(&mut self, _: StreamId, _: &[Field<'_>]) {}

    fn end(&mut self, stream: StreamId, end: End) {
        self.streams.tunnels.end(stream, Ended::Cancelled, Ended::Cancelled, self.context);
        if let Some(pending) = self.streams.pending.get_mut(&stream) {
            if end == End::Lost {
                pending.lose(0);
            }
            pending.request_end(end == End::Complete, self.context.now_ns, self.context.shared);
        }
        self.streams.finish_if_done(stream, self.context);
    }

    fn reset(&mut self, stream: StreamId, _: u32) {
        // The client gave up.
        self.streams.finish(stream, Ended::Cancelled, self.context);
        self.streams.reset.push(stream);
    }

    fn go_away(&mut self, _: StreamId, _: u32) {}

    fn malformed(&mut self, _: Malformed) {
        self.context.shared.metrics.lost(Cause::MessageMalformed, 1);
    }
}

/// Receives what the server's direction holds.
struct Responses<'a, 'c, O> {
    streams: &'a mut Streams,
    context: &'a mut Context<'c, O>,
}

impl<O: Outlet> Sink for Responses<'_, '_, O> {
    fn request(&mut self, _: StreamId, _: &RequestHead<'_>, _: usize) {}

    fn response(&mut self, stream: StreamId, head: &ResponseHead<'_>, unknown_fields: usize) {
        if (100..200).contains(&head.status) {
            return;
        }
        let Some(pending) = self.streams.pending.get_mut(&stream) else {
            self.context.shared.metrics.lost(Cause::ResponseWithoutRequest, 1);
            return;
        };
        match self.streams.tunnels.answer(stream, head, self.context) {
            Answer::Opened => {
                self.streams.pending.remove(&stream);
                return;
            }
            Answer::Refused(upgrade) => pending.refused(&upgrade, self.context),
            Answer::Other => {}
        }
        pending.response_head(head, true, self.context.shared);
        if unknown_fields > 0 {
            pending.lose_fields();
        }
    }

    fn body(&mut self, stream: StreamId, bytes: &[u8]) {
        if let Some(pending) = self.streams.pending.get_mut(&stream) {
            pending.response_bytes(bytes, self.context.now_ns, self.context.shared);
        } else {
            self.streams.tunnels.feed(stream, false, bytes, self.context);
        }
    }

    fn gap(&mut self, stream: StreamId, lost_max: u64) {
        self.streams.tunnels.gap(stream, false, self.context);
        if let Some(pending) = self.streams.pending.get_mut(&stream) {
            pending.response_gap(lost_max, self.context.shared);
        }
    }

    fn trailers(&mut self, _: StreamId, _: &[Field<'_>]) {}

    fn end(&mut self, stream: StreamId, end: End) {
        let ended = match end {
            End::Complete => Ended::Complete,
            End::Reset => Ended::Cut,
            End::Cut => self.context.cut,
            End::Lost => Ended::Lost,
        };
        // A socket that ends without saying so is broken off, even where the stream is whole.
        let unsaid = if ended == Ended::Complete { Ended::Cut } else { ended };
        let unanswered = if unsaid == Ended::Cut { Ended::NoResponse } else { unsaid };
        self.streams.tunnels.end(stream, unanswered, unsaid, self.context);
        if let Some(pending) = self.streams.pending.get_mut(&stream) {
            pending.response_end(ended, self.context.now_ns, self.context.shared);
        }
        self.streams.finish_if_done(stream, self.context);
    }

    fn reset(&mut self, stream: StreamId, _: u32) {
        // After a whole response it only says that the rest of the request isn't wanted (RFC 9113
        // section 8.1); before that, the server gave up.
        let answered = self.streams.pending.get(&stream).is_some_and(|pending| pending.answered);
        self.streams.finish(stream, if answered { Ended::Cut } else { Ended::NoResponse }, self.context);
        self.streams.reset.push(stream);
    }

    fn go_away(&mut self, _: StreamId, _: u32) {}

    fn malformed(&mut self, _: Malformed) {
        self.context.shared.metrics.lost(Cause::MessageMalformed, 1);
    }
}
