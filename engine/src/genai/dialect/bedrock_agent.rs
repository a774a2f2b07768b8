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
