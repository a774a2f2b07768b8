//! The content of recorded exchanges: valid by the conventions' schemas, whole, and cut anywhere.

use std::{collections::BTreeMap, path::PathBuf};

use bumpalo::Bump;
use serde_json::Value;

use super::{
    Options, Scratch,
    corpus_tests::{Recorded, corpus, split_events},
};
use crate::exchange::Call;

/// As much of JSON Schema as the conventions' schemas use.
struct Schema(Value);

impl Schema {
    fn load(name: &str) -> Self {
        let folder = std::env::var_os("AGENTSIGHT_SCHEMAS").map_or_else(
            || PathBuf::from(std::env::var_os("AGENTSIGHT_CORPUS").unwrap()).join("../spec/schemas"),
            PathBuf::from,
        );
        let text = std::fs::read_to_string(folder.join(format!("gen-ai-{name}.json"))).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    fn validates(&self, value: &Value) -> bool {
        self.node(&self.0, value) && self.parts(value)
    }

    fn node(&self, schema: &Value, value: &Value) -> bool {
        let holds = |key: &str| schema.get(key);
        holds("$ref").is_none_or(|name| match name.as_str().unwrap().strip_prefix('#') {
            Some(pointer) => self.node(self.0.pointer(pointer).unwrap(), value),
            // JSON Schema's own schema, for a tool's parameters.
            None => value.is_object() || value.is_boolean(),
        }) && holds("const").is_none_or(|constant| constant == value)
            && holds("enum").is_none_or(|all| all.as_array().unwrap().contains(value))
            && holds("anyOf").is_none_or(|any| any.as_array().unwrap().iter().any(|one| self.node(one, value)))
            && holds("type").is_none_or(|kind| match kind.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "null" => value.is_null(),
                other => panic!("no test for {other}"),
            })
            && holds("items")
                .is_none_or(|items| value.as_array().is_none_or(|all| all.iter().all(|one| self.node(items, one))))
            && holds("required").is_none_or(|keys| {
                keys.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some())
            })
            && holds("properties").is_none_or(|all| {
                all.as_object()
                    .unwrap()
                    .iter()
                    .all(|(key, schema)| value.get(key).is_none_or(|value| self.node(schema, value)))
            })
    }

    /// The generic part takes anything that has a type. A part whose type has a shape must have it.
    fn parts(&self, value: &Value) -> bool {
        let shapes = self.0["$defs"].as_object().unwrap();
        let shape =
            |part: &Value| shapes.values().find(|shape| shape.pointer("/properties/type/const") == part.get("type"));
        let all = value.as_array().unwrap().iter().filter_map(|message| message["parts"].as_array()).flatten();
        all.into_iter().all(|part| part.get("type").is_some() && shape(part).is_none_or(|shape| self.node(shape, part)))
    }
}

/// The four attributes with their schemas.
fn attributes<'c>(call: &Call<'c>) -> [(&'static str, Option<&'c str>); 4] {
    [
        ("input-messages", call.input_messages),
        ("output-messages", call.output_messages),
        ("system-instructions", call.system_instructions),
        ("tool-definitions", call.tool_definitions),
    ]
}

/// All texts and thoughts of an attribute, one after the other.
fn texts(messages: Option<&str>) -> String {
    let messages: Value = serde_json::from_str(messages.unwrap_or("[]")).unwrap();
    let parts = messages.as_array().unwrap().iter().flat_map(|message| message["parts"].as_array().unwrap());
    parts.filter_map(|part| part["content"].as_str()).collect()
}

