//! The recorded exchanges, judged by what was worked out from them independently.

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use bumpalo::Bump;
use serde_json::Value;

use super::{BodyKind, Draft, Ended, Options, Scratch, Verdict};
use crate::{
    exchange::Call,
    wire::{Field, RequestHead, ResponseHead},
};

/// The folder with the recordings. Without one the test is skipped, except where it must not be.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("AGENTSIGHT_CORPUS").map(PathBuf::from);
    assert!(folder.is_some() || std::env::var_os("CI").is_none(), "AGENTSIGHT_CORPUS is not set");
    if folder.is_none() {
        eprintln!("skipped: AGENTSIGHT_CORPUS is not set");
    }
    folder
}

fn lines(text: &str) -> impl Iterator<Item = Value> + '_ {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// A recorded exchange.
pub(super) struct Recorded {
    pub id: String,
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    request: Vec<u8>,
    status: u16,
    response_fields: Vec<(String, String)>,
    response: Vec<u8>,
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        Value::Array(list) => list.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        _ => Vec::new(),
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut decoded = Vec::new();
    super::base64::decode(value.as_str().unwrap().as_bytes(), &mut decoded).unwrap();
    decoded
}

impl Recorded {
    fn of(value: &Value) -> Self {
        let host = value["host"].as_str().unwrap();
        let host = match &value["port"] {
            Value::Null => host.to_owned(),
            port => format!("{host}:{port}"),
        };
        let mut fields = pairs(&value["req_headers"]);
        fields.push(("Host".to_owned(), host));
        Self {
            id: value["id"].as_str().unwrap().to_owned(),
            method: value["method"].as_str().unwrap().to_owned(),
            path: value["path"].as_str().unwrap().to_owned(),
            fields,
            request: bytes(&value["req_body"]),
            status: value["status"].as_u64().unwrap().try_into().unwrap(),
            response_fields: pairs(&value["resp_headers"]),
            response: bytes(&value["resp_body"]),
        }
    }

    /// The request's body.
    pub fn request_bytes(&self) -> &[u8] {
        &self.request
    }

    /// The response's body.
    pub fn response_bytes(&self) -> &[u8] {
        &self.response
    }

    /// Drives a draft through the exchange.
    pub fn drive<'a>(&self, arena: &'a Bump, scratch: &mut Scratch, options: &Options) -> Option<Call<'a>> {
        self.drive_changed(arena, scratch, options, &mut |_| {})
    }

    /// The same, after something happened to the bodies and events.
    pub fn drive_changed<'a>(
        &self,
        arena: &'a Bump,
        scratch: &mut Scratch,
        options: &Options,
        change: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Option<Call<'a>> {
        let mut changes = false;
        let mut changed = |bytes: &[u8]| {
            let mut copy = bytes.to_vec();
            change(&mut copy);
            changes |= copy != bytes;
            copy
        };
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| field(name, value)).collect();
        let head = RequestHead {
            method: self.method.as_bytes(),
            target: self.path.as_bytes(),
            authority: None,
            protocol: None,
            fields: &fields,
        };
        let draft = Draft::new(arena, &head, scratch, options)?;
        if draft.wants_request_body() {
            let verdict = draft.request_body(arena, &mut changed(&self.request), scratch, options);
            (verdict == Verdict::Call).then_some(())?;
        }
        let fields: Vec<_> = self.response_fields.iter().map(|(name, value)| field(name, value)).collect();
        let kind = draft.response_head(arena, &ResponseHead { status: self.status, fields: &fields });
        let mut chunks = 0;
        split(kind, &self.response, &mut |name, data| {
            chunks += usize::from(draft.event(arena, name, &changed(data), scratch, options).is_chunk);
        });
        match kind {
            BodyKind::Json => draft.response_body(arena, &mut changed(&self.response), scratch, options),
            BodyKind::Skip => {}
            // Only damage makes a stream of nothing.
            _ => assert!(chunks > 0 || changes, "{}: no data in a stream", self.id),
        }
        Some(draft.finish(arena, Ended::Complete, options).clone())
    }
}

/// The documents of a recorded stream, whatever its form.
pub(super) fn split_events(recorded: &Recorded, event: &mut dyn FnMut(&[u8])) {
    let body = &recorded.response;
    let kind = match body.first() {
        Some(b'[') => BodyKind::JsonArray,
        Some(b'{') => BodyKind::Json,
        Some(0) => BodyKind::AwsEventStream,
        _ => BodyKind::EventStream,
    };
    split(kind, body, &mut |_, data| event(data));
}

fn field<'f>(name: &'f str, value: &'f str) -> Field<'f> {
    Field { name: name.as_bytes(), value: value.as_bytes() }
}

