//! One exchange from the head of its request to its end, whichever HTTP version carries it.

use std::sync::Arc;

use bumpalo::Bump;

use super::{
    Outlet, Shared,
    body::{Body, Gathered},
    context::Context,
};
use crate::{
    arena::{Family, Travelling},
    exchange::{Call, CallFamily, Exchange, Role, TraceContext},
    genai::{BodyKind, Draft, DraftFamily, Ended, TraceParent, Upgrade, Verdict, trace_parent},
    intervals::Pace,
    metrics::{Cause, Total},
    wire::{RequestHead, ResponseHead, STATUS_UNKNOWN},
};

/// A draft, or the finding that there is none to make.
struct MaybeDraft;

impl Family for MaybeDraft {
    type In<'a> = Option<&'a mut Draft<'a>>;
}

/// What the schemes imply, RFC 9110 sections 4.2.1 and 4.2.2.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// An exchange under way.
pub(super) struct Pending {
    /// `None` when it is no LLM call, or of a side that nobody asked for.
    draft: Option<Travelling<DraftFamily>>,
    trace: TraceContext,
    thread_id: u32,
    begun_ns: u64,
    request_ended_ns: Option<u64>,
    pace: Pace,
    lost_bytes: u64,
    incomplete: bool,
    /// The request may have named the server in what was not seen.
    name_lost: bool,
    request_body: Option<Body>,
    response_body: Option<Body>,
    /// The final response's head was seen.
    pub answered: bool,
    /// The response ended, maybe before the request did.
    response_ended: Option<(Ended, u64)>,
}

impl Pending {
    /// A request's head was seen, the `sequence`th of its connection.
    pub fn begin<O: Outlet>(head: &RequestHead<'_>, sequence: u64, context: &mut Context<'_, O>) -> Self {
        context.shared.metrics.add(Total::Requests, 1);
        let trace = trace(trace_parent(head.fields), sequence, context);
        let draft = draft(head, context);
        let wants_body = |draft: &&Travelling<DraftFamily>| draft.with(|draft| draft.wants_request_body());
        let request_body = draft.as_ref().filter(wants_body).map(|draft| {
            let extraction = draft.with(|draft| draft.request_extraction());
            let Shared { pools, metrics, .. } = &mut *context.shared;
            Body::start(BodyKind::Json, extraction, head.fields, pools, metrics)
        });
        Self { request_body, ..Self::new(draft, trace, context) }
    }

    /// A response over a WebSocket that was opened by `upgrade`.
    pub fn of_socket<O: Outlet>(upgrade: &Upgrade, sequence: u64, context: &mut Context<'_, O>) -> Self {
        context.shared.metrics.add(Total::Requests, 1);
        let trace = trace(upgrade.trace_parent(), sequence, context);
        let arena = context.shared.arena(context.outlet);
        let options = &context.shared.settings.call;
        let draft = Travelling::new(arena, |arena| arena.alloc(Draft::of_socket(arena, upgrade, options)));
        Self::new(Some(draft), trace, context)
    }

    fn new<O>(draft: Option<Travelling<DraftFamily>>, trace: TraceContext, context: &Context<'_, O>) -> Self {
        Self {
            draft,
            trace,
            thread_id: context.thread_id,
            begun_ns: context.begun_ns,
            request_ended_ns: None,
            pace: Pace::default(),
            lost_bytes: 0,
            incomplete: false,
            name_lost: false,
            request_body: None,
            response_body: None,
            answered: false,
            response_ended: None,
        }
    }

    /// The WebSocket that this request asked for is refused, and with it the call that it was for.
    pub fn refused<O: Outlet>(&mut self, upgrade: &Upgrade, context: &mut Context<'_, O>) {
        if self.draft.is_none() {
            let arena = context.shared.arena(context.outlet);
            let options = &context.shared.settings.call;
            self.draft = Some(Travelling::new(arena, |arena| arena.alloc(Draft::of_socket(arena, upgrade, options))));
        }
        // A tunnel's request has no end while there is a tunnel.
        self.request_ended_ns = self.request_ended_ns.or(Some(context.now_ns));
    }

    /// Fields of the message whose head came last were lost.
    pub fn lose_fields(&mut self) {
        self.lose(0);
        let body = if self.answered { &mut self.response_body } else { &mut self.request_body };
        if let Some(body) = body {
            body.guess_coding();
        }
    }

    /// A whole event that says what is asked for.
    pub fn ask(&mut self, event: &[u8], shared: &mut Shared) {
        if let Some(draft) = &mut self.draft {
            let (_, reader) = shared.reader(draft);
            let scratch = reader.scratch;
            reader.draft.with_mut(|arena, draft| draft.asked(arena, event, scratch));
        }
    }

