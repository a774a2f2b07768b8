//! Content: messages, instructions and tools, in the shapes of the conventions' JSON schemas. Only
//! read when it is asked for.

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod openai;
mod others;
mod output;
mod part;
mod realtime;
mod responses;
mod verbatim;
mod writer;

use bumpalo::Bump;

pub(super) use anthropic::{COMPLETE as ANTHROPIC_COMPLETE, MESSAGES as ANTHROPIC};
pub(super) use bedrock::{AGENT as BEDROCK_AGENT, CONVERSE as BEDROCK_CONVERSE, INVOKE as BEDROCK_INVOKE};
pub(super) use cohere::CHAT as COHERE;
pub(super) use gemini::{CODE_ASSIST as GEMINI_CODE_ASSIST, GENERATE as GEMINI, INTERACTIONS as GEMINI_INTERACTIONS};
pub(super) use openai::{CHAT as OPENAI_CHAT, COMPLETIONS as OPENAI_COMPLETIONS};
pub(super) use others::{DASHSCOPE, LLAMA_CPP, MISTRAL_CONVERSATIONS, OLLAMA_CHAT, OLLAMA_GENERATE, TGI, WATSONX};
use output::Output;
pub(super) use realtime::REALTIME as OPENAI_REALTIME;
pub(super) use responses::RESPONSES as OPENAI_RESPONSES;
use writer::Writer;

use super::json::Json;
use crate::exchange::Call;

/// How a dialect's bodies are read for content.
pub(super) struct Reader {
    /// A request body.
    pub request: for<'a> fn(&mut Prompt<'a>, Json<'_>),
    /// A whole response body.
    pub response: for<'a> fn(&mut Output<'a>, &'a Bump, Json<'_>),
    /// A stream's event.
    pub event: for<'a> fn(&mut Output<'a>, &'a Bump, Json<'_>),
}

/// What a request says.
pub(super) struct Prompt<'a> {
    input: Writer<'a>,
    system: Writer<'a>,
    tools: Writer<'a>,
}

impl Prompt<'_> {
    /// A tool that the model may call: what the conventions require of it.
    fn tool(&mut self, kind: &str, name: &str) {
        self.tools.element(|writer| {
            writer.put("{\"type\":");
            writer.string(kind);
            writer.member("name", name);
            writer.put("}");
        });
    }
}

/// What an exchange says.
pub(super) struct Content<'a> {
    bytes_max: usize,
    output: Output<'a>,
}

impl<'a> Content<'a> {
    /// Nothing yet, and room for `bytes_max` in each attribute.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, output: Output::new(bytes_max) }
    }

    /// Reads a request body, or one of several documents that ask together.
    pub fn request(&mut self, arena: &'a Bump, call: &mut Call<'a>, reader: &Reader, body: Json<'_>) {
        let new = || Writer::new(arena, self.bytes_max);
        let mut prompt = Prompt { input: new(), system: new(), tools: new() };
        (reader.request)(&mut prompt, body);
        call.input_messages = prompt.input.finish().or(call.input_messages);
        call.system_instructions = prompt.system.finish().or(call.system_instructions);
        call.tool_definitions = prompt.tools.finish().or(call.tool_definitions);
    }

    /// Reads a whole response body.
    pub fn response(&mut self, arena: &'a Bump, reader: &Reader, body: Json<'_>) {
        (reader.response)(&mut self.output, arena, body);
    }

    /// Reads a stream's event.
    pub fn event(&mut self, arena: &'a Bump, reader: &Reader, event: Json<'_>) {
        (reader.event)(&mut self.output, arena, event);
    }

    /// Writes the answer. `reason` tells why a choice ended, in the provider's words.
    pub fn finish(&mut self, arena: &'a Bump, call: &mut Call<'a>, reason: impl Fn(i64) -> &'a str) {
        call.output_messages = self.output.write(arena, self.bytes_max, |choice| finish_reason(reason(choice)));
    }
}

/// The conventions' word for a reason, where they have one.
fn finish_reason(reason: &str) -> &str {
    match reason {
        "end_turn" | "stop_sequence" | "COMPLETE" | "STOP_SEQUENCE" | "eos" | "eos_token" | "FINISH" | "word" => "stop",
        "max_tokens" | "MAX_TOKENS" | "LENGTH" | "max_output_tokens" | "model_length" | "limit" => "length",
        "tool_calls" | "tool_use" | "TOOL_CALL" | "function_call" => "tool_call",
        "safety" | "guardrail_intervened" | "content_filtered" | "refusal" => "content_filter",
        "ERROR" => "error",
        other => other,
    }
}
