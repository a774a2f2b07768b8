//! A response body that comes event by event, whichever way its events are told apart.

use crate::{
    genai::{BodyKind, Seen, Template},
    wire::{eventstream, json_array, ndjson, sse},
};

/// Cuts a body into events.
pub(super) struct Cutter {
    decoder: Decoder,
    /// What most of its events are like.
    template: Template,
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
        Some(Self { decoder, template: Template::default() })
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
    /// like one which said nothing. Returns how many events counted as chunks.
    #[inline(always)]
    pub fn feed(&mut self, bytes: &[u8], see: impl FnMut(&[u8], &[u8]) -> Seen) -> u64 {
        let is_between = match &self.decoder {
            Decoder::Events(decoder) => decoder.is_between_events(),
            Decoder::Lines(decoder) => decoder.is_between_lines(),
            // Those aren't compared.
            Decoder::Elements(_) | Decoder::Messages(_) => false,
        };
        let (count, taken) = if is_between { alike(&self.template, bytes) } else { (0, 0) };
        match bytes.get(taken..) {
            None | Some([]) => count,
            Some(rest) => count + self.cut(rest, see),
        }
    }

    #[inline(never)]
    fn cut(&mut self, bytes: &[u8], see: impl FnMut(&[u8], &[u8]) -> Seen) -> u64 {
        let Self { decoder, template } = self;
        let mut sink = Sink { see, template, chunks: 0 };
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
        self.template.forget();
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

/// How many events at the front of `input` are like the template, and how many bytes they have.
#[inline(always)]
fn alike(template: &Template, input: &[u8]) -> (u64, usize) {
    let (mut count, mut taken) = (0, 0);
    while let Some(bytes) = input.get(taken..).and_then(|rest| template.matches(rest)) {
        count += 1;
        taken += bytes;
    }
    (count, taken)
}

/// Has events seen, unless they are like the template.
struct Sink<'t, F> {
    see: F,
    template: &'t mut Template,
    chunks: u64,
}

impl<F: FnMut(&[u8], &[u8]) -> Seen> Sink<'_, F> {
    fn see(&mut self, name: &[u8], data: &[u8]) -> Seen {
        let seen = (self.see)(name, data);
        self.chunks += u64::from(seen.is_chunk);
        seen
    }

    fn taken(&mut self, input: &[u8]) -> usize {
        let (count, taken) = alike(self.template, input);
        self.chunks += count;
        taken
    }

