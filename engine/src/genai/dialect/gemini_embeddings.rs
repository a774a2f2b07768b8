//! Embeddings of Gemini and Vertex.

use super::{Dialect, Route, plain, sure};
use crate::genai::{
    facts::{Rule, To, rule},
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[
        sure("{collection}/{model}:embedContent"),
        sure("{collection}/{model}:batchEmbedContents"),
        // All of Vertex's older models share this one.
        Route { sure: false, ..sure("publishers/google/models/{model}:predict") },
    ],
    fits: |body| {
        body.get("instances").is_some_and(|all| all.items().any(|one| one.get("content").is_some_and(is_text)))
    },
    request: REQUEST,
    response: RESPONSE,
    ..plain("gemini.embeddings", "embeddings", &WANTED)
};

fn is_text(value: Json<'_>) -> bool {
    value.string().is_some()
}

const REQUEST: &[Rule] = &[
    rule(DIMENSIONS, To::DimensionCount),
    rule(&["embedContentConfig"], To::Inside(&[rule(DIMENSIONS, To::DimensionCount)])),
    rule(&["requests"], To::Each(&[rule(DIMENSIONS, To::DimensionCount)])),
    rule(&["parameters"], To::Inside(&[rule(DIMENSIONS, To::DimensionCount)])),
];

const DIMENSIONS: &[&str] = &["outputDimensionality", "output_dimensionality"];

const RESPONSE: &[Rule] = &[
    rule(
        &["usageMetadata", "usage_metadata"],
        To::Inside(&[rule(&["promptTokenCount", "prompt_token_count", "totalTokenCount"], To::Input)]),
    ),
    rule(
        &["predictions"],
        To::Each(&[rule(
            &["embeddings"],
            To::Inside(&[rule(&["statistics"], To::Inside(&[rule(&["token_count"], To::InputMore)]))]),
        )]),
    ),
];

static WANTED: Wanted = Wanted::new(&[], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    const HOST: &str = "generativelanguage.googleapis.com";

    #[test]
    fn one_and_several_contents_are_embedded() {
        check(
            Wire {
                host: HOST,
                path: "/v1beta/models/gemini-embedding-001:embedContent?key=secret",
                request: r#"{"model":"models/x","content":{"parts":[{"text":"hi"}]},"outputDimensionality":256}"#,
                response: &[
                    r#"{"embedding":{"values":[0.1]},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}}"#,
                ],
                ..PLAIN
            },
            &[
                "operation: \"embeddings\"",
                "provider: \"gcp.gemini\"",
                "request_model: \"gemini-embedding-001\"",
                "dimension_count: 256",
                "input_tokens: 4",
                "output_tokens: None",
            ],
        );
        check(
            Wire {
                host: HOST,
                path: "/v1beta/models/gemini-embedding-001%3AbatchEmbedContents",
                request: r#"{"requests":[{"content":{"parts":[{"text":"a"}]},"output_dimensionality":128},{"content":{}}]}"#,
                response: &[r#"{"embeddings":[{"values":[0.1]},{"values":[0.2]}]}"#],
                ..PLAIN
            },
            &["request_model: \"gemini-embedding-001\"", "dimension_count: 128", "input_tokens: None"],
        );
    }

    #[test]
    fn a_prediction_is_one_when_it_embeds() {
        let path = "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict";
        check(
            Wire {
                host: "us-central1-aiplatform.googleapis.com",
                path,
                request: r#"{"instances":[{"content":"a"},{"content":"b"}],"parameters":{"outputDimensionality":64}}"#,
                response: &[
                    r#"{"predictions":[{"embeddings":{"values":[0.1],"statistics":{"token_count":3,"truncated":false}}},{"embeddings":{"values":[0.2],"statistics":{"token_count":4,"truncated":false}}}]}"#,
                ],
                ..PLAIN
            },
            &[
                "provider: \"gcp.vertex_ai\"",
                "request_model: \"text-embedding-005\"",
                "dimension_count: 64",
                "input_tokens: 7",
            ],
        );
        // An image that is described.
        let request = r#"{"instances":[{"prompt":"a cat"}],"parameters":{"sampleCount":1}}"#;
        check(Wire { host: "us-central1-aiplatform.googleapis.com", path, request, ..PLAIN }, &[]);
    }
}
