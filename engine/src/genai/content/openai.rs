//! Messages as OpenAI's chat spells them, which many others do too.

use bumpalo::Bump;

use super::{
    super::json::Json,
    Definition, Prompt, Reader,
    output::{Kind, Output},
    part::{Arguments, Part, from_url},
    writer::Writer,
};

/// Chat completions.
pub(in crate::genai) static CHAT: Reader = Reader { request, response, event };

/// Legacy completions.
pub(in crate::genai) static COMPLETIONS: Reader =
    Reader { request: completions_request, response: completions_response, event: completions_response };

pub(super) fn request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    messages(&mut prompt.input, body);
    tools(prompt, body);
}

pub(super) fn messages(writer: &mut Writer<'_>, body: Json<'_>) {
    body.get("messages").into_iter().flat_map(Json::items).for_each(|one| message(writer, one));
}

pub(super) fn tools(prompt: &mut Prompt<'_>, body: Json<'_>) {
    for tool in body.get("tools").into_iter().flat_map(Json::items) {
        let kind = tool.get("type").and_then(Json::text).unwrap_or("function");
        let inner = tool.get(kind).filter(|inner| inner.is_object()).unwrap_or(tool);
        prompt.tool(kind, inner.get("name").and_then(Json::text).unwrap_or(kind), definition(inner));
    }
    for function in body.get("functions").into_iter().flat_map(Json::items) {
        if let Some(name) = function.get("name").and_then(Json::text) {
            prompt.tool("function", name, definition(function));
        }
    }
}

fn definition<'t>(function: Json<'t>) -> Definition<'t> {
    Definition { description: function.get("description"), parameters: function.get("parameters") }
}

/// One message of a conversation.
pub(super) fn message(writer: &mut Writer<'_>, message: Json<'_>) {
    let Some(role) = message.get("role").and_then(Json::text) else { return };
    writer.message(role, None, |writer| {
        if matches!(role, "tool" | "function") {
            let id = ["tool_call_id", "tool_name", "name"].iter().find_map(|key| message.get(key)?.text());
            if let Some(response) = message.get("content") {
                writer.part(&Part::ToolResponse { id, response });
            }
        } else {
            message_parts(message, &mut |part| writer.part(part));
        }
    });
}

/// The parts of a message: what was thought, said, shown and called.
pub(super) fn message_parts(message: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    if let Some(thought) =
        ["reasoning_content", "reasoning", "thinking"].iter().find_map(|key| message.get(key)?.text())
    {
        each(&Part::Reasoning(thought));
    }
    if let Some(plan) = message.get("tool_plan").and_then(Json::text) {
        each(&Part::Reasoning(plan));
    }
    if let Some(content) = message.get("content") {
        content_parts(content, each);
    }
    if let Some(refusal) = message.get("refusal").and_then(Json::text) {
        each(&Part::Text(refusal));
    }
    for image in message.get("images").into_iter().flat_map(Json::items).filter_map(Json::text) {
        each(&Part::Blob { modality: "image", mime_type: None, base64: image });
    }
    if let Some(audio) = message.get("audio") {
        if let Some(transcript) = audio.get("transcript").and_then(Json::text) {
            each(&Part::Text(transcript));
        }
        match (audio.get("data").and_then(Json::text), audio.get("id").and_then(Json::text)) {
            (Some(data), _) => each(&Part::Blob { modality: "audio", mime_type: None, base64: data }),
            (None, Some(id)) => each(&Part::File { modality: "audio", id }),
            (None, None) => {}
        }
    }
    message.get("tool_calls").into_iter().flat_map(Json::items).for_each(|call| tool_call(call, each));
    if let Some(call) = message.get("function_call").filter(|call| call.is_object()) {
        named_call(None, call, each);
    }
}

pub(super) fn tool_call(call: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    let id = call.get("id").and_then(Json::text);
    let inner = call.get("function").or_else(|| call.get("custom")).unwrap_or(call);
    named_call(id, inner, each);
}

