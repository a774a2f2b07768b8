//! The JSON that each API's requests and replies are made of, as recorded from real calls.

use serde_json::{Map, Value, json};

use super::talk::{Dialect, FIRST_OUTPUT_COUNT, Failure, Talk, Usage};

/// How many deltas a streamed answer is cut into.
const DELTAS: usize = 6;

/// The request target.
pub fn path(talk: &Talk) -> String {
    match talk.dialect {
        Dialect::Chat => "/v1/chat/completions".to_owned(),
        Dialect::AzureChat => {
            format!("/openai/deployments/{}/chat/completions?api-version=2024-10-21", talk.model)
        }
        Dialect::Responses => "/v1/responses".to_owned(),
        Dialect::Completions => "/v1/completions".to_owned(),
        Dialect::Embeddings => "/v1/embeddings".to_owned(),
        Dialect::Messages => "/v1/messages".to_owned(),
    }
}

/// The header fields that the API wants; the values are no secrets, and must not turn up in a span either.
pub fn request_headers(dialect: Dialect) -> Vec<(&'static str, &'static str)> {
    let mut headers = vec![("content-type", "application/json"), ("accept-encoding", "gzip, deflate")];
    headers.extend_from_slice(match dialect {
        Dialect::AzureChat => &[("api-key", super::CANARY)],
        Dialect::Messages => &[("x-api-key", super::CANARY), ("anthropic-version", "2023-06-01")],
        _ => &[("authorization", super::CANARY)],
    });
    headers
}

/// The request's body.
pub fn request_body(talk: &Talk) -> Value {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    };
    if talk.dialect != Dialect::AzureChat {
        put("model", json!(talk.model));
    }
    let messages = json!([{"role": "user", "content": talk.prompt}]);
    match talk.dialect {
        Dialect::Chat | Dialect::AzureChat | Dialect::Messages => put("messages", messages),
        Dialect::Responses | Dialect::Embeddings => put("input", json!(talk.prompt)),
        Dialect::Completions => put("prompt", json!(talk.prompt)),
    }
    let max_tokens = match talk.dialect {
        Dialect::Chat | Dialect::AzureChat => "max_completion_tokens",
        Dialect::Responses => "max_output_tokens",
        _ => "max_tokens",
    };
    put(max_tokens, json!(talk.max_tokens));
    put("temperature", json!(talk.temperature));
    put("top_p", json!(talk.top_p));
    if !talk.stop.is_empty() {
        put(if talk.dialect == Dialect::Messages { "stop_sequences" } else { "stop" }, json!(talk.stop));
    }
    if talk.finish.len() > 1 {
        put("n", json!(talk.finish.len()));
    }
    if talk.stream {
        put("stream", json!(true));
        if talk.usage.is_some() && matches!(talk.dialect, Dialect::Chat | Dialect::AzureChat | Dialect::Completions) {
            put("stream_options", json!({"include_usage": true}));
        }
    }
    Value::Object(body)
}

/// The body of a reply that is not streamed.
pub fn reply_body(talk: &Talk) -> Value {
    if let Some(Failure::Refused { kind, code, .. }) = talk.failure {
        return error_body(talk.dialect, kind, code);
    }
    let usage = usage(talk);
    match talk.dialect {
        Dialect::Chat | Dialect::AzureChat => {
            let choices = choices(talk, |_| ("message", json!({"role": "assistant", "content": talk.answer})));
            with_usage(
                json!({"id": talk.id, "object": "chat.completion", "created": CREATED, "model": talk.reply_model,
                "choices": choices}),
                usage,
            )
        }
        Dialect::Completions => {
            let choices = choices(talk, |_| ("text", json!(talk.answer)));
            with_usage(
                json!({"id": talk.id, "object": "text_completion", "created": CREATED,
                "model": talk.reply_model, "choices": choices}),
                usage,
            )
        }
        Dialect::Embeddings => with_usage(
            json!({"object": "list", "model": talk.reply_model,
            "data": [{"object": "embedding", "index": 0, "embedding": [0.0023, -0.0093, 0.0158]}]}),
            usage,
        ),
        Dialect::Responses => response_object(talk, "completed", usage),
        Dialect::Messages => with_usage(
            json!({"id": talk.id, "type": "message", "role": "assistant",
            "model": talk.reply_model, "content": [{"type": "text", "text": talk.answer}],
            "stop_reason": talk.finish.first(), "stop_sequence": null}),
            usage,
        ),
    }
}

