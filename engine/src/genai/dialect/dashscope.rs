//! DashScope's own API. Its streams have to be asked for in the request's head.

use bumpalo::Bump;

use super::{Dialect, content, openai_chat, plain, sure};
use crate::{
    genai::{
        facts::{Facts, Rule, To, rule},
        route::Target,
        wanted::Wanted,
    },
    wire::{self, RequestHead},
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[sure("services/aigc/text-generation/generation"), sure("services/aigc/multimodal-generation/generation")],
    request_head: Some(request_head),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    content: Some(&content::DASHSCOPE),
    ..plain("dashscope", "chat", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(
        &["parameters"],
        To::Inside(&[
            rule(&["max_tokens"], To::MaxTokens),
            rule(&["temperature"], To::Temperature),
            rule(&["top_p"], To::TopP),
            rule(&["top_k"], To::TopK),
            rule(&["seed"], To::Seed),
            rule(&["n"], To::ChoiceCount),
            rule(&["stop"], To::StopSequences),
            rule(&["presence_penalty"], To::PresencePenalty),
            rule(&["response_format"], To::Inside(&[rule(&["type"], To::OutputFormat)])),
        ]),
    ),
];

/// Counts are cumulative, and the reason is `"null"` until the end.
const RESPONSE: &[Rule] = &[
    rule(&["request_id"], To::ResponseId),
    rule(
        &["output"],
        To::Inside(&[rule(&["finish_reason"], To::FinishReason), rule(&["choices"], openai_chat::CHOICES)]),
    ),
    rule(
        &["usage"],
        To::Inside(&[
            rule(&["input_tokens"], To::Input),
            rule(&["output_tokens"], To::Output),
            rule(&["prompt_tokens_details"], To::Inside(&[rule(&["cached_tokens"], To::CacheRead)])),
            rule(&["output_tokens_details"], To::Inside(&[rule(&["reasoning_tokens"], To::Reasoning)])),
        ]),
    ),
];

fn request_head<'a>(facts: &mut Facts<'a>, _: &'a Bump, head: &RequestHead<'_>, _: &Target<'_>) {
    let asked = wire::field(head.fields, "x-dashscope-sse").is_some_and(|value| value.eq_ignore_ascii_case(b"enable"));
    let accepts = wire::field(head.fields, "accept").is_some_and(|value| value == b"text/event-stream");
    facts.call.stream = asked || accepts;
}

static WANTED: Wanted = Wanted::new(
    &["\"usage\"", "\"finish_reason\"", "\"error\"", "\"code\""],
    &[("\"request_id\"", |call| call.response_id.is_some())],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    const WIRE: Wire<'static> = Wire {
        host: "dashscope.aliyuncs.com",
        path: "/api/v1/services/aigc/text-generation/generation",
        request: r#"{"model":"qwen-plus","input":{"messages":[{"role":"user","content":"hi"}]},"parameters":{"top_p":0.5,"max_tokens":9,"seed":7}}"#,
        ..PLAIN
    };

    #[test]
    fn a_document_and_a_stream() {
        let expect = [
            "operation: \"chat\"",
            "provider: \"dashscope.aliyuncs.com\"",
            "request_model: \"qwen-plus\"",
            "top_p: 0.5",
            "max_tokens: 9",
            "seed: 7",
            "response_id: \"r1\"",
            "\"stop\"",
            "input_tokens: 22",
            "output_tokens: 17",
        ];
        check(
            Wire {
                response: &[
                    r#"{"output":{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":"a"}}]},"usage":{"total_tokens":39,"input_tokens":22,"output_tokens":17},"request_id":"r1"}"#,
                ],
                ..WIRE
            },
            &[&expect[..], &["stream: false"]].concat(),
        );
        // Counts are cumulative, and the reason is in so many letters "null" until the end.
        check(
            Wire {
                fields: &[("X-DashScope-SSE", "enable")],
                response_fields: &[("content-type", "text/event-stream;charset=UTF-8")],
                response: &[
                    r#"result|{"output":{"choices":[{"finish_reason":"null","message":{"content":"a"}}]},"usage":{"input_tokens":22,"output_tokens":1},"request_id":"r1"}"#,
                    r#"result|{"output":{"choices":[{"finish_reason":"stop","message":{"content":""}}]},"usage":{"input_tokens":22,"output_tokens":17},"request_id":"r1"}"#,
                ],
                ..WIRE
            },
            &[&expect[..], &["stream: true"]].concat(),
        );
    }

    #[test]
    fn a_refusal_has_its_code_at_the_top() {
        check(
            Wire { status: 400, response: &[r#"{"code":"InvalidParameter","message":"m","request_id":"r1"}"#], ..WIRE },
            &["error_type: \"InvalidParameter\"", "status_code: 400"],
        );
    }
}