    /// A whole event of the response, that came at `now_ns`; `is_chunk`: it carries a piece of the
    /// answer.
    pub fn socket_event(&mut self, event: &[u8], is_chunk: bool, now_ns: u64, shared: &mut Shared) {
        self.answered = true;
        self.pace.chunks(u64::from(is_chunk), now_ns);
        if let Some(draft) = &mut self.draft {
            let (_, reader) = shared.reader(draft);
            let (scratch, options) = (reader.scratch, reader.options);
            reader.draft.with_mut(|arena, draft| draft.event(arena, b"", event, scratch, options));
        }
    }

    /// What the request calls the server was not seen; its address would stand for the name.
    pub fn lose_name(&mut self) {
        self.name_lost = true;
    }

    /// Something of it was not seen: so many bytes, or 0 when nobody knows how many.
    pub fn lose(&mut self, bytes: u64) {
        self.lost_bytes += bytes;
        self.incomplete = true;
    }

    /// Bytes of the request's body.
    pub fn request_bytes(&mut self, bytes: &[u8], shared: &mut Shared) {
        if let (Some(body), Some(draft)) = (&mut self.request_body, &mut self.draft) {
            let (pools, mut reader) = shared.reader(draft);
            body.feed(bytes, pools, &mut reader);
        }
    }

    /// Bytes of the request's body are missing.
    pub fn request_gap(&mut self, lost: u64, shared: &mut Shared) {
        self.lose(lost);
        if let Some(body) = &mut self.request_body {
            body.gap(&mut shared.pools);
        }
    }

    /// The request ended at `now_ns`, `whole` or given up. Its body decides whether this is a call.
    pub fn request_end(&mut self, whole: bool, now_ns: u64, shared: &mut Shared) {
        self.request_ended_ns = Some(now_ns);
        self.end_request_body(whole, shared);
    }

    /// The head of the final response; `has_body`: one follows by the rules of framing.
    pub fn response_head(&mut self, head: &ResponseHead<'_>, has_body: bool, shared: &mut Shared) {
        self.answered = true;
        if let Some(draft) = &mut self.draft {
            let kind = draft.with_mut(|arena, draft| draft.response_head(arena, head));
            let kind = if has_body { kind } else { BodyKind::Skip };
            let extraction = draft.with(|draft| draft.response_extraction());
            let body = Body::start(kind, extraction, head.fields, &mut shared.pools, &shared.metrics);
            if let Some(before) = self.response_body.replace(body) {
                before.put_back(&mut shared.pools);
            }
        }
    }

    /// Bytes of the response's body, that came at `now_ns`.
    #[inline(always)]
    pub fn response_bytes(&mut self, bytes: &[u8], now_ns: u64, shared: &mut Shared) {
        if let (Some(body), Some(draft)) = (&mut self.response_body, &mut self.draft) {
            let (pools, mut reader) = shared.reader(draft);
            self.pace.chunks(body.feed(bytes, pools, &mut reader), now_ns);
        }
    }

    /// Bytes of the response's body are missing.
    pub fn response_gap(&mut self, lost: u64, shared: &mut Shared) {
        self.lose(lost);
        self.pace.gap();
        if let Some(body) = &mut self.response_body {
            body.gap(&mut shared.pools);
        }
    }

    /// The response ended in this way at `now_ns`.
    pub fn response_end(&mut self, ended: Ended, now_ns: u64, shared: &mut Shared) {
        self.incomplete |= ended == Ended::Lost;
        self.response_ended = Some((ended, now_ns));
        let (Some(body), Some(draft)) = (self.response_body.take(), &mut self.draft) else { return };
        let (pools, mut reader) = shared.reader(draft);
        self.incomplete |= body.finish(pools, &mut reader, |reader, gathered| {
            let (scratch, options) = (&mut *reader.scratch, reader.options);
            reader.draft.with_mut(|arena, draft| match gathered {
                Gathered::Lost => {}
                Gathered::Bytes(bytes) => draft.response_body(arena, bytes, scratch, options),
                Gathered::Extract(extract) => draft.response_extract(arena, extract, scratch),
            });
        });
    }

    /// The response has ended.
    pub fn is_answered_whole(&self) -> bool {
        self.response_ended.is_some()
    }

    /// The request has ended.
    pub fn is_asked_whole(&self) -> bool {
        self.request_ended_ns.is_some()
    }

