//! OpenAI embeddings, and every server that speaks them.

use super::{Dialect, has_text, likely, nothing, sure};
use crate::genai::{
    BodyKind,
    facts::{Rule, Sum, To, rule},
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    name: "openai.embeddings",
    operation: "embeddings",
    openai_api_type: None,
    routes: &[sure("v1/embeddings"), sure("deployments/{model}/embeddings"), likely("embeddings")],
    fits: |body| has_text(body, "input"),
    // At an unknown path the response shows what the input was for.
    claims: nothing,
    request_head: None,
    response_head: None,
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    wanted: &WANTED,
    last_events: &[],
    streams_by_default: false,
    stream: BodyKind::EventStream,
    sum: Sum::Inclusive,
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
