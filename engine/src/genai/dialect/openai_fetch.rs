//! Fetching a stored or a background response of OpenAI's Responses API.

use bumpalo::Bump;

use super::{Dialect, Route, content, openai_responses, plain, sure};
use crate::genai::{
    facts::{Facts, Rule, To, rule, whole},
    json::Json,
    route::Target,
    wanted::Wanted,
};
use crate::wire::RequestHead;

pub(super) static DIALECT: Dialect = Dialect {
    openai_api_type: Some("responses"),
    routes: &[Route { method: "GET", ..sure("responses/{response}") }],
    request_head: Some(request_head),
    response: RESPONSE,
    event: &[rule(&["response"], To::Inside(RESPONSE))],
    last_events: &["response.completed", "response.incomplete", "response.failed", "[DONE]"],
    content: Some(&content::OPENAI_RESPONSES),
    ..plain("openai.fetch", "fetch_response", &WANTED)
};

/// What a fetch tells of the response: no usage, which was counted when it was made.
const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["service_tier"], To::ResponseServiceTier),
    whole(openai_responses::STATUS, To::Custom(status)),
];

/// Which response, and where a stream that was broken off is taken up again.
fn request_head<'a>(facts: &mut Facts<'a>, arena: &'a Bump, _: &RequestHead<'_>, target: &Target<'_>) {
    facts.call.response_id = target.after("responses").and_then(|id| facts.keep(arena, id));
    facts.call.stream = target.parameter("stream") == Some("true");
    facts.call.stream_cursor = target.parameter("starting_after").and_then(|cursor| cursor.parse().ok());
}

fn status<'a>(facts: &mut Facts<'a>, arena: &'a Bump, response: Json<'_>) {
    if let Some(status) = response.get("status").and_then(Json::text) {
        facts.call.response_status = facts.keep(arena, status);
    }
    openai_responses::status(facts, arena, response);
}

static WANTED: Wanted = Wanted::new(&["\"response\"", "\"error\"", "\"code\""], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::{
        Ended,
        testing::{PLAIN, SSE, Wire, check},
    };

    #[test]
    fn a_stream_is_taken_up_again() {
        check(
            Wire {
                method: "GET",
                path: "/v1/responses/resp_1?stream=true&starting_after=7",
                response_fields: SSE,
                response: &[
                    r#"response.completed|{"type":"response.completed","response":{"id":"resp_1","model":"m","status":"completed","output":[{"type":"function_call"}],"usage":{"input_tokens":1}}}"#,
                ],
                ended: Ended::Cut,
                ..PLAIN
            },
            &[
                "operation: \"fetch_response\"",
                "stream_cursor: 7",
                "response_status: \"completed\"",
                "input_tokens: None",
                "response_id: \"resp_1\"",
                "stream: true",
                "error_type: None",
                "\"tool_calls\"",
            ],
        );
    }
}