/// A splitter for whole streams: as plain as can be, to test against.
fn split(kind: BodyKind, body: &[u8], event: &mut dyn FnMut(&[u8], &[u8])) {
    match kind {
        BodyKind::Json | BodyKind::Skip => {}
        BodyKind::NdJson => body.split(|byte| *byte == b'\n').for_each(|line| event(b"", line)),
        BodyKind::JsonArray => match serde_json::from_slice(body) {
            Ok(Value::Array(items)) => items.iter().for_each(|item| event(b"", item.to_string().as_bytes())),
            _ => event(b"", body),
        },
        BodyKind::EventStream => {
            let (mut name, mut data) = (Vec::new(), Vec::new());
            for line in body.split(|byte| *byte == b'\n').chain([&b""[..]]) {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if let Some(value) = line.strip_prefix(b"event:") {
                    name = value.trim_ascii().to_vec();
                } else if let Some(value) = line.strip_prefix(b"data:") {
                    data.extend_from_slice(value);
                } else if line.is_empty() {
                    if !data.is_empty() {
                        event(&name, &data);
                    }
                    name.clear();
                    data.clear();
                }
            }
        }
        BodyKind::AwsEventStream => aws_messages(body, event),
    }
}

/// Messages of an AWS event stream, taken to be whole and sound.
fn aws_messages(mut body: &[u8], event: &mut dyn FnMut(&[u8], &[u8])) {
    while !body.is_empty() {
        let length = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap()) as usize;
        let (total, headers) = (length(0), length(4));
        let (mut fields, payload) = (&body[12..12 + headers], &body[12 + headers..total - 4]);
        let mut name = &b""[..];
        while !fields.is_empty() {
            let key_end = 1 + usize::from(fields[0]);
            assert_eq!(fields[key_end], 7, "only strings are recorded");
            let value_len = usize::from(u16::from_be_bytes(fields[key_end + 1..key_end + 3].try_into().unwrap()));
            let value = &fields[key_end + 3..key_end + 3 + value_len];
            if matches!(&fields[1..key_end], b":event-type" | b":exception-type" | b":error-code") {
                name = value;
            }
            fields = &fields[key_end + 3 + value_len..];
        }
        event(name, payload);
        body = &body[total..];
    }
}

/// All recordings and all that is expected of them.
pub(super) fn corpus() -> Option<(Vec<Recorded>, Vec<Value>)> {
    let folder = folder()?;
    let mut exchanges = String::new();
    let file = std::fs::File::open(folder.join("exchanges.jsonl.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut exchanges).unwrap();
    let expected = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
    let recorded = lines(&exchanges).map(|value| Recorded::of(&value)).collect();
    Some((recorded, lines(&expected).collect()))
}

/// The attribute `name` of `call` as JSON.
fn attribute(call: &Call<'_>, name: &str) -> Value {
    match name {
        "gen_ai.operation.name" => call.operation.into(),
        "gen_ai.provider.name" => call.provider.into(),
        "server.address" => call.server_address.into(),
        "http.response.status_code" => call.status_code.into(),
        "gen_ai.request.model" => call.request_model.into(),
        "gen_ai.request.max_tokens" => call.max_tokens.into(),
        "gen_ai.request.temperature" => call.temperature.into(),
        "gen_ai.request.top_p" => call.top_p.into(),
        "gen_ai.response.id" => call.response_id.into(),
        "gen_ai.response.model" => call.response_model.into(),
        "gen_ai.response.finish_reasons" => call.finish_reasons.into(),
        "gen_ai.usage.input_tokens" => call.input_tokens.into(),
        "gen_ai.usage.output_tokens" => call.output_tokens.into(),
        _ => panic!("no test for {name}"),
    }
}

fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

#[test]
fn recorded_calls_say_what_is_expected() {
    let Some((recorded, expected)) = corpus() else { return };
    let recorded: BTreeMap<_, _> = recorded.into_iter().map(|recorded| (recorded.id.clone(), recorded)).collect();
    let (options, mut scratch, mut counts, mut wrong) =
        (Options::default(), Scratch::default(), BTreeMap::<String, (usize, usize)>::new(), Vec::new());
    for expect in &expected {
        let arena = Bump::new();
        let (id, family) = (expect["id"].as_str().unwrap(), expect["family"].as_str().unwrap());
        let mut found = Vec::new();
        match recorded[id].drive(&arena, &mut scratch, &options) {
            None => found.push("no call".to_owned()),
            Some(call) => {
                for (name, value) in expect["expect"].as_object().unwrap() {
                    let told = attribute(&call, name);
                    if !same(&told, value) {
                        found.push(format!("{name}: {told}, not {value}"));
                    }
                }
                if call.error_type.is_some() != expect["error"].as_bool().unwrap() {
                    found.push(format!("error.type: {:?}", call.error_type));
                }
            }
        }
        let count = counts.entry(family.to_owned()).or_default();
        count.0 += usize::from(found.is_empty());
        count.1 += 1;
        wrong.extend(found.into_iter().map(|what| format!("{family} {id}: {what}")));
    }
    for (family, (exact, all)) in &counts {
        println!("{family}: {exact} of {all}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
