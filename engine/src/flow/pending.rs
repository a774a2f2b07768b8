//! Exchanges that wait for their responses, in the order of their requests.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Outlet, Shared,
    body::{Body, Reader},
};
use crate::{
    arena::{Family, Travelling},
    exchange::{Exchange, Process, Role, TraceContext},
    genai::{BodyKind, Draft, DraftFamily, Ended, Verdict, trace_parent},
    limits::PIPELINE_MAX,
    metrics::{Cause, Total},
    wire::{
        RequestHead, ResponseHead,
        http1::{Answers, End, Malformed, Sink},
    },
};

/// A draft, or the finding that there is none to make.
struct MaybeDraft;

impl Family for MaybeDraft {
    type In<'a> = Option<Draft<'a>>;
}

/// One exchange from the head of its request on.
struct Pending {
    answers: Answers,
    /// `None` when it is no LLM call, or of a side that nobody asked for.
    draft: Option<Travelling<DraftFamily>>,
    trace: TraceContext,
    thread_id: u32,
    begun_ns: u64,
    request_ended_ns: Option<u64>,
    first_chunk_ns: Option<u64>,
    lost_bytes: u64,
    incomplete: bool,
    request_body: Option<Body>,
    response_body: Option<Body>,
    /// The final response's head was seen.
    answered: bool,
    /// The response ended, maybe before the request did.
    response_ended: Option<(Ended, u64)>,
}

/// All exchanges under way on one connection.
#[derive(Default)]
pub(super) struct Exchanges {
    pending: VecDeque<Pending>,
    sequence: u64,
    /// The last of `pending` still has its request arriving.
    request_open: bool,
    /// Responses may have been missed since the last one that is known.
    responses_unsure: bool,
    /// A request was seen before the response to the one before it.
    pipelined: bool,
    /// A response came while later requests waited for theirs, and nothing was missed.
    answered_in_turn: bool,
    /// The response that is arriving belongs to no request that was seen.
    orphan: bool,
    /// Another protocol took over.
    pub switched: bool,
}

/// What an event of a decoder is to be seen with.
pub(super) struct Context<'a, O> {
    pub shared: &'a mut Shared,
    pub outlet: &'a mut O,
    pub conn: u64,
    pub role: Role,
    pub process: &'a Arc<Process>,
    /// When and by which thread the message under way was begun.
    pub begun_ns: u64,
    pub thread_id: u32,
    /// The time of the bytes at hand.
    pub now_ns: u64,
    /// What a connection that ends inside a response means.
    pub cut: Ended,
}

/// Receives what the requests' decoder finds.
pub(super) struct Requests<'a, 'c, O> {
    pub exchanges: &'a mut Exchanges,
    pub context: &'a mut Context<'c, O>,
}

/// Receives what the responses' decoder finds.
pub(super) struct Responses<'a, 'c, O> {
    pub exchanges: &'a mut Exchanges,
    pub context: &'a mut Context<'c, O>,
}

impl<O: Outlet> Sink for Requests<'_, '_, O> {
    fn request(&mut self, head: &RequestHead<'_>) {
        self.exchanges.begin(head, self.context);
    }

    fn response(&mut self, _: &ResponseHead<'_>) -> Answers {
        Answers::Other
    }

    fn body(&mut self, bytes: &[u8]) {
        let Some(pending) = self.exchanges.pending.back_mut().filter(|_| self.exchanges.request_open) else { return };
        if let (Some(body), Some(draft)) = (&mut pending.request_body, &mut pending.draft) {
            let (pools, mut reader) = self.context.shared.reader(draft);
            body.feed(bytes, pools, &mut reader);
        }
    }

    fn gap(&mut self, lost: u64) {
        let Some(pending) = self.exchanges.pending.back_mut().filter(|_| self.exchanges.request_open) else { return };
        pending.lose(lost);
        if let Some(body) = &mut pending.request_body {
            body.gap(&mut self.context.shared.pools);
        }
    }

    fn end(&mut self, end: End) {
        self.exchanges.end_request(end, self.context);
        // What follows in the same bytes is another message.
        self.context.begun_ns = self.context.now_ns;
    }

