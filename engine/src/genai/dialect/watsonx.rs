//! IBM watsonx.ai text generation. Its chat speaks as OpenAI does, at paths of its own.

use bumpalo::Bump;

use super::{Dialect, Route, content, has_text, likely, openai_chat, plain};
use crate::genai::{
    facts::{Facts, Rule, To, rule, whole},
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[
        likely("text/generation"),
        Route { streams: true, ..likely("text/generation_stream") },
        likely("generation/text"),
        Route { streams: true, ..likely("generation/text_stream") },
        likely("deployments/{model}/text/generation"),
        Route { streams: true, ..likely("deployments/{model}/text/generation_stream") },
    ],
    // DashScope's path has the same end.
    fits: |body| has_text(body, "input"),
    request: REQUEST,
    response: RESPONSE,
    event: EVENT,
    content: Some(&content::WATSONX),
    ..plain("watsonx", "text_completion", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model_id"], To::RequestModel),
    rule(
        &["parameters"],
        To::Inside(&[
            rule(&["max_new_tokens"], To::MaxTokens),
            rule(&["temperature"], To::Temperature),
            rule(&["top_p"], To::TopP),
            rule(&["top_k"], To::TopK),
            rule(&["random_seed"], To::Seed),
            rule(&["stop_sequences"], To::StopSequences),
        ]),
    ),
];

const RESPONSE: &[Rule] = &[rule(&["model_id"], To::ResponseModel), rule(&["results"], To::Custom(results))];

const EVENT: &[Rule] = RESPONSE;

/// Output is counted up from event to event; the input is in the first one, and 0 after that.
fn results<'a>(facts: &mut Facts<'a>, arena: &'a Bump, value: Json<'_>) {
    for (index, result) in (0..).zip(value.items()) {
        let reason = result
            .get("stop_reason")
            .and_then(Json::text)
            .filter(|reason| !reason.eq_ignore_ascii_case("not_finished"));
        if let Some(reason) = reason {
            facts.finish(arena, index, reason);
        }
        let count = |key: &str| result.get(key).and_then(Json::count);
        facts.usage.input = facts.usage.input.max(count("input_token_count"));
        facts.usage.output = facts.usage.output.max(count("generated_token_count"));
    }
}

pub(super) static CHAT: Dialect = Dialect {
    routes: &[likely("text/chat"), Route { streams: true, ..likely("text/chat_stream") }],
    fits: |body| super::has_array(body, "messages"),
    request: CHAT_REQUEST,
    response: CHAT_RESPONSE,
    event: CHAT_RESPONSE,
    content: Some(&content::OPENAI_CHAT),
    ..plain("watsonx.chat", "chat", &CHAT_WANTED)
};

const CHAT_REQUEST: &[Rule] = &[rule(&["model_id"], To::RequestModel), whole(&[], To::Inside(openai_chat::REQUEST))];

const CHAT_RESPONSE: &[Rule] = &[rule(&["model_id"], To::ResponseModel), whole(&[], To::Inside(openai_chat::RESPONSE))];

static WANTED: Wanted = Wanted::new(&["\"results\"", "\"errors\"", "\"error\""], &[]);

static CHAT_WANTED: Wanted = Wanted::new(
    &["\"finish_reason\"", "\"usage\"", "\"error\""],
    &[("\"id\"", |call| call.response_id.is_some()), ("\"model_id\"", |call| call.response_model.is_some())],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, SSE, Wire, check};

    const WIRE: Wire<'static> = Wire { host: "us-south.ml.cloud.ibm.com", ..PLAIN };

    #[test]
    fn text_is_generated() {
        let request = r#"{"model_id":"ibm/granite","input":"hi","parameters":{"max_new_tokens":9,"random_seed":7,"stop_sequences":["x"]}}"#;
        let expect = [
            "operation: \"text_completion\"",
            "provider: \"ibm.watsonx.ai\"",
            "request_model: \"ibm/granite\"",
            "response_model: \"ibm/granite\"",
            "max_tokens: 9",
            "seed: 7",
            "input_tokens: 5",
            "output_tokens: 9",
            "\"max_tokens\"",
        ];
        check(
            Wire {
                path: "/ml/v1/text/generation?version=2026-01-01",
                request,
                response: &[
                    r#"{"model_id":"ibm/granite","results":[{"generated_text":"a","generated_token_count":9,"input_token_count":5,"stop_reason":"max_tokens"}]}"#,
                ],
                ..WIRE
            },
            &[&expect[..], &["stream: false"]].concat(),
        );
        for path in ["/ml/v1/text/generation_stream", "/ml/v1-beta/generation/text_stream"] {
            check(
                Wire {
                    path,
                    request,
                    response_fields: SSE,
                    response: &[
                        r#"message|{"model_id":"ibm/granite","results":[{"generated_text":"","generated_token_count":0,"input_token_count":5,"stop_reason":"NOT_FINISHED"}]}"#,
                        r#"message|{"model_id":"ibm/granite","results":[{"generated_text":"a","generated_token_count":9,"input_token_count":0,"stop_reason":"max_tokens"}]}"#,
                    ],
                    ..WIRE
                },
                &[&expect[..], &["stream: true"]].concat(),
            );
        }
    }

    #[test]
    fn chat_names_its_model_differently() {
        check(
            Wire {
                path: "/ml/v1/text/chat?version=2026-01-01",
                request: r#"{"model_id":"ibm/granite","messages":[{"role":"user","content":"hi"}],"max_tokens":9}"#,
                response: &[
                    r#"{"id":"c1","model_id":"ibm/granite","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#,
                ],
                ..WIRE
            },
            &[
                "operation: \"chat\"",
                "request_model: \"ibm/granite\"",
                "response_model: \"ibm/granite\"",
                "response_id: \"c1\"",
                "input_tokens: 5",
            ],
        );
        check(
            Wire {
                path: "/ml/v1/text/chat_stream",
                request: r#"{"model_id":"nope","messages":[]}"#,
                status: 404,
                response: &[
                    r#"{"errors":[{"code":"model_not_supported","message":"m"}],"trace":"t","status_code":404}"#,
                ],
                ..WIRE
            },
            &["error_type: \"404\"", "stream: true"],
        );
    }
}
