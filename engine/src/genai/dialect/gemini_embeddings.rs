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
