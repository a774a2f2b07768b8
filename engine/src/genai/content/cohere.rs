//! Cohere's messages, versions 1 and 2.

use bumpalo::Bump;

use super::{
    super::json::Json,
    Prompt, Reader,
    openai::{message_parts, messages, tools, user},
    output::{Kind, Output},
    part::{Arguments, Part},
};

/// Chat, and what came before it.
pub(in crate::genai) static CHAT: Reader = Reader { request, response, event };

fn request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(preamble) = body.get("preamble").and_then(Json::text) {
        prompt.system.part(&Part::Text(preamble));
    }
    for turn in body.get("chat_history").into_iter().flat_map(Json::items) {
        let role = match turn.get("role").and_then(Json::text) {
            Some("CHATBOT") => "assistant",
            Some("SYSTEM") => "system",
            Some("TOOL") => "tool",
            _ => "user",
        };
        if let Some(text) = turn.get("message").and_then(Json::text) {
            prompt.input.message(role, None, |writer| writer.part(&Part::Text(text)));
        }
    }
    messages(&mut prompt.input, body);
    user(&mut prompt.input, body.get("message").or_else(|| body.get("prompt")));
    tools(prompt, body);
}

fn response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    if let Some(message) = body.get("message") {
        output.begin(arena, 0);
        message_parts(message, &mut |part| output.part(arena, 0, part));
    }
    output.push(arena, 0, Kind::Text, 0, body.get("text").and_then(Json::text).unwrap_or(""));
    for call in body.get("tool_calls").into_iter().flat_map(Json::items) {
        let name = call.get("name").and_then(Json::text).unwrap_or("");
        output.part(arena, 0, &Part::ToolCall { id: None, name, arguments: Arguments::of(call.get("parameters")) });
    }
    let generations = body.get("generations").into_iter().flat_map(Json::items);
    for (index, generation) in (0..).zip(generations) {
        output.push(arena, index, Kind::Text, 0, generation.get("text").and_then(Json::text).unwrap_or(""));
    }
}

fn event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    let index = event.get("index").and_then(Json::count).unwrap_or(0);
    if let Some(message) = event.at(&["delta", "message"]) {
        output.begin(arena, 0);
        let text = |path: &[&str]| message.at(path).and_then(Json::text).unwrap_or("");
        output.push(arena, 0, Kind::Text, index, text(&["content", "text"]));
        output.push(arena, 0, Kind::Reasoning, index, text(&["content", "thinking"]));
        output.flow(arena, 0, Kind::Reasoning, text(&["tool_plan"]));
        if let Some(call) = message.get("tool_calls") {
            let text = |path: &[&str]| call.at(path).and_then(Json::text);
            output.call(arena, 0, Kind::ToolCall, index, text(&["id"]), text(&["function", "name"]));
            output.push(arena, 0, Kind::ToolCall, index, text(&["function", "arguments"]).unwrap_or(""));
        }
    }
    // Version 1.
    match event.get("event_type").and_then(Json::text) {
        Some("text-generation") => {
            output.push(arena, 0, Kind::Text, 0, event.get("text").and_then(Json::text).unwrap_or(""));
        }
        Some("stream-end") => {
            if let Some(whole) = event.get("response").filter(|whole| whole.get("text").is_some()) {
                output.clear();
                response(output, arena, whole);
            }
        }
        _ => {}
    }
}