    fn whole(&mut self, (name, data): (&[u8], &[u8]), sent: &[u8], data_at: usize) {
        if self.see(name, data).is_typical {
            self.template.learn(sent, data, data_at);
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

    /// What is told of a call whose response's events `feed` has seen, and how many were chunks.
    fn told(kind: BodyKind, feed: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> Seen)) -> (u64, String) {
        let (target, media, request): (&[u8], &[u8], &str) = match kind {
            BodyKind::NdJson => (b"/api/chat", b"application/x-ndjson", r#"{"model":"m","messages":[]}"#),
            _ => (b"/v1/chat/completions", b"text/event-stream", r#"{"model":"m","messages":[],"stream":true}"#),
        };
        let (arena, mut scratch, options) = (Bump::new(), Scratch::default(), Options::default());
        let fields = [Field { name: b"host", value: b"llm.example" }, Field { name: b"content-type", value: media }];
        let head = RequestHead { method: b"POST", target, authority: None, protocol: None, fields: &fields };
        let mut draft = Draft::new(&arena, &head, &options).expect("a call");
        draft.request_body(&arena, &mut request.as_bytes().to_vec(), &mut scratch, &options);
        assert_eq!(draft.response_head(&arena, &ResponseHead { status: 200, fields: &fields }), kind);
        let mut chunks = 0;
        feed(&mut |name, data| {
            let seen = draft.event(&arena, name, data, &mut scratch, &options);
            chunks += u64::from(seen.is_chunk);
            seen
        });
        (chunks, format!("{:?}", draft.finish(&arena, Ended::Cut, &options)))
    }

    /// Everything is cut out and looked at.
    fn one_by_one(kind: BodyKind, pieces: &[&[u8]]) -> (u64, String) {
        told(kind, |see| {
            if kind == BodyKind::NdJson {
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

    /// As one by one, and how many chunks were taken for being alike.
    fn cut(kind: BodyKind, pieces: &[&[u8]]) -> (u64, String, u64) {
        let (mut cutter, mut counted) = (Cutter::new(kind).expect("events"), 0);
        let (seen, call) = told(kind, |see| {
            pieces.iter().for_each(|piece| counted += cutter.feed(piece, &mut *see));
            cutter.finish(|name, data| counted += u64::from(see(name, data).is_chunk));
        });
        (counted, call, counted - seen)
    }

    fn sse_event(choice: usize, text: &str, number: u32) -> String {
        let chunk = |rest: &str| {
            format!(
                r#"{{"id":"chatcmpl-1","model":"gpt-4o-mini-2024","created":{number},"choices":[{{"index":0,"delta":{{"content":"{text}"}},{rest}"#
            )
        };
        let usual = chunk(r#""finish_reason":null}],"usage":null}"#);
        match choice {
            0 => format!("data: {}\n\n", chunk(r#""finish_reason":"stop"}]}"#)),
            1 => format!(
                "data: {}\n\n",
                chunk(&format!(r#""finish_reason":null}}],"usage":{{"prompt_tokens":{number}}}}}"#))
            ),
            2 => format!(
                "data: {}\n\n",
                chunk(&format!(r#""finish_reason":null}}],"\u0075sage":{{"prompt_tokens":{number}}}}}"#))
            ),
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

    fn line(choice: usize, text: &str, number: u32) -> String {
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

    fn text() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            4 => Just("Hel"), 4 => Just(" words"), 1 => Just(""), 1 => Just("\\n\\n"), 1 => Just("\\\"usage\\\":1"), 1 => Just("\\u00e9"),
            1 => Just("\\\\"), 1 => Just("\",\"usage\":{\"prompt_tokens\":5},\"x\":\""), 1 => Just("\""), 1 => Just("a\tb"), 1 => Just("\\"),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn events_that_are_alike_say_what_they_say_one_by_one(
            events in proptest::collection::vec((0..24_usize, text(), 0..200_u32), 0..40),
            lengths in proptest::collection::vec(1..700_usize, 1..20),
            is_lines in any::<bool>(),
        ) {
            let (kind, event): (_, fn(usize, &str, u32) -> String) =
                if is_lines { (BodyKind::NdJson, line) } else { (BodyKind::EventStream, sse_event) };
            let body: String = events.iter().map(|(choice, text, number)| event(*choice, text, *number)).collect();
            let (mut pieces, mut rest, mut lengths) = (vec![], body.as_bytes(), lengths.iter().cycle());
            while let (false, Some(length)) = (rest.is_empty(), lengths.next()) {
                let (piece, behind) = rest.split_at(rest.len().min(*length));
                pieces.push(piece);
                rest = behind;
            }
            let (chunks, call) = one_by_one(kind, &pieces);
            let (counted, told, _) = cut(kind, &pieces);
            prop_assert_eq!((counted, &told), (chunks, &call), "{}", body);
        }
    }

    /// Nearly all events of a usual stream are alike, however many differ in how much.
    #[test]
    fn most_events_are_alike() {
        for (kind, event) in
            [(BodyKind::EventStream, sse_event as fn(usize, &str, u32) -> String), (BodyKind::NdJson, line)]
        {
            let texts = ["Hel", "lo", "", " there", "\\n", "é"];
            let body: String = (0..100).map(|number| event(99, texts[number % texts.len()], number as u32)).collect();
            let (counted, call, alike) = cut(kind, &[body.as_bytes()]);
            assert_eq!((counted, call), one_by_one(kind, &[body.as_bytes()]));
            assert!(alike >= 94, "{alike} of 100");
        }
    }
}