#[test]
fn content_is_valid_by_the_schemas() {
    let Some((recorded, _)) = corpus() else { return };
    let schemas: BTreeMap<_, _> =
        attributes(&Call::default()).map(|(name, _)| (name, Schema::load(name))).into_iter().collect();
    let mut scratch = Scratch::default();
    let mut seen = BTreeMap::<&str, usize>::new();
    for exchange in &recorded {
        for content_bytes_max in [1 << 20, 300, 100, 20] {
            let arena = Bump::new();
            let content_full = content_bytes_max != 300;
            let options = Options { capture_content: true, content_bytes_max, content_full, ..Options::default() };
            let Some(call) = exchange.drive(&arena, &mut scratch, &options) else { continue };
            for (name, text) in attributes(&call) {
                let Some(text) = text else { continue };
                let id = &exchange.id;
                assert!(text.len() <= content_bytes_max, "{id} {name}: {} bytes", text.len());
                let value: Value =
                    serde_json::from_str(text).unwrap_or_else(|error| panic!("{id} {name}: {error}: {text}"));
                assert!(schemas[name].validates(&value), "{id} {name}: {text}");
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    println!("{seen:?}");
    assert!(seen.len() == 4 && seen.values().all(|count| *count > 100), "{seen:?}");
}

#[test]
fn content_changes_nothing_else() {
    let Some((recorded, _)) = corpus() else { return };
    let mut scratch = Scratch::default();
    for exchange in &recorded {
        let arena = Bump::new();
        let drive = |scratch: &mut Scratch, capture_content| {
            exchange.drive(&arena, scratch, &Options { capture_content, ..Options::default() })
        };
        let plain = drive(&mut scratch, false);
        let with = drive(&mut scratch, true).map(|call| Call {
            input_messages: None,
            output_messages: None,
            system_instructions: None,
            tool_definitions: None,
            ..call
        });
        assert_eq!(plain, with, "{}", exchange.id);
    }
}

#[test]
fn damaged_bodies_do_no_harm() {
    let Some((recorded, _)) = corpus() else { return };
    let mut scratch = Scratch::default();
    // A generator of Marsaglia's (xorshift), seeded so that a failure repeats.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    let interesting = b"\"\\{}[]:,0-9eE.nulltrue\x00\xff\xed\xa0\x80";
    for exchange in &recorded {
        for round in 0..6 {
            let arena = Bump::new();
            let options = Options {
                capture_content: round % 2 == 0,
                content_bytes_max: random(5000),
                content_full: round % 4 == 0,
                ..Options::default()
            };
            let call = exchange.drive_changed(&arena, &mut scratch, &options, &mut |bytes| match random(4) {
                0 => bytes.truncate(random(bytes.len() + 1)),
                1 => bytes.extend_from_within(random(bytes.len() + 1)..),
                2 => {}
                _ => {
                    for _ in 0..=random(4) {
                        let (at, to) = (random(bytes.len()), interesting[random(interesting.len())]);
                        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = to);
                    }
                }
            });
            for (name, text) in call.iter().flat_map(attributes) {
                if let Some(text) = text {
                    assert!(text.len() <= options.content_bytes_max.max(2), "{} {name}", exchange.id);
                    serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
                }
            }
        }
    }
}

/// What is said and thought in the deltas of a stream, as plainly as it can be put together.
fn oracle(family: &str, exchange: &Recorded) -> Option<String> {
    let mut said = BTreeMap::<i64, String>::new();
    split_events(exchange, &mut |data| {
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match family {
            "openai.chat" => {
                for choice in event["choices"].as_array().into_iter().flatten() {
                    let index = choice["index"].as_i64().unwrap_or(0);
                    let delta = &choice["delta"];
                    // One after the other, as none of the recordings has both at once.
                    for key in ["reasoning", "reasoning_content", "content", "refusal"] {
                        said.entry(index).or_default().push_str(&text(&delta[key]));
                    }
                }
            }
            "anthropic" => {
                for key in ["text", "thinking"] {
                    said.entry(event["index"].as_i64().unwrap_or(0)).or_default().push_str(&text(&event["delta"][key]));
                }
            }
            "openai.responses" => {
                let deltas =
                    ["response.output_text.delta", "response.reasoning_summary_text.delta", "response.refusal.delta"];
                if deltas.contains(&event["type"].as_str().unwrap_or("")) {
                    said.entry(event["output_index"].as_i64().unwrap_or(0))
                        .or_default()
                        .push_str(&text(&event["delta"]));
                }
            }
            "bedrock.converse" => {
                said.entry(event["contentBlockIndex"].as_i64().unwrap_or(0))
                    .or_default()
                    .push_str(&text(&event["delta"]["text"]));
            }
            "gemini" => {
                for part in event["candidates"][0]["content"]["parts"].as_array().into_iter().flatten() {
                    said.entry(0).or_default().push_str(&text(&part["text"]));
                }
            }
            _ => {}
        }
    });
    Some(said.into_values().collect()).filter(|said: &String| !said.is_empty())
}

#[test]
fn streamed_answers_are_whole() {
    let Some((recorded, expected)) = corpus() else { return };
    let families: BTreeMap<_, _> =
        expected.iter().map(|expect| (expect["id"].as_str().unwrap(), expect["family"].as_str().unwrap())).collect();
    let mut scratch = Scratch::default();
    let mut compared = BTreeMap::<&str, usize>::new();
    for exchange in &recorded {
        let Some(family) = families.get(exchange.id.as_str()) else { continue };
        let Some(said) = oracle(family, exchange) else { continue };
        let arena = Bump::new();
        let options = Options { capture_content: true, ..Options::default() };
        let call = exchange.drive(&arena, &mut scratch, &options).unwrap();
        assert_eq!(texts(call.output_messages), said, "{}: {:?}", exchange.id, call.output_messages);
        *compared.entry(family).or_default() += 1;
    }
    println!("{compared:?}");
    assert!(compared.len() == 5, "{compared:?}");
}