    fn upgrade(&mut self) {}

    fn malformed(&mut self, _: Malformed) {
        self.context.shared.metrics.lost(Cause::MessageMalformed, 1);
    }
}

impl<O: Outlet> Sink for Responses<'_, '_, O> {
    fn request(&mut self, _: &RequestHead<'_>) {}

    fn response(&mut self, head: &ResponseHead<'_>) -> Answers {
        self.exchanges.answer(head, self.context)
    }

    fn body(&mut self, bytes: &[u8]) {
        if self.exchanges.orphan {
            return;
        }
        let Some(pending) = self.exchanges.pending.front_mut() else { return };
        if let (Some(body), Some(draft)) = (&mut pending.response_body, &mut pending.draft) {
            let (pools, mut reader) = self.context.shared.reader(draft);
            if body.feed(bytes, pools, &mut reader) > 0 {
                pending.first_chunk_ns.get_or_insert(self.context.now_ns);
            }
        }
    }

    fn gap(&mut self, lost: u64) {
        if self.exchanges.orphan {
            return;
        }
        let Some(pending) = self.exchanges.pending.front_mut() else { return };
        pending.lose(lost);
        if let Some(body) = &mut pending.response_body {
            body.gap(&mut self.context.shared.pools);
        }
    }

    fn end(&mut self, end: End) {
        if std::mem::take(&mut self.exchanges.orphan) {
            return;
        }
        let ended = match end {
            End::Complete => Ended::Complete,
            End::Cut => self.context.cut,
            End::Lost => Ended::Lost,
        };
        self.exchanges.end_response(ended, self.context);
    }

    fn upgrade(&mut self) {
        self.exchanges.switched = true;
    }

    fn malformed(&mut self, _: Malformed) {
        self.context.shared.metrics.lost(Cause::MessageMalformed, 1);
        self.exchanges.responses_unsure = true;
    }
}

impl Shared {
    fn reader<'a>(&'a mut self, draft: &'a mut Travelling<DraftFamily>) -> (&'a mut super::Pools, Reader<'a>) {
        let reader = Reader { draft, scratch: &mut self.scratch, options: &self.settings.call, metrics: &self.metrics };
        (&mut self.pools, reader)
    }
}

impl Pending {
    fn lose(&mut self, bytes: u64) {
        self.lost_bytes += bytes;
        self.incomplete = true;
    }

    /// Ends the request's body and lets it decide whether this is a call.
    fn end_request_body(&mut self, whole: bool, shared: &mut Shared) {
        let Some(draft) = &mut self.draft else { return };
        let mut verdict = Verdict::Call;
        match self.request_body.take() {
            Some(body) if whole => {
                let (pools, mut reader) = shared.reader(draft);
                let lost = body.finish(pools, &mut reader, |reader, bytes| {
                    let (scratch, options) = (&mut *reader.scratch, reader.options);
                    verdict = reader.draft.with_mut(|arena, draft| match bytes {
                        Some(bytes) => draft.request_body(arena, bytes, scratch, options),
                        None => draft.request_body_lost(),
                    });
                });
                self.incomplete |= lost;
            }
            Some(body) => {
                body.put_back(&mut shared.pools);
                verdict = draft.with_mut(|_, draft| draft.request_body_lost());
            }
            None => {}
        }
        if verdict == Verdict::NotACall
            && let Some(draft) = self.draft.take()
        {
            shared.keep_arena(draft.into_arena());
        }
    }
}

