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

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, SSE, Wire, check};

    #[test]
    fn a_stream() {
        check(
            Wire {
                host: "generativelanguage.googleapis.com",
                path: "/v1beta/interactions",
                request: r#"{"model":"gemini-3-pro","input":"hi","stream":true,"generation_config":{"temperature":0.5},"previous_interaction_id":"i0"}"#,
                response_fields: SSE,
                response: &[
                    r#"interaction.created|{"event_type":"interaction.created","interaction":{"id":"i1","model":"gemini-3-pro","status":"in_progress"}}"#,
                    r#"step.delta|{"event_type":"step.delta","delta":{"type":"text","text":"a"}}"#,
                    r#"interaction.completed|{"event_type":"interaction.completed","interaction":{"id":"i1","status":"completed","usage":{"total_input_tokens":7,"total_output_tokens":2,"total_thought_tokens":5,"total_cached_tokens":3,"total_tokens":14}}}"#,
                    "done|[DONE]",
                ],
                ..PLAIN
            },
            &[
                "operation: \"generate_content\"",
                "provider: \"gcp.gemini\"",
                "response_id: \"i1\"",
                "previous_response_id: \"i0\"",
                "temperature: 0.5",
                "input_tokens: 7",
                "output_tokens: 7",
                "reasoning_tokens: 5",
                "cache_read_tokens: 3",
                "stream: true",
                "error_type: None",
            ],
        );
    }
}
