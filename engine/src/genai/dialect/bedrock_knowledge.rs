//! Knowledge bases of Amazon Bedrock: what is found in one, and what a model makes of it.

use bumpalo::Bump;

use super::{Dialect, Route, bedrock_converse, plain, sure};
use crate::{
    genai::{
        BodyKind,
        facts::{Facts, Rule, To, rule},
        json::Json,
        route::Target,
        wanted::Wanted,
    },
    wire::{self, RequestHead, ResponseHead},
};

pub(super) static RETRIEVE: Dialect = Dialect {
    routes: &[sure("knowledgebases/{base}/retrieve")],
    request_head: Some(request_head),
    response_head: Some(bedrock_converse::response_head),
    request: &[rule(&["guardrailConfiguration"], To::Inside(GUARDRAIL))],
    ..plain("bedrock.retrieve", "retrieval", &WANTED)
};

pub(super) static GENERATE: Dialect = Dialect {
    routes: &[sure("retrieveAndGenerate"), Route { streams: true, ..sure("retrieveAndGenerateStream") }],
    response_head: Some(response_head),
    request: REQUEST,
    response: &[rule(&["sessionId"], To::Conversation)],
    stream: BodyKind::AwsEventStream,
    ..plain("bedrock.retrieve_and_generate", "chat", &WANTED)
};

const REQUEST: &[Rule] = &[
    rule(&["sessionId"], To::Conversation),
    rule(
        &["retrieveAndGenerateConfiguration"],
        To::Inside(&[rule(&["knowledgeBaseConfiguration", "externalSourcesConfiguration"], To::Inside(SOURCE))]),
    ),
];

const SOURCE: &[Rule] = &[
    rule(&["modelArn"], To::RequestModel),
    rule(&["knowledgeBaseId"], To::Custom(knowledge_base)),
    rule(
        &["generationConfiguration"],
        To::Inside(&[
            rule(
                &["inferenceConfig"],
                To::Inside(&[rule(&["textInferenceConfig"], To::Inside(bedrock_converse::CONFIG))]),
            ),
            rule(&["guardrailConfiguration"], To::Inside(GUARDRAIL)),
        ]),
    ),
];

const GUARDRAIL: &[Rule] = &[rule(&["guardrailId"], To::GuardrailId)];

fn knowledge_base<'a>(facts: &mut Facts<'a>, arena: &'a Bump, id: Json<'_>) {
    facts.call.bedrock_knowledge_base_id = id.text().and_then(|id| facts.keep(arena, id));
}

fn request_head<'a>(facts: &mut Facts<'a>, arena: &'a Bump, _: &RequestHead<'_>, target: &Target<'_>) {
    facts.call.bedrock_knowledge_base_id = target.after("knowledgebases").and_then(|id| facts.keep(arena, id));
}

/// A stream names its session here only.
fn response_head<'a>(facts: &mut Facts<'a>, arena: &'a Bump, head: &ResponseHead<'_>) {
    bedrock_converse::response_head(facts, arena, head);
    let session = wire::field(head.fields, "x-amzn-bedrock-knowledge-base-session-id");
    if let Some(id) = session.and_then(|id| std::str::from_utf8(id).ok()) {
        facts.call.conversation_id = facts.keep(arena, id);
    }
}

/// Neither says what it cost.
static WANTED: Wanted = Wanted::new(&[], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    const HOST: &str = "bedrock-agent-runtime.eu-west-1.amazonaws.com";

    #[test]
    fn a_base_is_searched() {
        check(
            Wire {
                host: HOST,
                path: "/knowledgebases/KB12345678/retrieve",
                request: r#"{"retrievalQuery":{"text":"rivers"},"guardrailConfiguration":{"guardrailId":"g1"}}"#,
                response: &[r#"{"retrievalResults":[{"content":{"text":"The Rhine"},"score":0.7}]}"#],
                ..PLAIN
            },
            &[
                "operation: \"retrieval\"",
                "provider: \"aws.bedrock\"",
                "bedrock_knowledge_base_id: \"KB12345678\"",
                "bedrock_guardrail_id: \"g1\"",
                "request_model: None",
                "error_type: None",
            ],
        );
    }

    const REQUEST: &str = r#"{"input":{"text":"rivers"},"retrieveAndGenerateConfiguration":{"type":"KNOWLEDGE_BASE",
        "knowledgeBaseConfiguration":{"knowledgeBaseId":"KB1","modelArn":"anthropic.claude-opus-5",
        "generationConfiguration":{"inferenceConfig":{"textInferenceConfig":{"maxTokens":9,"topP":0.5}}}}}}"#;

    #[test]
    fn a_model_answers_from_a_base() {
        check(
            Wire {
                host: HOST,
                path: "/retrieveAndGenerate",
                request: REQUEST,
                response: &[r#"{"citations":[],"output":{"text":"The Rhine."},"sessionId":"s-1"}"#],
                ..PLAIN
            },
            &[
                "operation: \"chat\"",
                "request_model: \"anthropic.claude-opus-5\"",
                "bedrock_knowledge_base_id: \"KB1\"",
                "max_tokens: 9",
                "top_p: 0.5",
                "conversation_id: \"s-1\"",
                "stream: false",
                "input_tokens: None",
            ],
        );
        check(
            Wire {
                host: HOST,
                path: "/retrieveAndGenerateStream",
                request: REQUEST,
                response_fields: &[
                    ("content-type", "application/vnd.amazon.eventstream"),
                    ("x-amzn-bedrock-knowledge-base-session-id", "s-2"),
                ],
                response: &["output|{\"text\":\"The\"}", "throttlingException|{\"message\":\"slow down\"}"],
                ..PLAIN
            },
            &["conversation_id: \"s-2\"", "stream: true", "error_type: \"throttlingException\""],
        );
    }
}
