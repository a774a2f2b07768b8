//! OpenAI's Responses API, and every server that speaks it.

use bumpalo::Bump;

use super::{Dialect, content, has_text, likely, names_model, plain, sure};
use crate::genai::{
    facts::{Facts, Rule, To, rule, whole},
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    openai_api_type: Some("responses"),
    routes: &[sure("v1/responses"), sure("openai/responses"), likely("responses")],
    fits: |body| has_text(body, "input") || body.get("prompt").is_some_and(Json::is_object),
    claims: |body| has_text(body, "input") && names_model(body),
    request: REQUEST,
    response: RESPONSE,
    event: EVENT,
    last_events: &["response.completed", "response.incomplete", "response.failed", "[DONE]"],
    content: Some(&content::OPENAI_RESPONSES),
    ..plain("openai.responses", "chat", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["max_output_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p"], To::TopP),
    rule(&["frequency_penalty"], To::FrequencyPenalty),
    rule(&["presence_penalty"], To::PresencePenalty),
    rule(&["stream"], To::Stream),
    rule(&["reasoning"], To::Inside(&[rule(&["effort"], To::ReasoningLevel)])),
    rule(&["text"], To::Inside(&[rule(&["format"], To::Inside(&[rule(&["type"], To::OutputFormat)]))])),
    rule(&["service_tier"], To::RequestServiceTier),
    rule(&["previous_response_id"], To::PreviousResponse),
    rule(&["conversation"], To::Conversation),
    rule(&["conversation"], To::Inside(&[rule(&["id"], To::Conversation)])),
    rule(&["prompt"], To::Inside(&[rule(&["id"], To::PromptName), rule(&["version"], To::PromptVersion)])),
];

/// A response object, whole or inside an event.
pub(super) const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["service_tier"], To::ResponseServiceTier),
    rule(&["conversation"], To::Inside(&[rule(&["id"], To::Conversation)])),
    rule(&["usage"], To::Inside(USAGE)),
    rule(&["output"], To::Seeing(&["type"], compacted)),
    whole(STATUS, To::Custom(status)),
];

const EVENT: &[Rule] = &[rule(&["response"], To::Inside(RESPONSE))];

const USAGE: &[Rule] = &[
    rule(&["input_tokens"], To::Input),
    rule(&["output_tokens"], To::Output),
    rule(&["total_tokens"], To::Total),
    rule(
        &["input_tokens_details"],
        To::Inside(&[rule(&["cached_tokens"], To::CacheRead), rule(&["cache_write_tokens"], To::CacheCreation)]),
    ),
    rule(&["output_tokens_details"], To::Inside(&[rule(&["reasoning_tokens"], To::Reasoning)])),
];

/// Why the generation ended, told from a response object.
/// What [`status`] looks at.
pub(super) const STATUS: &[&[&str]] = &[&["status"], &["output", "type"], &["incomplete_details", "reason"]];

pub(super) fn status<'a>(facts: &mut Facts<'a>, arena: &'a Bump, response: Json<'_>) {
    let reason = match response.get("status").and_then(Json::text) {
        Some("completed") if calls_function(response) => "tool_calls",
        Some("completed") => "stop",
        Some("incomplete") => match response.at(&["incomplete_details", "reason"]).and_then(Json::text) {
            Some(reason) => reason,
            None => return,
        },
        Some("failed" | "cancelled") => "error",
        _ => return,
    };
    facts.failed |= response.get("status").and_then(Json::text) == Some("failed");
    facts.finish(arena, 0, reason);
}

/// The client is asked to call something.
fn calls_function(response: Json<'_>) -> bool {
    let calls =
        |item: Json<'_>| matches!(item.get("type").and_then(Json::text), Some("function_call" | "custom_tool_call"));
    response.get("output").is_some_and(|output| output.items().any(calls))
}

/// The conversation was compacted when the output says so.
fn compacted(facts: &mut Facts<'_>, _: &Bump, output: Json<'_>) {
    let compacts = |item: Json<'_>| item.get("type").and_then(Json::text) == Some("compaction");
    facts.call.conversation_compacted |= output.items().any(compacts);
}

/// Deltas have neither: a response object comes at the beginning and at the end.
static WANTED: Wanted = Wanted::new(&["\"response\"", "\"error\"", "\"code\""], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, SSE, Wire, check};

    #[test]
    fn a_response_that_fails() {
        check(
            Wire {
                path: "/v1/responses",
                request: concat!(
                    r#"{"model":"m","input":"hi","stream":true,"conversation":{"id":"conv_1"},"reasoning":{"effort":"high"},"#,
                    r#""text":{"format":{"type":"json_schema"}},"previous_response_id":"resp_0","service_tier":"auto","#,
                    r#""prompt":{"id":"p1","version":"2"}}"#
                ),
                response_fields: SSE,
                response: &[
                    r#"{"type":"response.created","response":{"id":"resp_1","model":"m-1","status":"in_progress"}}"#,
                    r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"},"service_tier":"default"}}"#,
                ],
                ..PLAIN
            },
            &[
                "conversation_id: \"conv_1\"",
                "reasoning_level: \"high\"",
                "output_type: \"json\"",
                "prompt_name: \"p1\"",
                "prompt_version: \"2\"",
                "previous_response_id: \"resp_0\"",
                "openai_request_service_tier: None",
                "openai_response_service_tier: \"default\"",
                "error_type: \"server_error\"",
                "\"error\"",
                "openai_api_type: \"responses\"",
                "server_port: 8000",
                "provider: \"llm.example\"",
            ],
        );
    }
}
