//! llama.cpp's own completions and embeddings.

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

/// Its answer has vectors and nothing else.
pub(super) static EMBED: Dialect = Dialect {
    routes: &[likely("embedding")],
    fits: |body| has_text(body, "content"),
    request: &[rule(&["model"], To::RequestModel)],
    ..plain("llama.cpp.embedding", "embeddings", &WANTED)
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

#[cfg(test)]
mod tests {
    use crate::genai::{
        Ended,
        testing::{PLAIN, SSE, Wire, check},
    };

    #[test]
    fn a_stream() {
        check(
            Wire {
                path: "/completion",
                request: r#"{"prompt":"hi","n_predict":5,"stream":true}"#,
                response_fields: SSE,
                response: &[
                    r#"{"content":"a","stop":false}"#,
                    r#"{"content":"","stop":true,"stop_type":"limit","tokens_evaluated":3,"tokens_predicted":5}"#,
                ],
                ended: Ended::Cut,
                ..PLAIN
            },
            &["\"limit\"", "input_tokens: 3", "output_tokens: 5", "error_type: None"],
        );
    }

    #[test]
    fn embeddings_say_no_count() {
        check(
            Wire {
                path: "/embedding",
                request: r#"{"content":"hi"}"#,
                response: &[r#"[{"index":0,"embedding":[[0.1,0.2]]}]"#],
                ..PLAIN
            },
            &["operation: \"embeddings\"", "input_tokens: None", "error_type: None"],
        );
        check(Wire { path: "/embedding", request: r#"{"text":"hi"}"#, ..PLAIN }, &[]);
    }

    #[test]
    fn a_gap_is_filled_in() {
        check(
            Wire {
                path: "/infill",
                request: r#"{"input_prefix":"def f(","input_suffix":"return 1","n_predict":4}"#,
                response: &[
                    r#"{"content":"x","stop":true,"stop_type":"eos","tokens_evaluated":6,"tokens_predicted":2}"#,
                ],
                ..PLAIN
            },
            &["max_tokens: 4", "\"eos\"", "input_tokens: 6", "output_tokens: 2"],
        );
    }
}
