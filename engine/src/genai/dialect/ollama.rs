//! Ollama's own API, whose responses are streams unless the request says otherwise.

use super::{Dialect, content, has_array, has_text, likely, names_model, plain};
use crate::genai::{
    BodyKind,
    facts::{Rule, To, rule},
    wanted::Wanted,
};

pub(super) static CHAT: Dialect = Dialect {
    routes: &[likely("api/chat")],
    fits: |body| has_array(body, "messages") && names_model(body),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    streams_by_default: true,
    stream: BodyKind::NdJson,
    content: Some(&content::OLLAMA_CHAT),
    ..plain("ollama", "chat", &WANTED)
};

pub(super) static GENERATE: Dialect = Dialect {
    routes: &[likely("api/generate")],
    fits: names_model,
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    streams_by_default: true,
    stream: BodyKind::NdJson,
    content: Some(&content::OLLAMA_GENERATE),
    ..plain("ollama.generate", "text_completion", &WANTED)
};

pub(super) static EMBED: Dialect = Dialect {
    routes: &[likely("api/embed"), likely("api/embeddings")],
    fits: |body| names_model(body) && (has_text(body, "input") || has_text(body, "prompt")),
    request: &[rule(&["model"], To::RequestModel), rule(&["dimensions"], To::DimensionCount)],
    response: &[rule(&["model"], To::ResponseModel), rule(&["prompt_eval_count"], To::Input)],
    ..plain("ollama.embed", "embeddings", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["stream"], To::Stream),
    rule(&["think"], To::ReasoningLevel),
    rule(&["format"], To::OutputFormat),
    // A schema.
    rule(&["format"], To::Inside(&[rule(&["type", "$ref", "properties"], To::OutputJson)])),
    rule(
        &["options"],
        To::Inside(&[
            rule(&["num_predict"], To::MaxTokens),
            rule(&["temperature"], To::Temperature),
            rule(&["top_p"], To::TopP),
            rule(&["top_k"], To::TopK),
            rule(&["seed"], To::Seed),
            rule(&["stop"], To::StopSequences),
            rule(&["presence_penalty"], To::PresencePenalty),
            rule(&["frequency_penalty"], To::FrequencyPenalty),
        ]),
    ),
];

/// Each line of a stream has the model, and the last one the counts. A prompt that was cached as a
/// whole is not counted.
const RESPONSE: &[Rule] = &[
    rule(&["model"], To::ResponseModel),
    rule(&["done_reason"], To::FinishReason),
    rule(&["prompt_eval_count"], To::Input),
    rule(&["eval_count"], To::Output),
    rule(&["done"], To::Ended),
];

static WANTED: Wanted = Wanted::new(
    &["\"done_reason\"", "\"prompt_eval_count\"", "\"eval_count\"", "\"error\""],
    &[("\"model\"", |call| call.response_model.is_some())],
);
