//! llama.cpp's own completions.

use super::{Dialect, content, has_text, likely, plain};
use crate::genai::{
    facts::{Rule, To, rule},
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[likely("completion"), likely("infill")],
    fits: |body| has_text(body, "prompt") || has_text(body, "input_prefix"),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    content: Some(&content::LLAMA_CPP),
    ..plain("llama.cpp", "text_completion", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["n_predict", "max_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p"], To::TopP),
    rule(&["top_k"], To::TopK),
    rule(&["seed"], To::Seed),
    rule(&["stop"], To::StopSequences),
    rule(&["frequency_penalty"], To::FrequencyPenalty),
    rule(&["presence_penalty"], To::PresencePenalty),
    rule(&["stream"], To::Stream),
];

/// The last event of a stream has what a whole response has.
const RESPONSE: &[Rule] = &[
    rule(&["model"], To::ResponseModel),
    rule(&["stop_type"], To::FinishReason),
    rule(&["tokens_evaluated"], To::Input),
    rule(&["tokens_predicted"], To::Output),
    rule(&["stop"], To::Ended),
];

static WANTED: Wanted = Wanted::new(&["\"stop_type\"", "\"tokens_evaluated\"", "\"error\""], &[]);
