//! Items of OpenAI's Responses API.

use bumpalo::Bump;

use super::{
    super::json::Json,
    Prompt, Reader,
    openai::{content_parts, tools},
    output::{Kind, Output},
    part::{Arguments, Part},
    writer::Writer,
};

/// Responses, made or fetched.
pub(in crate::genai) static RESPONSES: Reader = Reader { request, response, event };

fn request(prompt: &mut Prompt<'_>, body: Json<'_>) {
    if let Some(text) = body.get("instructions").and_then(Json::text) {
        prompt.system.part(&Part::Text(text));
    }
    if let Some(input) = body.get("input") {
        super::openai::user(&mut prompt.input, input.string().map(|_| input));
        input.items().for_each(|item| input_item(&mut prompt.input, item));
    }
    tools(prompt, body);
}

/// An item of the conversation as a message of its own.
pub(super) fn input_item(writer: &mut Writer<'_>, item: Json<'_>) {
    let kind = item.get("type").and_then(Json::text).unwrap_or("message");
    let role = match kind {
        "message" => item.get("role").and_then(Json::text).unwrap_or("user"),
        _ if kind.ends_with("_output") => "tool",
        _ => "assistant",
    };
    writer.message(role, None, |writer| parts(item, kind, &mut |part| writer.part(part)));
}

/// The parts that an item stands for.
fn parts(item: Json<'_>, kind: &str, each: &mut dyn FnMut(&Part<'_>)) {
    let text = |key: &str| item.get(key).and_then(Json::text);
    let id = text("call_id").or_else(|| text("id"));
    match kind {
        "message" => item.get("content").iter().for_each(|content| content_parts(*content, each)),
        "function_call" | "custom_tool_call" => {
            let arguments = Arguments::of(item.get("arguments").or_else(|| item.get("input")));
            each(&Part::ToolCall { id, name: text("name").unwrap_or(kind), arguments });
        }
        "function_call_output" | "custom_tool_call_output" => {
            if let Some(response) = item.get("output") {
                each(&Part::ToolResponse { id, response });
            }
        }
        "reasoning" => {
            let texts = [item.get("summary"), item.get("content")].into_iter().flatten().flat_map(Json::items);
            texts.filter_map(|part| part.get("text")?.text()).for_each(|text| each(&Part::Reasoning(text)));
        }
        _ => match kind.strip_suffix("_call") {
            Some(name) => each(&Part::ServerToolCall { id, name, kind, arguments: server_arguments(item) }),
            None => each(&Part::Other(kind)),
        },
    }
}

/// What the provider called its own tool with; each tool has a name of its own for it.
fn server_arguments<'t>(item: Json<'t>) -> Arguments<'t> {
    let keys = ["arguments", "action", "queries", "code", "input"];
    Arguments::of(keys.iter().find_map(|key| item.get(key)).filter(|value| !value.is_null()))
}

/// All items are one answer.
pub(super) fn response<'a>(output: &mut Output<'a>, arena: &'a Bump, body: Json<'_>) {
    for item in body.get("output").into_iter().flat_map(Json::items) {
        output.begin(arena, 0);
        parts(item, item.get("type").and_then(Json::text).unwrap_or(""), &mut |part| output.part(arena, 0, part));
    }
}

/// Deltas count for as long as the whole has not come, which the last event brings.
pub(super) fn event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    let whole =
        event.get("response").filter(|whole| whole.get("output").is_some_and(|items| items.items().next().is_some()));
    if let Some(whole) = whole {
        output.clear();
        return response(output, arena, whole);
    }
    let text = |key: &str| event.get(key).and_then(Json::text);
    let place = |key: &str| event.get(key).and_then(Json::count).unwrap_or(0);
    // An item's parts follow each other, and no item has this many.
    let key = place("output_index")
        .saturating_mul(1 << 16)
        .saturating_add(place("content_index").max(place("summary_index")));
    match (text("type").unwrap_or(""), text("delta").unwrap_or("")) {
        ("response.output_text.delta" | "response.refusal.delta", delta) => {
            output.push(arena, 0, Kind::Text, key, delta)
        }
        ("response.reasoning_summary_text.delta" | "response.reasoning_text.delta", delta) => {
            output.push(arena, 0, Kind::Reasoning, key, delta);
        }
        ("response.function_call_arguments.delta" | "response.custom_tool_call_input.delta", delta) => {
            output.push(arena, 0, Kind::ToolCall, key, delta);
        }
        ("response.output_item.added", _) => {
            let Some(item) = event.get("item") else { return };
            let text = |key: &str| item.get(key).and_then(Json::text);
            if let Some("function_call" | "custom_tool_call") = text("type") {
                output.call(arena, 0, Kind::ToolCall, key, text("call_id"), text("name"));
            }
        }
        ("response.output_item.done", _) => {
            let Some(item) = event.get("item") else { return };
            // Those that have no deltas.
            let kind = item.get("type").and_then(Json::text).unwrap_or("");
            if !matches!(kind, "message" | "reasoning" | "function_call" | "custom_tool_call") {
                parts(item, kind, &mut |part| output.part(arena, 0, part));
            }
        }
        _ => {}
    }
}
