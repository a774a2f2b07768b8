//! What one scripted exchange is about: the single place from which both the bytes on the wire and
//! the expected span are made.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

/// Which API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI Chat Completions.
    Chat,
    /// Chat Completions in Azure's form: the deployment is in the path, the body names no model.
    AzureChat,
    /// OpenAI Responses.
    Responses,
    /// OpenAI's legacy Completions.
    Completions,
    /// OpenAI Embeddings.
    Embeddings,
    /// Anthropic Messages.
    Messages,
}

/// The output tokens that Anthropic's first event counts, before the cumulative count of a later one.
pub const FIRST_OUTPUT_COUNT: i64 = 1;

/// Token counts that the reply tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input tokens, those read from or written to a cache included.
    pub input: i64,
    /// All output tokens, reasoning included.
    pub output: i64,
    /// Input tokens read from a cache.
    pub cache_read: Option<i64>,
    /// Input tokens written to a cache.
    pub cache_creation: Option<i64>,
    /// Output tokens spent on reasoning.
    pub reasoning: Option<i64>,
}

/// How an exchange fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error body with this HTTP status, error type and code.
    Refused {
        /// The HTTP status, 400 or above.
        status: u16,
        /// `error.type` of the body.
        kind: &'static str,
        /// `error.code` of the body, where the dialect has one.
        code: Option<&'static str>,
    },
    /// A stream with status 200 that turns into an error of this type.
    InStream {
        /// `error.type` of the event.
        kind: &'static str,
    },
    /// The connection ends in the middle of the reply.
    CutOff,
}

/// The facts of one exchange.
#[derive(Clone, Debug)]
pub struct Talk {
    /// The API.
    pub dialect: Dialect,
    /// The host that the client means to speak to.
    pub host: String,
    /// `gen_ai.provider.name` of that host.
    pub provider: String,
    /// The model that the request names.
    pub model: String,
    /// The model that the reply names.
    pub reply_model: String,
    /// The reply's id.
    pub id: String,
    /// Token counts, when the reply tells them.
    pub usage: Option<Usage>,
    /// Finish reasons as the provider spells them, one for each choice.
    pub finish: Vec<&'static str>,
    /// The reply is an event stream.
    pub stream: bool,
    /// Limit on output tokens that the request states.
    pub max_tokens: Option<i64>,
    /// Sampling temperature that the request states.
    pub temperature: Option<f64>,
    /// Nucleus sampling that the request states.
    pub top_p: Option<f64>,
    /// Stop sequences that the request states.
    pub stop: Vec<&'static str>,
    /// The user's message.
    pub prompt: String,
    /// The reply's text.
    pub answer: String,
    /// What goes wrong.
    pub failure: Option<Failure>,
}

impl Talk {
    /// A plain and successful exchange whose ids and token counts are unlike those of any other `number`.
    pub fn numbered(dialect: Dialect, number: i64) -> Self {
        let (host, provider, model, prefix) = match dialect {
            Dialect::Chat => ("api.openai.com", "openai", "gpt-4o-mini", "chatcmpl"),
            Dialect::AzureChat => ("acme.openai.azure.com", "azure.ai.openai", "gpt-4o", "chatcmpl"),
            Dialect::Responses => ("api.openai.com", "openai", "gpt-4.1", "resp"),
            Dialect::Completions => ("api.openai.com", "openai", "gpt-3.5-turbo-instruct", "cmpl"),
            Dialect::Embeddings => ("api.openai.com", "openai", "text-embedding-3-small", "emb"),
            Dialect::Messages => ("api.anthropic.com", "anthropic", "claude-sonnet-4-5", "msg"),
        };
        let reply_model = match dialect {
            Dialect::Embeddings | Dialect::Completions => model.to_owned(),
            _ => format!("{model}-2025-09-29"),
        };
        Self {
            dialect,
            host: host.to_owned(),
            provider: provider.to_owned(),
            model: model.to_owned(),
            reply_model,
            id: format!("{prefix}_demo{number:08}"),
            usage: Some(Usage { input: 11 + 3 * number, output: 17 + 5 * number, ..Usage::default() }),
            finish: match dialect {
                Dialect::Embeddings => vec![],
                Dialect::Messages => vec!["end_turn"],
                _ => vec!["stop"],
            },
            stream: false,
            max_tokens: (dialect == Dialect::Messages).then_some(1024),
            temperature: None,
            top_p: None,
            stop: vec![],
            prompt: format!("What is {number} plus {number}?"),
            answer: format!("It is {}, of course: that is how addition works.", number.wrapping_mul(2)),
            failure: None,
        }
    }

    /// The same, answered as a stream.
    pub fn streamed(mut self) -> Self {
        self.stream = true;
        self
    }

