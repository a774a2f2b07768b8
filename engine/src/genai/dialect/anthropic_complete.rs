//! Anthropic's older text completions.

use super::{Dialect, Route, content, likely, plain, sure};
use crate::genai::{
    facts::{Rule, To, rule},
    provider,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[Route { only: Some(provider::ANTHROPIC), ..sure("v1/complete") }, likely("v1/complete")],
    fits: |body| body.get("max_tokens_to_sample").is_some_and(|count| count.count().is_some()),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    content: Some(&content::ANTHROPIC_COMPLETE),
    ..plain("anthropic.complete", "text_completion", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["max_tokens_to_sample"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p"], To::TopP),
    rule(&["top_k"], To::TopK),
    rule(&["stop_sequences"], To::StopSequences),
    rule(&["stream"], To::Stream),
];

const RESPONSE: &[Rule] = &[
    rule(&["id", "log_id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["stop_reason"], To::FinishReason),
];

static WANTED: Wanted = Wanted::new(
    &["\"stop_reason\"", "\"error\""],
    &[
        ("\"id\"", |call| call.response_id.is_some()),
        ("\"log_id\"", |call| call.response_id.is_some()),
        ("\"model\"", |call| call.response_model.is_some()),
    ],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn a_document() {
        check(
            Wire {
                host: "api.anthropic.com",
                path: "/v1/complete",
                request: r#"{"model":"claude-2.1","prompt":"\n\nHuman: hi\n\nAssistant:","max_tokens_to_sample":9,"top_k":5}"#,
                response: &[
                    r#"{"id":"compl_1","type":"completion","completion":" a","stop_reason":"max_tokens","model":"claude-2.1"}"#,
                ],
                ..PLAIN
            },
            &[
                "operation: \"text_completion\"",
                "provider: \"anthropic\"",
                "max_tokens: 9",
                "top_k: 5",
                "response_id: \"compl_1\"",
                "\"max_tokens\"",
                "input_tokens: None",
            ],
        );
        check(
            Wire { path: "/v1/complete", request: r#"{"model":"m","prompt":"p"}"#, ..PLAIN },
            &["operation: \"text_completion\"", "openai_api_type: None"],
        );
    }
}
