//! Anthropic's blocks.

use bumpalo::Bump;

use super::{
    super::json::Json,
    Definition, Prompt, Reader,
    openai::user,
    output::{Kind, Output},
    part::{Arguments, Part, from_url, modality},
    writer::Writer,
};

/// Messages.
pub(in crate::genai) static MESSAGES: Reader = Reader { request, response, event };

/// Text completions.
pub(in crate::genai) static COMPLETE: Reader =
    Reader { request: complete_request, response: complete_response, event: complete_response };

pub(super) fn request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(system) = body.get("system") {
        blocks(system, &mut |block| {
            if let Some(text) = text_of(block) {
                prompt.system.part(&Part::Text(text));
            }
        });
    }
    body.get("messages").into_iter().flat_map(Json::items).for_each(|message| messages(&mut prompt.input, message));
    for tool in body.get("tools").into_iter().flat_map(Json::items) {
        let kind = tool.get("type").and_then(Json::text).filter(|kind| *kind != "custom").unwrap_or("function");
        let definition = Definition { description: tool.get("description"), parameters: tool.get("input_schema") };
        prompt.tool(kind, tool.get("name").and_then(Json::text).unwrap_or(kind), definition);
    }
}

/// A text, whether alone or in a block.
fn text_of<'t>(block: Json<'t>) -> Option<&'t str> {
    block.text().or_else(|| block.get("text")?.text())
}

/// A string counts as a block of its own.
fn blocks<'t>(content: Json<'t>, each: &mut dyn FnMut(Json<'t>)) {
    if content.text().is_some() {
        each(content);
    }
    content.items().for_each(each);
}

/// What tools gave is said by the user on the wire, and by the tool in the conventions.
fn messages(writer: &mut Writer<'_>, message: Json<'_>) {
    let (Some(role), Some(content)) = (message.get("role").and_then(Json::text), message.get("content")) else {
        return;
    };
    let is_result = |block: &Json<'_>| block.get("type").and_then(Json::text) == Some("tool_result");
    if content.items().any(|block| is_result(&block)) {
        writer.message("tool", None, |writer| {
            content.items().filter(is_result).for_each(|block| part(block, &mut |part| writer.part(part)));
        });
        if content.items().all(|block| is_result(&block)) {
            return;
        }
    }
    writer.message(role, None, |writer| {
        blocks(content, &mut |block| {
            if !is_result(&block) {
                part(block, &mut |part| writer.part(part));
            }
        });
    });
}

/// The part that a block stands for.
fn part(block: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    let text = |key: &str| block.get(key).and_then(Json::text);
    let kind = text("type").unwrap_or("text");
    match kind {
        "text" => text_of(block).iter().for_each(|text| each(&Part::Text(text))),
        "thinking" => text("thinking").iter().for_each(|text| each(&Part::Reasoning(text))),
        "tool_use" => {
            let arguments = block.get("input").map_or(Arguments::None, Arguments::Json);
            each(&Part::ToolCall { id: text("id"), name: text("name").unwrap_or(kind), arguments });
        }
        "server_tool_use" | "mcp_tool_use" => {
            let name = text("name").unwrap_or(kind);
            let arguments = block.get("input").map_or(Arguments::None, Arguments::Json);
            each(&Part::ServerToolCall { id: text("id"), name, kind: name, arguments });
        }
        "tool_result" => {
            if let Some(response) = block.get("content") {
                each(&Part::ToolResponse { id: text("tool_use_id"), response });
            }
        }
        "image" | "document" => source(block, kind, each),
        _ => match (kind.strip_suffix("_tool_result"), block.get("content")) {
            (Some(_), Some(response)) => each(&Part::ServerToolResponse { id: text("tool_use_id"), kind, response }),
            _ => each(&Part::Other(kind)),
        },
    }
}

/// An image or a document, wherever it is.
fn source(block: Json<'_>, kind: &str, each: &mut dyn FnMut(&Part<'_>)) {
    let text = |key: &str| block.at(&["source", key]).and_then(Json::text);
    let mime_type = text("media_type");
    let modality = mime_type.map_or(if kind == "image" { "image" } else { "document" }, modality);
    if let Some(data) = text("data") {
        each(&Part::Blob { modality, mime_type, base64: data });
    } else if let Some(url) = text("url") {
        each(&from_url(modality, url));
    } else if let Some(id) = text("file_id") {
        each(&Part::File { modality, id });
    } else {
        each(&Part::Other(kind));
    }
}

pub(super) fn response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    let Some(content) = body.get("content") else { return };
    output.begin(arena, 0);
    content.items().for_each(|block| part(block, &mut |part| output.part(arena, 0, part)));
}

/// Blocks may take turns, so that each grows under its index.
pub(super) fn event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    let index = event.get("index").and_then(Json::count).unwrap_or(0);
    if event.get("message").is_some() {
        output.begin(arena, 0);
    }
    if let Some(block) = event.get("content_block") {
        let text = |key: &str| block.get(key).and_then(Json::text);
        match text("type") {
            Some("text") => output.push(arena, 0, Kind::Text, index, text("text").unwrap_or("")),
            Some("thinking") => output.push(arena, 0, Kind::Reasoning, index, text("thinking").unwrap_or("")),
            Some(kind @ ("tool_use" | "server_tool_use" | "mcp_tool_use")) => {
                let piece = if kind == "tool_use" { Kind::ToolCall } else { Kind::ServerToolCall };
                output.call(arena, 0, piece, index, text("id"), text("name"));
                // Some servers send the whole input here, and no deltas.
                if let Some(input) = block.get("input").filter(|input| input.entries().next().is_some()) {
                    output.push_value(arena, 0, piece, index, input);
                }
            }
            _ => part(block, &mut |part| output.part(arena, 0, part)),
        }
    }
    if let Some(delta) = event.get("delta") {
        let text = |key: &str| delta.get(key).and_then(Json::text).unwrap_or("");
        output.push(arena, 0, Kind::Text, index, text("text"));
        output.push(arena, 0, Kind::Reasoning, index, text("thinking"));
        let piece = if output.has(0, Kind::ServerToolCall, index) { Kind::ServerToolCall } else { Kind::ToolCall };
        output.push(arena, 0, piece, index, text("partial_json"));
    }
}

fn complete_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    user(&mut prompt.input, body.get("prompt"));
}

fn complete_response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    if let Some(text) = body.get("completion").and_then(Json::text) {
        output.push(arena, 0, Kind::Text, 0, text);
    }
}
