//! HTTP/1: the exchanges of a connection are answered in the order in which they were asked.

use std::collections::VecDeque;

use super::{Outlet, Shared, context::Context, pending::Pending, socket::Socket, streams::Http2};
use crate::{
    genai::{Ended, Upgrade},
    limits::PIPELINE_MAX,
    metrics::Cause,
    wire::{
        RequestHead, ResponseHead,
        http1::{Answers, Decoder, End, Heads, Malformed, Sink},
        websocket::{Extensions, has_token},
    },
};

/// An HTTP/1 connection.
pub(super) struct Http1 {
    requests: Decoder,
    responses: Decoder,
    exchanges: Exchanges,
}

/// What a connection has become by an upgrade.
pub(super) enum Successor {
    /// RFC 6455.
    WebSocket(Box<Socket>),
    /// RFC 7540 section 3.2, which RFC 9113 has given up and servers haven't.
    Http2(Box<Http2>),
}

/// All exchanges under way on one connection.
#[derive(Default)]
struct Exchanges {
    pending: VecDeque<(Answers, Pending)>,
    sequence: u64,
    /// The last of `pending` still has its request arriving.
    request_open: bool,
    /// Responses may have been missed since the last one that is known.
    responses_unsure: bool,
    /// Requests may have been missed since the last one that is known.
    requests_unsure: bool,
    /// A request was seen before the response to the one before it.
    pipelined: bool,
    /// A response came while later requests waited for theirs, and nothing was missed.
    answered_in_turn: bool,
    /// The response that is arriving belongs to no request that was seen.
    orphan: bool,
    /// That was so while nothing was missed: should it have come before its request here, the next request
    /// is answered already, and must not be given the answer to the one after it.
    answered_early: bool,
    /// Of a connection that was met in the middle the first response belongs to no request.
    midway: bool,
    /// The last request asked for a WebSocket that may carry calls.
    upgrade: Option<Box<Upgrade>>,
    /// What took over.
    successor: Option<Successor>,
    /// Another protocol took over, or there is no telling what is what any more.
    over: bool,
}

impl Http1 {
    /// A connection at its start, or one that was met in the middle.
    pub fn new(midway: bool) -> Self {
        let (requests, responses) = (Decoder::requests(), Decoder::responses());
        let (requests, responses) =
            if midway { (requests.midway(), responses.midway()) } else { (requests, responses) };
        // Hardly any connection has more than one under way.
        let exchanges = Exchanges { pending: VecDeque::with_capacity(1), midway, ..Exchanges::default() };
        Self { requests, responses, exchanges }
    }

    /// Takes bytes of the direction that carries requests, or of the other one.
    pub fn feed<O: Outlet>(&mut self, of_requests: bool, bytes: &[u8], context: &mut Context<'_, O>) {
        let exchanges = &mut self.exchanges;
        if of_requests {
            self.requests.feed(bytes, &mut Requests { exchanges, context });
        } else {
            self.responses.feed(bytes, &mut Responses { exchanges, context });
        }
    }

    /// `lost` bytes of a direction are missing.
    pub fn gap<O: Outlet>(&mut self, of_requests: bool, lost: u64, context: &mut Context<'_, O>) {
        let exchanges = &mut self.exchanges;
        if of_requests {
            if !self.requests.gap(lost, &mut Requests { exchanges, context }) {
                self.exchanges.requests_unsure = true;
            }
        } else if !self.responses.gap(lost, &mut Responses { exchanges, context }) {
            self.exchanges.responses_unsure = true;
            self.exchanges.orphan = false;
        }
    }

