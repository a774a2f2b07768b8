//! Hugging Face's Text Generation Inference, and SGLang's `generate`, which shares its path.

use bumpalo::Bump;

use super::{Dialect, Route, content, has_text, likely, plain};
use crate::genai::{
    BodyKind,
    facts::{Facts, Rule, To, rule, whole},
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[likely("generate"), Route { streams: true, ..likely("generate_stream") }],
    fits: |body| body.get("inputs").is_some_and(|inputs| inputs.is_string()) || has_text(body, "text"),
    // Its root path takes the same body.
    claims: |body| {
        body.get("inputs").is_some_and(|inputs| inputs.is_string())
            && body.at(&["parameters", "max_new_tokens"]).is_some()
    },
    request: REQUEST,
    // The root path answers with an array of one.
    response: &[whole(&[], To::First(DOCUMENT))],
    event: DOCUMENT,
    stream: BodyKind::EventStream,
    content: Some(&content::TGI),
    ..plain("tgi", "text_completion", &WANTED)
};

const REQUEST: &[Rule] =
    &[rule(&["stream"], To::Stream), rule(&["parameters", "sampling_params"], To::Inside(PARAMETERS))];

const PARAMETERS: &[Rule] = &[
    rule(&["max_new_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p"], To::TopP),
    rule(&["top_k"], To::TopK),
    rule(&["seed"], To::Seed),
    rule(&["stop"], To::StopSequences),
    rule(&["frequency_penalty"], To::FrequencyPenalty),
    rule(&["presence_penalty"], To::PresencePenalty),
];

const DOCUMENT: &[Rule] = &[
    rule(
        &["details"],
        To::Inside(&[
            rule(&["finish_reason"], To::FinishReason),
            rule(&["generated_tokens"], To::Output),
            rule(&["input_length"], To::Input),
            rule(&["prefill"], To::Custom(prefill)),
        ]),
    ),
    // SGLang's.
    rule(
        &["meta_info"],
        To::Inside(&[
            rule(&["id"], To::ResponseId),
            rule(&["prompt_tokens"], To::Input),
            rule(&["completion_tokens"], To::Output),
            rule(&["cached_tokens"], To::CacheRead),
            rule(&["finish_reason"], To::Inside(&[rule(&["type"], To::FinishReason)])),
        ]),
    ),
];

/// The prompt's tokens one by one, if they were asked for.
fn prefill(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    let count = i64::try_from(value.items().count()).unwrap_or(i64::MAX);
    if count > 0 && facts.usage.input.is_none() {
        facts.usage.input = Some(count);
    }
}

static WANTED: Wanted = Wanted::new(&["\"details\"", "\"meta_info\"", "\"error\""], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, SSE, Wire, check};

    #[test]
    fn a_stream() {
        check(
            Wire {
                path: "/generate_stream",
                request: r#"{"inputs":"hi","parameters":{"max_new_tokens":5}}"#,
                response_fields: SSE,
                response: &[
                    r#"{"token":{"text":"a"},"generated_text":null,"details":null}"#,
                    r#"{"token":{"text":"b"},"generated_text":"ab","details":{"finish_reason":"length","generated_tokens":5,"input_length":3}}"#,
                ],
                ..PLAIN
            },
            &["operation: \"text_completion\"", "max_tokens: 5", "input_tokens: 3", "output_tokens: 5", "stream: true"],
        );
    }

    #[test]
    fn documents() {
        let request = r#"{"inputs":"hi","parameters":{"max_new_tokens":5,"top_k":3,"stop":["x"]}}"#;
        let response = r#"{"generated_text":"a","details":{"finish_reason":"eos_token","generated_tokens":4,"prefill":[{"id":1},{"id":2}]}}"#;
        let expect =
            ["max_tokens: 5", "top_k: 3", "\"eos_token\"", "output_tokens: 4", "input_tokens: 2", "stream: false"];
        check(Wire { path: "/generate", request, response: &[response], ..PLAIN }, &expect);
        // The root path answers with an array of one.
        let response = format!("[{response}]");
        check(Wire { path: "/", request, response: &[&response], ..PLAIN }, &expect);
        check(
            Wire {
                path: "/generate",
                request,
                status: 422,
                response: &[r#"{"error":"Input validation error","error_type":"validation"}"#],
                ..PLAIN
            },
            &["error_type: \"validation\""],
        );
        // SGLang's.
        check(
            Wire {
                path: "/generate",
                request: r#"{"text":"hi","sampling_params":{"max_new_tokens":5,"temperature":0}}"#,
                response: &[
                    r#"{"text":"a","meta_info":{"id":"s1","prompt_tokens":3,"completion_tokens":5,"cached_tokens":1,"finish_reason":{"type":"length","length":5}}}"#,
                ],
                ..PLAIN
            },
            &["response_id: \"s1\"", "input_tokens: 3", "cache_read_tokens: 1", "\"length\"", "temperature: 0.0"],
        );
    }
}
