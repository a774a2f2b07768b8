//! A response body that comes event by event, whichever way its events are told apart.

use crate::{
    genai::{BodyKind, Says, Seen, Template},
    wire::{eventstream, json_array, ndjson, sse},
};

/// Cuts a body into events.
pub(super) struct Cutter {
    decoder: Decoder,
    // On the heap, because what is under way moves.
    usual: Box<Usual>,
}

/// What most events of a body are like.
#[derive(Default)]
struct Usual {
    template: Template,
    /// The last of those that were like it, as it was sent, if that is still to be seen. Else empty.
    latest: Vec<u8>,
}

/// What tells the events apart.
enum Decoder {
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
        let decoder = match kind {
            BodyKind::EventStream => Decoder::Events(Box::default()),
            BodyKind::NdJson => Decoder::Lines(Box::default()),
            BodyKind::JsonArray => Decoder::Elements(Box::default()),
            BodyKind::AwsEventStream => Decoder::Messages(Box::default()),
            BodyKind::Json | BodyKind::Skip => return None,
        };
        Some(Self { decoder, usual: Box::default() })
    }

    /// The kind of body that this cuts.
    pub fn kind(&self) -> BodyKind {
        match self.decoder {
            Decoder::Events(_) => BodyKind::EventStream,
            Decoder::Lines(_) => BodyKind::NdJson,
            Decoder::Elements(_) => BodyKind::JsonArray,
            Decoder::Messages(_) => BodyKind::AwsEventStream,
        }
    }

    /// Takes the next bytes; each event is handed on with its name, if it has one, but for those that are
    /// like one which said nothing, or like the next one. Returns how many events counted as chunks.
    #[inline(always)]
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(&[u8], &[u8]) -> Seen) -> u64 {
        let is_between = match &self.decoder {
            Decoder::Events(decoder) => decoder.is_between_events(),
            Decoder::Lines(decoder) => decoder.is_between_lines(),
            // Those aren't compared.
            Decoder::Elements(_) | Decoder::Messages(_) => false,
        };
        let (count, taken) = if is_between { self.usual.take(bytes) } else { (0, 0) };
        match bytes.get(taken..) {
            None | Some([]) => count,
            Some(rest) => count + self.cut(rest, see),
        }
    }

    #[inline(never)]
    fn cut(&mut self, bytes: &[u8], see: impl FnMut(&[u8], &[u8]) -> Seen) -> u64 {
        let Self { decoder, usual } = self;
        let mut sink = Sink { see, usual, chunks: 0 };
        match decoder {
            Decoder::Events(decoder) => decoder.feed_sink(bytes, &mut sink),
            Decoder::Lines(decoder) => decoder.feed_sink(bytes, &mut sink),
            Decoder::Elements(decoder) => decoder.feed(bytes, &mut |element| _ = sink.see(b"", element)),
            Decoder::Messages(decoder) => {
                decoder.feed(bytes, &mut |message| _ = sink.see(name(&message), message.payload));
            }
        }
        sink.chunks
    }

    /// Bytes are missing here.
    pub fn gap(&mut self) {
        match &mut self.decoder {
            Decoder::Events(decoder) => decoder.gap(),
            Decoder::Lines(decoder) => decoder.gap(),
            Decoder::Elements(decoder) => decoder.gap(),
            Decoder::Messages(decoder) => decoder.gap(),
        }
    }

    /// The body ended: an unfinished last event is handed on. Returns how many events were lost. The
    /// cutter is as new afterwards.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8], &[u8])) -> u64 {
        self.usual.see_latest(&mut each);
        self.usual.template.forget();
        match &mut self.decoder {
            Decoder::Events(decoder) => {
                decoder.finish(&mut |event| each(event.name, event.data));
                decoder.take_skipped()
            }
            Decoder::Lines(decoder) => {
                decoder.finish(&mut |line| each(b"", line));
                decoder.take_skipped()
            }
            Decoder::Elements(decoder) => {
                decoder.finish(&mut |element| each(b"", element));
                decoder.take_skipped()
            }
            Decoder::Messages(decoder) => {
                decoder.finish();
                decoder.take_skipped()
            }
        }
    }
}