    /// Nothing more comes: `unanswered` is said of exchanges without a response, `answered` of those
    /// with a part of one.
    pub fn close<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, context: &mut Context<'_, O>) {
        let exchanges = &mut self.exchanges;
        self.requests.close(&mut Requests { exchanges, context });
        let exchanges = &mut self.exchanges;
        self.responses.close(&mut Responses { exchanges, context });
        // An answer that was missed is not one that never came.
        let unanswered = if self.exchanges.responses_unsure { Ended::Lost } else { unanswered };
        self.exchanges.finish_all(unanswered, answered, context);
    }

    /// No message is under way in this direction.
    pub fn is_idle(&self, of_requests: bool) -> bool {
        if of_requests { self.requests.is_idle() } else { self.responses.is_idle() }
    }

    /// Exchanges wait.
    pub fn has_pending(&self) -> bool {
        !self.exchanges.pending.is_empty()
    }

    /// What the connection has become, if that has just happened.
    pub fn take_successor(&mut self) -> Option<Successor> {
        self.exchanges.successor.take()
    }

    /// Nothing more of this connection can be read.
    pub fn is_over(&self) -> bool {
        self.exchanges.over
    }
}

/// Receives what the requests' decoder finds.
struct Requests<'a, 'c, O> {
    exchanges: &'a mut Exchanges,
    context: &'a mut Context<'c, O>,
}

impl<O: Outlet> Requests<'_, '_, O> {
    /// The request that is arriving.
    fn current(&mut self) -> Option<(&mut Pending, &mut Shared)> {
        let (_, pending) = self.exchanges.pending.back_mut().filter(|_| self.exchanges.request_open)?;
        Some((pending, self.context.shared))
    }
}

impl<O: Outlet> Sink for Requests<'_, '_, O> {
    fn request(&mut self, head: &RequestHead<'_>) {
        self.exchanges.begin(head, self.context);
    }

    fn response(&mut self, _: &ResponseHead<'_>) -> Answers {
        Answers::Other
    }

    fn body(&mut self, bytes: &[u8]) {
        if let Some((pending, shared)) = self.current() {
            pending.request_bytes(bytes, shared);
        }
    }

    fn gap(&mut self, lost: u64) {
        if let Some((pending, shared)) = self.current() {
            pending.request_gap(lost, shared);
        }
    }

    fn end(&mut self, end: End) {
        let now_ns = self.context.now_ns;
        if let Some((pending, shared)) = self.current() {
            if end == End::Lost {
                pending.lose(0);
            }
            // A request that the connection's end cut off is as whole as it will be.
            pending.request_end(end == End::Complete, now_ns, shared);
        }
        self.exchanges.request_open = false;
        self.exchanges.finish_answered(self.context);
        // What follows in the same bytes is another message.
        self.context.begun_ns = now_ns;
    }

    fn upgrade(&mut self) {}

    fn heads(&mut self) -> Option<&mut Heads> {
        Some(&mut self.context.shared.heads)
    }

    fn malformed(&mut self, _: Malformed) {
        self.context.shared.metrics.lost(Cause::MessageMalformed, 1);
    }
}

/// Receives what the responses' decoder finds.
struct Responses<'a, 'c, O> {
    exchanges: &'a mut Exchanges,
    context: &'a mut Context<'c, O>,
}

impl<O: Outlet> Responses<'_, '_, O> {
    /// The exchange whose response is arriving.
    fn current(&mut self) -> Option<(&mut Pending, &mut Shared)> {
        let (_, pending) = self.exchanges.pending.front_mut().filter(|_| !self.exchanges.orphan)?;
        Some((pending, self.context.shared))
    }
}