    fn end_request_body(&mut self, whole: bool, shared: &mut Shared) {
        let Some(draft) = &mut self.draft else { return };
        let mut verdict = Verdict::Call;
        match self.request_body.take() {
            Some(body) if whole => {
                let (pools, mut reader) = shared.reader(draft);
                let lost = body.finish(pools, &mut reader, |reader, gathered| {
                    let (scratch, options) = (&mut *reader.scratch, reader.options);
                    verdict = reader.draft.with_mut(|arena, draft| match gathered {
                        Gathered::Bytes(bytes) => draft.request_body(arena, bytes, scratch, options),
                        Gathered::Extract(extract) => draft.request_extract(arena, extract, scratch),
                        Gathered::Lost => draft.request_body_lost(),
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
            // It may be answered already.
            if let Some(body) = self.response_body.take() {
                body.put_back(&mut shared.pools);
            }
        }
    }

    /// Makes an exchange of it, if it is a call. How and when its response ended counts, if it did;
    /// otherwise `ended`, now.
    pub fn finish<O: Outlet>(mut self, ended: Ended, context: &mut Context<'_, O>) {
        if !self.is_asked_whole() {
            self.end_request_body(false, context.shared);
        }
        if !self.is_answered_whole() {
            self.response_end(ended, context.now_ns, context.shared);
        }
        let Some(draft) = self.draft else { return };
        let settings = &context.shared.settings;
        let (ended, at_ns) = self.response_ended.unwrap_or((ended, context.now_ns));
        let call: Travelling<CallFamily> = draft.map(|arena, draft| {
            let call = draft.finish(arena, ended, &settings.call);
            call.status_code = call.status_code.filter(|status| *status != STATUS_UNKNOWN);
            if !self.name_lost {
                complete_address(call, arena, context);
            }
            call
        });
        if call.with(|call| call.content_withheld) {
            context.shared.metrics.lost(Cause::ContentWithheld, 1);
        }
        let first_chunk_nano =
            self.pace.first_ns().zip(self.request_ended_ns).map(|(chunk, request)| chunk.saturating_sub(request));
        context.outlet.finished(Exchange {
            role: context.role,
            trace: self.trace,
            process: Arc::clone(context.process),
            network: Arc::clone(context.network),
            thread_id: self.thread_id,
            start_unix_nano: settings.clock.unix_nano(self.begun_ns),
            end_unix_nano: settings.clock.unix_nano(at_ns.max(self.begun_ns)),
            first_chunk_nano,
            chunk_intervals: self.pace.intervals(),
            end_unseen: ended == Ended::Lost,
            lost_bytes: self.lost_bytes,
            incomplete: self.incomplete,
            worker: settings.worker,
            call,
        });
    }
}

/// What the request doesn't say of the server's address, the kernel does, and else the scheme of the port.
fn complete_address<'a, O>(call: &mut Call<'a>, arena: &'a Bump, context: &Context<'_, O>) {
    let network = context.network;
    let server = match context.role {
        Role::Client => &network.peer,
        Role::Server => &network.local,
    };
    let default_port = if network.plain { HTTP_PORT } else { HTTPS_PORT };
    let named = call.server_address.is_some();
    if let Some(server) = server {
        call.server_address = call.server_address.or_else(|| Some(arena.alloc_str(&server.address)));
        call.server_port = call.server_port.or(server.port);
    }
    // A port is told with an address only; a UNIX socket has none.
    call.server_port = call.server_port.or(named.then_some(default_port)).filter(|_| call.server_address.is_some());
}

/// The `sequence`th span of a connection, and where it hangs.
fn trace<O>(parent: Option<TraceParent>, sequence: u64, context: &Context<'_, O>) -> TraceContext {
    let ids = context.shared.settings.ids;
    TraceContext {
        trace_id: parent.map_or_else(|| ids.trace_id(context.conn, sequence), |parent| parent.trace_id),
        span_id: ids.span_id(context.conn, sequence),
        parent_span_id: parent.map(|parent| parent.parent_id),
        flags: parent.map_or(1, |parent| parent.flags),
    }
}

fn draft<O: Outlet>(head: &RequestHead<'_>, context: &mut Context<'_, O>) -> Option<Travelling<DraftFamily>> {
    if !context.shared.settings.roles.include(context.role) {
        return None;
    }
    let arena = context.shared.arena(context.outlet);
    let (options, scratch) = (&context.shared.settings.call, &mut context.shared.scratch);
    let draft = Travelling::<MaybeDraft>::new(arena, |arena| Draft::new(arena, head, scratch, options));
    if draft.with(|draft| draft.is_none()) {
        context.shared.keep_arena(draft.into_arena());
        return None;
    }
    Some(draft.map::<DraftFamily>(|_, draft| draft.expect("it was looked at just now")))
}
