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

use super::{draft::Options, json::Json};
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

/// What the conventions leave to the user to ask for, because it may be long.
#[derive(Clone, Copy, Default)]
struct Definition<'t> {
    description: Option<Json<'t>>,
    /// A JSON schema.
    parameters: Option<Json<'t>>,
}

impl Prompt<'_> {
    /// A tool that the model may call.
    fn tool(&mut self, kind: &str, name: &str, definition: Definition<'_>) {
        let write = |writer: &mut Writer<'_>, definition: Definition<'_>| {
            writer.put("{\"type\":");
            writer.string(kind);
            writer.member("name", name);
            if let Some(text) = definition.description.and_then(Json::string) {
                writer.member("description", text);
            }
            if let Some(schema) = definition.parameters.filter(|schema| schema.is_object()) {
                writer.put(",\"parameters\":");
                writer.value(schema);
            }
            writer.put("}");
        };
        let whole = self.tools.is_full() && self.tools.tries(|writer| write(writer, definition));
        if !whole {
            self.tools.element(|writer| write(writer, Definition::default()));
        }
    }
}

/// What an exchange says.
pub(super) struct Content<'a> {
    bytes_max: usize,
    full: bool,
    output: Output<'a>,
}

impl<'a> Content<'a> {
    /// Nothing yet, and as much room in each attribute as the options say.
    pub fn new(options: &Options) -> Self {
        let (bytes_max, full) = (options.content_bytes_max, options.content_full);
        Self { bytes_max, full, output: Output::new(bytes_max, full) }
    }

    /// Reads a request body, or one of several documents that ask together.
    pub fn request(&mut self, arena: &'a Bump, call: &mut Call<'a>, reader: &Reader, body: Json<'_>) {
        let new = || Writer::new(arena, self.bytes_max, self.full);
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
