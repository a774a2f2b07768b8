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
    fits: |body| body.get("inputs").is_some_and(|inputs| inputs.string().is_some()) || has_text(body, "text"),
    // Its root path takes the same body.
    claims: |body| {
        body.get("inputs").is_some_and(|inputs| inputs.string().is_some())
            && body.at(&["parameters", "max_new_tokens"]).is_some()
    },
    request: REQUEST,
    response: &[whole(To::Custom(response))],
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

/// The root path answers with an array of one.
fn response<'a>(facts: &mut Facts<'a>, arena: &'a Bump, value: Json<'_>) {
    facts.read(arena, value.items().next().unwrap_or(value), DOCUMENT);
}

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
