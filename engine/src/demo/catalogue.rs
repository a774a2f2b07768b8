//! The exchanges that the demo shows.

use std::time::Duration;

use super::{
    script::{Coding, Framing, Script},
    talk::{Dialect, Failure, Talk, Usage},
};

/// A prompt that makes a request of some 320 KiB, more than any one record of the ring holds.
const LONG_PROMPT_WORDS: usize = 56_000;

/// Every exchange of the demo, each of another kind.
pub fn scripts() -> Vec<Script> {
    let mut scripts = openai();
    scripts.extend(anthropic());
    scripts.extend(failures());
    scripts.extend(others());
    scripts
}

fn openai() -> Vec<Script> {
    let chat = Talk::numbered(Dialect::Chat, 1);
    let settings = Talk { max_tokens: Some(256), temperature: Some(0.5), stop: vec!["END"], ..chat.clone() };
    let several = Talk { finish: vec!["stop", "length"], ..Talk::numbered(Dialect::Chat, 2) };
    let reasoning = Talk {
        usage: Some(Usage {
            input: 2048,
            output: 640,
            cache_read: Some(1024),
            cache_creation: None,
            reasoning: Some(512),
        }),
        ..Talk::numbered(Dialect::Responses, 5)
    };
    let tool = Talk { finish: vec!["tool_calls"], ..Talk::numbered(Dialect::Responses, 6) };
    let long = Talk { prompt: "lorem ".repeat(LONG_PROMPT_WORDS), ..Talk::numbered(Dialect::Chat, 9) };
    vec![
        Script::new("chat", "OpenAI chat", &settings),
        Script::new("chat-n", "OpenAI chat, two choices", &several).framed(Framing::Chunked).cut_into(40),
        slowly(Script::new("chat-sse", "OpenAI chat, stream", &Talk::numbered(Dialect::Chat, 3).streamed())),
        Script::new("chat-sse-gzip", "OpenAI chat, gzip stream", &Talk::numbered(Dialect::Chat, 4).streamed())
            .coded(Coding::Gzip),
        Script::new("chat-long", "OpenAI chat, 320 KiB request", &long),
        Script::new("responses", "OpenAI responses", &tool),
        slowly(Script::new("responses-sse", "OpenAI responses, stream", &reasoning.streamed())),
        Script::new("completions", "OpenAI completions", &Talk::numbered(Dialect::Completions, 7)),
        Script::new("embeddings", "OpenAI embeddings, gzip", &Talk::numbered(Dialect::Embeddings, 8))
            .coded(Coding::Gzip),
    ]
}

fn anthropic() -> Vec<Script> {
    let cached = Talk {
        usage: Some(Usage {
            input: 900,
            output: 55,
            cache_read: Some(600),
            cache_creation: Some(200),
            reasoning: None,
        }),
        ..Talk::numbered(Dialect::Messages, 11)
    };
    vec![
        Script::new("messages", "Anthropic messages", &Talk::numbered(Dialect::Messages, 10)).coded(Coding::Gzip),
        slowly(Script::new("messages-sse", "Anthropic messages, stream", &cached.streamed())),
    ]
}

fn failures() -> Vec<Script> {
    let refused = |dialect, number, status, kind, code| Talk {
        failure: Some(Failure::Refused { status, kind, code }),
        ..Talk::numbered(dialect, number)
    };
    let unauthorized = refused(Dialect::Chat, 12, 401, "invalid_request_error", Some("invalid_api_key"));
    let limited = refused(Dialect::Chat, 13, 429, "requests", Some("rate_limit_exceeded")).streamed();
    let overloaded = refused(Dialect::Messages, 14, 529, "overloaded_error", None);
    let broken = Talk {
        failure: Some(Failure::InStream { kind: "overloaded_error" }),
        ..Talk::numbered(Dialect::Messages, 15).streamed()
    };
    let cut = Talk { failure: Some(Failure::CutOff), ..Talk::numbered(Dialect::Chat, 16).streamed() };
    vec![
        Script::new("unauthorized", "OpenAI, 401", &unauthorized),
        Script::new("limited", "OpenAI stream, 429", &limited),
        Script::new("overloaded", "Anthropic, 529", &overloaded).framed(Framing::Chunked),
        Script::new("broken", "Anthropic, error in stream", &broken),
        Script::new("cut", "OpenAI stream, cut off", &cut),
    ]
}

fn others() -> Vec<Script> {
    let unknown = Talk {
        host: "llm.example.com".to_owned(),
        provider: "llm.example.com".to_owned(),
        model: "qwen3-32b".to_owned(),
        reply_model: "qwen3-32b".to_owned(),
        ..Talk::numbered(Dialect::Chat, 17)
    };
    vec![
        Script::new("azure", "Azure OpenAI chat", &Talk::numbered(Dialect::AzureChat, 18)),
        Script::new("compatible", "OpenAI-compatible server", &unknown).framed(Framing::UntilClose),
    ]
}

/// A stream whose first event and whose later ones take a little time, as a model's do.
fn slowly(script: Script) -> Script {
    script.paced(Duration::from_millis(40), Duration::from_millis(5))
}