/// The events of a streamed reply: each an event name, where the API uses them, and its data.
pub fn events(talk: &Talk) -> Vec<(Option<&'static str>, String)> {
    let mut events = match talk.dialect {
        Dialect::Chat | Dialect::AzureChat => chat_events(talk),
        Dialect::Completions => completion_events(talk),
        Dialect::Responses => response_events(talk),
        Dialect::Messages => message_events(talk),
        Dialect::Embeddings => vec![],
    };
    if let Some(Failure::InStream { kind }) = talk.failure {
        // The error takes the place of the second half, so of everything that tells how it ended.
        events.truncate(events.len() / 2);
        let name = (talk.dialect == Dialect::Messages).then_some("error");
        events.push((name, error_body(talk.dialect, kind, None)));
    }
    let mut written: Vec<_> = events.into_iter().map(|(name, data)| (name, data.to_string())).collect();
    let has_end_mark = matches!(talk.dialect, Dialect::Chat | Dialect::AzureChat | Dialect::Completions);
    if has_end_mark && talk.failure.is_none() {
        written.push((None, "[DONE]".to_owned()));
    }
    written
}

const CREATED: i64 = 1_760_000_000;

type Event = (Option<&'static str>, Value);

fn with_usage(mut body: Value, usage: Option<Value>) -> Value {
    if let (Value::Object(members), Some(usage)) = (&mut body, usage) {
        members.insert("usage".to_owned(), usage);
    }
    body
}

fn choices(talk: &Talk, content: impl Fn(usize) -> (&'static str, Value)) -> Vec<Value> {
    let choice = |(index, finish): (usize, &&'static str)| {
        let (name, content) = content(index);
        json!({"index": index, name: content, "logprobs": null, "finish_reason": finish})
    };
    talk.finish.iter().enumerate().map(choice).collect()
}

fn usage(talk: &Talk) -> Option<Value> {
    let Usage { input, output, cache_read, cache_creation, reasoning } = talk.usage?;
    let total = input + output;
    Some(match talk.dialect {
        Dialect::Chat | Dialect::AzureChat | Dialect::Completions => {
            let mut usage = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": total});
            if let Some(cached) = cache_read {
                usage["prompt_tokens_details"] = json!({"cached_tokens": cached, "audio_tokens": 0});
            }
            if let Some(reasoning) = reasoning {
                usage["completion_tokens_details"] = json!({"reasoning_tokens": reasoning, "audio_tokens": 0});
            }
            usage
        }
        Dialect::Embeddings => json!({"prompt_tokens": input, "total_tokens": input}),
        Dialect::Responses => {
            let mut usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": total});
            if let Some(cached) = cache_read {
                usage["input_tokens_details"] = json!({"cached_tokens": cached});
            }
            if let Some(reasoning) = reasoning {
                usage["output_tokens_details"] = json!({"reasoning_tokens": reasoning});
            }
            usage
        }
        // Anthropic counts cached tokens apart from the others.
        Dialect::Messages => {
            let mut usage = json!({"output_tokens": output,
                "input_tokens": input - cache_read.unwrap_or(0) - cache_creation.unwrap_or(0)});
            if let Some(cached) = cache_read {
                usage["cache_read_input_tokens"] = json!(cached);
            }
            if let Some(created) = cache_creation {
                usage["cache_creation_input_tokens"] = json!(created);
            }
            usage
        }
    })
}

fn error_body(dialect: Dialect, kind: &str, code: Option<&str>) -> Value {
    let message = format!("The mock was told to fail with {kind}.");
    match dialect {
        Dialect::Messages => {
            json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_demo"})
        }
        _ => json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
    }
}

fn chat_events(talk: &Talk) -> Vec<Event> {
    let wants_usage = talk.usage.is_some();
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({"id": talk.id, "object": "chat.completion.chunk", "created": CREATED,
            "model": talk.reply_model, "choices": choices});
        if wants_usage {
            chunk["usage"] = usage;
        }
        (None, chunk)
    };
    let mut events = vec![];
    for index in 0..talk.finish.len() {
        let first = json!([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]);
        events.push(chunk(first, Value::Null));
    }
    for piece in pieces(&talk.answer) {
        for index in 0..talk.finish.len() {
            let delta = json!([{"index": index, "delta": {"content": piece}, "finish_reason": null}]);
            events.push(chunk(delta, Value::Null));
        }
    }
    for (index, finish) in talk.finish.iter().enumerate() {
        events.push(chunk(json!([{"index": index, "delta": {}, "finish_reason": finish}]), Value::Null));
    }
    if let Some(usage) = usage(talk) {
        events.push(chunk(json!([]), usage));
    }
    events
}

fn completion_events(talk: &Talk) -> Vec<Event> {
    let chunk = |choices: Value| {
        (
            None,
            json!({"id": talk.id, "object": "text_completion", "created": CREATED, "model": talk.reply_model,
            "choices": choices}),
        )
    };
    let mut events: Vec<Event> = pieces(&talk.answer)
        .map(|piece| chunk(json!([{"index": 0, "text": piece, "logprobs": null, "finish_reason": null}])))
        .collect();
    events.push(chunk(json!([{"index": 0, "text": "", "logprobs": null, "finish_reason": talk.finish.first()}])));
    if let Some(usage) = usage(talk) {
        let (name, last) = chunk(json!([]));
        events.push((name, with_usage(last, Some(usage))));
    }
    events
}

fn response_object(talk: &Talk, status: &str, usage: Option<Value>) -> Value {
    let output = match talk.finish.first() {
        Some(&"tool_calls") => json!([{"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add",
            "arguments": "{\"a\":1,\"b\":1}", "status": "completed"}]),
        _ => json!([{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": talk.answer, "annotations": []}]}]),
    };
    let output = if status == "completed" { output } else { json!([]) };
    json!({"id": talk.id, "object": "response", "created_at": CREATED, "status": status, "error": null,
        "incomplete_details": null, "model": talk.reply_model, "output": output, "usage": usage})
}

fn response_events(talk: &Talk) -> Vec<Event> {
    let mut events: Vec<Event> = vec![];
    let mut push = |name: &'static str, mut data: Value| {
        data["type"] = json!(name);
        data["sequence_number"] = json!(events.len());
        events.push((Some(name), data));
    };
    push("response.created", json!({"response": response_object(talk, "in_progress", None)}));
    push("response.in_progress", json!({"response": response_object(talk, "in_progress", None)}));
    for piece in pieces(&talk.answer) {
        let delta = json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": piece});
        push("response.output_text.delta", delta);
    }
    push("response.completed", json!({"response": response_object(talk, "completed", usage(talk))}));
    events
}

fn message_events(talk: &Talk) -> Vec<Event> {
    let mut events: Vec<Event> = vec![];
    let mut push = |name: &'static str, mut data: Value| {
        data["type"] = json!(name);
        events.push((Some(name), data));
    };
    let mut start = with_usage(
        json!({"id": talk.id, "type": "message", "role": "assistant", "content": [],
        "model": talk.reply_model, "stop_reason": null, "stop_sequence": null}),
        usage(talk),
    );
    if talk.usage.is_some() {
        start["usage"]["output_tokens"] = json!(FIRST_OUTPUT_COUNT);
    }
    push("message_start", json!({"message": start}));
    push("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}}));
    push("ping", json!({}));
    for piece in pieces(&talk.answer) {
        push("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": piece}}));
    }
    push("content_block_stop", json!({"index": 0}));
    let mut last = json!({"delta": {"stop_reason": talk.finish.first(), "stop_sequence": null}});
    if let Some(usage) = talk.usage {
        last["usage"] = json!({"output_tokens": usage.output});
    }
    push("message_delta", last);
    push("message_stop", json!({}));
    events
}

/// `text` in a few pieces that don't split a character.
fn pieces(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let length = characters.len().div_ceil(DELTAS).max(1);
    characters.chunks(length).map(|piece| piece.iter().collect()).collect::<Vec<String>>().into_iter()
}
