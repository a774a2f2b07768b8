//! Gemini's `generateContent`, on its own host, on Vertex, and behind proxies.

use bumpalo::Bump;

use super::{Dialect, Route, content, has_array, plain, sure};
use crate::genai::{
    BodyKind,
    facts::{Facts, Rule, Sum, To, rule},
    json::Json,
    wanted::{Known, Wanted},
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[
        // Models of publishers, tuned models and endpoints.
        sure("{collection}/{model}:generateContent"),
        Route { streams: true, ..sure("{collection}/{model}:streamGenerateContent") },
    ],
    claims: |body| has_array(body, "contents"),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    // Without `alt=sse` a stream is an array that arrives element by element.
    stream: BodyKind::JsonArray,
    besides_counts: Some(&BESIDES_COUNTS),
    sum: Sum::ReasoningApart,
    content: Some(&content::GEMINI),
    ..plain("gemini", "generate_content", &WANTED)
};

/// Protobuf's JSON takes both spellings of a name, and clients use both.
const REQUEST: &[Rule] =
    &[rule(&["model"], To::RequestModel), rule(&["generationConfig", "generation_config"], To::Inside(CONFIG))];

pub(super) const CONFIG: &[Rule] = &[
    rule(&["temperature"], To::Temperature),
    rule(&["topP", "top_p"], To::TopP),
    rule(&["topK", "top_k"], To::TopK),
    rule(&["maxOutputTokens", "max_output_tokens"], To::MaxTokens),
    rule(&["candidateCount", "candidate_count"], To::ChoiceCount),
    rule(&["stopSequences", "stop_sequences"], To::StopSequences),
    rule(&["seed"], To::Seed),
    rule(&["presencePenalty", "presence_penalty"], To::PresencePenalty),
    rule(&["frequencyPenalty", "frequency_penalty"], To::FrequencyPenalty),
    rule(&["responseMimeType", "response_mime_type"], To::OutputFormat),
    rule(&["responseModalities", "response_modalities"], To::Custom(modalities)),
    rule(
        &["thinkingConfig", "thinking_config"],
        To::Inside(&[rule(&["thinkingLevel", "thinking_level"], To::ReasoningLevel)]),
    ),
    // The Interactions API's.
    rule(&["thinking_level"], To::ReasoningLevel),
];

fn modalities(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    for modality in value.items().filter_map(Json::text) {
        if modality.eq_ignore_ascii_case("image") {
            facts.call.output_type = Some("image");
        } else if modality.eq_ignore_ascii_case("audio") {
            facts.call.output_type = Some("speech");
        }
    }
}

/// A whole response and an element of a stream are alike; counts are cumulative.
pub(super) const RESPONSE: &[Rule] = &[
    rule(&["responseId", "response_id"], To::ResponseId),
    rule(&["modelVersion", "model_version"], To::ResponseModel),
    rule(&["candidates"], To::Seeing(&["finishReason", "finish_reason", "index"], candidates)),
    rule(&["usageMetadata", "usage_metadata"], To::Inside(USAGE)),
];

const USAGE: &[Rule] = &[
    rule(&["promptTokenCount", "prompt_token_count"], To::Input),
    rule(&["toolUsePromptTokenCount", "tool_use_prompt_token_count"], To::InputApart),
    rule(&["candidatesTokenCount", "candidates_token_count"], To::Output),
    rule(&["thoughtsTokenCount", "thoughts_token_count"], To::Reasoning),
    rule(&["cachedContentTokenCount", "cached_content_token_count"], To::CacheRead),
];

fn candidates<'a>(facts: &mut Facts<'a>, arena: &'a Bump, value: Json<'_>) {
    for (place, candidate) in (0..).zip(value.items()) {
        let Some(reason) = candidate.get("finishReason").or_else(|| candidate.get("finish_reason")) else { continue };
        let index = candidate.get("index").and_then(Json::count).unwrap_or(place);
        if let Some(name) = reason.text() {
            finish(facts, arena, index, name);
        } else if let Some(name) = reason.count().and_then(reason_name) {
            facts.finish(arena, index, name);
        }
    }
}

