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
        To::Inside(&[rule(&["finish_reason"], To::FinishReason), rule(&["choices"], To::Custom(openai_chat::choices))]),
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