impl Exchanges {
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn begin<O: Outlet>(&mut self, head: &RequestHead<'_>, context: &mut Context<'_, O>) {
        context.shared.metrics.add(Total::Requests, 1);
        if self.responses_unsure {
            // Without pipelining nobody asks again before the answer, so the answers to all before
            // this one are among what was missed.
            self.finish_all(Ended::Lost, context);
            self.responses_unsure = false;
        }
        self.finish_early(context);
        self.pipelined |= self.pending.iter().any(|pending| !pending.answered);
        if self.pending.len() >= PIPELINE_MAX {
            context.shared.metrics.lost(Cause::PipelineFull, self.pending.len() as u64 + 1);
            self.finish_all(Ended::Lost, context);
            self.switched = true;
            return;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        let ids = context.shared.settings.ids;
        let parent = trace_parent(head.fields);
        let trace = TraceContext {
            trace_id: parent.map_or_else(|| ids.trace_id(context.conn, sequence), |parent| parent.trace_id),
            span_id: ids.span_id(context.conn, sequence),
            parent_span_id: parent.map(|parent| parent.parent_id),
            flags: parent.map_or(1, |parent| parent.flags),
        };
        let draft = draft(head, context);
        let request_body = draft
            .as_ref()
            .filter(|draft| draft.with(|draft| draft.wants_request_body()))
            .map(|_| Body::start(BodyKind::Json, head.fields, &mut context.shared.pools, &context.shared.metrics));
        self.pending.push_back(Pending {
            answers: match head.method {
                b"HEAD" => Answers::Head,
                b"CONNECT" => Answers::Connect,
                _ => Answers::Other,
            },
            draft,
            trace,
            thread_id: context.thread_id,
            begun_ns: context.begun_ns,
            request_ended_ns: None,
            first_chunk_ns: None,
            lost_bytes: 0,
            incomplete: false,
            request_body,
            response_body: None,
            answered: false,
            response_ended: None,
        });
        self.request_open = true;
    }

    fn end_request<O: Outlet>(&mut self, end: End, context: &mut Context<'_, O>) {
        if !std::mem::take(&mut self.request_open) {
            return;
        }
        let Some(pending) = self.pending.back_mut() else { return };
        pending.incomplete |= end == End::Lost;
        pending.request_ended_ns = Some(context.now_ns);
        pending.end_request_body(end == End::Complete, context.shared);
        self.finish_early(context);
    }

    /// Finishes exchanges at the front whose response ended before their request did.
    fn finish_early<O: Outlet>(&mut self, context: &mut Context<'_, O>) {
        while let Some((ended, at_ns)) = self.pending.front().and_then(|front| front.response_ended) {
            let Some(pending) = self.pending.pop_front() else { return };
            finish(pending, ended, at_ns, context);
        }
    }

    fn answer<O: Outlet>(&mut self, head: &ResponseHead<'_>, context: &mut Context<'_, O>) -> Answers {
        let several = self.pending.len() > 1;
        if std::mem::take(&mut self.responses_unsure) && several {
            self.answer_one_of_several(context);
        } else {
            self.answered_in_turn |= several;
        }
        // RFC 9110 section 15.2: an interim response, the final one is to come.
        if head.status < 200 && head.status != 101 {
            return self.pending.front().map_or(Answers::Other, |pending| pending.answers);
        }
        if self.pending.len() > 1 || !self.request_open {
            self.finish_early(context);
        }
        let Some(pending) = self.pending.front_mut().filter(|pending| pending.response_ended.is_none()) else {
            self.orphan = true;
            context.shared.metrics.lost(Cause::ResponseWithoutRequest, 1);
            return Answers::Other;
        };
        pending.answered = true;
        if let Some(draft) = &mut pending.draft {
            let kind = draft.with_mut(|arena, draft| draft.response_head(arena, head));
            let kind = if pending.answers == Answers::Head { BodyKind::Skip } else { kind };
            let shared = &mut *context.shared;
            pending.response_body = Some(Body::start(kind, head.fields, &mut shared.pools, &shared.metrics));
        }
        pending.answers
    }

    /// Some requests wait, and what was missed may have answered any of them. A response that was lost
    /// whole looks like pipelining until its loss shows, so that only a connection which has pipelined
    /// for certain is taken to do so; on any other it is the last that is answered.
    fn answer_one_of_several<O: Outlet>(&mut self, context: &mut Context<'_, O>) {
        if self.answered_in_turn {
            return self.finish_all(Ended::Lost, context);
        }
        let Some(mut last) = self.pending.pop_back() else { return };
        last.incomplete = true;
        let request_open = std::mem::take(&mut self.request_open);
        self.finish_all(Ended::Lost, context);
        self.request_open = request_open;
        self.pending.push_back(last);
        self.pipelined = false;
    }

    fn end_response<O: Outlet>(&mut self, ended: Ended, context: &mut Context<'_, O>) {
        let still_asking = self.request_open && self.pending.len() == 1;
        let Some(pending) = self.pending.front_mut() else { return };
        pending.incomplete |= ended == Ended::Lost;
        if let (Some(body), Some(draft)) = (pending.response_body.take(), &mut pending.draft) {
            let (pools, mut reader) = context.shared.reader(draft);
            let lost = body.finish(pools, &mut reader, |reader, bytes| {
                let (scratch, options) = (&mut *reader.scratch, reader.options);
                if let Some(bytes) = bytes {
                    reader.draft.with_mut(|arena, draft| draft.response_body(arena, bytes, scratch, options));
                }
            });
            pending.incomplete |= lost;
        }
        if still_asking {
            // An early refusal: the rest of the request still says what was asked.
            pending.response_ended = Some((ended, context.now_ns));
        } else if let Some(pending) = self.pending.pop_front() {
            finish(pending, ended, context.now_ns, context);
        }
    }

    /// Bytes of the requests' direction are missing such that requests may be among them.
    pub fn requests_unsure<O: Outlet>(&mut self, context: &mut Context<'_, O>) {
        if self.pipelined {
            self.finish_all(Ended::Lost, context);
        }
    }

    /// The same for the responses' direction.
    pub fn responses_unsure(&mut self) {
        self.responses_unsure = true;
        self.orphan = false;
    }

    /// Nothing more comes: `unanswered` is said of exchanges without a response, `answered` of those
    /// with a part of one.
    pub fn close<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, context: &mut Context<'_, O>) {
        if std::mem::take(&mut self.request_open)
            && let Some(pending) = self.pending.back_mut()
        {
            pending.end_request_body(false, context.shared);
        }
        self.finish_early(context);
        // An answer that was missed is not one that never came.
        let unanswered = if std::mem::take(&mut self.responses_unsure) { Ended::Lost } else { unanswered };
        while let Some(pending) = self.pending.pop_front() {
            let ended = if pending.answered { answered } else { unanswered };
            finish(pending, ended, context.now_ns, context);
        }
        self.orphan = false;
    }