/// Vertex's Python SDK asks for enums as integers (`google.cloud.aiplatform.v1.Candidate`). From 6
/// on, Vertex and the Gemini API number differently, but only Vertex is asked for this.
fn reason_name(number: i64) -> Option<&'static str> {
    let names = [
        "stop",
        "max_tokens",
        "safety",
        "recitation",
        "other",
        "blocklist",
        "prohibited_content",
        "spii",
        "malformed_function_call",
    ];
    names.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// The reason in lower case.
fn finish<'a>(facts: &mut Facts<'a>, arena: &'a Bump, index: i64, name: &str) {
    let mut lower = [0; 64];
    let Some(lower) = lower.get_mut(..name.len()) else { return };
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    if let Ok(name) = std::str::from_utf8(lower) {
        facts.finish(arena, index, name);
    }
}

static WANTED: Wanted = Wanted::new(
    &["\"finishReason\"", "\"finish_reason\"", "\"usageMetadata\"", "\"usage_metadata\"", "\"error\""],
    NAMES,
);

static BESIDES_COUNTS: Wanted = Wanted::new(&["\"finishReason\"", "\"finish_reason\"", "\"error\""], NAMES);

const NAMES: &[(&str, Known)] = &[
    ("\"responseId\"", |call| call.response_id.is_some()),
    ("\"response_id\"", |call| call.response_id.is_some()),
    ("\"modelVersion\"", |call| call.response_model.is_some()),
    ("\"model_version\"", |call| call.response_model.is_some()),
];

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn a_stream_that_is_an_array() {
        check(
            Wire {
                host: "generativelanguage.googleapis.com",
                path: "/v1beta/models/g:streamGenerateContent?key=secret",
                request: r#"{"contents":[],"generation_config":{"top_k":40.0,"response_mime_type":"application/json","candidate_count":2}}"#,
                response_fields: &[("content-type", "application/json; charset=UTF-8")],
                response: &[
                    r#"{"candidates":[{"index":1,"finishReason":2},{"index":0,"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"toolUsePromptTokenCount":2,"thoughtsTokenCount":5}}"#,
                ],
                ..PLAIN
            },
            &[
                "top_k: 40",
                "choice_count: 2",
                "input_tokens: 3",
                "output_tokens: 5",
                "\"stop\"",
                "\"max_tokens\"",
                "stream: true",
            ],
        );
    }

    #[test]
    fn a_refusal_and_a_count() {
        let host = "generativelanguage.googleapis.com";
        check(
            Wire {
                host,
                path: "/v1beta/models/nope:generateContent",
                request: r#"{"contents":[]}"#,
                status: 404,
                response: &[r#"{"error":{"code":404,"message":"m","status":"NOT_FOUND"}}"#],
                ..PLAIN
            },
            &["error_type: \"NOT_FOUND\"", "request_model: \"nope\""],
        );
        // A stream that isn't events wraps it in an array.
        check(
            Wire {
                host,
                path: "/v1beta/models/m:streamGenerateContent",
                request: r#"{"contents":[]}"#,
                status: 400,
                response: &[r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#],
                ..PLAIN
            },
            &["error_type: \"INVALID_ARGUMENT\"", "stream: true"],
        );
        // What is blocked has no candidates.
        check(
            Wire {
                host,
                path: "/v1beta/models/m:generateContent",
                request: r#"{"contents":[]}"#,
                response: &[
                    r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":7},"modelVersion":"m"}"#,
                ],
                ..PLAIN
            },
            &["input_tokens: 7", "output_tokens: None", "finish_reasons: None", "error_type: None"],
        );
        check(Wire { host, path: "/v1beta/models/m:countTokens", request: r#"{"contents":[]}"#, ..PLAIN }, &[]);
    }
}
