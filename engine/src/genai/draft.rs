//! A call while its exchange is under way.

use bumpalo::Bump;

use super::{
    base64,
    content::Content,
    destination::Destination,
    dialect::{DIALECTS, Dialect, Plans},
    facts::{Facts, Sum},
    failure,
    json::{Extract, Extraction, Json, Scratch, Shape},
    provider,
    route::Target,
    template::Says,
    trace_context,
    wanted::Watch,
};
use crate::{
    arena::Family,
    exchange::Call,
    limits::CONTENT_BYTES_DEFAULT,
    wire::{self, RequestHead, ResponseHead},
};

/// What is wanted of a call.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether messages, instructions and tool definitions are captured.
    pub capture_content: bool,
    /// The JSON text of one content attribute; longer is cut.
    pub content_bytes_max: usize,
    /// Whether content has data as it is and tools with their descriptions and schemas, and not only what
    /// tells them.
    pub content_full: bool,
    /// Content is captured, but not of calls that begin now: there is too much of it to keep up with.
    pub withholding: bool,
}

impl Options {
    /// Content is to be captured of a call that begins now.
    pub(super) fn captures_now(&self) -> bool {
        self.capture_content && !self.withholding
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capture_content: false,
            content_bytes_max: CONTENT_BYTES_DEFAULT,
            content_full: false,
            withholding: false,
        }
    }
}

/// Whether a request is an LLM call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Call,
    /// It is not; the draft is of no more use.
    NotACall,
}

/// How a response body has to be cut before it comes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// One document: [`Draft::response_body`].
    Json,
    /// Server-sent events: [`Draft::event`] for each, with its name and its joined data lines.
    EventStream,
    /// One document a line: [`Draft::event`] for each line.
    NdJson,
    /// An array whose elements arrive one by one: [`Draft::event`] for each element.
    JsonArray,
    /// AWS event stream: [`Draft::event`] for each message, with its `:event-type`,
    /// `:exception-type` or `:error-code` as the name.
    AwsEventStream,
    /// The body says nothing.
    Skip,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The response is complete.
    Complete,
    /// The connection ended inside the response.
    Cut,
    /// The connection ended before there was a response.
    NoResponse,
    /// The client gave up: no error.
    Cancelled,
    /// The rest was not captured, so nobody knows.
    Lost,
}

/// What an event of a stream was found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It carries data, which the time to the first chunk is counted to.
    pub is_chunk: bool,
    /// What later ones that are like it will say, if that is known: then a [`Template`](super::Template)
    /// can be made of it.
    pub alike: Option<Says>,
}

/// A call that is being built from an exchange's messages.
pub struct Draft<'a> {
    pub(super) facts: Facts<'a>,
    /// `None`: the path is unknown, and the request's body decides.
    pub(super) dialect: Option<&'static Dialect>,
    /// Whether the path was enough to know that this is a call.
    pub(super) sure: bool,
    /// The model that the path names.
    pub(super) path_model: Option<&'a str>,
    /// `anthropic-version` is among the request's fields.
    pub(super) says_anthropic: bool,
    /// The provider's rule knew the host.
    pub(super) host_known: bool,
    /// Messages, if they are asked for.
    pub(super) content: Option<Content<'a>>,
    /// The status is that of an error.
    pub(super) status_failed: bool,
    /// What to look for in events, as long as nothing new is known.
    pub(super) watch: Option<Watch>,
}

/// [`Draft`] as a family, for [`Travelling`](crate::arena::Travelling).
pub struct DraftFamily;

