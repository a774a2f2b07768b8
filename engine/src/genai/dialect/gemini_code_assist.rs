//! Google's Code Assist, which command line tools call: `generateContent` in an envelope.

use super::{Dialect, Route, content, gemini, plain, sure};
use crate::genai::{
    facts::{Sum, To, rule},
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[sure("v1internal:generateContent"), Route { streams: true, ..sure("v1internal:streamGenerateContent") }],
    request: &[
        rule(&["model"], To::RequestModel),
        rule(&["request"], To::Inside(&[rule(&["generationConfig", "generation_config"], To::Inside(gemini::CONFIG))])),
    ],
    response: &[rule(&["response"], To::Inside(gemini::RESPONSE))],
    event: &[rule(&["response"], To::Inside(gemini::RESPONSE))],
    sum: Sum::ReasoningApart,
    content: Some(&content::GEMINI_CODE_ASSIST),
    ..plain("gemini.code_assist", "generate_content", &WANTED)
};

static WANTED: Wanted = Wanted::new(
    &["\"finishReason\"", "\"usageMetadata\"", "\"error\""],
    &[
        ("\"responseId\"", |call| call.response_id.is_some()),
        ("\"modelVersion\"", |call| call.response_model.is_some()),
    ],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, SSE, Wire, check};

    #[test]
    fn envelopes_are_opened() {
        check(
            Wire {
                host: "cloudcode-pa.googleapis.com",
                path: "/v1internal:streamGenerateContent?alt=sse",
                request: r#"{"model":"g","request":{"contents":[{"role":"user","parts":[{"text":"hi"}]}],"generationConfig":{"topP":0.5}}}"#,
                response_fields: SSE,
                response: &[
                    r#"{"response":{"candidates":[{"content":{"parts":[{"text":"yes"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":2,"candidatesTokenCount":3},"responseId":"r"}}"#,
                ],
                capture_content: true,
                ..PLAIN
            },
            &[
                "operation: \"generate_content\"",
                "provider: \"gcp.gen_ai\"",
                "request_model: \"g\"",
                "top_p: 0.5",
                "input_tokens: 2",
                "output_tokens: 3",
                "response_id: \"r\"",
                r#"input_messages: "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"hi\"}]}]""#,
                r#"output_messages: "[{\"role\":\"assistant\",\"parts\":[{\"type\":\"text\",\"content\":\"yes\"}],\"finish_reason\":\"stop\"}]""#,
            ],
        );
    }
}
