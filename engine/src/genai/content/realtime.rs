//! Items of OpenAI's Realtime API, which are those of the Responses API in other places.

use bumpalo::Bump;

use super::{
    super::json::Json,
    Prompt, Reader,
    openai::tools,
    output::{Kind, Output},
    part::Part,
    responses,
};

/// Events of a session.
pub(in crate::genai) static REALTIME: Reader = Reader { request, response: responses::response, event };

fn request(prompt: &mut Prompt<'_>, event: Json<'_>) {
    for settings in [event.get("session"), event.get("response")].into_iter().flatten() {
        if let Some(text) = settings.get("instructions").and_then(Json::text) {
            prompt.system.part(&Part::Text(text));
        }
        tools(prompt, settings);
        settings.get("input").iter().flat_map(|input| input.items()).for_each(|item| {
            responses::input_item(&mut prompt.input, item);
        });
    }
    let created = event.get("items").into_iter().flat_map(Json::items).filter_map(|event| event.get("item"));
    created.for_each(|item| responses::input_item(&mut prompt.input, item));
}

fn event<'a>(output: &mut Output<'a>, arena: &'a Bump, event: Json<'_>) {
    let text = |key: &str| event.get(key).and_then(Json::text).unwrap_or("");
    match text("type") {
        "response.text.delta" | "response.audio_transcript.delta" | "response.output_audio_transcript.delta" => {
            let key = event.get("output_index").and_then(Json::count).unwrap_or(0).saturating_mul(1 << 16);
            output.push(arena, 0, Kind::Text, key, text("delta"));
        }
        _ => responses::event(output, arena, event),
    }
}
