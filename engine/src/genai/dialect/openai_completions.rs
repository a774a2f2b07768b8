//! OpenAI's legacy completions, and every server that speaks them.

use super::{Dialect, content, has_text, likely, names_model, openai_chat, plain, sure};
use crate::genai::{
    facts::{Rule, To, rule},
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[
        sure("v1/completions"),
        sure("deployments/{model}/completions"),
        sure("engines/{model}/completions"),
        // Mistral's and DeepSeek's fill-in-the-middle.
        sure("fim/completions"),
        sure("beta/completions"),
        likely("completions"),
    ],
    fits: |body| has_text(body, "prompt"),
    claims: |body| has_text(body, "prompt") && names_model(body),
    request: openai_chat::REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    last_events: &["[DONE]"],
    content: Some(&content::OPENAI_COMPLETIONS),
    ..plain("openai.completions", "text_completion", &WANTED)
};

const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["service_tier"], To::ResponseServiceTier),
    rule(&["system_fingerprint"], To::SystemFingerprint),
    rule(&["choices"], openai_chat::CHOICES),
    rule(&["usage"], To::Inside(openai_chat::USAGE)),
];

static WANTED: Wanted = Wanted::new(
    &["\"finish_reason\"", "\"usage\"", "\"error\""],
    &[
        ("\"id\"", |call| call.response_id.is_some()),
        ("\"model\"", |call| call.response_model.is_some()),
        ("\"service_tier\"", |call| call.openai_response_service_tier.is_some()),
        ("\"system_fingerprint\"", |call| call.openai_system_fingerprint.is_some()),
    ],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn completions_are_told_from_chat() {
        check(
            Wire {
                path: "/v1/completions",
                request: r#"{"model":"m","prompt":["a","b"],"max_tokens":5,"best_of":2,"stop":"x"}"#,
                response: &[
                    r#"{"id":"cmpl-1","object":"text_completion","model":"m-1","choices":[{"index":1,"text":"d","finish_reason":"stop"},{"index":0,"text":"c","finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":5,"total_tokens":9}}"#,
                ],
                ..PLAIN
            },
            &[
                "operation: \"text_completion\"",
                "response_id: \"cmpl-1\"",
                "input_tokens: 4",
                "output_tokens: 5",
                "max_tokens: 5",
            ],
        );
        let fim = Wire {
            host: "api.mistral.ai",
            path: "/v1/fim/completions",
            request: r#"{"model":"codestral","prompt":"a","suffix":"b"}"#,
            ..PLAIN
        };
        check(fim, &["operation: \"text_completion\"", "provider: \"mistral_ai\""]);
        let deployed = Wire {
            host: "r.openai.azure.com",
            path: "/openai/deployments/d/completions?api-version=1",
            request: r#"{"prompt":"a"}"#,
            ..PLAIN
        };
        check(deployed, &["provider: \"azure.ai.openai\"", "request_model: \"d\""]);
    }
}
