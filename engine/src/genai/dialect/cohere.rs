//! Cohere's chat, versions 1 and 2, and its older `generate`.

use super::{Dialect, content, has_array, plain, sure};
use crate::genai::{
    facts::{Rule, To, rule},
    json::Json,
    provider,
    wanted::Wanted,
};

use super::{Route, likely};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[sure("v2/chat"), Route { only: Some(provider::COHERE), ..sure("v1/chat") }, likely("v1/chat")],
    // Others use the path for OpenAI's bodies.
    fits: |body| body.get("message").is_some_and(|message| message.string().is_some()) && !has_array(body, "messages"),
    request: REQUEST,
    response: RESPONSE,
    event: EVENT,
    last_events: &["message-end", "stream-end", "[DONE]"],
    content: Some(&content::COHERE),
    ..plain("cohere", "chat", &WANTED)
};

pub(super) static GENERATE: Dialect = Dialect {
    routes: &[
        Route { only: Some(provider::COHERE), ..sure("v1/generate") },
        Route { only: Some(provider::COHERE), ..sure("generate") },
    ],
    request: REQUEST,
    response: RESPONSE,
    event: EVENT,
    last_events: &["stream-end"],
    content: Some(&content::COHERE),
    ..plain("cohere.generate", "text_completion", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["max_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["p"], To::TopP),
    rule(&["k"], To::TopK),
    rule(&["stop_sequences"], To::StopSequences),
    rule(&["seed"], To::Seed),
    rule(&["frequency_penalty"], To::FrequencyPenalty),
    rule(&["presence_penalty"], To::PresencePenalty),
    rule(&["num_generations"], To::ChoiceCount),
    rule(&["response_format"], To::Inside(&[rule(&["type"], To::OutputFormat)])),
    rule(&["conversation_id"], To::Conversation),
    rule(&["stream"], To::Stream),
];

const RESPONSE: &[Rule] = &[
    // Version 1 also gives each generation an id.
    rule(&["id", "response_id", "generation_id"], To::ResponseId),
    rule(&["finish_reason"], To::FinishReason),
    rule(&["generations"], To::Each(&[rule(&["finish_reason"], To::FinishReason)])),
    rule(&["usage", "meta"], To::Inside(USAGE)),
];

/// What is billed counts, where both are there.
const USAGE: &[Rule] = &[
    rule(&["tokens"], To::Inside(COUNTS)),
    rule(&["billed_units"], To::Inside(COUNTS)),
    rule(&["cached_tokens"], To::CacheRead),
];

const COUNTS: &[Rule] = &[
    rule(&["input_tokens"], To::Input),
    rule(&["output_tokens"], To::Output),
    rule(&["reasoning_tokens"], To::Reasoning),
];

/// Version 2 ends with a delta, version 1 with the whole response.
const EVENT: &[Rule] = &[
    rule(&["id", "generation_id"], To::ResponseId),
    rule(&["finish_reason"], To::FinishReason),
    rule(&["delta"], To::Inside(&[rule(&["finish_reason"], To::FinishReason), rule(&["usage"], To::Inside(USAGE))])),
    rule(&["response"], To::Inside(RESPONSE)),
];

pub(super) static EMBED: Dialect = Dialect {
    routes: &[Route { only: Some(provider::COHERE), ..sure("embed") }, likely("v2/embed"), likely("v1/embed")],
    fits: |body| {
        ["texts", "images", "inputs"].iter().any(|key| has_array(body, key))
            && body.get("model").and_then(Json::text).is_some()
    },
    request: &[
        rule(&["model"], To::RequestModel),
        rule(&["embedding_types"], To::EncodingFormats),
        rule(&["output_dimension"], To::DimensionCount),
    ],
    response: &[rule(
        &["meta"],
        To::Inside(&[rule(&["billed_units"], To::Inside(&[rule(&["input_tokens"], To::Input)]))]),
    )],
    ..plain("cohere.embed", "embeddings", &WANTED)
};

static WANTED: Wanted = Wanted::new(
    &["\"finish_reason\"", "\"usage\"", "\"response\"", "\"error\""],
    &[("\"id\"", |call| call.response_id.is_some()), ("\"generation_id\"", |call| call.response_id.is_some())],
);
