//! OpenAI's Realtime API, whose events come over a WebSocket.

use bumpalo::Bump;

use super::{Dialect, content, openai_responses, plain};
use crate::genai::{
    facts::{Facts, Rule, To, rule, whole},
    failure,
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    request: REQUEST,
    event: EVENT,
    last_events: &["response.done"],
    content: Some(&content::OPENAI_REALTIME),
    ..plain("openai.realtime", "chat", &WANTED)
};

/// What a session is set to, and what one response is asked for instead.
const REQUEST: &[Rule] = &[rule(&["session"], To::Inside(SETTINGS)), rule(&["response"], To::Inside(SETTINGS))];

/// The beta had other names for some.
const SETTINGS: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["temperature"], To::Temperature),
    rule(&["max_output_tokens", "max_response_output_tokens"], To::Custom(max_tokens)),
    rule(&["output_modalities", "modalities"], To::Custom(modalities)),
    rule(&["reasoning"], To::Inside(&[rule(&["effort"], To::ReasoningLevel)])),
    rule(&["prompt"], To::Inside(&[rule(&["id"], To::PromptName), rule(&["version"], To::PromptVersion)])),
];

const EVENT: &[Rule] = &[rule(&["response"], To::Inside(RESPONSE))];

/// A response repeats what it was made with.
const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["conversation_id"], To::Conversation),
    rule(&["temperature"], To::Temperature),
    rule(&["max_output_tokens"], To::Custom(max_tokens)),
    rule(&["output_modalities", "modalities"], To::Custom(modalities)),
    rule(&["usage"], To::Inside(USAGE)),
    whole(openai_responses::STATUS, To::Custom(openai_responses::status)),
    whole(&[&["status"], &["status_details"]], To::Custom(status)),
];

const USAGE: &[Rule] = &[
    rule(&["input_tokens"], To::Input),
    rule(&["output_tokens"], To::Output),
    rule(&["total_tokens"], To::Total),
    rule(&["input_token_details"], To::Inside(&[rule(&["cached_tokens"], To::CacheRead)])),
    rule(&["output_token_details"], To::Inside(&[rule(&["reasoning_tokens"], To::Reasoning)])),
];

/// A number, or `"inf"` for no limit at all.
fn max_tokens<'a>(facts: &mut Facts<'a>, _: &'a Bump, value: Json<'_>) {
    facts.call.max_tokens = value.int();
}

/// Audio comes with its text, so it is audio that was asked for.
fn modalities<'a>(facts: &mut Facts<'a>, _: &'a Bump, modalities: Json<'_>) {
    let has = |kind: &str| modalities.items().any(|modality| modality.text() == Some(kind));
    facts.call.output_type = if has("audio") {
        Some("speech")
    } else if has("text") {
        Some("text")
    } else {
        facts.call.output_type
    };
}

/// Why the response ended.
fn status<'a>(facts: &mut Facts<'a>, arena: &'a Bump, response: Json<'_>) {
    let Some(details) = response.get("status_details") else { return };
    match response.get("status").and_then(Json::text) {
        Some("incomplete") => {
            if let Some(reason) = details.get("reason").and_then(Json::text) {
                facts.finish(arena, 0, reason);
            }
        }
        Some("failed") => {
            if let Some(failure) = failure::reported(details) {
                facts.fail(arena, failure.kind);
            }
        }
        _ => {}
    }
}

/// Deltas have neither: a response object comes at the beginning and at the end.
static WANTED: Wanted = Wanted::new(&["\"response\"", "\"error\""], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    /// It has no path of its own: its calls come over sockets, and are tested there.
    #[test]
    fn a_request_is_no_call() {
        check(Wire { path: "/v1/realtime/client_secrets", request: r#"{"session":{"model":"m"}}"#, ..PLAIN }, &[]);
        check(Wire { method: "GET", path: "/v1/realtime?model=m", ..PLAIN }, &[]);
    }
}