    /// The operation that the span is named after.
    pub fn operation(&self) -> &'static str {
        match self.dialect {
            Dialect::Completions => "text_completion",
            Dialect::Embeddings => "embeddings",
            _ => "chat",
        }
    }

    /// The HTTP status of the reply.
    pub fn status(&self) -> u16 {
        match self.failure {
            Some(Failure::Refused { status, .. }) => status,
            _ => 200,
        }
    }

    /// What the span must say.
    pub fn expected(&self) -> Expected {
        let mut attributes = self.request_attributes();
        attributes.extend(self.reply_attributes());
        let streamed = self.stream && !matches!(self.failure, Some(Failure::Refused { .. }));
        Expected {
            name: format!("{} {}", self.operation(), self.model),
            error: self.failure.is_some(),
            first_chunk_min: streamed.then_some(Duration::ZERO),
            attributes,
        }
    }

    fn request_attributes(&self) -> BTreeMap<&'static str, Value> {
        let api_type = match self.dialect {
            Dialect::Chat if self.provider == "openai" => json!("chat_completions"),
            Dialect::Responses => json!("responses"),
            _ => Value::Null,
        };
        let mut attributes = BTreeMap::from([
            ("gen_ai.operation.name", json!(self.operation())),
            ("gen_ai.provider.name", json!(self.provider)),
            ("server.address", json!(self.host)),
            ("gen_ai.request.model", json!(self.model)),
            ("gen_ai.request.max_tokens", json!(self.max_tokens)),
            ("gen_ai.request.temperature", json!(self.temperature)),
            ("gen_ai.request.top_p", json!(self.top_p)),
            ("gen_ai.request.stop_sequences", json!((!self.stop.is_empty()).then_some(&self.stop))),
            ("gen_ai.request.choice.count", json!((self.finish.len() > 1).then_some(self.finish.len()))),
            ("gen_ai.request.stream", json!(self.stream.then_some(true))),
            // Content is off unless it is asked for.
            ("gen_ai.input.messages", Value::Null),
            ("gen_ai.output.messages", Value::Null),
        ]);
        if !api_type.is_null() {
            attributes.insert("openai.api.type", api_type);
        }
        attributes
    }

    fn reply_attributes(&self) -> BTreeMap<&'static str, Value> {
        let mut attributes = BTreeMap::from([
            ("http.response.status_code", json!(self.status())),
            ("agentsight.capture.incomplete", Value::Null),
        ]);
        // A reply that just breaks off names no type; that there must be one is checked for every error.
        if self.failure != Some(Failure::CutOff) {
            attributes.insert("error.type", json!(self.error_type()));
        }
        match self.failure {
            Some(Failure::Refused { .. }) => {
                for name in ["gen_ai.response.id", "gen_ai.response.model", "gen_ai.usage.input_tokens"] {
                    attributes.insert(name, Value::Null);
                }
                return attributes;
            }
            // The first event has come before the failure, and the last one never does.
            Some(_) => {
                let output = (self.dialect == Dialect::Messages).then_some(FIRST_OUTPUT_COUNT);
                attributes.extend([
                    ("gen_ai.response.id", json!(self.id)),
                    ("gen_ai.response.model", json!(self.reply_model)),
                    ("gen_ai.usage.output_tokens", json!(output)),
                    ("gen_ai.response.finish_reasons", Value::Null),
                ]);
                return attributes;
            }
            None => {}
        }
        let embeddings = self.dialect == Dialect::Embeddings;
        let usage = self.usage;
        attributes.extend([
            // An embeddings reply has no id, and no output to count.
            ("gen_ai.response.id", json!((!embeddings).then_some(&self.id))),
            ("gen_ai.response.model", json!(self.reply_model)),
            ("gen_ai.response.finish_reasons", self.finish_reasons()),
            ("gen_ai.usage.input_tokens", json!(usage.map(|usage| usage.input))),
            ("gen_ai.usage.output_tokens", json!(usage.filter(|_| !embeddings).map(|usage| usage.output))),
            ("gen_ai.usage.cache_read.input_tokens", json!(usage.and_then(|usage| usage.cache_read))),
            ("gen_ai.usage.cache_creation.input_tokens", json!(usage.and_then(|usage| usage.cache_creation))),
            ("gen_ai.usage.reasoning.output_tokens", json!(usage.and_then(|usage| usage.reasoning))),
        ]);
        attributes
    }

    fn finish_reasons(&self) -> Value {
        json!((!self.finish.is_empty()).then_some(&self.finish))
    }

    /// The body's error code, else its type.
    fn error_type(&self) -> Option<&'static str> {
        match self.failure.as_ref()? {
            Failure::Refused { kind, code, .. } => Some(code.unwrap_or(kind)),
            Failure::InStream { kind } => Some(kind),
            Failure::CutOff => None,
        }
    }
}

/// What the span of an exchange must say.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// The span's name.
    pub name: String,
    /// Whether its status is ERROR; otherwise it is unset.
    pub error: bool,
    /// The least time to the first chunk, for a reply that is streamed; other spans have none.
    pub first_chunk_min: Option<Duration>,
    /// Attributes and their values; [`Value::Null`] stands for one that must be absent.
    pub attributes: BTreeMap<&'static str, Value>,
}
