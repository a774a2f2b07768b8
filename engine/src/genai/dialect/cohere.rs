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
    fits: |body| body.get("message").is_some_and(|message| message.is_string()) && !has_array(body, "messages"),
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

#[cfg(test)]
mod tests {
    use crate::genai::{
        Ended,
        testing::{PLAIN, SSE, Wire, check},
    };

    const WIRE: Wire<'static> = Wire { host: "api.cohere.com", ..PLAIN };

    #[test]
    fn version_2() {
        let request =
            r#"{"model":"command-a","messages":[{"role":"user","content":"hi"}],"p":0.75,"k":5,"stream":true}"#;
        check(
            Wire {
                path: "/v2/chat",
                request,
                response_fields: SSE,
                response: &[
                    r#"message-start|{"type":"message-start","id":"c1","delta":{"message":{"role":"assistant"}}}"#,
                    r#"content-delta|{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"a"}}}}"#,
                    r#"message-end|{"type":"message-end","delta":{"finish_reason":"MAX_TOKENS","usage":{"billed_units":{"input_tokens":7,"output_tokens":2},"tokens":{"input_tokens":71,"output_tokens":3}}}}"#,
                ],
                ended: Ended::Cut,
                ..WIRE
            },
            &[
                "provider: \"cohere\"",
                "response_id: \"c1\"",
                "\"MAX_TOKENS\"",
                "input_tokens: 7",
                "output_tokens: 2",
                "top_p: 0.75",
                "top_k: 5",
                "stream: true",
                "response_model: None",
                "error_type: None",
            ],
        );
    }

    #[test]
    fn version_1() {
        let whole = r#"{"response_id":"r1","generation_id":"g1","text":"a","finish_reason":"COMPLETE","meta":{"api_version":{"version":"1"},"billed_units":{"input_tokens":7,"output_tokens":2}}}"#;
        let expect = ["operation: \"chat\"", "\"COMPLETE\"", "input_tokens: 7", "output_tokens: 2"];
        let wire = Wire { path: "/v1/chat", request: r#"{"model":"command-r","message":"hi"}"#, ..WIRE };
        check(Wire { response: &[whole], ..wire }, &[&expect[..], &["response_id: \"r1\""]].concat());
        // A stream is lines, and its last one holds the whole response.
        let last = format!(
            r#"{{"is_finished":true,"event_type":"stream-end","finish_reason":"COMPLETE","response":{whole}}}"#
        );
        check(
            Wire {
                request: r#"{"model":"command-r","message":"hi","stream":true}"#,
                response_fields: &[("content-type", "application/stream+json")],
                response: &[
                    r#"{"is_finished":false,"event_type":"stream-start","generation_id":"g1"}"#,
                    r#"{"is_finished":false,"event_type":"text-generation","text":"a"}"#,
                    &last,
                ],
                ..wire
            },
            &[&expect[..], &["stream: true"]].concat(),
        );
        // The same path is used for OpenAI's bodies elsewhere.
        let request = r#"{"model":"palmyra","messages":[{"role":"user","content":"hi"}]}"#;
        check(
            Wire { host: "api.writer.com", path: "/v1/chat", request, ..PLAIN },
            &["openai_api_type: \"chat_completions\""],
        );
    }

    #[test]
    fn older_and_other_calls() {
        check(
            Wire {
                path: "/v1/generate",
                request: r#"{"model":"command","prompt":"hi","num_generations":2,"max_tokens":5}"#,
                response: &[
                    r#"{"id":"i1","generations":[{"id":"g1","text":"a","finish_reason":"MAX_TOKENS"}],"meta":{"billed_units":{"input_tokens":3,"output_tokens":5}}}"#,
                ],
                ..WIRE
            },
            &[
                "operation: \"text_completion\"",
                "choice_count: 2",
                "max_tokens: 5",
                "\"MAX_TOKENS\"",
                "output_tokens: 5",
            ],
        );
        for (path, request) in [
            (
                "/v2/embed",
                r#"{"model":"embed-v4","texts":["a"],"embedding_types":["float","int8"],"output_dimension":256}"#,
            ),
            (
                "/v1/embed",
                r#"{"model":"embed-v4","texts":["a"],"embedding_types":["float","int8"],"output_dimension":256}"#,
            ),
        ] {
            check(
                Wire {
                    path,
                    request,
                    response: &[r#"{"id":"i","embeddings":{},"meta":{"billed_units":{"input_tokens":4}}}"#],
                    ..WIRE
                },
                &["operation: \"embeddings\"", "\"int8\"", "dimension_count: 256", "input_tokens: 4"],
            );
        }
        check(Wire { path: "/v2/rerank", request: r#"{"model":"rerank","query":"a","documents":["b"]}"#, ..WIRE }, &[]);
        check(
            Wire {
                path: "/v2/chat",
                request: r#"{"model":"m","messages":[]}"#,
                status: 429,
                response: &[r#"{"id":"x","message":"You are using a Trial key"}"#],
                ..WIRE
            },
            &["error_type: \"429\"", "status_code: 429"],
        );
    }
}