fn named_call(id: Option<&str>, call: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    let Some(name) = call.get("name").and_then(Json::text) else { return };
    let arguments = call.get("arguments").or_else(|| call.get("input")).or_else(|| call.get("parameters"));
    each(&Part::ToolCall { id, name, arguments: Arguments::of(arguments) });
}

/// A string, or an array of typed parts.
pub(super) fn content_parts(content: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    if let Some(text) = content.text() {
        each(&Part::Text(text));
    }
    content.items().for_each(|part| content_part(part, each));
}

fn content_part(part: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    if let Some(text) = part.text() {
        return each(&Part::Text(text));
    }
    let text = |key: &str| part.get(key).and_then(Json::text);
    let url = |key: &str| part.at(&[key, "url"]).and_then(Json::text).or_else(|| text(key));
    // DashScope's parts have no type, and the key says it.
    let kind = text("type").or_else(|| part.entries().next().map(|(key, _)| key)).unwrap_or("unknown");
    match kind {
        "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text" => {
            text("text").iter().for_each(|text| each(&Part::Text(text)))
        }
        // Audio itself is not kept, and Realtime says in words what it says.
        "output_audio" => text("transcript").iter().for_each(|text| each(&Part::Text(text))),
        "audio" | "input_audio" if text("transcript").is_some() => {
            text("transcript").iter().for_each(|text| each(&Part::Text(text)));
        }
        "refusal" => text("refusal").iter().for_each(|text| each(&Part::Text(text))),
        "thinking" => thoughts(part.get("thinking"), each),
        "image_url" => url("image_url").iter().for_each(|url| each(&from_url("image", url))),
        "video_url" => url("video_url").iter().for_each(|url| each(&from_url("video", url))),
        "audio_url" => url("audio_url").iter().for_each(|url| each(&from_url("audio", url))),
        "document_url" => url("document_url").iter().for_each(|url| each(&from_url("document", url))),
        "image" => url("image").iter().for_each(|url| each(&from_url("image", url))),
        "input_image" => match (url("image_url"), text("file_id")) {
            (Some(url), _) => each(&from_url("image", url)),
            (None, Some(id)) => each(&Part::File { modality: "image", id }),
            (None, None) => each(&Part::Other(kind)),
        },
        "input_audio" => {
            let data =
                part.at(&["input_audio", "data"]).and_then(Json::text).or_else(|| text("input_audio")).unwrap_or("");
            each(&Part::Blob { modality: "audio", mime_type: None, base64: data });
        }
        "file" | "input_file" => file(part.get("file").filter(|file| file.is_object()).unwrap_or(part), each),
        _ => each(&Part::Other(kind)),
    }
}

/// A file by its id, its place, or in full.
fn file(file: Json<'_>, each: &mut dyn FnMut(&Part<'_>)) {
    let text = |key: &str| file.get(key).and_then(Json::text);
    if let Some(id) = text("file_id") {
        each(&Part::File { modality: "document", id });
    } else if let Some(uri) = text("file_url") {
        each(&Part::Uri { modality: "document", uri });
    } else if let Some(data) = text("file_data") {
        match from_url("document", data) {
            inside @ (Part::Blob { .. } | Part::Data { .. }) => each(&inside),
            _ => each(&Part::Blob { modality: "document", mime_type: None, base64: data }),
        }
    }
}

/// Mistral thinks in an array of texts, Cohere in one text.
fn thoughts(thinking: Option<Json<'_>>, each: &mut dyn FnMut(&Part<'_>)) {
    let Some(thinking) = thinking else { return };
    if let Some(text) = thinking.text() {
        each(&Part::Reasoning(text));
    }
    for text in thinking.items().filter_map(|part| part.get("text")?.text()) {
        each(&Part::Reasoning(text));
    }
}

