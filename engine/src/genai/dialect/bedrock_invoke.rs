//! Amazon Bedrock's InvokeModel and InvokeModelWithResponseStream: each model family has a body of
//! its own, and its names are few enough to be read all at once.

use bumpalo::Bump;

use super::{Dialect, Route, anthropic, bedrock_converse, content, openai_chat, plain, sure};
use crate::{
    genai::{
        BodyKind,
        facts::{Facts, Rule, Sum, To, rule},
        json::Json,
        route::Target,
        wanted::Wanted,
    },
    wire::{self, RequestHead, ResponseHead},
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[
        sure("model/{model}/invoke"),
        Route { streams: true, ..sure("model/{model}/invoke-with-response-stream") },
    ],
    request_head: Some(request_head),
    response_head: Some(response_head),
    request: REQUEST,
    response: RESPONSE,
    event: EVENT,
    last_events: &["message_stop"],
    stream: BodyKind::AwsEventStream,
    sum: Sum::CacheApart,
    wrapped: true,
    content: Some(&content::BEDROCK_INVOKE),
    ..plain("bedrock.invoke", "chat", &WANTED)
};

const REQUEST: &[Rule] = &[
    // Anthropic, Mistral and Cohere; Llama; AI21; Anthropic's older models.
    rule(&["max_tokens", "max_completion_tokens", "max_gen_len", "maxTokens", "max_tokens_to_sample"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p", "topP", "p"], To::TopP),
    rule(&["top_k", "topK", "k"], To::TopK),
    rule(&["stop_sequences", "stopSequences", "stop"], To::StopSequences),
    rule(&["seed"], To::Seed),
    rule(&["frequency_penalty"], To::FrequencyPenalty),
    rule(&["presence_penalty"], To::PresencePenalty),
    rule(&["output_config"], To::Inside(&[rule(&["effort"], To::ReasoningLevel)])),
    rule(&["reasoning_effort"], To::ReasoningLevel),
    // Nova and Titan.
    rule(&["inferenceConfig"], To::Inside(bedrock_converse::CONFIG)),
    rule(
        &["textGenerationConfig"],
        To::Inside(&[
            rule(&["maxTokenCount"], To::MaxTokens),
            rule(&["temperature"], To::Temperature),
            rule(&["topP"], To::TopP),
            rule(&["stopSequences"], To::StopSequences),
        ]),
    ),
    // Embeddings.
    rule(&["dimensions", "output_dimension"], To::DimensionCount),
    rule(&["embedding_types", "embeddingTypes"], To::EncodingFormats),
];

const RESPONSE: &[Rule] = &[
    rule(&["id", "response_id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["stop_reason", "stopReason", "finish_reason"], To::FinishReason),
    // Llama and Titan.
    rule(&["prompt_token_count", "inputTextTokenCount"], To::Input),
    rule(&["generation_token_count"], To::Output),
    rule(&["results"], To::Custom(results)),
    // Mistral; Cohere; AI21; OpenAI.
    rule(&["outputs", "generations", "completions"], To::Custom(generations)),
    rule(&["choices"], openai_chat::CHOICES),
    // One object, whose names are Anthropic's, Amazon's or OpenAI's.
    rule(&["usage"], To::Custom(anthropic::usage)),
    rule(&["usage"], To::Inside(bedrock_converse::USAGE)),
    rule(&["usage"], To::Inside(openai_chat::USAGE)),
];

const EVENT: &[Rule] = &[
    // Anthropic.
    rule(&["message"], To::Inside(RESPONSE)),
    rule(&["delta"], To::Inside(&[rule(&["stop_reason"], To::FinishReason)])),
    // Nova.
    rule(&["messageStop"], To::Inside(bedrock_converse::RESPONSE)),
    rule(&["metadata"], To::Inside(bedrock_converse::RESPONSE)),
    // Titan.
    rule(&["completionReason"], To::FinishReason),
    rule(&["totalOutputTextTokenCount"], To::Output),
    // Those that stream what they would have answered at once.
    rule(&["id", "response_id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["stop_reason", "finish_reason"], To::FinishReason),
    rule(&["prompt_token_count", "inputTextTokenCount"], To::Input),
    rule(&["generation_token_count"], To::Output),
    rule(&["outputs", "generations", "completions"], To::Custom(generations)),
    rule(&["choices"], openai_chat::CHOICES),
    rule(&["usage"], To::Custom(anthropic::usage)),
    rule(&["usage"], To::Inside(openai_chat::USAGE)),
    rule(&["amazon-bedrock-invocationMetrics"], To::Custom(metrics)),
];

/// Titan's results: tokens and reason of each.
fn results<'a>(facts: &mut Facts<'a>, arena: &'a Bump, value: Json<'_>) {
    for (index, result) in (0..).zip(value.items()) {
        if let Some(reason) = result.get("completionReason").and_then(Json::text) {
            facts.finish(arena, index, reason);
        }
    }
    let counts = value.items().filter_map(|result| result.get("tokenCount").and_then(Json::count));
    facts.usage.output = counts.reduce(i64::saturating_add).or(facts.usage.output);
}

/// Generations that name a reason, each in one of four ways.
fn generations<'a>(facts: &mut Facts<'a>, arena: &'a Bump, value: Json<'_>) {
    for (place, generation) in (0..).zip(value.items()) {
        let reason = generation.get("stop_reason").or_else(|| generation.get("finish_reason"));
        let reason = reason.or_else(|| generation.at(&["finishReason", "reason"])).and_then(Json::text);
        let index = generation.get("index").and_then(Json::count).unwrap_or(place);
        if let Some(reason) = reason {
            facts.finish(arena, index, reason);
        }
    }
}

/// What Bedrock measured, for models that do not count themselves.
fn metrics(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    let fill = |known: &mut Option<i64>, key: &str| *known = known.or_else(|| value.get(key).and_then(Json::count));
    fill(&mut facts.usage.input, "inputTokenCount");
    fill(&mut facts.usage.output, "outputTokenCount");
    fill(&mut facts.usage.cache_read, "cacheReadInputTokenCount");
    fill(&mut facts.usage.cache_creation, "cacheWriteInputTokenCount");
}

fn request_head<'a>(facts: &mut Facts<'a>, arena: &'a Bump, head: &RequestHead<'_>, target: &Target<'_>) {
    let guardrail = wire::field(head.fields, "x-amzn-bedrock-guardrailidentifier");
    if let Some(id) = guardrail.and_then(|id| std::str::from_utf8(id).ok()) {
        facts.call.bedrock_guardrail_id = facts.keep(arena, id);
    }
    // Amazon's and Cohere's embedding models say what they are.
    if target.path.contains("embed") {
        facts.call.operation = "embeddings";
    }
}

/// The counts of models that do not count themselves.
fn response_head<'a>(facts: &mut Facts<'a>, arena: &'a Bump, head: &ResponseHead<'_>) {
    let count = |name| {
        let value = wire::field(head.fields, name).and_then(|value| std::str::from_utf8(value).ok());
        value.and_then(|value| value.parse::<u32>().ok()).map(i64::from)
    };
    facts.usage.input = count("x-amzn-bedrock-input-token-count");
    facts.usage.output = count("x-amzn-bedrock-output-token-count");
    facts.usage.cache_read = count("x-amzn-bedrock-cache-read-input-token-count");
    facts.usage.cache_creation = count("x-amzn-bedrock-cache-write-input-token-count");
    if let Some(kind) = wire::field(head.fields, "x-amzn-errortype").and_then(|kind| std::str::from_utf8(kind).ok()) {
        facts.fail(arena, Some(kind));
    }
}

static WANTED: Wanted = Wanted::new(
    &[
        "\"message\"",
        "\"usage\"",
        "\"stop_reason\"",
        "\"finish_reason\"",
        "\"finishReason\"",
        "\"stopReason\"",
        "\"completionReason\"",
        "\"totalOutputTextTokenCount\"",
        "\"inputTextTokenCount\"",
        "\"prompt_token_count\"",
        "\"generation_token_count\"",
        "\"amazon-bedrock-invocationMetrics\"",
        "\"error\"",
    ],
    &[
        ("\"id\"", |call| call.response_id.is_some()),
        ("\"response_id\"", |call| call.response_id.is_some()),
        ("\"model\"", |call| call.response_model.is_some()),
    ],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn a_family_with_a_body_of_its_own() {
        check(
            Wire {
                path: "/model/amazon.nova-lite-v1%3A0/invoke-with-response-stream",
                host: "bedrock-runtime.us-east-1.amazonaws.com",
                fields: &[("X-Amzn-Bedrock-GuardrailIdentifier", "g1")],
                request: r#"{"messages":[],"inferenceConfig":{"max_new_tokens":5,"topP":0.5}}"#,
                response_fields: &[("content-type", "application/vnd.amazon.eventstream")],
                response: &[
                    // {"messageStop":{"stopReason":"max_tokens"}}
                    r#"chunk|{"bytes":"eyJtZXNzYWdlU3RvcCI6eyJzdG9wUmVhc29uIjoibWF4X3Rva2VucyJ9fQ==","p":"abc"}"#,
                    // {"metadata":{"usage":{"inputTokens":3,"outputTokens":4,"cacheReadInputTokenCount":5}}}
                    concat!(
                        r#"chunk|{"bytes":"eyJtZXRhZGF0YSI6eyJ1c2FnZSI6eyJpbnB1dFRva2VucyI6Myw"#,
                        r#"ib3V0cHV0VG9rZW5zIjo0LCJjYWNoZVJlYWRJbnB1dFRva2VuQ291bnQiOjV9fX0="}"#
                    ),
                ],
                ..PLAIN
            },
            &[
                "operation: \"chat\"",
                "provider: \"aws.bedrock\"",
                "request_model: \"amazon.nova-lite-v1:0\"",
                "max_tokens: 5",
                "top_p: 0.5",
                "bedrock_guardrail_id: \"g1\"",
                "input_tokens: 8",
                "output_tokens: 4",
                "cache_read_tokens: 5",
                "stream: true",
                "error_type: None",
            ],
        );
    }

    #[test]
    fn families_differ() {
        let claude = r#"{"id":"msg_1","type":"message","model":"claude","stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5}}"#;
        let titan =
            r#"{"inputTextTokenCount":3,"results":[{"tokenCount":4,"outputText":"a","completionReason":"FINISH"}]}"#;
        let llama = r#"{"generation":"a","prompt_token_count":3,"generation_token_count":4,"stop_reason":"length"}"#;
        let cohere = r#"{"id":"c1","generations":[{"id":"g","text":"a","finish_reason":"MAX_TOKENS"}],"prompt":"p"}"#;
        let mistral = r#"{"outputs":[{"text":"a","stop_reason":"stop"}]}"#;
        let ai21 = r#"{"id":1,"completions":[{"data":{"text":"a"},"finishReason":{"reason":"endoftext"}}]}"#;
        let headers: &[(&str, &str)] = &[
            ("content-type", "application/json"),
            ("x-amzn-bedrock-input-token-count", "3"),
            ("x-amzn-bedrock-output-token-count", "4"),
        ];
        for (model, request, response, finish, limit) in [
            (
                "anthropic.claude-v1",
                r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[]}"#,
                claude,
                "end_turn",
                true,
            ),
            (
                "amazon.titan-text",
                r#"{"inputText":"hi","textGenerationConfig":{"maxTokenCount":9}}"#,
                titan,
                "FINISH",
                true,
            ),
            ("meta.llama3", r#"{"prompt":"hi","max_gen_len":9}"#, llama, "length", true),
            ("cohere.command", r#"{"prompt":"hi","max_tokens":9,"p":0.5}"#, cohere, "MAX_TOKENS", true),
            ("mistral.mistral-7b", r#"{"prompt":"hi","max_tokens":9}"#, mistral, "stop", true),
            ("ai21.j2", r#"{"prompt":"hi","maxTokens":9}"#, ai21, "endoftext", true),
        ] {
            let input = if model.starts_with("anthropic") { "input_tokens: 8" } else { "input_tokens: 3" };
            let (path, finish) = (format!("/model/{model}/invoke"), format!("\"{finish}\""));
            let wire = Wire {
                host: "bedrock-runtime.us-east-1.amazonaws.com",
                path: &path,
                request,
                response_fields: headers,
                response: &[response],
                ..PLAIN
            };
            let mut expect = vec!["operation: \"chat\"", input, "output_tokens: 4", &*finish];
            expect.extend(limit.then_some("max_tokens: 9"));
            check(wire, &expect);
        }
        check(
            Wire {
                host: "bedrock-runtime.us-east-1.amazonaws.com",
                path: "/model/amazon.titan-embed-text-v2%3A0/invoke",
                request: r#"{"inputText":"hi","dimensions":256}"#,
                response: &[r#"{"embedding":[0.1],"inputTextTokenCount":3}"#],
                ..PLAIN
            },
            &["operation: \"embeddings\"", "dimension_count: 256", "input_tokens: 3"],
        );
    }
}
