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

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn a_stream_that_fails() {
        check(
            Wire {
                path: "/api/chat",
                request: r#"{"model":"llama","messages":[],"think":"low","format":{"type":"object"},"options":{"num_predict":9,"stop":"x"}}"#,
                response_fields: &[("content-type", "application/x-ndjson")],
                response: &[
                    r#"{"model":"llama","message":{"content":"a"},"done":false}"#,
                    r#"{"error":"the model has gone away"}"#,
                ],
                ..PLAIN
            },
            &[
                "stream: true",
                "max_tokens: 9",
                "reasoning_level: \"low\"",
                "output_type: \"json\"",
                "error_type: \"_OTHER\"",
            ],
        );
    }

    #[test]
    fn streams_need_not_be_asked_for() {
        let wire = Wire {
            path: "/api/generate",
            request: r#"{"model":"llama","prompt":"hi","options":{"seed":7,"top_k":40}}"#,
            response_fields: &[("content-type", "application/x-ndjson")],
            response: &[
                r#"{"model":"llama","response":"a","done":false}"#,
                r#"{"model":"llama","response":"","done":true,"done_reason":"length","prompt_eval_count":26,"eval_count":290}"#,
            ],
            ..PLAIN
        };
        check(
            wire,
            &[
                "operation: \"text_completion\"",
                "stream: true",
                "seed: 7",
                "top_k: 40",
                "\"length\"",
                "input_tokens: 26",
                "output_tokens: 290",
                "response_model: \"llama\"",
                "response_id: None",
            ],
        );
        check(
            Wire {
                request: r#"{"model":"llama","prompt":"hi","stream":false}"#,
                response_fields: &[("content-type", "application/json; charset=utf-8")],
                response: &[r#"{"model":"llama","response":"a","done":true,"done_reason":"stop","eval_count":2}"#],
                ..wire
            },
            // A prompt that was cached as a whole is not counted.
            &["stream: false", "\"stop\"", "input_tokens: None", "output_tokens: 2"],
        );
    }

    #[test]
    fn texts_are_embedded() {
        check(
            Wire {
                path: "/api/embed",
                request: r#"{"model":"nomic","input":["a","b"],"dimensions":64}"#,
                response: &[r#"{"model":"nomic","embeddings":[[0.1],[0.2]],"total_duration":1,"prompt_eval_count":8}"#],
                ..PLAIN
            },
            &["operation: \"embeddings\"", "dimension_count: 64", "input_tokens: 8", "response_model: \"nomic\""],
        );
        // The older form.
        check(
            Wire {
                path: "/api/embeddings",
                request: r#"{"model":"nomic","prompt":"a"}"#,
                response: &[r#"{"embedding":[0.1]}"#],
                ..PLAIN
            },
            &["operation: \"embeddings\"", "request_model: \"nomic\"", "input_tokens: None", "response_model: None"],
        );
        check(Wire { path: "/api/embeddings", request: r#"{"model":"nomic"}"#, ..PLAIN }, &[]);
    }
}