/// The choices of a whole response.
pub(super) fn response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    for (index, choice) in choices(body) {
        output.begin(arena, index);
        if let Some(message) = choice.get("message") {
            message_parts(message, &mut |part| output.part(arena, index, part));
        }
    }
}

fn choices(body: Json<'_>) -> impl Iterator<Item = (i64, Json<'_>)> {
    let choices = body.get("choices").into_iter().flat_map(Json::items);
    (0..).zip(choices).map(|(place, choice)| (choice.get("index").and_then(Json::count).unwrap_or(place), choice))
}

/// A chunk of a stream.
pub(super) fn event<'a>(output: &mut Output<'a>, arena: &'a Bump, chunk: Json<'_>) {
    for (index, choice) in choices(chunk) {
        output.begin(arena, index);
        let Some(delta) = choice.get("delta") else { continue };
        delta_parts(output, arena, index, delta);
    }
}

fn delta_parts<'a>(output: &mut Output<'a>, arena: &'a Bump, index: i64, delta: Json<'_>) {
    if let Some(thought) = ["reasoning_content", "reasoning", "thinking"].iter().find_map(|key| delta.get(key)?.text())
    {
        output.flow(arena, index, Kind::Reasoning, thought);
    }
    if let Some(content) = delta.get("content") {
        content_parts(content, &mut |part| match part {
            Part::Text(text) => output.flow(arena, index, Kind::Text, text),
            Part::Reasoning(text) => output.flow(arena, index, Kind::Reasoning, text),
            part => output.part(arena, index, part),
        });
    }
    for text in [delta.get("refusal"), delta.at(&["audio", "transcript"])].into_iter().flatten().filter_map(Json::text)
    {
        output.flow(arena, index, Kind::Text, text);
    }
    tool_call_deltas(output, arena, index, delta);
    if let Some(call) = delta.get("function_call") {
        call_delta(output, arena, index, 0, None, call);
    }
}

/// Calls arrive in pieces: id and name first, arguments bit by bit.
pub(super) fn tool_call_deltas<'a>(output: &mut Output<'a>, arena: &'a Bump, index: i64, delta: Json<'_>) {
    let calls = delta.get("tool_calls").into_iter().flat_map(Json::items);
    for (place, call) in (0..).zip(calls) {
        let key = call.get("index").and_then(Json::count).unwrap_or(place);
        let inner = call.get("function").or_else(|| call.get("custom")).unwrap_or(call);
        call_delta(output, arena, index, key, call.get("id").and_then(Json::text), inner);
    }
}

fn call_delta<'a>(output: &mut Output<'a>, arena: &'a Bump, index: i64, key: i64, id: Option<&str>, call: Json<'_>) {
    output.call(arena, index, Kind::ToolCall, key, id, call.get("name").and_then(Json::text));
    let arguments = call.get("arguments").or_else(|| call.get("input"));
    match arguments.map(|arguments| (arguments, arguments.string())) {
        Some((_, Some(fragment))) => output.push(arena, index, Kind::ToolCall, key, fragment),
        Some((value, None)) => output.push_value(arena, index, Kind::ToolCall, key, value),
        None => {}
    }
}

/// A prompt is what the user says.
pub(super) fn user(writer: &mut Writer<'_>, prompt: Option<Json<'_>>) {
    let Some(prompt) = prompt else { return };
    let mut texts = prompt.text().into_iter().chain(prompt.items().filter_map(Json::text)).peekable();
    if texts.peek().is_some() {
        writer.message("user", None, |writer| texts.for_each(|text| writer.part(&Part::Text(text))));
    }
}

fn completions_request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    user(&mut prompt.input, body.get("prompt"));
}

fn completions_response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    for (index, choice) in choices(body) {
        output.begin(arena, index);
        if let Some(text) = choice.get("text").and_then(Json::text) {
            output.push(arena, index, Kind::Text, 0, text);
        }
    }
}
