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
