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