    fn finish_all<O: Outlet>(&mut self, ended: Ended, context: &mut Context<'_, O>) {
        self.close(ended, ended, context);
    }
}

fn draft<O: Outlet>(head: &RequestHead<'_>, context: &mut Context<'_, O>) -> Option<Travelling<DraftFamily>> {
    if !context.shared.settings.roles.include(context.role) {
        return None;
    }
    let arena = context.shared.arena(context.outlet);
    let options = &context.shared.settings.call;
    let draft = Travelling::<MaybeDraft>::new(arena, |arena| Draft::new(arena, head, options));
    if draft.with(|draft| draft.is_none()) {
        context.shared.keep_arena(draft.into_arena());
        return None;
    }
    Some(draft.map::<DraftFamily>(|_, draft| draft.expect("it was looked at just now")))
}

/// Makes an exchange of it, if it is a call.
fn finish<O: Outlet>(mut pending: Pending, ended: Ended, at_ns: u64, context: &mut Context<'_, O>) {
    for body in [pending.request_body.take(), pending.response_body.take()].into_iter().flatten() {
        body.put_back(&mut context.shared.pools);
    }
    let Some(draft) = pending.draft else { return };
    let settings = &context.shared.settings;
    let call = draft.map(|arena, draft| draft.finish(arena, ended, &settings.call));
    let first_chunk_nano =
        pending.first_chunk_ns.zip(pending.request_ended_ns).map(|(chunk, request)| chunk.saturating_sub(request));
    context.outlet.finished(Exchange {
        role: context.role,
        trace: pending.trace,
        process: Arc::clone(context.process),
        thread_id: pending.thread_id,
        start_unix_nano: settings.clock.unix_nano(pending.begun_ns),
        end_unix_nano: settings.clock.unix_nano(at_ns.max(pending.begun_ns)),
        first_chunk_nano,
        lost_bytes: pending.lost_bytes,
        incomplete: pending.incomplete || ended == Ended::Lost,
        worker: settings.worker,
        call,
    });
}
