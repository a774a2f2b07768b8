//! OpenAI chat completions, and every server that speaks them.

use bumpalo::Bump;

use super::{Dialect, Route, content, has_array, likely, names_model, plain, sure};
use crate::genai::{
    facts::{Facts, Rule, To, rule},
    json::Json,
    wanted::Wanted,
};

pub(super) static DIALECT: Dialect = Dialect {
    openai_api_type: Some("chat_completions"),
    routes: &[
        sure("chat/completions"),
        sure("deployments/{model}/chat/completions"),
        // Mistral's agents.
        sure("agents/completions"),
        // Mistral's models on Vertex, any model on Databricks.
        sure("publishers/mistralai/models/{model}:rawPredict"),
        Route { streams: true, ..sure("publishers/mistralai/models/{model}:streamRawPredict") },
        likely("serving-endpoints/{model}/invocations"),
    ],
    fits: |body| has_array(body, "messages"),
    claims: |body| has_array(body, "messages") && names_model(body),
    request: REQUEST,
    response: RESPONSE,
    event: RESPONSE,
    last_events: &["[DONE]", "chat.completion.done"],
    content: Some(&content::OPENAI_CHAT),
    ..plain("openai.chat", "chat", &WANTED)
};

pub(super) const REQUEST: &[Rule] = &[
    rule(&["model"], To::RequestModel),
    rule(&["max_completion_tokens", "max_tokens"], To::MaxTokens),
    rule(&["temperature"], To::Temperature),
    rule(&["top_p"], To::TopP),
    // vLLM, SGLang and others take what OpenAI does not.
    rule(&["top_k"], To::TopK),
    rule(&["frequency_penalty"], To::FrequencyPenalty),
    rule(&["presence_penalty"], To::PresencePenalty),
    // The latter is Mistral's.
    rule(&["seed", "random_seed"], To::Seed),
    rule(&["n"], To::ChoiceCount),
    rule(&["stop"], To::StopSequences),
    rule(&["stream"], To::Stream),
    rule(&["reasoning_effort"], To::ReasoningLevel),
    // OpenRouter's.
    rule(&["reasoning"], To::Inside(&[rule(&["effort"], To::ReasoningLevel)])),
    rule(&["service_tier"], To::RequestServiceTier),
    rule(&["response_format"], To::Inside(&[rule(&["type"], To::OutputFormat)])),
    rule(&["modalities"], To::Custom(modalities)),
];

fn modalities(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    for modality in value.items().filter_map(Json::text) {
        match modality {
            "audio" => facts.call.output_type = Some("speech"),
            "image" => facts.call.output_type = Some("image"),
            _ => {}
        }
    }
}

/// A whole response and a chunk of a stream name these alike.
pub(super) const RESPONSE: &[Rule] = &[
    rule(&["id"], To::ResponseId),
    rule(&["model"], To::ResponseModel),
    rule(&["service_tier"], To::ResponseServiceTier),
    rule(&["system_fingerprint"], To::SystemFingerprint),
    rule(&["choices"], CHOICES),
    // Groq says it here first; what the whole response says then comes last and counts.
    rule(&["x_groq"], To::Inside(&[rule(&["usage"], To::Inside(USAGE))])),
    rule(&["usage"], To::Inside(USAGE)),
    rule(&["object"], To::Custom(object)),
];

/// Token counts of chat and legacy completions.
pub(super) const USAGE: &[Rule] = &[
    rule(&["prompt_tokens"], To::Input),
    rule(&["completion_tokens"], To::Output),
    rule(&["total_tokens"], To::Total),
    // SGLang's, then everybody else's.
    rule(&["reasoning_tokens"], To::Reasoning),
    rule(&["completion_tokens_details"], To::Inside(&[rule(&["reasoning_tokens"], To::Reasoning)])),
    // DeepSeek's, Mistral's and Moonshot's, then everybody else's.
    rule(&["prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"], To::CacheRead),
    rule(&["cache_write_tokens"], To::CacheCreation),
    rule(
        &["prompt_tokens_details"],
        To::Inside(&[rule(&["cached_tokens"], To::CacheRead), rule(&["cache_write_tokens"], To::CacheCreation)]),
    ),
];

/// What choices are read for.
pub(super) const CHOICES: To = To::Seeing(&["finish_reason", "index"], choices);

/// Finish reasons by choice.
fn choices<'a>(facts: &mut Facts<'a>, arena: &'a Bump, value: Json<'_>) {
    for (place, choice) in (0..).zip(value.items()) {
        let [reason, index] = choice.find(["finish_reason", "index"]);
        if let Some(reason) = reason.and_then(Json::text) {
            let index = index.and_then(Json::count).unwrap_or(place);
            facts.finish(arena, index, reason);
        }
    }
}

/// Perplexity ends its streams with an object of another kind.
fn object(facts: &mut Facts<'_>, _: &Bump, value: Json<'_>) {
    facts.ended |= value.text() == Some("chat.completion.done");
}

