//! Calls over a WebSocket: the opening handshake says where they go, and events what they say.
//!
//! The Responses API has the same fields and events there as over HTTP, one response at a time. The
//! Realtime API has a session, whose settings hold for its responses, and names the response in each
//! of its events.

use bumpalo::Bump;

use super::{
    dialect::{self, Dialect},
    draft::{Draft, Options},
    json::Scratch,
    route::{self, Target},
    skim,
    trace_context::{self, TraceParent},
};
use crate::{
    genai::content::Content,
    wire::{RequestHead, websocket},
};

/// What the request that opened a socket said of the calls on it.
pub struct Upgrade {
    dialect: &'static Dialect,
    provider: Box<str>,
    host_known: bool,
    host: Option<Box<str>>,
    port: Option<u16>,
    /// The model or deployment that the query names.
    model: Option<Box<str>>,
    trace_parent: Option<TraceParent>,
    trace_state: Option<Box<str>>,
    /// The status with which the server agrees.
    status: u16,
}

impl Upgrade {
    /// `None` when the request asks for no WebSocket, or for one that carries no calls.
    pub fn of(head: &RequestHead<'_>) -> Option<Self> {
        let (asks, status) = match head.protocol {
            // RFC 8441 section 4.
            Some(protocol) => (head.method == b"CONNECT" && protocol.eq_ignore_ascii_case(b"websocket"), 200),
            // RFC 6455 section 4.1.
            None => (head.method == b"GET" && websocket::has_token(head.fields, "upgrade", "websocket"), 101),
        };
        if !asks {
            return None;
        }
        let target = Target::of(head)?;
        let dialect = dialect::of_socket(target.last_segment()?)?;
        let arena = Bump::new();
        let (provider, host_known) = route::provider_of(&arena, &target);
        // Azure names a deployment, which stands for its model there as it does over HTTP.
        let model = target.parameter("deployment").or_else(|| target.parameter("model"));
        let trace_parent = trace_context::trace_parent(head.fields);
        let trace_state = trace_parent.and_then(|_| trace_context::trace_state(&arena, head.fields));
        Some(Self {
            dialect,
            provider: provider.into(),
            host_known,
            host: target.authority.host.map(Box::from),
            port: target.authority.port,
            model: model.and_then(|model| route::percent_decoded(&arena, model)).map(Box::from),
            trace_parent,
            trace_state: trace_state.map(Box::from),
            status,
        })
    }

    /// The span that all calls of the socket belong to.
    pub fn trace_parent(&self) -> Option<TraceParent> {
        self.trace_parent
    }

    /// Responses come one after the other, in the order in which they were asked for, and most of
    /// their events don't name them.
    pub fn is_in_turn(&self) -> bool {
        self.dialect.openai_api_type == Some("responses")
    }
}

/// What an event of a socket is, told without parsing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketEvent<'d> {
    /// Its `type`.
    pub kind: &'d [u8],
    /// The response that it belongs to.
    pub response: Option<&'d [u8]>,
    /// The id that its sender gave it.
    pub id: Option<&'d [u8]>,
    /// The client's event that made this error.
    pub cause: Option<&'d [u8]>,
}

impl<'d> SocketEvent<'d> {
    /// `None` when the message is no event: no object, or one without a `type`.
    pub fn of(message: &'d [u8]) -> Option<Self> {
        let mut event = Self::default();
        for (key, value) in skim::members(message) {
            match key {
                b"type" => event.kind = skim::text(value)?,
                b"response_id" => event.response = skim::text(value),
                b"response" => event.response = event.response.or(skim::text_of(value, "id")),
                b"event_id" => event.id = skim::text(value),
                b"error" => event.cause = skim::text_of(value, "event_id"),
                _ => {}
            }
            if event.is_told() {
                break;
            }
        }
        (!event.kind.is_empty()).then_some(event)
    }

    /// Nothing of what follows makes a difference. Audio, which is most of the bytes, often comes last.
    fn is_told(&self) -> bool {
        let about_responses = self.kind.starts_with(b"response.") || self.kind == b"error";
        !self.kind.is_empty() && (!about_responses || self.is_chunk() && self.response.is_some())
    }

    /// It carries a piece of an answer.
    pub fn is_chunk(&self) -> bool {
        self.kind.starts_with(b"response.") && self.kind.ends_with(b".delta")
    }

    /// It is the last one of its response.
    pub fn is_last(&self) -> bool {
        let kind = self.kind.strip_prefix(b"response.").unwrap_or_default();
        matches!(kind, b"completed" | b"incomplete" | b"failed" | b"cancelled" | b"done")
    }
}