// Nothing that is in an arena is dropped.
const _: () = assert!(!std::mem::needs_drop::<Draft<'static>>());

impl Family for DraftFamily {
    // In the arena itself: it is large, and what is under way moves.
    type In<'a> = &'a mut Draft<'a>;
}

impl<'a> Draft<'a> {
    /// Begins with the request's head. `None` when method and path say that it is no LLM call: then
    /// nothing more has to be read.
    pub fn new(
        arena: &'a Bump,
        head: &RequestHead<'_>,
        scratch: &mut Scratch,
        options: &Options,
    ) -> Option<&'a mut Self> {
        let destination = scratch.destinations.of(arena, head)?;
        let Destination { provider, host_known, host, port, matched, model, is_no_call } = destination;
        let sure = matched.is_some_and(|(_, route)| route.sure);
        if !sure && (head.method != b"POST" || is_no_call || !may_be_json(head)) {
            return None;
        }
        // In its place from the start: it is large.
        let draft = arena.alloc_with(|| Self {
            facts: Facts::default(),
            dialect: matched.map(|(dialect, _)| dialect),
            sure,
            path_model: model,
            says_anthropic: !sure && wire::field(head.fields, "anthropic-version").is_some(),
            host_known,
            content: options.captures_now().then(|| Content::new(options)),
            status_failed: false,
            watch: None,
        });
        let facts = &mut draft.facts;
        facts.call.content_withheld = options.capture_content && options.withholding;
        (facts.call.provider, facts.call.server_address, facts.call.server_port) = (provider, host, port);
        if trace_context::trace_parent(head.fields).is_some() {
            facts.call.trace_state = trace_context::trace_state(arena, head.fields);
        }
        if let Some((dialect, route)) = matched {
            facts.call.stream = route.streams || dialect.streams_by_default;
            if let Some(read) = dialect.request_head {
                read(facts, arena, head, &Target::of(head)?);
            }
        }
        Some(draft)
    }

    /// Whether the request's body has to be handed over.
    pub fn wants_request_body(&self) -> bool {
        let has_content = |dialect: &Dialect| self.content.is_some() && dialect.content.is_some();
        self.dialect.is_none_or(|dialect| !dialect.request.is_empty() || has_content(dialect))
    }

    /// The whole request body, its codings removed. It is parsed in place.
    pub fn request_body(
        &mut self,
        arena: &'a Bump,
        body: &mut [u8],
        scratch: &mut Scratch,
        _options: &Options,
    ) -> Verdict {
        let verdict = if self.content.is_some() {
            scratch.parse(body, |json| self.request_json(arena, json))
        } else {
            scratch.look(body, self.request_shape(), |json| self.request_json(arena, json))
        };
        verdict.unwrap_or(if self.sure { self.known() } else { Verdict::NotACall })
    }

    /// What is wanted of the request's body, if it is enough to hand over an extract of it.
    pub fn request_extraction(&self) -> Option<Extraction> {
        self.request_shape().filter(|_| self.content.is_none()).map(Extraction)
    }

    /// [`Self::request_body`] for an extract.
    pub fn request_extract(&mut self, arena: &'a Bump, extract: &Extract, scratch: &mut Scratch) -> Verdict {
        scratch.look_at_extract(extract, |json| self.request_json(arena, json)).unwrap_or_else(|| self.known())
    }

    /// What is wanted of a whole response's body, if it is enough to hand over an extract of it.
    pub fn response_extraction(&self) -> Option<Extraction> {
        self.response_shape().filter(|_| self.content.is_none()).map(Extraction)
    }

    /// [`Self::response_body`] for an extract.
    pub fn response_extract(&mut self, arena: &'a Bump, extract: &Extract, scratch: &mut Scratch) {
        let _no_json = scratch.look_at_extract(extract, |json| self.response_json(arena, json));
    }

    /// What is wanted of a request's body. Where the path leaves a doubt, anything may be looked at.
    pub(super) fn request_shape(&self) -> Option<&'static Shape> {
        self.dialect.filter(|_| self.sure).and_then(|dialect| Plans::of(dialect).request.shape.bounded())
    }

    pub(super) fn request_json(&mut self, arena: &'a Bump, json: Json<'_>) -> Verdict {
        if !self.sure {
            let fitting = self.dialect.filter(|dialect| (dialect.fits)(json));
            let claiming = || DIALECTS.iter().copied().find(|dialect| (dialect.claims)(json));
            let anthropic =
                || DIALECTS.iter().copied().find(|dialect| self.says_anthropic && dialect.name == "anthropic");
            self.dialect = fitting.or_else(|| anthropic().filter(|dialect| (dialect.fits)(json))).or_else(claiming);
        }
        let Some(dialect) = self.dialect else { return Verdict::NotACall };
        self.facts.read(arena, json, Plans::of(dialect).request);
        if let (Some(content), Some(reader)) = (&mut self.content, dialect.content) {
            content.request(arena, &mut self.facts.call, reader, json);
        }
        self.known()
    }

    /// The request's body could not be had: it was lost, or is larger than the budget.
    pub fn request_body_lost(&mut self) -> Verdict {
        if self.dialect.is_some() && (self.sure || self.host_known) { self.known() } else { Verdict::NotACall }
    }

    /// It is a call.
    fn known(&mut self) -> Verdict {
        let call = &mut self.facts.call;
        call.request_model = call.request_model.or(self.path_model);
        Verdict::Call
    }

    /// The response's head, and what its body has to be cut into.
    pub fn response_head(&mut self, arena: &'a Bump, head: &ResponseHead<'_>) -> BodyKind {
        self.facts.call.status_code = Some(head.status);
        self.status_failed = head.status >= 400;
        let Some(dialect) = self.dialect else { return BodyKind::Skip };
        if let Some(read) = dialect.response_head {
            read(&mut self.facts, arena, head);
        }
        let kind = self.body_kind(dialect, head);
        // A response that is a stream was asked for, even where the request was lost.
        self.facts.call.stream |= !matches!(kind, BodyKind::Json | BodyKind::Skip | BodyKind::NdJson);
        kind
    }

    fn body_kind(&self, dialect: &Dialect, head: &ResponseHead<'_>) -> BodyKind {
        let named = wire::field(head.fields, "content-type").unwrap_or(b"");
        let named = named.split(|byte| *byte == b';').next().unwrap_or(b"").trim_ascii();
        let is = |name: &str| wire::is_in_any_case(named, name);
        let asked = if self.facts.call.stream && !self.status_failed { dialect.stream } else { BodyKind::Json };
        if matches!(head.status, 204 | 205 | 304) {
            BodyKind::Skip
        } else if is("text/event-stream") {
            BodyKind::EventStream
        } else if is("application/vnd.amazon.eventstream") {
            BodyKind::AwsEventStream
        } else if ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json"]
            .into_iter()
            .any(is)
        {
            BodyKind::NdJson
        } else if is("application/json") {
            // Google's streams are arrays, and say no more than this.
            if matches!(asked, BodyKind::JsonArray | BodyKind::NdJson) { asked } else { BodyKind::Json }
        } else if [&b"image/"[..], b"audio/", b"video/", b"text/html"].iter().any(|kind| named.starts_with(kind)) {
            BodyKind::Skip
        } else {
            asked
        }
    }

    /// The whole response body, its codings removed. It is parsed in place.
    pub fn response_body(&mut self, arena: &'a Bump, body: &mut [u8], scratch: &mut Scratch, options: &Options) {
        // A stream that was announced as a document.
        if matches!(body.trim_ascii_start().first(), Some(b'd' | b'e' | b':')) {
            return self.lines(arena, body, scratch, options);
        }
        let _no_json = if self.content.is_some() {
            scratch.parse(body, |json| self.response_json(arena, json))
        } else {
            scratch.look(body, self.response_shape(), |json| self.response_json(arena, json))
        };
    }

    /// What is wanted of a whole response's body.
    fn response_shape(&self) -> Option<&'static Shape> {
        let dialect = self.dialect.filter(|dialect| !self.may_be_corrected(dialect));
        dialect.and_then(|dialect| Plans::of(dialect).response.shape.bounded())
    }

    fn response_json(&mut self, arena: &'a Bump, json: Json<'_>) {
        let Some(dialect) = self.dialect else { return };
        if self.status_failed {
            return self.facts.fail(arena, failure::of_body(json).kind);
        }
        if let Some(failure) = Plans::of(dialect).response.failure(json) {
            self.facts.fail(arena, failure.kind);
        }
        let dialect = self.corrected(dialect, json);
        self.facts.read(arena, json, Plans::of(dialect).response);
        if let (Some(content), Some(reader)) = (&mut self.content, dialect.content) {
            content.response(arena, reader, json);
        }
        self.facts.ended = true;
    }

    fn may_be_corrected(&self, dialect: &Dialect) -> bool {
        !self.sure && dialect.name == "openai.responses"
    }

    /// At an unknown path, `input` may be for embeddings, which the response shows.
    fn corrected(&mut self, dialect: &'static Dialect, json: Json<'_>) -> &'static Dialect {
        if !self.may_be_corrected(dialect) {
            return dialect;
        }
        let embeds = json.get("object").and_then(Json::text) == Some("list") && json.get("data").is_some();
        let embedder = DIALECTS.iter().copied().find(|dialect| dialect.name == "openai.embeddings");
        let corrected = embedder.filter(|_| embeds).unwrap_or(dialect);
        self.dialect = Some(corrected);
        corrected
    }

    /// Server-sent events in one piece. Only their data lines count.
    fn lines(&mut self, arena: &'a Bump, body: &mut [u8], scratch: &mut Scratch, options: &Options) {
        for line in body.split(|byte| *byte == b'\n') {
            if let Some(data) = line.strip_prefix(b"data:") {
                self.event(arena, b"", data, scratch, options);
            }
        }
    }

    /// One event of a stream; `data` is not written to.
    pub fn event(
        &mut self,
        arena: &'a Bump,
        name: &[u8],
        data: &[u8],
        scratch: &mut Scratch,
        _options: &Options,
    ) -> Seen {
        let Some(dialect) = self.dialect else { return Seen::default() };
        let data = data.trim_ascii();
        if !name.is_empty() || data.len() <= SHORT_BYTES {
            let is_last = |text: &[u8]| dialect.last_events.iter().any(|last| last.as_bytes() == text);
            self.facts.ended |= is_last(name) || is_last(data) || ends_shortly(dialect, data);
        }
        if data.is_empty() || data == b"[DONE]" {
            return Seen::default();
        }
        let is_chunk = name != b"ping";
        if let Some(kind) = exception(name) {
            self.facts.fail(arena, Some(kind));
        } else if dialect.wrapped && name == b"chunk" {
            let mut decoded = std::mem::take(&mut scratch.decoded);
            decoded.clear();
            // Base64 may be long, and with escapes only a parsed document has it whole.
            let unwrapped = if memchr::memchr(b'\\', data).is_some() {
                scratch.parse_copy(data, |json| unwrap(json, &mut decoded))
            } else {
                scratch.look(data, None, |json| unwrap(json, &mut decoded))
            };
            if unwrapped.flatten().is_some() {
                self.document(arena, dialect, name, &decoded, scratch);
            }
            scratch.decoded = decoded;
        } else {
            let says = self.document(arena, dialect, name, data, scratch);
            return Seen { is_chunk, alike: says.filter(|_| is_chunk && data.len() > SHORT_BYTES) };
        }
        Seen { is_chunk, alike: None }
    }

    /// Reads the document of an event, if it may say something. Tells what others that are like it say.
    fn document(
        &mut self,
        arena: &'a Bump,
        dialect: &'static Dialect,
        name: &[u8],
        data: &[u8],
        scratch: &mut Scratch,
    ) -> Option<Says> {
        let call = &self.facts.call;
        let watch = *self.watch.get_or_insert_with(|| dialect.wanted.watch(call));
        let is_read_anyway = name == b"error" || self.status_failed || self.content.is_some();
        if !is_read_anyway && !dialect.wanted.is_in(data, watch) {
            return Some(Says::Nothing);
        }
        // What it says may be known from now on.
        self.watch = None;
        if self.content.is_some() {
            scratch.parse_copy(data, |json| self.event_json(arena, dialect, name, json));
            return None;
        }
        let shape = Plans::of(dialect).event.shape.bounded();
        scratch.look(data, shape, |json| self.event_json(arena, dialect, name, json))?;
        let besides = dialect.besides_counts.filter(|_| !is_read_anyway && name.is_empty())?;
        (!besides.is_in(data, besides.watch(&self.facts.call))).then_some(Says::Counts)
    }

    fn event_json(&mut self, arena: &'a Bump, dialect: &'static Dialect, name: &[u8], json: Json<'_>) {
        if let Some(failure) = Plans::of(dialect).event.failure(json) {
            self.facts.fail(arena, failure.kind);
        } else if name == b"error" || self.status_failed {
            self.facts.fail(arena, failure::of_body(json).kind);
        }
        self.facts.read(arena, json, Plans::of(dialect).event);
        if let (Some(content), Some(reader)) = (&mut self.content, dialect.content) {
            content.event(arena, reader, json);
        }
        let kind = json.get("type").and_then(Json::text);
        self.facts.ended |= kind.is_some_and(|kind| dialect.last_events.contains(&kind));
    }

    /// The exchange is over.
    pub fn finish(&mut self, arena: &'a Bump, ended: Ended, _options: &Options) -> &mut Call<'a> {
        self.known();
        let broken = match ended {
            // Servers that close in place of ending the framing have said all they had to.
            Ended::Cut => !self.facts.ended,
            Ended::NoResponse => true,
            Ended::Complete | Ended::Cancelled | Ended::Lost => false,
        };
        let status = self.facts.call.status_code.filter(|_| self.status_failed);
        self.facts.failed |= broken || status.is_some();
        if let Some(content) = &mut self.content {
            let (call, reason) = self.facts.finishing();
            content.finish(arena, call, reason);
        }
        let failed = self.facts.failed;
        let call = &mut self.facts.call;
        call.error_type = match (failed, call.error_type, status) {
            (false, ..) => None,
            (true, Some(kind), _) => Some(kind),
            (true, None, Some(status)) => Some(digits(arena, status)),
            (true, None, None) => Some("_OTHER"),
        };
        if let Some(dialect) = self.dialect {
            call.operation = if call.operation.is_empty() { dialect.operation } else { call.operation };
            call.openai_api_type = dialect.openai_api_type;
        }
        if call.provider == provider::AZURE_INFERENCE {
            call.azure_namespace = Some("Microsoft.CognitiveServices");
        }
        let sum = self.dialect.map_or(Sum::Inclusive, |dialect| dialect.sum);
        let sum = if call.provider == provider::X_AI && call.openai_api_type == Some("chat_completions") {
            Sum::ReasoningApart
        } else {
            sum
        };
        self.facts.conclude(arena, sum)
    }
}

