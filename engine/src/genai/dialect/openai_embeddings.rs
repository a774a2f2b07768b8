//! OpenAI embeddings, and every server that speaks them.

use super::{Dialect, has_text, likely, plain, sure};
use crate::genai::{
    facts::{Rule, To, rule},
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[sure("v1/embeddings"), sure("deployments/{model}/embeddings"), likely("embeddings")],
    fits: |body| has_text(body, "input"),
    // At an unknown path the response shows what the input was for.
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    ..plain("openai.embeddings", "embeddings", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    // The latter two are Voyage's and Mistral's.
    rule(&["dimensions", "output_dimension"], To::DimensionCount),
    rule(&["encoding_format"], To::EncodingFormats),
];

const RESPONSE: &[Rule] = &[
    rule(&["model"], To::ResponseModel),
    // Voyage has a total only, and there is nothing but input.
    rule(&["usage"], To::Inside(&[rule(&["prompt_tokens", "input_tokens", "total_tokens"], To::Input)])),
];

static WANTED: Wanted = Wanted::new(&["\"usage\"", "\"error\"", "\"model\""], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn texts_are_embedded() {
        check(
            Wire {
                host: "api.openai.com",
                path: "/v1/embeddings",
                request: r#"{"model":"text-embedding-3-small","input":"a","dimensions":64,"encoding_format":"base64"}"#,
                response: &[
                    r#"{"object":"list","data":[{"embedding":"AAAA","index":0}],"model":"m","usage":{"prompt_tokens":5,"total_tokens":5}}"#,
                ],
                ..PLAIN
            },
            &["operation: \"embeddings\"", "dimension_count: 64", "\"base64\"", "input_tokens: 5", "response_id: None"],
        );
        let azure = Wire {
            host: "r.services.ai.azure.com",
            path: "/models/embeddings?api-version=2024-05-01-preview",
            request: r#"{"model":"m","input":["a"]}"#,
            response: &[r#"{"data":[],"model":"m","usage":{"prompt_tokens":2}}"#],
            ..PLAIN
        };
        check(
            azure,
            &[
                "provider: \"azure.ai.inference\"",
                "azure_namespace: \"Microsoft.CognitiveServices\"",
                "input_tokens: 2",
            ],
        );
        // A search that happens to have the same name.
        check(Wire { path: "/search/embeddings", request: r#"{"query":"a"}"#, ..PLAIN }, &[]);
    }
}
