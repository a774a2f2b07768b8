//! Mistral's conversations and agents.

use super::{Dialect, Route, content, plain, sure};
use crate::genai::{
    facts::{Rule, To, rule},
    wanted::Wanted,
};

use super::openai_chat;

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[
        Route { only: Some("mistral_ai"), ..sure("v1/conversations") },
        Route { only: Some("mistral_ai"), ..sure("conversations/{conversation}") },
    ],
    request: &[
        rule(&["model"], To::RequestModel),
        rule(&["stream"], To::Stream),
        rule(
            &["completion_args"],
            To::Inside(&[
                rule(&["max_tokens"], To::MaxTokens),
                rule(&["temperature"], To::Temperature),
                rule(&["top_p"], To::TopP),
                rule(&["random_seed"], To::Seed),
                rule(&["stop"], To::StopSequences),
                rule(&["frequency_penalty"], To::FrequencyPenalty),
                rule(&["presence_penalty"], To::PresencePenalty),
                rule(&["response_format"], To::Inside(&[rule(&["type"], To::OutputFormat)])),
            ]),
        ),
    ],
    response: RESPONSE,
    event: RESPONSE,
    last_events: &["conversation.response.done", "[DONE]"],
    content: Some(&content::MISTRAL_CONVERSATIONS),
    ..plain("mistral.conversations", "chat", &WANTED)
};

/// A whole response, and the first and the last event of a stream. None of them has an id besides
/// the conversation's.
const RESPONSE: &[Rule] = &[
    rule(&["conversation_id"], To::Conversation),
    rule(&["model"], To::ResponseModel),
    rule(&["outputs"], To::Each(&[rule(&["model"], To::ResponseModel)])),
    rule(&["usage"], To::Inside(openai_chat::USAGE)),
];

static WANTED: Wanted = Wanted::new(
    &["\"conversation_id\"", "\"usage\"", "\"error\""],
    &[("\"model\"", |call| call.response_model.is_some())],
);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn a_conversation_begins() {
        check(
            Wire {
                host: "api.mistral.ai",
                path: "/v1/conversations",
                request: r#"{"model":"m","inputs":"hi","completion_args":{"temperature":0.5}}"#,
                response: &[
                    r#"{"conversation_id":"conv_1","outputs":[{"type":"message.output","model":"m-1","content":"x"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
                ],
                ..PLAIN
            },
            &["conversation_id: \"conv_1\"", "response_model: \"m-1\"", "temperature: 0.5", "output_tokens: 2"],
        );
    }
}