impl<O: Outlet> Sink for Responses<'_, '_, O> {
    fn request(&mut self, _: &RequestHead<'_>) {}

    fn response(&mut self, head: &ResponseHead<'_>) -> Answers {
        self.exchanges.answer(head, self.context)
    }

    fn body(&mut self, bytes: &[u8]) {
        let now_ns = self.context.now_ns;
        if let Some((pending, shared)) = self.current() {
            pending.response_bytes(bytes, now_ns, shared);
        }
    }

    fn gap(&mut self, lost: u64) {
        if let Some((pending, shared)) = self.current() {
            pending.response_gap(lost, shared);
        }
    }

    fn end(&mut self, end: End) {
        let ended = match end {
            End::Complete => Ended::Complete,
            End::Cut => self.context.cut,
            End::Lost => Ended::Lost,
        };
        let now_ns = self.context.now_ns;
        if let Some((pending, shared)) = self.current() {
            pending.response_end(ended, now_ns, shared);
        }
        self.exchanges.orphan = false;
        self.exchanges.finish_answered(self.context);
    }

    fn upgrade(&mut self) {
        self.exchanges.over = self.exchanges.successor.is_none();
        if self.exchanges.over {
            // The server didn't wait for all of the request, whose rest nobody reads.
            self.exchanges.finish_all(Ended::Lost, Ended::Lost, self.context);
        }
    }

    fn switched(&mut self, bytes: &[u8]) {
        // A server that has much to say doesn't wait.
        self.context.begun_ns = self.context.now_ns;
        match &mut self.exchanges.successor {
            Some(Successor::WebSocket(socket)) => socket.feed(false, bytes, self.context),
            Some(Successor::Http2(http)) => http.feed(false, bytes, self.context),
            None => {}
        }
    }

    fn heads(&mut self) -> Option<&mut Heads> {
        Some(&mut self.context.shared.heads)
    }

    fn is_alone(&self) -> bool {
        self.exchanges.pending.len() == 1 && !self.exchanges.orphan && !self.exchanges.responses_unsure
    }

    fn malformed(&mut self, _: Malformed) {
        self.context.shared.metrics.lost(Cause::MessageMalformed, 1);
        self.exchanges.responses_unsure = true;
    }
}

impl Exchanges {
    fn begin<O: Outlet>(&mut self, head: &RequestHead<'_>, context: &mut Context<'_, O>) {
        if std::mem::take(&mut self.responses_unsure) {
            // Without pipelining nobody asks again before the answer, so the answers to all before
            // this one are among what was missed.
            self.finish_all(Ended::Lost, Ended::Lost, context);
        }
        if self.requests_unsure && (self.answered_in_turn || !self.pending.is_empty()) {
            // Requests are sent before their turn here, and nobody knows how many were missed. What was
            // asked before them is answered first; which answer is to this one can't be told.
            context.shared.metrics.lost(Cause::ConnectionGivenUp, 1);
            self.finish_all(Ended::Lost, Ended::Lost, context);
            self.over = true;
            return;
        }
        self.pipelined |= self.pending.iter().any(|(_, pending)| !pending.answered);
        if self.pending.len() >= PIPELINE_MAX {
            context.shared.metrics.lost(Cause::PipelineFull, self.pending.len() as u64 + 1);
            self.finish_all(Ended::Lost, Ended::Lost, context);
            self.over = true;
            return;
        }
        let answers = match head.method {
            b"HEAD" => Answers::Head,
            b"CONNECT" => Answers::Connect,
            _ => Answers::Other,
        };
        let is_wanted = context.shared.settings.roles.include(context.role);
        self.upgrade = if is_wanted { Upgrade::of(head).map(Box::new) } else { None };
        let mut pending = Pending::begin(head, self.sequence, context);
        if self.requests_unsure {
            // Should what was missed have been sent ahead, the next answer isn't to this; the span says
            // that not all was seen.
            pending.lose(0);
        }
        if std::mem::take(&mut self.answered_early) {
            pending.lose(0);
            self.responses_unsure = true;
        }
        self.midway = false;
        self.pending.push_back((answers, pending));
        self.sequence += 1;
        self.request_open = true;
    }

