//! Anthropic Messages: Anthropic itself, Vertex, Azure, and every server that speaks it.

use bumpalo::Bump;

use super::{Dialect, Route, content, has_array, likely, plain, sure};
use crate::genai::{
    facts::{Facts, Rule, Sum, To, rule},
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[
        sure("v1/messages"),
        likely("messages"),
        sure("publishers/anthropic/models/{model}:rawPredict"),
        Route { streams: true, ..sure("publishers/anthropic/models/{model}:streamRawPredict") },
    ],
    fits: |body| has_array(body, "messages"),
    claims: |body| has_array(body, "messages") && body.get("anthropic_version").and_then(Json::text).is_some(),
    request: REQUEST,
    response: RESPONSE,
    event: EVENT,
    last_events: &["message_stop"],
    sum: Sum::CacheApart,
    content: Some(&content::ANTHROPIC),
    ..plain("anthropic", "chat", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["max_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p"], To::TopP),
    rule(&["top_k"], To::TopK),
    rule(&["stop_sequences"], To::StopSequences),
    rule(&["stream"], To::Stream),
    rule(
        &["output_config"],
        To::Inside(&[
            rule(&["effort"], To::ReasoningLevel),
            rule(&["format"], To::Inside(&[rule(&["type"], To::OutputFormat)])),
        ]),
    ),
    rule(&["output_format"], To::Inside(&[rule(&["type"], To::OutputFormat)])),
];

pub(super) const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["stop_reason"], To::FinishReason),
    rule(&["usage"], To::Custom(usage)),
];

/// `message_start` holds a message, `message_delta` what changed at the end.
pub(super) const EVENT: &[Rule] = &[
    rule(&["message"], To::Inside(RESPONSE)),
    rule(&["delta"], To::Inside(&[rule(&["stop_reason"], To::FinishReason)])),
    rule(&["usage"], To::Custom(usage)),
];

/// Counts are cumulative, and some servers send zeros at one end or the other of a stream, so that
/// the largest one counts.
pub(super) fn usage(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    let largest = |known: &mut Option<i64>, path: &[&str]| {
        *known = (*known).max(value.at(path).and_then(Json::count));
    };
    largest(&mut facts.usage.input, &["input_tokens"]);
    largest(&mut facts.usage.output, &["output_tokens"]);
    largest(&mut facts.usage.cache_read, &["cache_read_input_tokens"]);
    largest(&mut facts.usage.cache_creation, &["cache_creation_input_tokens"]);
    largest(&mut facts.usage.reasoning, &["output_tokens_details", "thinking_tokens"]);
}

static WANTED: Wanted = Wanted::new(&["\"message\"", "\"usage\"", "\"stop_reason\"", "\"error\""], &[]);
