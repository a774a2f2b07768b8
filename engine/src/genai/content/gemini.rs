//! Gemini's contents.

use bumpalo::Bump;

use super::{
    super::json::Json,
    Definition, Prompt, Reader,
    openai::content_parts,
    output::{Kind, Output},
    part::{Arguments, Part, modality},
    writer::Writer,
};

/// `generateContent`.
pub(in crate::genai) static GENERATE: Reader = Reader { request, response, event: response };

/// Code Assist, which puts an envelope around it.
pub(in crate::genai) static CODE_ASSIST: Reader = Reader {
    request: |prompt, body| body.get("request").iter().for_each(|inner| request(prompt, *inner)),
    response: enveloped,
    event: enveloped,
};

fn enveloped<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    body.get("response").iter().for_each(|inner| response(output, arena, *inner));
}

/// Interactions.
pub(in crate::genai) static INTERACTIONS: Reader =
    Reader { request: interactions_request, response: interactions_response, event: interactions_event };

/// The value under either spelling of a name.
fn either<'t>(value: Json<'t>, camel: &str, snake: &str) -> Option<Json<'t>> {
    value.get(camel).or_else(|| value.get(snake))
}

fn request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(system) = either(body, "systemInstruction", "system_instruction") {
        let texts = system.get("parts").unwrap_or(system);
        let single = texts.text().or_else(|| texts.get("text")?.text());
        for text in single.into_iter().chain(texts.items().filter_map(|part| part.get("text")?.text())) {
            prompt.system.part(&Part::Text(text));
        }
    }
    if let Some(contents) = body.get("contents") {
        if contents.is_object() {
            content(&mut prompt.input, contents);
        }
        contents.items().for_each(|one| content(&mut prompt.input, one));
    }
    for tool in body.get("tools").into_iter().flat_map(Json::items).flat_map(Json::entries) {
        match tool {
            ("functionDeclarations" | "function_declarations", functions) => {
                for function in functions.items() {
                    let Some(name) = function.get("name").and_then(Json::text) else { continue };
                    // Their own kind of schema has names of types that JSON schemas have not.
                    let parameters = either(function, "parametersJsonSchema", "parameters_json_schema");
                    let definition = Definition { description: function.get("description"), parameters };
                    prompt.tool("function", name, definition);
                }
            }
            (name, _) => prompt.tool(name, name, Definition::default()),
        }
    }
}

fn content(writer: &mut Writer<'_>, content: Json<'_>) {
    let parts = || {
        content.get("parts").into_iter().flat_map(|parts| {
            let single = parts.is_object().then_some(parts);
            single.into_iter().chain(parts.items())
        })
    };
    let responds = |part: Json<'_>| either(part, "functionResponse", "function_response").is_some();
    let role = match content.get("role").and_then(Json::text) {
        Some("model") => "assistant",
        Some("function") => "tool",
        _ if parts().any(responds) => "tool",
        Some(role) => role,
        None => "user",
    };
    writer.message(role, None, |writer| parts().for_each(|one| part(one, &mut |part| writer.part(part))));
}

/// The part of the conventions that a part stands for.
fn part(part: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    let field = |camel: &str, snake: &str| either(part, camel, snake);
    if let Some(text) = part.get("text").and_then(Json::text) {
        let thought = part.get("thought").and_then(Json::bool) == Some(true);
        each(&if thought { Part::Reasoning(text) } else { Part::Text(text) });
    } else if let Some(call) = field("functionCall", "function_call") {
        let id = call.get("id").and_then(Json::text);
        let arguments = call.get("args").map_or(Arguments::None, Arguments::Json);
        each(&Part::ToolCall { id, name: call.get("name").and_then(Json::text).unwrap_or(""), arguments });
    } else if let Some(result) = field("functionResponse", "function_response") {
        let id = result.get("id").or_else(|| result.get("name")).and_then(Json::text);
        each(&Part::ToolResponse { id, response: result.get("response").unwrap_or(result) });
    } else if let Some(data) = field("inlineData", "inline_data") {
        let mime_type = either(data, "mimeType", "mime_type").and_then(Json::text);
        let base64 = data.get("data").and_then(Json::text).unwrap_or("");
        each(&Part::Blob { modality: mime_type.map_or("document", modality), mime_type, base64 });
    } else if let Some(file) = field("fileData", "file_data") {
        let mime_type = either(file, "mimeType", "mime_type").and_then(Json::text);
        let uri = either(file, "fileUri", "file_uri").and_then(Json::text).unwrap_or("");
        each(&Part::Uri { modality: mime_type.map_or("document", modality), uri });
    } else if let Some(code) = field("executableCode", "executable_code") {
        let arguments = Arguments::of(code.get("code"));
        each(&Part::ServerToolCall { id: None, name: "code_execution", kind: "code_execution", arguments });
    } else if let Some(result) = field("codeExecutionResult", "code_execution_result") {
        each(&Part::ServerToolResponse { id: None, kind: "code_execution", response: result });
    }
}

/// A whole response, or a piece of one.
fn response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    let candidates = body.get("candidates").into_iter().flat_map(Json::items);
    for (place, candidate) in (0..).zip(candidates) {
        let index = candidate.get("index").and_then(Json::count).unwrap_or(place);
        output.begin(arena, index);
        for one in candidate.at(&["content", "parts"]).into_iter().flat_map(Json::items) {
            part(one, &mut |part| match part {
                Part::Text(text) => output.flow(arena, index, Kind::Text, text),
                Part::Reasoning(text) => output.flow(arena, index, Kind::Reasoning, text),
                part => output.part(arena, index, part),
            });
        }
    }
}

fn interactions_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(text) = body.get("system_instruction").and_then(Json::text) {
        prompt.system.part(&Part::Text(text));
    }
    let Some(input) = body.get("input") else { return };
    // Turns have roles; anything else is what the user says.
    if input.items().any(|turn| turn.get("role").is_some()) {
        for turn in input.items() {
            let role = turn.get("role").and_then(Json::text).unwrap_or("user");
            let role = if role == "model" { "assistant" } else { role };
            prompt.input.message(role, None, |writer| {
                turn.get("content").iter().for_each(|content| content_parts(*content, &mut |part| writer.part(part)));
            });
        }
    } else {
        prompt.input.message("user", None, |writer| content_parts(input, &mut |part| writer.part(part)));
    }
}

fn interactions_response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    for step in body.get("steps").or_else(|| body.get("outputs")).into_iter().flat_map(Json::items) {
        output.begin(arena, 0);
        match (step.get("type").and_then(Json::text), step.get("content")) {
            (Some("model_output"), Some(content)) => content_parts(content, &mut |part| output.part(arena, 0, part)),
            (Some("text"), _) => content_parts(step, &mut |part| output.part(arena, 0, part)),
            (Some("thought"), _) => {
                let texts = step.get("summary").into_iter().flat_map(Json::items);
                texts
                    .filter_map(|text| text.get("text")?.text())
                    .for_each(|text| output.part(arena, 0, &Part::Reasoning(text)));
            }
            (Some("function_call"), _) => {
                let text = |key: &str| step.get(key).and_then(Json::text);
                let arguments = Arguments::of(step.get("arguments"));
                output.part(arena, 0, &Part::ToolCall { id: text("id"), name: text("name").unwrap_or(""), arguments });
            }
            _ => {}
        }
    }
}

fn interactions_event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    if let Some(text) = event.at(&["delta", "text"]).and_then(Json::text) {
        output.flow(arena, 0, Kind::Text, text);
    }
}