    fn answer<O: Outlet>(&mut self, head: &ResponseHead<'_>, context: &mut Context<'_, O>) -> Answers {
        let several = self.pending.len() > 1;
        // An answer while one waits, without any sign of requests that were sent ahead.
        self.requests_unsure &= several;
        if std::mem::take(&mut self.responses_unsure) && several {
            self.answer_one_of_several(context);
        } else {
            self.answered_in_turn |= several;
        }
        // RFC 9110 section 15.2: an interim response, the final one is to come.
        if head.status < 200 && head.status != 101 {
            return self.pending.front().map_or(Answers::Other, |(answers, _)| *answers);
        }
        if head.status == 101 && !several {
            self.switch(head, context);
        }
        match self.pending.front_mut() {
            // What has become a stream of HTTP/2 is answered there.
            None if self.successor.is_some() => Answers::Other,
            Some((answers, pending)) if !pending.is_answered_whole() => {
                if head.status >= 400
                    && !several
                    && let Some(upgrade) = self.upgrade.take()
                {
                    pending.refused(&upgrade, context);
                }
                pending.response_head(head, *answers != Answers::Head, context.shared);
                *answers
            }
            _ => {
                self.orphan = true;
                self.answered_early = !std::mem::take(&mut self.midway);
                context.shared.metrics.lost(Cause::ResponseWithoutRequest, 1);
                Answers::Other
            }
        }
    }

    /// The server agrees to another protocol, which the only request that waits has asked for.
    fn switch<O: Outlet>(&mut self, head: &ResponseHead<'_>, context: &mut Context<'_, O>) {
        if has_token(head.fields, "upgrade", "websocket") {
            self.successor = self.upgrade.take().and_then(|upgrade| {
                let extensions = Extensions::agreed(head.fields);
                let unknown = |_| context.shared.metrics.lost(Cause::SocketGivenUp, 1);
                let extensions = extensions.map_err(unknown).ok()?;
                Some(Successor::WebSocket(Box::new(Socket::new(upgrade, &extensions, self.sequence))))
            });
        } else if has_token(head.fields, "upgrade", "h2c") {
            if self.request_open {
                // The rest of the request still comes as HTTP/1. Servers read all of it first.
                context.shared.metrics.lost(Cause::ConnectionGivenUp, 1);
                return self.finish_all(Ended::Lost, Ended::Lost, context);
            }
            if let Some((_, pending)) = self.pending.pop_front() {
                self.successor = Some(Successor::Http2(Box::new(Http2::upgraded(pending, self.sequence))));
            }
        }
    }

    /// Some requests wait, and what was missed may have answered any of them. A response that was lost
    /// whole looks like pipelining until its loss shows, so that only a connection which has pipelined
    /// for certain is taken to do so; on any other it is the last that is answered.
    fn answer_one_of_several<O: Outlet>(&mut self, context: &mut Context<'_, O>) {
        if self.answered_in_turn {
            return self.finish_all(Ended::Lost, Ended::Lost, context);
        }
        let Some((answers, mut last)) = self.pending.pop_back() else { return };
        last.lose(0);
        let request_open = self.request_open;
        self.finish_all(Ended::Lost, Ended::Lost, context);
        self.request_open = request_open;
        self.pending.push_back((answers, last));
        self.pipelined = false;
    }

    /// Finishes what is answered. A response may end before its request does, as an early refusal:
    /// then the rest of the request still says what was asked.
    fn finish_answered<O: Outlet>(&mut self, context: &mut Context<'_, O>) {
        while let Some((_, front)) = self.pending.front() {
            let still_asking = self.request_open && self.pending.len() == 1;
            if !front.is_answered_whole() || still_asking {
                return;
            }
            if let Some((_, pending)) = self.pending.pop_front() {
                pending.finish(Ended::Complete, context);
            }
        }
    }

    fn finish_all<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, context: &mut Context<'_, O>) {
        self.request_open = false;
        while let Some((_, pending)) = self.pending.pop_front() {
            let ended = if pending.answered { answered } else { unanswered };
            pending.finish(ended, context);
        }
        self.orphan = false;
    }
}