static WANTED: Wanted = Wanted::new(
    &["\"finish_reason\"", "\"usage\"", "\"error\""],
    &[
        ("\"id\"", |call| call.response_id.is_some()),
        ("\"model\"", |call| call.response_model.is_some()),
        ("\"service_tier\"", |call| call.openai_response_service_tier.is_some()),
        ("\"system_fingerprint\"", |call| call.openai_system_fingerprint.is_some()),
    ],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, SSE, Wire, check};

    #[test]
    fn reasoning_comes_on_top_at_one_provider() {
        check(
            Wire {
                host: "api.x.ai",
                path: "/v1/chat/completions",
                request: r#"{"model":"grok","messages":[],"n":1,"max_completion_tokens":7,"max_tokens":3,"modalities":["text","audio"]}"#,
                response: &[
                    r#"{"id":"1","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":1,"completion_tokens_details":{"reasoning_tokens":228}}}"#,
                ],
                ..PLAIN
            },
            &[
                "provider: \"x_ai\"",
                "output_tokens: 229",
                "reasoning_tokens: 228",
                "choice_count: None",
                "max_tokens: 7",
                "output_type: \"speech\"",
            ],
        );
    }

    fn told(host: &str, stream: bool, response: &[&str], expect: &[&str]) {
        let request =
            if stream { r#"{"model":"m","messages":[],"stream":true}"# } else { r#"{"model":"m","messages":[]}"# };
        let response_fields = if stream { SSE } else { PLAIN.response_fields };
        check(Wire { host, path: "/v1/chat/completions", request, response_fields, response, ..PLAIN }, expect);
    }

    /// What servers add to the form, each as its documentation has it.
    #[test]
    fn servers_vary() {
        told(
            "api.groq.com",
            true,
            &[
                r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"x_groq":{"id":"req_1"}}"#,
                r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"req_1","usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"queue_time":0.1}}}"#,
            ],
            &["provider: \"groq\"", "input_tokens: 3", "output_tokens: 2", "\"stop\""],
        );
        told(
            "api.groq.com",
            true,
            &[
                r#"error|{"error":{"message":"m","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"x","status_code":400}}"#,
            ],
            &["error_type: \"tool_use_failed\""],
        );
        told(
            "api.deepseek.com",
            false,
            &[concat!(
                "\n\n",
                r#"{"id":"c1","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":30,"completion_tokens":9,"prompt_cache_hit_tokens":20,"prompt_cache_miss_tokens":10,"completion_tokens_details":{"reasoning_tokens":4}}}"#
            )],
            &["provider: \"deepseek\"", "input_tokens: 30", "cache_read_tokens: 20", "reasoning_tokens: 4"],
        );
        told(
            "api.perplexity.ai",
            true,
            &[
                r#"{"id":"c1","model":"sonar","object":"chat.completion.chunk","choices":[{"index":0,"finish_reason":null,"delta":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
                r#"{"id":"c1","model":"sonar","object":"chat.completion.done","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":8,"search_context_size":"low"}}"#,
            ],
            &["provider: \"perplexity\"", "output_tokens: 8", "\"stop\""],
        );
        told(
            "openrouter.ai",
            true,
            &[
                r#"{"id":"gen-1","provider":"X","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#,
                r#"{"id":"gen-1","error":{"code":502,"message":"m","metadata":{"error_type":"provider_unavailable"}},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
            ],
            &["provider: \"openrouter.ai\"", "error_type: \"_OTHER\"", "\"error\""],
        );
        told(
            "sglang.example:30000",
            false,
            &[
                r#"{"id":"c1","choices":[{"index":0,"finish_reason":"abort","matched_stop":null}],"usage":{"prompt_tokens":3,"completion_tokens":9,"reasoning_tokens":4}}"#,
            ],
            &["reasoning_tokens: 4", "\"abort\"", "server_port: 30000"],
        );
        told(
            "api.moonshot.cn",
            false,
            &[
                r#"{"id":"c1","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":30,"completion_tokens":9,"cached_tokens":20}}"#,
            ],
            &["provider: \"moonshot_ai\"", "cache_read_tokens: 20"],
        );
    }

    /// The path's end is enough, whatever a gateway puts before it.
    #[test]
    fn gateways_put_prefixes_before_the_path() {
        for (host, path) in [
            ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions"),
            ("aiplatform.googleapis.com", "/v1/projects/p/locations/l/endpoints/openapi/chat/completions"),
            ("api.z.ai", "/api/paas/v4/chat/completions"),
            ("api.fireworks.ai", "/inference/v1/chat/completions"),
            ("router.huggingface.co", "/together/v1/chat/completions"),
            ("x.cloud.databricks.com", "/serving-endpoints/chat/completions"),
            ("api.cloudflare.com", "/client/v4/accounts/a/ai/v1/chat/completions"),
            ("dashscope.aliyuncs.com", "/compatible-mode/v1/chat/completions"),
            ("localhost:4000", "/chat/completions"),
            ("models.github.ai", "/inference/chat/completions"),
        ] {
            let wire = Wire { host, path, request: r#"{"model":"m","messages":[]}"#, ..PLAIN };
            check(wire, &["operation: \"chat\"", "openai_api_type: \"chat_completions\"", "request_model: \"m\""]);
        }
    }
}