/// The kind of error, if that is what a message of an AWS event stream is.
fn exception(name: &[u8]) -> Option<&str> {
    if !matches!(name.last(), Some(b'n' | b'r' | b'e' | b't')) {
        return None;
    }
    let failed = ["Exception", "Error", "Failure", "Fault"];
    std::str::from_utf8(name).ok().filter(|name| failed.iter().any(|end| name.ends_with(end)))
}

/// The document inside a message of an AWS event stream.
fn unwrap(message: Json<'_>, to: &mut Vec<u8>) -> Option<()> {
    base64::decode(message.get("bytes")?.text()?.as_bytes(), to)
}

/// An event that is no longer may say nothing but that it is the last.
pub(super) const SHORT_BYTES: usize = 64;

/// A short event whose `type` marks the end, for servers that leave out the event's name.
fn ends_shortly(dialect: &Dialect, data: &[u8]) -> bool {
    data.len() <= SHORT_BYTES
        && std::str::from_utf8(data)
            .is_ok_and(|data| data.split('"').skip(1).step_by(2).any(|text| dialect.last_events.contains(&text)))
}

/// Whether the request's content type may be JSON. Some clients get it wrong, or leave it out.
fn may_be_json(head: &RequestHead<'_>) -> bool {
    wire::field(head.fields, "content-type")
        .is_none_or(|kind| kind.windows(4).any(|word| word.eq_ignore_ascii_case(b"json")))
}

/// A status code in the arena.
fn digits(arena: &Bump, status: u16) -> &str {
    let digit = |place: u16| char::from_digit(u32::from(status / place % 10), 10).unwrap_or('0');
    let text = arena.alloc_slice_copy(&[digit(100) as u8, digit(10) as u8, digit(1) as u8]);
    std::str::from_utf8(text).unwrap_or("_OTHER")
}
