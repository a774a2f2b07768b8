//! Ollama, TGI, SGLang, llama.cpp, watsonx, DashScope and Mistral's conversations.

use bumpalo::Bump;

use super::{
    super::json::Json,
    Prompt, Reader,
    openai::{
        content_parts, message, message_parts, messages, request as openai_request, tool_call, tool_call_deltas, tools,
        user,
    },
    output::{Kind, Output},
    part::{Arguments, Part},
};

/// Ollama's chat.
pub(in crate::genai) static OLLAMA_CHAT: Reader =
    Reader { request: openai_request, response: ollama_chat, event: ollama_chat };

/// Ollama's completions.
pub(in crate::genai) static OLLAMA_GENERATE: Reader =
    Reader { request: ollama_request, response: ollama_generate, event: ollama_generate };

/// Text Generation Inference and SGLang.
pub(in crate::genai) static TGI: Reader = Reader { request: tgi_request, response: tgi_response, event: tgi_event };

/// Mistral's conversations.
pub(in crate::genai) static MISTRAL_CONVERSATIONS: Reader =
    Reader { request: conversation_request, response: conversation, event: conversation_event };

/// llama.cpp's completions.
pub(in crate::genai) static LLAMA_CPP: Reader = Reader { request: llama_request, response: llama, event: llama };

/// watsonx's text generation.
pub(in crate::genai) static WATSONX: Reader = Reader { request: watsonx_request, response: watsonx, event: watsonx };

/// DashScope.
pub(in crate::genai) static DASHSCOPE: Reader =
    Reader { request: dashscope_request, response: dashscope, event: dashscope };

fn text<'t>(value: Json<'t>, key: &str) -> &'t str {
    value.get(key).and_then(Json::text).unwrap_or("")
}

/// Each line of a stream is a response with a piece of the message.
fn ollama_chat<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    let Some(message) = body.get("message") else { return };
    output.begin(arena, 0);
    output.flow(arena, 0, Kind::Reasoning, text(message, "thinking"));
    output.flow(arena, 0, Kind::Text, text(message, "content"));
    for call in message.get("tool_calls").into_iter().flat_map(Json::items) {
        // Calls come whole, one or more a line.
        tool_call(call, &mut |part| output.part(arena, 0, part));
    }
}

fn ollama_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(system) = body.get("system").and_then(Json::text) {
        prompt.system.part(&Part::Text(system));
    }
    user(&mut prompt.input, body.get("prompt"));
}

fn ollama_generate<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    output.begin(arena, 0);
    output.flow(arena, 0, Kind::Reasoning, text(body, "thinking"));
    output.flow(arena, 0, Kind::Text, text(body, "response"));
}

fn tgi_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    user(&mut prompt.input, body.get("inputs").or_else(|| body.get("text")));
}

fn tgi_response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    let body = body.items().next().unwrap_or(body);
    output.push(arena, 0, Kind::Text, 0, text(body, "generated_text"));
    output.push(arena, 0, Kind::Text, 0, text(body, "text"));
}

/// TGI streams tokens, SGLang all that there is so far.
fn tgi_event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    match event.get("token") {
        Some(token) if token.get("special").and_then(Json::bool) != Some(true) => {
            output.push(arena, 0, Kind::Text, 0, text(token, "text"));
        }
        Some(_) => {}
        None if !text(event, "text").is_empty() => output.replace(arena, 0, Kind::Text, 0, text(event, "text")),
        None => {}
    }
}

fn llama_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    user(&mut prompt.input, body.get("prompt"));
}

fn llama<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    output.push(arena, 0, Kind::Text, 0, text(body, "content"));
}

fn conversation_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(text) = body.get("instructions").and_then(Json::text) {
        prompt.system.part(&Part::Text(text));
    }
    if let Some(inputs) = body.get("inputs") {
        user(&mut prompt.input, inputs.string().map(|_| inputs));
        inputs.items().for_each(|one| message(&mut prompt.input, one));
    }
    tools(prompt, body);
}

fn conversation<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    for entry in body.get("outputs").into_iter().flat_map(Json::items) {
        output.begin(arena, 0);
        match entry.get("type").and_then(Json::text) {
            Some("function.call") => {
                let id = entry.get("tool_call_id").and_then(Json::text);
                let arguments = Arguments::of(entry.get("arguments"));
                output.part(arena, 0, &Part::ToolCall { id, name: text(entry, "name"), arguments });
            }
            _ => message_parts(entry, &mut |part| output.part(arena, 0, part)),
        }
    }
}

fn conversation_event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    match event.get("type").and_then(Json::text) {
        Some("message.output.delta") => {
            let Some(content) = event.get("content") else { return };
            content_parts(content, &mut |part| match part {
                Part::Text(text) => output.flow(arena, 0, Kind::Text, text),
                Part::Reasoning(text) => output.flow(arena, 0, Kind::Reasoning, text),
                part => output.part(arena, 0, part),
            });
        }
        Some("function.call.delta") => {
            let key = event.get("output_index").and_then(Json::count).unwrap_or(0);
            let id = event.get("tool_call_id").and_then(Json::text);
            output.call(arena, 0, Kind::ToolCall, key, id, event.get("name").and_then(Json::text));
            output.push(arena, 0, Kind::ToolCall, key, text(event, "arguments"));
        }
        _ => {}
    }
}

fn watsonx_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    user(&mut prompt.input, body.get("input"));
}

fn watsonx<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    for (index, result) in (0..).zip(body.get("results").into_iter().flat_map(Json::items)) {
        output.begin(arena, index);
        output.push(arena, index, Kind::Text, 0, text(result, "generated_text"));
    }
}

fn dashscope_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(input) = body.get("input") {
        messages(&mut prompt.input, input);
        user(&mut prompt.input, input.get("prompt"));
    }
    if let Some(parameters) = body.get("parameters") {
        tools(prompt, parameters);
    }
}

/// Events hold what is new, if `incremental_output` was asked for, or else all there is so far.
fn dashscope<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    let Some(answer) = body.get("output") else { return };
    output.grow(arena, 0, Kind::Text, text(answer, "text"));
    for (place, choice) in (0..).zip(answer.get("choices").into_iter().flat_map(Json::items)) {
        let index = choice.get("index").and_then(Json::count).unwrap_or(place);
        output.begin(arena, index);
        let Some(message) = choice.get("message") else { continue };
        output.grow(arena, index, Kind::Reasoning, text(message, "reasoning_content"));
        match message.get("content") {
            Some(content) if content.is_array() => content_parts(content, &mut |part| match part {
                Part::Text(text) => output.grow(arena, index, Kind::Text, text),
                part => output.part(arena, index, part),
            }),
            _ => output.grow(arena, index, Kind::Text, text(message, "content")),
        }
        tool_call_deltas(output, arena, index, message);
    }
}
