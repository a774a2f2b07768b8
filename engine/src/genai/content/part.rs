//! The parts that messages are made of, in the shapes of the conventions' JSON schemas.

use super::{super::json::Json, verbatim::is_json, writer::Writer};

/// One part of a message.
#[derive(Clone, Copy)]
pub(in crate::genai) enum Part<'t> {
    /// What was said.
    Text(&'t str),
    /// What was thought.
    Reasoning(&'t str),
    /// A tool that the client shall call.
    ToolCall { id: Option<&'t str>, name: &'t str, arguments: Arguments<'t> },
    /// What a tool that the client called gave.
    ToolResponse { id: Option<&'t str>, response: Json<'t> },
    /// A tool that the provider called.
    ServerToolCall { id: Option<&'t str>, name: &'t str, kind: &'t str, arguments: Arguments<'t> },
    /// What a tool that the provider called gave.
    ServerToolResponse { id: Option<&'t str>, kind: &'t str, response: Json<'t> },
    /// Data inside the message. It is told by its size unless more is asked for.
    Blob { modality: &'t str, mime_type: Option<&'t str>, base64: &'t str },
    /// Data inside the message that isn't base64, by its kind alone.
    Data { modality: &'t str, mime_type: Option<&'t str> },
    /// Data elsewhere.
    Uri { modality: &'t str, uri: &'t str },
    /// Data that was uploaded before.
    File { modality: &'t str, id: &'t str },
    /// A part that the conventions have no shape for, by its type alone.
    Other(&'t str),
}

/// Arguments of a call.
#[derive(Clone, Copy)]
pub(in crate::genai) enum Arguments<'t> {
    /// As a value.
    Json(Json<'t>),
    /// As text, which most often is JSON.
    Text(&'t str),
    /// There are none.
    None,
}

impl<'t> Arguments<'t> {
    /// From a field that some give as text and others as a value.
    pub fn of(field: Option<Json<'t>>) -> Self {
        match field {
            None => Self::None,
            Some(value) => value.string().map_or(Self::Json(value), Self::Text),
        }
    }
}

impl Part<'_> {
    /// Whether it has a form that takes less than its whole.
    pub fn can_be_shortened(&self) -> bool {
        matches!(
            self,
            Part::Text(_) | Part::Reasoning(_) | Part::ToolCall { .. } | Part::ToolResponse { .. } | Part::Blob { .. }
        )
    }

    /// Writes the part, or what fits of it.
    pub fn write(&self, writer: &mut Writer<'_>, whole: bool) {
        match *self {
            Part::Text(text) => {
                writer.put("{\"type\":\"text\",\"content\":");
                if whole { writer.string(text) } else { writer.shortened(text) }
            }
            Part::Reasoning(text) => {
                writer.put("{\"type\":\"reasoning\",\"content\":");
                if whole { writer.string(text) } else { writer.shortened(text) }
            }
            Part::ToolCall { id, name, arguments } => {
                writer.put("{\"type\":\"tool_call\"");
                id.iter().for_each(|id| writer.member("id", id));
                writer.member("name", name);
                if whole {
                    member(writer, "arguments", arguments);
                }
            }
            Part::ToolResponse { id, response } => {
                writer.put("{\"type\":\"tool_call_response\"");
                id.iter().for_each(|id| writer.member("id", id));
                writer.put(",\"response\":");
                match response.string() {
                    Some(text) if !whole => writer.shortened(text),
                    _ => writer.value(response),
                }
            }
            Part::ServerToolCall { id, name, kind, arguments } => {
                writer.put("{\"type\":\"server_tool_call\"");
                id.iter().for_each(|id| writer.member("id", id));
                writer.member("name", name);
                writer.put(",\"server_tool_call\":{\"type\":");
                writer.string(kind);
                member(writer, "arguments", arguments);
                writer.put("}");
            }
            Part::ServerToolResponse { id, kind, response } => {
                writer.put("{\"type\":\"server_tool_call_response\"");
                id.iter().for_each(|id| writer.member("id", id));
                writer.put(",\"server_tool_call_response\":{\"type\":");
                writer.string(kind);
                writer.put(",\"content\":");
                writer.value(response);
                writer.put("}");
            }
            Part::Blob { modality, mime_type, base64 } => {
                let with_data = whole && writer.is_full();
                writer.put(if with_data { "{\"type\":\"blob\"" } else { "{\"type\":\"blob_reference\"" });
                writer.member("modality", modality);
                mime_type.iter().for_each(|kind| writer.member("mime_type", kind));
                if with_data {
                    writer.member("content", base64);
                } else {
                    writer.put(",\"byte_size\":");
                    // RFC 4648 section 4: four letters for three bytes.
                    writer.number(base64.trim_end_matches('=').len() * 3 / 4);
                }
            }
            Part::Data { modality, mime_type } => {
                writer.put("{\"type\":\"blob_reference\"");
                writer.member("modality", modality);
                mime_type.iter().for_each(|kind| writer.member("mime_type", kind));
            }
            Part::Uri { modality, uri } => {
                writer.put("{\"type\":\"uri\"");
                writer.member("modality", modality);
                writer.member("uri", uri);
            }
            Part::File { modality, id } => {
                writer.put("{\"type\":\"file\"");
                writer.member("modality", modality);
                writer.member("file_id", id);
            }
            Part::Other(kind) => {
                writer.put("{\"type\":");
                writer.string(kind);
            }
        }
        writer.put("}");
    }
}

/// The member `key` with a call's arguments, if there are any.
fn member(writer: &mut Writer<'_>, key: &str, arguments: Arguments<'_>) {
    if matches!(arguments, Arguments::None | Arguments::Text("")) {
        return;
    }
    writer.put(",\"");
    writer.put(key);
    writer.put("\":");
    match arguments {
        Arguments::Json(value) => writer.value(value),
        Arguments::Text(text) if is_json(text) => writer.json(text),
        Arguments::Text(text) => writer.string(text),
        Arguments::None => writer.put("null"),
    }
}

/// A part for a URL, which may be the data itself.
pub(in crate::genai) fn from_url<'t>(modality: &'t str, url: &'t str) -> Part<'t> {
    match url.strip_prefix("data:").and_then(|data| data.split_once(',')) {
        Some((kind, data)) => {
            let mime_type = kind.split(';').next().filter(|kind| !kind.is_empty());
            // RFC 2397 section 3.
            if kind.ends_with(";base64") {
                Part::Blob { modality, mime_type, base64: data }
            } else {
                Part::Data { modality, mime_type }
            }
        }
        None => Part::Uri { modality, uri: url },
    }
}

/// The modality of a MIME type.
pub(in crate::genai) fn modality(mime_type: &str) -> &'static str {
    match mime_type.split('/').next() {
        Some("image") => "image",
        Some("video") => "video",
        Some("audio") => "audio",
        _ => "document",
    }
}
