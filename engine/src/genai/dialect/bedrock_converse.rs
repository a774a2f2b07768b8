//! Amazon Bedrock's Converse and ConverseStream.

use bumpalo::Bump;

use super::{Dialect, Route, content, plain, sure};
use crate::{
    genai::{
        BodyKind,
        facts::{Facts, Rule, Sum, To, rule},
        wanted::Wanted,
    },
    wire::{self, ResponseHead},
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[sure("model/{model}/converse"), Route { streams: true, ..sure("model/{model}/converse-stream") }],
    response_head: Some(response_head),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    last_events: &["metadata"],
    stream: BodyKind::AwsEventStream,
    sum: Sum::CacheApart,
    content: Some(&content::BEDROCK_CONVERSE),
    ..plain("bedrock.converse", "chat", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["inferenceConfig"], To::Inside(CONFIG)),
    rule(
        &["additionalModelRequestFields"],
        To::Inside(&[
            rule(&["top_k", "topK", "k"], To::TopK),
            rule(&["inferenceConfig"], To::Inside(&[rule(&["topK"], To::TopK)])),
            rule(&["output_config"], To::Inside(&[rule(&["effort"], To::ReasoningLevel)])),
            rule(&["reasoning_effort"], To::ReasoningLevel),
        ]),
    ),
    rule(&["guardrailConfig"], To::Inside(&[rule(&["guardrailIdentifier"], To::GuardrailId)])),
];

pub(super) const CONFIG: &[Rule] = &[
    rule(&["maxTokens", "max_new_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["topP", "top_p"], To::TopP),
    rule(&["topK", "top_k"], To::TopK),
    rule(&["stopSequences"], To::StopSequences),
];

/// A whole response, and the `messageStop` and `metadata` events of a stream.
pub(super) const RESPONSE: &[Rule] = &[rule(&["stopReason"], To::FinishReason), rule(&["usage"], To::Inside(USAGE))];

pub(super) const USAGE: &[Rule] = &[
    rule(&["inputTokens", "inputTokenCount"], To::Input),
    rule(&["outputTokens", "outputTokenCount"], To::Output),
    rule(&["cacheReadInputTokens", "cacheReadInputTokenCount"], To::CacheRead),
    rule(&["cacheWriteInputTokens", "cacheWriteInputTokenCount"], To::CacheCreation),
];

/// The kind of error, and the request's id, which is what Bedrock's own logs know a response by.
pub(super) fn response_head<'a>(facts: &mut Facts<'a>, arena: &'a Bump, head: &ResponseHead<'_>) {
    let text = |name| wire::field(head.fields, name).and_then(|value| std::str::from_utf8(value).ok());
    if let Some(kind) = text("x-amzn-errortype") {
        facts.fail(arena, Some(kind));
    } else if let Some(id) = text("x-amzn-requestid") {
        facts.call.response_id = facts.keep(arena, id);
    }
}

static WANTED: Wanted = Wanted::new(&["\"stopReason\"", "\"usage\"", "\"error\""], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn a_stream_that_breaks_off() {
        check(
            Wire {
                path: "/model/m/converse-stream",
                host: "bedrock-runtime.us-east-1.amazonaws.com",
                response_fields: &[("content-type", "application/vnd.amazon.eventstream"), ("x-amzn-requestid", "r1")],
                response: &["messageStart|{\"role\":\"assistant\"}", "throttlingException|{\"message\":\"slow down\"}"],
                request: "{}",
                ..PLAIN
            },
            &["error_type: \"throttlingException\"", "response_id: \"r1\"", "status_code: 200"],
        );
    }

    #[test]
    fn what_was_cached_comes_on_top() {
        check(
            Wire {
                host: "bedrock-runtime.eu-west-1.amazonaws.com",
                path: "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Fm/converse",
                request: r#"{"messages":[],"inferenceConfig":{"maxTokens":9,"stopSequences":["x"]},"guardrailConfig":{"guardrailIdentifier":"g1"}}"#,
                response_fields: &[("content-type", "application/json"), ("x-amzn-requestid", "r1")],
                response: &[
                    r#"{"output":{"message":{"role":"assistant","content":[]}},"stopReason":"guardrail_intervened","usage":{"inputTokens":3,"outputTokens":4,"totalTokens":16,"cacheReadInputTokens":5,"cacheWriteInputTokens":4}}"#,
                ],
                ..PLAIN
            },
            &[
                "request_model: \"arn:aws:bedrock:eu-west-1:1:inference-profile/m\"",
                "max_tokens: 9",
                "bedrock_guardrail_id: \"g1\"",
                "input_tokens: 12",
                "output_tokens: 4",
                "\"guardrail_intervened\"",
                "response_id: \"r1\"",
            ],
        );
        check(
            Wire {
                host: "bedrock-runtime.eu-west-1.amazonaws.com",
                path: "/model/m/converse",
                request: "{}",
                status: 400,
                response_fields: &[("x-amzn-errortype", "ValidationException:http://internal.amazon.com/x/")],
                response: &[r#"{"message":"m"}"#],
                ..PLAIN
            },
            &["error_type: \"ValidationException\"", "status_code: 400"],
        );
    }
}
