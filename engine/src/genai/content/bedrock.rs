//! Bedrock's blocks, and the bodies of the models behind InvokeModel.

use bumpalo::Bump;

use super::{
    super::{base64, json::Json},
    Definition, Prompt, Reader, anthropic, openai,
    output::{Kind, Output},
    part::{Arguments, Part},
    writer::Writer,
};

/// Converse.
pub(in crate::genai) static CONVERSE: Reader = Reader { request, response, event };

/// InvokeModel.
pub(in crate::genai) static INVOKE: Reader =
    Reader { request: invoke_request, response: invoke_response, event: invoke_event };

fn request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    for text in body.get("system").into_iter().flat_map(Json::items).filter_map(|block| block.get("text")?.text()) {
        prompt.system.part(&Part::Text(text));
    }
    body.get("messages").into_iter().flat_map(Json::items).for_each(|one| message(&mut prompt.input, one));
    for tool in body.at(&["toolConfig", "tools"]).into_iter().flat_map(Json::items) {
        if let Some(name) = tool.at(&["toolSpec", "name"]).and_then(Json::text) {
            let description = tool.at(&["toolSpec", "description"]);
            let parameters = tool.at(&["toolSpec", "inputSchema", "json"]);
            prompt.tool("function", name, Definition { description, parameters });
        }
    }
}

fn message(writer: &mut Writer<'_>, message: Json<'_>) {
    let Some(role) = message.get("role").and_then(Json::text) else { return };
    let blocks = || message.get("content").into_iter().flat_map(Json::items);
    let is_result = |block: &Json<'_>| block.get("toolResult").is_some();
    if blocks().any(|block| is_result(&block)) {
        writer.message("tool", None, |writer| {
            blocks().filter(is_result).for_each(|one| block(one, &mut |part| writer.part(part)));
        });
        if blocks().all(|block| is_result(&block)) {
            return;
        }
    }
    writer.message(role, None, |writer| {
        blocks().filter(|one| !is_result(one)).for_each(|one| block(one, &mut |part| writer.part(part)));
    });
}

/// The part that a block stands for: an object with one member, whose name is the kind.
fn block(block: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    for (kind, value) in block.entries() {
        let text = |key: &str| value.get(key).and_then(Json::text);
        match kind {
            "text" => value.text().iter().for_each(|text| each(&Part::Text(text))),
            "toolUse" => {
                let arguments = value.get("input").map_or(Arguments::None, Arguments::Json);
                each(&Part::ToolCall { id: text("toolUseId"), name: text("name").unwrap_or(""), arguments });
            }
            "toolResult" => {
                let response = value.get("content").unwrap_or(value);
                each(&Part::ToolResponse { id: text("toolUseId"), response });
            }
            "reasoningContent" => {
                let text = value.at(&["reasoningText", "text"]).and_then(Json::text);
                text.iter().for_each(|text| each(&Part::Reasoning(text)));
            }
            "image" | "video" | "audio" | "document" => source(kind, value, each),
            "cachePoint" => {}
            other => each(&Part::Other(other)),
        }
    }
}

fn source(kind: &str, value: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    let bytes = value.at(&["source", "bytes"]).and_then(Json::text);
    let uri = value.at(&["source", "s3Location", "uri"]).and_then(Json::text);
    match (bytes, uri) {
        (Some(bytes), _) => each(&Part::Blob { modality: kind, mime_type: None, base64: bytes }),
        (None, Some(uri)) => each(&Part::Uri { modality: kind, uri }),
        (None, None) => each(&Part::Other(kind)),
    }
}

fn response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    let Some(message) = body.at(&["output", "message"]) else { return };
    output.begin(arena, 0);
    for one in message.get("content").into_iter().flat_map(Json::items) {
        block(one, &mut |part| output.part(arena, 0, part));
    }
}

/// A block's start, if it has one, and its deltas.
fn event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    let key = event.get("contentBlockIndex").and_then(Json::count).unwrap_or(0);
    if event.get("role").is_some() {
        output.begin(arena, 0);
    }
    if let Some(call) = event.at(&["start", "toolUse"]) {
        let text = |key: &str| call.get(key).and_then(Json::text);
        output.call(arena, 0, Kind::ToolCall, key, text("toolUseId"), text("name"));
    }
    if let Some(delta) = event.get("delta") {
        let text = |path: &[&str]| delta.at(path).and_then(Json::text).unwrap_or("");
        output.push(arena, 0, Kind::Text, key, text(&["text"]));
        output.push(arena, 0, Kind::Reasoning, key, text(&["reasoningContent", "text"]));
        output.push(arena, 0, Kind::ToolCall, key, text(&["toolUse", "input"]));
    }
}

/// Agents. What they answer is text in base64.
pub(in crate::genai) static AGENT: Reader =
    Reader { request: agent_request, response: agent_event, event: agent_event };

fn agent_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    openai::user(&mut prompt.input, body.get("inputText"));
}

fn agent_event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    let Some(bytes) = event.get("bytes").and_then(Json::text) else { return };
    let mut decoded = bumpalo::collections::Vec::new_in(arena);
    if base64::decode(bytes.as_bytes(), &mut decoded).is_some() {
        // A character may be split between two chunks; what is left of it is no text.
        decoded.utf8_chunks().for_each(|chunk| output.push(arena, 0, Kind::Text, 0, chunk.valid()));
    }
}

/// Which body it is shows in what it has.
fn invoke_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if body.get("anthropic_version").is_some() {
        anthropic::request(prompt, body);
    } else if body.get("inferenceConfig").is_some() || body.get("schemaVersion").is_some() {
        request(prompt, body);
    } else if body.get("messages").is_some() {
        openai::request(prompt, body);
    } else {
        let text = ["prompt", "inputText", "message"].iter().find_map(|key| body.get(key));
        openai::user(&mut prompt.input, text);
    }
}

fn invoke_response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    response(output, arena, body);
    anthropic::response(output, arena, body);
    openai::response(output, arena, body);
    texts(output, arena, body);
}

fn invoke_event<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    if let Some(inner) = ["messageStart", "contentBlockStart", "contentBlockDelta"].iter().find_map(|key| body.get(key))
    {
        event(output, arena, inner);
    } else if body.get("type").is_some() {
        anthropic::event(output, arena, body);
    } else {
        openai::event(output, arena, body);
        texts(output, arena, body);
    }
}

/// The texts of models that only complete texts.
fn texts<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    for text in ["outputText", "generation", "text"].iter().filter_map(|key| body.get(key)?.text()) {
        output.flow(arena, 0, Kind::Text, text);
    }
    let lists = ["results", "generations", "outputs", "completions"].iter().filter_map(|key| body.get(key));
    for (index, one) in lists.flat_map(|list| (0..).zip(list.items())) {
        output.begin(arena, index);
        let text = one.get("outputText").or_else(|| one.get("text")).or_else(|| one.at(&["data", "text"]));
        output.flow(arena, index, Kind::Text, text.and_then(Json::text).unwrap_or(""));
    }
}