impl Usual {
    /// How many events at the front of `input` are like the template, and how many bytes they have. The
    /// last of them becomes the latest, if it says something.
    #[inline(always)]
    fn take(&mut self, input: &[u8]) -> (u64, usize) {
        let (mut count, mut taken, mut last) = (0, 0, 0);
        while let Some(bytes) = input.get(taken..).and_then(|rest| self.template.matches(rest)) {
            count += 1;
            last = taken;
            taken += bytes;
        }
        if count > 0 && self.template.says() == Says::Counts {
            self.keep(input.get(last..taken).unwrap_or_default());
        }
        (count, taken)
    }

    #[inline(never)]
    fn keep(&mut self, event: &[u8]) {
        self.latest.clear();
        self.latest.extend_from_slice(event);
    }

    /// Has the latest seen, before another event is. It was counted when it came.
    fn see_latest<R>(&mut self, mut see: impl FnMut(&[u8], &[u8]) -> R) {
        if !self.latest.is_empty() {
            see(b"", self.template.data_of(&self.latest));
            self.latest.clear();
        }
    }
}

/// Has events seen, unless they are like the template.
struct Sink<'u, F> {
    see: F,
    usual: &'u mut Usual,
    chunks: u64,
}

impl<F: FnMut(&[u8], &[u8]) -> Seen> Sink<'_, F> {
    fn see(&mut self, name: &[u8], data: &[u8]) -> Seen {
        self.usual.see_latest(&mut self.see);
        let seen = (self.see)(name, data);
        self.chunks += u64::from(seen.is_chunk);
        seen
    }

    fn taken(&mut self, input: &[u8]) -> usize {
        let (count, taken) = self.usual.take(input);
        self.chunks += count;
        taken
    }

    fn whole(&mut self, (name, data): (&[u8], &[u8]), sent: &[u8], data_at: usize) {
        if let Some(says) = self.see(name, data).alike {
            self.usual.template.learn(sent, data, data_at, says);
        }
    }
}

impl<F: FnMut(&[u8], &[u8]) -> Seen> sse::Sink for Sink<'_, F> {
    fn event(&mut self, event: sse::Event<'_>) {
        self.see(event.name, event.data);
    }

    fn whole(&mut self, event: sse::Event<'_>, sent: &[u8], data_at: usize) {
        self.whole((event.name, event.data), sent, data_at);
    }

    fn taken(&mut self, input: &[u8]) -> usize {
        self.taken(input)
    }
}

impl<F: FnMut(&[u8], &[u8]) -> Seen> ndjson::Sink for Sink<'_, F> {
    fn line(&mut self, line: &[u8]) {
        self.see(b"", line);
    }

    fn whole(&mut self, line: &[u8], sent: &[u8]) {
        self.whole((b"", line), sent, 0);
    }

    fn taken(&mut self, input: &[u8]) -> usize {
        self.taken(input)
    }
}

