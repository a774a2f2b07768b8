//! Agents of Amazon Bedrock, which are called by session.

use bumpalo::Bump;

use super::{Dialect, bedrock_converse, content, plain, sure};
use crate::{
    genai::{
        BodyKind,
        facts::Facts,
        route::{self, Target},
        wanted::Wanted,
    },
    wire::RequestHead,
};

pub(super) static DIALECT: Dialect = Dialect {
    routes: &[sure("agents/{agent}/agentAliases/{alias}/sessions/{session}/text")],
    request_head: Some(request_head),
    response_head: Some(bedrock_converse::response_head),
    stream: BodyKind::AwsEventStream,
    content: Some(&content::BEDROCK_AGENT),
    ..plain("bedrock.agent", "invoke_agent", &WANTED)
};

fn request_head<'a>(facts: &mut Facts<'a>, arena: &'a Bump, _: &RequestHead<'_>, target: &Target<'_>) {
    facts.call.conversation_id = target.after("sessions").and_then(|id| route::percent_decoded(arena, id));
}

/// The answer is in chunks of text, and nothing else is told.
static WANTED: Wanted = Wanted::new(&[], &[]);

#[cfg(test)]
mod tests {
    use crate::genai::testing::{PLAIN, Wire, check};

    #[test]
    fn an_agent_is_asked() {
        check(
            Wire {
                path: "/agents/A/agentAliases/B/sessions/s%201/text",
                host: "bedrock-agent-runtime.us-east-1.amazonaws.com",
                response_fields: &[("content-type", "application/vnd.amazon.eventstream")],
                request: r#"{"inputText":"hi"}"#,
                response: &["chunk|{\"bytes\":\"aGVsbG8=\"}"],
                capture_content: true,
                ..PLAIN
            },
            &[
                "operation: \"invoke_agent\"",
                "conversation_id: \"s 1\"",
                r#"output_messages: "[{\"role\":\"assistant\",\"parts\":[{\"type\":\"text\",\"content\":\"hello\"}],\"finish_reason\":\"\"}]""#,
            ],
        );
    }
}
