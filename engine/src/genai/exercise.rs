//! What a fuzzer does with calls: any bytes as the request and the response of each kind of call.

use bumpalo::Bump;

use super::{
    BodyKind, Draft, Ended, Options, Scratch, Verdict,
    dialect::DIALECTS,
    trace_context::{trace_parent, trace_state},
};
use crate::{
    exchange::Call,
    limits::TEXT_BYTES_MAX,
    wire::{Field, RequestHead, ResponseHead},
};

/// Room for content: little, so that it is cut.
const CONTENT_BYTES_MAX: usize = 256;

/// The first byte says which dialect, the second which of its paths, the third which kind of response and
/// how it ends. What follows is the request, and behind each NUL an event, or a piece of the response.
/// Panics when reading does, or when capturing content changes anything else.
pub fn genai(data: &[u8]) {
    let &[dialect, path, response, ref bodies @ ..] = data else { return };
    let dialect = DIALECTS[usize::from(dialect) % DIALECTS.len()];
    let Some(route) = dialect.routes.get(usize::from(path) % dialect.routes.len().max(1)) else { return };
    let mut target = String::from("/");
    let mut rest = route.path;
    while let Some((before, name)) = rest.split_once('{') {
        target.push_str(before);
        let (name, after) = name.split_once('}').unwrap_or((name, ""));
        target.push_str(if name == "response" { "resp_1" } else { "m" });
        rest = after;
    }
    target.push_str(rest);
    let host = match route.only {
        Some("mistral_ai") => "api.mistral.ai",
        Some("anthropic") => "api.anthropic.com",
        Some("cohere") => "api.cohere.com",
        _ => "llm.example",
    };
    let kinds =
        ["application/json", "text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream", ""];
    let wire = Wire {
        head: RequestHead {
            method: route.method.as_bytes(),
            target: target.as_bytes(),
            authority: Some(host.as_bytes()),
            protocol: None,
            fields: &[],
        },
        kind: kinds[usize::from(response & 0xf) % kinds.len()],
        status: if response & 0x10 == 0 { 200 } else { 400 },
        ended: [Ended::Complete, Ended::Cut, Ended::Cancelled, Ended::Lost][usize::from(response >> 6)],
        bodies: bodies.split(|&byte| byte == 0).collect(),
    };
    let (with, without) = (Bump::new(), Bump::new());
    let plain = wire.drive(&without, &Options::default());
    let options = Options { capture_content: true, content_bytes_max: CONTENT_BYTES_MAX, ..Options::default() };
    let full = wire.drive(&with, &options);
    if let Some(call) = &full {
        for content in [call.input_messages, call.output_messages, call.system_instructions, call.tool_definitions] {
            let content = content.unwrap_or("[]");
            assert!(content.len() <= CONTENT_BYTES_MAX, "{content}");
            assert!(Scratch::default().parse(&mut content.as_bytes().to_vec(), |_| ()).is_some(), "{content}");
        }
    }
    // What is broken in a value that nobody asks for is noticed only where content is captured.
    let request = bodies.split(|&byte| byte == 0).next().unwrap_or_default();
    if Scratch::default().parse(&mut request.to_vec(), |_| ()).is_none() {
        return;
    }
    // Without content most events are passed over, so that nothing that a call is told by may be in them.
    let told = |call: &Call<'_>| (call.request_model.map(str::to_owned), call.max_tokens, call.operation);
    assert_eq!(plain.as_ref().map(told), full.as_ref().map(told));
}

/// Lines: the first are values of `traceparent`, as many as the first byte says, and the rest of `tracestate`. Panics
/// when reading them does, or when what is read was not there.
pub fn trace_context(data: &[u8]) {
    let Some((&parents, lines)) = data.split_first() else { return };
    let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').collect();
    let (parents, states) = lines.split_at(usize::from(parents % 3).min(lines.len()));
    let field = |name: &'static [u8]| move |value: &&'_ [u8]| (name, value.to_vec());
    let given: Vec<_> =
        parents.iter().map(field(b"traceparent")).chain(states.iter().map(field(b"tracestate"))).collect();
    let fields: Vec<_> = given.iter().map(|(name, value)| Field { name, value }).collect();
    if let Some(parent) = trace_parent(&fields) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let said = format!("{}-{}-{:02x}", hex(&parent.trace_id), hex(&parent.parent_id), parent.flags);
        let [value] = parents else { panic!("not one traceparent") };
        assert_eq!(&value[3..55], said.as_bytes());
        assert!(parent.trace_id != [0; 16] && parent.parent_id != [0; 8]);
    }
    let arena = Bump::new();
    if let Some(state) = trace_state(&arena, &fields) {
        assert!(state.len() <= TEXT_BYTES_MAX && state.split(',').count() <= 32, "{state}");
        let of = |member: &str| states.iter().any(|line| memchr::memmem::find(line, member.as_bytes()).is_some());
        assert!(state.split(',').all(|member| member.contains('=') && of(member)), "{state}");
    }
}

struct Wire<'w> {
    head: RequestHead<'w>,
    kind: &'w str,
    status: u16,
    ended: Ended,
    bodies: Vec<&'w [u8]>,
}

impl Wire<'_> {
    fn drive<'a>(&self, arena: &'a Bump, options: &Options) -> Option<Call<'a>> {
        let mut scratch = Scratch::default();
        let (request, events) = self.bodies.split_first()?;
        let draft = Draft::new(arena, &self.head, &mut scratch, options)?;
        if draft.wants_request_body() {
            let verdict = draft.request_body(arena, &mut request.to_vec(), &mut scratch, options);
            (verdict == Verdict::Call).then_some(())?;
        }
        let fields = [Field { name: b"content-type", value: self.kind.as_bytes() }];
        match draft.response_head(arena, &ResponseHead { status: self.status, fields: &fields }) {
            BodyKind::Skip => {}
            BodyKind::Json => draft.response_body(arena, &mut events.concat(), &mut scratch, options),
            _ => events.iter().for_each(|event| {
                // An event's name before a bar, where there is one.
                let at = event.iter().position(|&byte| byte == b'|');
                let (name, data) = at.map_or((&[][..], *event), |at| (&event[..at], &event[at + 1..]));
                draft.event(arena, name, data, &mut scratch, options);
            }),
        }
        Some(draft.finish(arena, self.ended, options).clone())
    }
}

#[cfg(test)]
#[test]
fn the_seeds_of_the_fuzzer() {
    crate::wire::exercise::replay("genai", genai, 0);
    crate::wire::exercise::replay("trace_context", trace_context, 0);
}
