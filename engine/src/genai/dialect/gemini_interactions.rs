//! Gemini's Interactions API.

use super::{Dialect, content, has_text, likely, plain};
use crate::genai::{
    facts::{Rule, Sum, To, rule},
    json::Json,
    wanted::Wanted,
};

use super::gemini;

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[likely("interactions")],
    fits: |body| has_text(body, "input") || body.get("input").is_some_and(Json::is_object),
    request: REQUEST,
    response: RESPONSE,
    event: &[rule(&["interaction"], To::Inside(RESPONSE))],
    last_events: &["interaction.completed", "interaction.complete", "done", "[DONE]"],
    sum: Sum::ReasoningApart,
    content: Some(&content::GEMINI_INTERACTIONS),
    ..plain("gemini.interactions", "generate_content", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["stream"], To::Stream),
    rule(&["previous_interaction_id"], To::PreviousResponse),
    rule(&["generation_config"], To::Inside(gemini::CONFIG)),
    rule(&["response_mime_type"], To::OutputFormat),
];

const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(
        &["usage"],
        To::Inside(&[
            rule(&["total_input_tokens"], To::Input),
            rule(&["total_tool_use_tokens"], To::InputApart),
            rule(&["total_output_tokens"], To::Output),
            rule(&["total_thought_tokens"], To::Reasoning),
            rule(&["total_cached_tokens"], To::CacheRead),
        ]),
    ),
];

static WANTED: Wanted = Wanted::new(&["\"interaction\"", "\"error\""], &[]);
