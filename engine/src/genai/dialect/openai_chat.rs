//! OpenAI chat completions, and every server that speaks them.

use bumpalo::Bump;

use super::{Dialect, Route, content, has_array, likely, names_model, plain, sure};
use crate::genai::{
    facts::{Facts, Rule, To, rule},
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    openai_api_type: Some("chat_completions"),
    routes: &[
        sure("chat/completions"),
        sure("deployments/{model}/chat/completions"),
        // Mistral's agents.
        sure("agents/completions"),
        // Mistral's models on Vertex, any model on Databricks.
        sure("publishers/mistralai/models/{model}:rawPredict"),
        Route { streams: true, ..sure("publishers/mistralai/models/{model}:streamRawPredict") },
        likely("serving-endpoints/{model}/invocations"),
    ],
    fits: |body| has_array(body, "messages"),
    claims: |body| has_array(body, "messages") && names_model(body),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    last_events: &["[DONE]", "chat.completion.done"],
    content: Some(&content::OPENAI_CHAT),
    ..plain("openai.chat", "chat", &WANTED)
};

pub(super) const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["max_completion_tokens", "max_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p"], To::TopP),
    // vLLM, SGLang and others take what OpenAI does not.
    rule(&["top_k"], To::TopK),
    rule(&["frequency_penalty"], To::FrequencyPenalty),
    rule(&["presence_penalty"], To::PresencePenalty),
    // The latter is Mistral's.
    rule(&["seed", "random_seed"], To::Seed),
    rule(&["n"], To::ChoiceCount),
    rule(&["stop"], To::StopSequences),
    rule(&["stream"], To::Stream),
    rule(&["reasoning_effort"], To::ReasoningLevel),
    // OpenRouter's.
    rule(&["reasoning"], To::Inside(&[rule(&["effort"], To::ReasoningLevel)])),
    rule(&["service_tier"], To::RequestServiceTier),
    rule(&["response_format"], To::Inside(&[rule(&["type"], To::OutputFormat)])),
    rule(&["modalities"], To::Custom(modalities)),
];

fn modalities(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    for modality in value.items().filter_map(Json::text) {
        match modality {
            "audio" => facts.call.output_type = Some("speech"),
            "image" => facts.call.output_type = Some("image"),
            _ => {}
        }
    }
}

/// A whole response and a chunk of a stream name these alike.
pub(super) const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["service_tier"], To::ResponseServiceTier),
    rule(&["system_fingerprint"], To::SystemFingerprint),
    rule(&["choices"], To::Custom(choices)),
    // Groq says it here first; what the whole response says then comes last and counts.
    rule(&["x_groq"], To::Inside(&[rule(&["usage"], To::Inside(USAGE))])),
    rule(&["usage"], To::Inside(USAGE)),
    rule(&["object"], To::Custom(object)),
];

/// Token counts of chat and legacy completions.
pub(super) const USAGE: &[Rule] = &[
    rule(&["prompt_tokens"], To::Input),
    rule(&["completion_tokens"], To::Output),
    rule(&["total_tokens"], To::Total),
    // SGLang's, then everybody else's.
    rule(&["reasoning_tokens"], To::Reasoning),
    rule(&["completion_tokens_details"], To::Inside(&[rule(&["reasoning_tokens"], To::Reasoning)])),
    // DeepSeek's, Mistral's and Moonshot's, then everybody else's.
    rule(&["prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"], To::CacheRead),
    rule(&["cache_write_tokens"], To::CacheCreation),
    rule(
        &["prompt_tokens_details"],
        To::Inside(&[rule(&["cached_tokens"], To::CacheRead), rule(&["cache_write_tokens"], To::CacheCreation)]),
    ),
];

/// Finish reasons by choice.
pub(super) fn choices<'a>(facts: &mut Facts<'a>, arena: &'a Bump, value: Json<'_>) {
    for (place, choice) in (0..).zip(value.items()) {
        if let Some(reason) = choice.get("finish_reason").and_then(Json::text) {
            let index = choice.get("index").and_then(Json::count).unwrap_or(place);
            facts.finish(arena, index, reason);
        }
    }
}

/// Perplexity ends its streams with an object of another kind.
fn object(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    facts.ended |= value.text() == Some("chat.completion.done");
}

static WANTED: Wanted = Wanted::new(
    &["\"finish_reason\"", "\"usage\"", "\"error\""],
    &[
        ("\"id\"", |call| call.response_id.is_some()),
        ("\"model\"", |call| call.response_model.is_some()),
        ("\"service_tier\"", |call| call.openai_response_service_tier.is_some()),
        ("\"system_fingerprint\"", |call| call.openai_system_fingerprint.is_some()),
    ],
);