/// What an AWS message is: an event, an exception or an error, each with a header of its own.
fn name<'a>(message: &eventstream::Message<'a>) -> &'a [u8] {
    [":event-type", ":exception-type", ":error-code"]
        .into_iter()
        .find_map(|header| message.header(header))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bumpalo::Bump;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        genai::{Draft, Ended, Options, Scratch},
        wire::{Field, RequestHead, ResponseHead},
    };

    /// An API whose streams are tried.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Api {
        Chat,
        Ollama,
        Gemini,
    }

    impl Api {
        fn kind(self) -> BodyKind {
            if self == Self::Ollama { BodyKind::NdJson } else { BodyKind::EventStream }
        }

        fn event(self, choice: usize, text: &str, number: u32) -> Vec<u8> {
            let event = match self {
                Self::Chat => chat(choice, text, number),
                Self::Ollama => ollama(choice, text, number),
                Self::Gemini => gemini(choice, text, number),
            };
            // A byte that isn't UTF-8.
            event.bytes().map(|byte| if byte == 0x7f { 0xff } else { byte }).collect()
        }
    }

    fn chat(choice: usize, text: &str, number: u32) -> String {
        let chunk = |rest: &str| {
            format!(
                r#"{{"id":"chatcmpl-1","model":"gpt-4o-mini-2024","created":{number},"choices":[{{"index":0,"delta":{{"content":"{text}"}},{rest}"#
            )
        };
        let counts = format!(r#"{{"prompt_tokens":{number}}}"#);
        let usual = chunk(r#""finish_reason":null}],"usage":null}"#);
        match choice {
            0 => format!("data: {}\n\n", chunk(r#""finish_reason":"stop"}]}"#)),
            1 => format!("data: {}\n\n", chunk(&format!(r#""finish_reason":null}}],"usage":{counts}}}"#))),
            2 => format!("data: {}\n\n", chunk(&format!(r#""finish_reason":null}}],"\u0075sage":{counts}}}"#))),
            3 => format!("event: delta\ndata: {usual}\n\n"),
            4 => "data: [DONE]\n\n".to_owned(),
            5 => format!(": wait\n\ndata: {usual}\r\n\r\n"),
            6 => format!("data: {}\ndata: {}\n\n", &usual[..20], &usual[20..]),
            7 => format!("data: {{\"error\":{{\"message\":\"{text}\",\"code\":\"{number}\"}}}}\n\n"),
            8 => format!("data: {}\n\n", &usual[..usual.len() - 9]),
            9 => format!("event: ping\ndata: {usual}\n\n"),
            _ => format!("data: {usual}\n\n"),
        }
    }

    fn ollama(choice: usize, text: &str, number: u32) -> String {
        let (end, done) = match choice {
            0 => ("\r\n", format!(r#""done":true,"done_reason":"stop","eval_count":{number}}}"#)),
            1 => ("\n", format!(r#""done":false,"eval_count":{number}}}"#)),
            2 => ("\n\n", r#""done":false}"#.to_owned()),
            3 => ("\n", format!(r#""error":"{text}"}}"#)),
            _ => ("\n", r#""done":false}"#.to_owned()),
        };
        format!(
            r#"{{"model":"llama3.2","created_at":"2035-01-01T00:00:{number}Z","message":{{"role":"assistant","content":"{text}"}},{done}{end}"#
        )
    }

    fn gemini(choice: usize, text: &str, number: u32) -> String {
        let count = match choice {
            0 => format!("{number}.5"),
            1 => format!("-{number}"),
            2 => format!("\"{number}\""),
            3 => format!("0{number}"),
            4 => "null".to_owned(),
            5 => number.to_string().repeat(8),
            _ => number.to_string(),
        };
        let error = if choice == 6 { r#""error":{"code":500,"status":"INTERNAL"},"# } else { "" };
        let reason = if choice == 7 { r#","finishReason":"STOP""# } else { "" };
        let index = number % 3;
        let usage = format!(r#""usageMetadata":{{"promptTokenCount":12,"candidatesTokenCount":{count}}}"#);
        format!(
            "data: {{{error}\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}]}}{reason},\"index\":{index}}}],\
             {usage},\"modelVersion\":\"g\",\"responseId\":\"r\"}}\n\n"
        )
    }

    /// What is told of a call whose response's events `feed` has seen, and how many were chunks.
    fn told(api: Api, feed: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> Seen)) -> (u64, String) {
        let (target, media, request): (&[u8], &[u8], &str) = match api {
            Api::Ollama => (b"/api/chat", b"application/x-ndjson", r#"{"model":"m","messages":[]}"#),
            Api::Chat => {
                (b"/v1/chat/completions", b"text/event-stream", r#"{"model":"m","messages":[],"stream":true}"#)
            }
            Api::Gemini => {
                (b"/v1beta/models/m:streamGenerateContent?alt=sse", b"text/event-stream", r#"{"contents":[]}"#)
            }
        };
        let (arena, mut scratch, options) = (Bump::new(), Scratch::default(), Options::default());
        let fields = [Field { name: b"host", value: b"llm.example" }, Field { name: b"content-type", value: media }];
        let head = RequestHead { method: b"POST", target, authority: None, protocol: None, fields: &fields };
        let draft = Draft::new(&arena, &head, &mut scratch, &options).expect("a call");
        draft.request_body(&arena, &mut request.as_bytes().to_vec(), &mut scratch, &options);
        assert_eq!(draft.response_head(&arena, &ResponseHead { status: 200, fields: &fields }), api.kind());
        let mut chunks = 0;
        feed(&mut |name, data| {
            let seen = draft.event(&arena, name, data, &mut scratch, &options);
            chunks += u64::from(seen.is_chunk);
            seen
        });
        (chunks, format!("{:?}", draft.finish(&arena, Ended::Cut, &options)))
    }

    /// Everything is cut out and seen.
    fn one_by_one(api: Api, pieces: &[&[u8]]) -> (u64, String) {
        told(api, |see| {
            if api == Api::Ollama {
                let mut decoder = ndjson::Decoder::default();
                pieces.iter().for_each(|piece| decoder.feed(piece, &mut |line| _ = see(b"", line)));
                decoder.finish(&mut |line| _ = see(b"", line));
            } else {
                let mut decoder = sse::Decoder::default();
                pieces.iter().for_each(|piece| decoder.feed(piece, &mut |event| _ = see(event.name, event.data)));
                decoder.finish(&mut |event| _ = see(event.name, event.data));
            }
        })
    }

    /// The same through a cutter, and how many events were seen.
    fn cut(api: Api, pieces: &[&[u8]]) -> (u64, String, usize) {
        let (mut cutter, mut counted, mut seen) = (Cutter::new(api.kind()).expect("events"), 0, 0);
        let (_, call) = told(api, |see| {
            for piece in pieces {
                counted += cutter.feed(piece, |name, data| {
                    seen += 1;
                    see(name, data)
                });
            }
            // What was counted when it came is seen once more.
            let again = !cutter.usual.latest.is_empty();
            cutter.finish(|name, data| counted += u64::from(see(name, data).is_chunk));
            counted -= u64::from(again);
        });
        (counted, call, seen)
    }

    fn text() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            5 => Just("Hel"),
            5 => Just(" words"),
            1 => Just(""),
            1 => Just("\\n\\n"),
            1 => Just("\\\"usage\\\":1"),
            1 => Just("\\u00e9"),
            1 => Just("\\ud800"),
            1 => Just("\\\\"),
            1 => Just("\",\"usage\":{\"prompt_tokens\":5},\"x\":\""),
            1 => Just("\""),
            1 => Just("a\tb"),
            1 => Just("\\"),
            1 => Just("\\x"),
            1 => Just("é"),
            1 => Just("\u{7f}"),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn events_that_are_alike_say_what_they_say_one_by_one(
            events in proptest::collection::vec((0..24_usize, text(), 0..200_u32), 0..40),
            lengths in proptest::collection::vec(1..900_usize, 1..20),
            api in prop_oneof![Just(Api::Chat), Just(Api::Ollama), Just(Api::Gemini)],
        ) {
            let body: Vec<u8> =
                events.iter().flat_map(|(choice, text, number)| api.event(*choice, text, *number)).collect();
            let (mut pieces, mut rest, mut lengths) = (vec![], &body[..], lengths.iter().cycle());
            while let (false, Some(length)) = (rest.is_empty(), lengths.next()) {
                let (piece, behind) = rest.split_at(rest.len().min(*length));
                pieces.push(piece);
                rest = behind;
            }
            let (chunks, call) = one_by_one(api, &pieces);
            let (counted, told, _) = cut(api, &pieces);
            prop_assert_eq!((counted, &told), (chunks, &call), "{}", String::from_utf8_lossy(&body));
        }
    }

    #[test]
    fn hardly_any_event_of_a_usual_stream_is_seen() {
        for api in [Api::Chat, Api::Ollama, Api::Gemini] {
            let texts = ["Hel", "lo", "", " there", "\\n", "é"];
            let body: Vec<_> =
                (0..100).flat_map(|number| api.event(99, texts[number % texts.len()], number as u32)).collect();
            let (counted, call, seen) = cut(api, &[&body]);
            assert_eq!((counted, call), one_by_one(api, &[&body]));
            assert_eq!(counted, 100);
            assert!(seen < 8, "{seen} of 100 for {api:?}");
        }
    }
}
