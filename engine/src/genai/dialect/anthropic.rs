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
    let [input, output, cache_read, cache_creation, details] = value.find([
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "output_tokens_details",
    ]);
    let largest = |known: &mut Option<i64>, value: Option<Json<'_>>| {
        *known = (*known).max(value.and_then(Json::count));
    };
    largest(&mut facts.usage.input, input);
    largest(&mut facts.usage.output, output);
    largest(&mut facts.usage.cache_read, cache_read);
    largest(&mut facts.usage.cache_creation, cache_creation);
    largest(&mut facts.usage.reasoning, details.and_then(|details| details.get("thinking_tokens")));
}

static WANTED: Wanted = Wanted::new(&["\"message\"", "\"usage\"", "\"stop_reason\"", "\"error\""], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, SSE, Wire, check};

    #[test]
    fn a_stream_repeats_its_counts() {
        check(
            Wire {
                host: "api.anthropic.com",
                path: "/v1/messages?beta=true",
                request: r#"{"model":"claude-opus-5","max_tokens":9,"messages":[],"stream":true,"output_config":{"effort":"high"}}"#,
                response_fields: SSE,
                response: &[
                    r#"message_start|{"type":"message_start","message":{"id":"msg_1","model":"claude-opus-5-x","usage":{"input_tokens":3,"cache_creation_input_tokens":4,"cache_read_input_tokens":5,"output_tokens":1}}}"#,
                    r#"ping|{"type":"ping"}"#,
                    r#"message_delta|{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":9,"output_tokens_details":{"thinking_tokens":6}}}"#,
                    r#"message_stop|{"type":"message_stop"}"#,
                ],
                ..PLAIN
            },
            &[
                "response_id: \"msg_1\"",
                "input_tokens: 12",
                "output_tokens: 9",
                "cache_read_tokens: 5",
                "cache_creation_tokens: 4",
                "reasoning_tokens: 6",
                "reasoning_level: \"high\"",
                "\"max_tokens\"",
            ],
        );
    }

    #[test]
    fn other_hosts_name_the_model_in_the_path() {
        for (host, path, provider, model) in [
            (
                "us-east5-aiplatform.googleapis.com",
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus-5@2026:streamRawPredict",
                "gcp.vertex_ai",
                "claude-opus-5@2026",
            ),
            ("res.services.ai.azure.com", "/anthropic/v1/messages", "anthropic", "named"),
            ("bedrock-mantle.us-east-1.api.aws", "/anthropic/v1/messages", "anthropic", "named"),
        ] {
            let request = if model == "named" {
                r#"{"model":"named","messages":[],"max_tokens":1}"#
            } else {
                r#"{"anthropic_version":"vertex-2023-10-16","messages":[],"max_tokens":1,"stream":true}"#
            };
            let (provider, model) = (format!("provider: \"{provider}\""), format!("request_model: \"{model}\""));
            check(Wire { host, path, request, ..PLAIN }, &["operation: \"chat\"", &provider, &model]);
        }
        check(Wire { path: "/v1/messages/count_tokens", request: r#"{"model":"m","messages":[]}"#, ..PLAIN }, &[]);
    }
}