impl<'a> Draft<'a> {
    /// A call over a socket, of which nothing is known but where it goes.
    pub fn of_socket(arena: &'a Bump, upgrade: &Upgrade, options: &Options) -> Self {
        let mut draft = Self {
            facts: super::facts::Facts::default(),
            dialect: Some(upgrade.dialect),
            sure: true,
            path_model: upgrade.model.as_deref().map(|model| &*arena.alloc_str(model)),
            says_anthropic: false,
            host_known: upgrade.host_known,
            content: options.captures_now().then(|| Content::new(options)),
            status_failed: false,
            watch: None,
        };
        let call = &mut draft.facts.call;
        call.content_withheld = options.capture_content && options.withholding;
        call.provider = arena.alloc_str(&upgrade.provider);
        call.server_address = upgrade.host.as_deref().map(|host| &*arena.alloc_str(host));
        call.server_port = upgrade.port;
        call.trace_state = upgrade.trace_state.as_deref().map(|state| &*arena.alloc_str(state));
        // The status of the handshake is all there is.
        call.status_code = Some(upgrade.status);
        call.stream = true;
        draft
    }

    /// An event that says what is asked for: of the session, or of this response. A later one counts
    /// for more.
    pub fn asked(&mut self, arena: &'a Bump, event: &[u8], scratch: &mut Scratch) {
        let _no_json = if self.content.is_some() {
            scratch.parse_copy(event, |json| self.request_json(arena, json))
        } else {
            scratch.look(event, self.request_shape(), |json| self.request_json(arena, json))
        };
        // A socket streams, whatever is asked for.
        self.facts.call.stream = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{genai::Ended, wire::Field};

    const HOST: Field<'static> = Field { name: b"Host", value: b"api.openai.com" };

    fn upgrade(target: &str, fields: &[Field<'_>]) -> Option<Upgrade> {
        Upgrade::of(&RequestHead { method: b"GET", target: target.as_bytes(), authority: None, protocol: None, fields })
    }

    #[test]
    fn only_sockets_to_known_places_are_followed() {
        let socket = Field { name: b"Upgrade", value: b"WebSocket" };
        for (target, follows) in [
            ("/v1/responses", true),
            ("/any/prefix/v1/responses/", true),
            ("/v1/realtime?model=gpt-realtime", true),
            ("/openai/realtime?api-version=1&deployment=d", true),
            ("/openai/v1/responses", true),
            ("/v1/responses/resp_1", false),
            ("/realtime/v1/websocket", false),
            ("/", false),
        ] {
            assert_eq!(upgrade(target, &[HOST, socket]).is_some(), follows, "{target}");
            assert!(upgrade(target, &[HOST]).is_none());
            assert!(upgrade(target, &[HOST, Field { name: b"upgrade", value: b"h2c" }]).is_none());
        }
    }

    #[test]
    fn events_are_told_without_parsing() {
        let event = |kind: &'static str, response: Option<&'static str>, cause: Option<&'static str>| SocketEvent {
            kind: kind.as_bytes(),
            response: response.map(str::as_bytes),
            id: None,
            cause: cause.map(str::as_bytes),
        };
        for (message, expect) in [
            (
                r#"{"type":"response.created","response":{"object":"x","id":"r"}}"#,
                event("response.created", Some("r"), None),
            ),
            (
                r#"{"response_id":"r","type":"response.done","response":{"id":"q"}}"#,
                event("response.done", Some("r"), None),
            ),
            (
                r#"{"type":"response.text.delta","response_id":"r","delta"#,
                event("response.text.delta", Some("r"), None),
            ),
            (r#"{"type":"error","error":{"event_id":"e"}}"#, event("error", None, Some("e"))),
            (r#"{"type":"session.update","event_id":"e"}"#, event("session.update", None, None)),
        ] {
            assert_eq!(SocketEvent::of(message.as_bytes()), Some(expect), "{message}");
        }
        for message in ["", "[]", "{}", r#"{"type":1}"#, r#"{"type":""}"#] {
            assert_eq!(SocketEvent::of(message.as_bytes()), None, "{message}");
        }
    }

    fn check(
        target: &str,
        asked: &[&str],
        events: &[&str],
        content: bool,
        verify: impl for<'a> FnOnce(&crate::exchange::Call<'a>),
    ) {
        let (arena, mut scratch) = (Bump::new(), Scratch::default());
        let options = Options { capture_content: content, ..Options::default() };
        let fields = [HOST, Field { name: b"upgrade", value: b"websocket" }];
        let upgrade = upgrade(target, &fields).unwrap();
        let mut draft = Draft::of_socket(&arena, &upgrade, &options);
        asked.iter().for_each(|event| draft.asked(&arena, event.as_bytes(), &mut scratch));
        for event in events {
            draft.event(&arena, b"", event.as_bytes(), &mut scratch, &options);
        }
        verify(draft.finish(&arena, Ended::Complete, &options));
    }

    #[test]
    fn a_response() {
        let asked = r#"{"type":"response.create","model":"gpt-5","input":"Hi","instructions":"Be brief.","stream":false,
            "max_output_tokens":50,"temperature":0.5,"previous_response_id":"resp_0","reasoning":{"effort":"low"}}"#;
        let created =
            r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt-5-x","status":"in_progress"}}"#;
        let done = r#"{"type":"response.completed","response":{"id":"resp_1","model":"gpt-5-x","status":"completed",
            "output":[{"type":"message","content":[{"type":"output_text","text":"Hello"}]}],
            "usage":{"input_tokens":10,"output_tokens":5,"input_tokens_details":{"cached_tokens":4},
            "output_tokens_details":{"reasoning_tokens":2},"total_tokens":15}}}"#;
        check("/v1/responses", &[asked], &[created, done], true, |call| {
            assert_eq!((call.operation, call.provider), ("chat", "openai"));
            assert_eq!((call.request_model, call.response_model), (Some("gpt-5"), Some("gpt-5-x")));
            assert_eq!((call.response_id, call.previous_response_id), (Some("resp_1"), Some("resp_0")));
            assert_eq!((call.max_tokens, call.temperature), (Some(50), Some(0.5)));
            assert_eq!((call.input_tokens, call.output_tokens), (Some(10), Some(5)));
            assert_eq!((call.cache_read_tokens, call.reasoning_tokens), (Some(4), Some(2)));
            assert_eq!(call.finish_reasons, Some(&["stop"][..]));
            assert_eq!((call.stream, call.status_code, call.error_type), (true, Some(101), None));
            assert_eq!(call.openai_api_type, Some("responses"));
            assert!(call.input_messages.unwrap().contains("Hi"));
            assert!(call.system_instructions.unwrap().contains("Be brief."));
            assert!(call.output_messages.unwrap().contains("Hello"));
        });
    }

    #[test]
    fn a_refused_response() {
        let error = r#"{"type":"error","status":400,"error":{"code":"previous_response_not_found","message":"m"}}"#;
        check("/v1/responses", &[r#"{"type":"response.create","model":"m"}"#], &[error], false, |call| {
            assert_eq!(call.error_type, Some("previous_response_not_found"));
            assert_eq!((call.finish_reasons, call.input_tokens), (None, None));
        });
    }

    #[test]
    fn a_realtime_response() {
        let session = r#"{"type":"session.created","session":{"id":"sess_1","model":"gpt-realtime","temperature":0.8,
            "max_output_tokens":4096,"output_modalities":["audio"],"instructions":"Be kind.",
            "tools":[{"type":"function","name":"f"}]}}"#;
        let asked = r#"{"type":"response.create","response":{"max_output_tokens":"inf","output_modalities":["text"]}}"#;
        let items = r#"{"items":[{"type":"conversation.item.create","item":{"type":"message","role":"user",
            "content":[{"type":"input_text","text":"Hi"}]}}]}"#;
        let done = r#"{"type":"response.done","response":{"object":"realtime.response","id":"resp_1","status":"completed",
            "status_details":null,"conversation_id":"conv_1","output":[{"type":"message","role":"assistant",
            "content":[{"type":"output_audio","transcript":"Hello"}]},
            {"type":"function_call","name":"f","call_id":"c","arguments":"{}"}],
            "usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,
            "input_token_details":{"text_tokens":119,"cached_tokens":64},"output_token_details":{"text_tokens":30}}}}"#;
        check("/v1/realtime?model=gpt-realtime%2Dx", &[session, items, asked], &[done], true, |call| {
            assert_eq!((call.operation, call.request_model), ("chat", Some("gpt-realtime")));
            assert_eq!((call.temperature, call.max_tokens), (Some(0.8), None));
            assert_eq!(call.output_type, Some("text"));
            assert_eq!((call.response_id, call.conversation_id), (Some("resp_1"), Some("conv_1")));
            assert_eq!((call.input_tokens, call.output_tokens), (Some(132), Some(121)));
            assert_eq!(call.cache_read_tokens, Some(64));
            assert_eq!(call.finish_reasons, Some(&["tool_calls"][..]));
            assert_eq!((call.stream, call.status_code, call.openai_api_type), (true, Some(101), None));
            assert!(call.system_instructions.unwrap().contains("Be kind."));
            assert!(call.tool_definitions.unwrap().contains("\"f\""));
            assert!(call.input_messages.unwrap().contains("Hi"));
            assert!(call.output_messages.unwrap().contains("Hello"), "{:?}", call.output_messages);
        });
    }

    #[test]
    fn realtime_responses_that_go_wrong() {
        let done = |response: &str| format!(r#"{{"type":"response.done","response":{{"id":"r",{response}}}}}"#);
        for (response, reason, error) in [
            (
                r#""status":"incomplete","status_details":{"type":"incomplete","reason":"max_output_tokens"}"#,
                "max_output_tokens",
                None,
            ),
            (r#""status":"cancelled","status_details":{"type":"cancelled","reason":"turn_detected"}"#, "error", None),
            (
                r#""status":"failed","status_details":{"type":"failed","error":{"type":"server_error","code":null}}"#,
                "error",
                Some("server_error"),
            ),
            (
                r#""status":"failed","status_details":{"type":"failed","error":{"type":"x","code":"rate_limit_exceeded"}}"#,
                "error",
                Some("rate_limit_exceeded"),
            ),
            (r#""status":"failed","status_details":null"#, "error", Some("_OTHER")),
        ] {
            check("/v1/realtime?model=m", &[], &[&done(response)], false, |call| {
                assert_eq!((call.finish_reasons, call.error_type), (Some(&[reason][..]), error), "{response}");
                assert_eq!(call.request_model, Some("m"));
            });
        }
    }
}
