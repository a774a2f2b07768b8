//! The wire formats of the APIs, one file each: paths, fields, streams.
//!
//! Adding one takes a file with a [`Dialect`] and its tests, its `mod` line, and a line in [`DIALECTS`];
//! `docs/adding-a-provider.md` says how.

mod anthropic;
mod anthropic_complete;
mod bedrock_agent;
mod bedrock_converse;
mod bedrock_invoke;
mod bedrock_knowledge;
mod cohere;
mod dashscope;
mod gemini;
mod gemini_code_assist;
mod gemini_embeddings;
mod gemini_interactions;
mod llama_cpp;
mod mistral_conversations;
mod ollama;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_fetch;
mod openai_realtime;
mod openai_responses;
mod tgi;
mod watsonx;

use std::{ptr, sync::LazyLock};

use bumpalo::Bump;

use super::{
    BodyKind,
    content::{self, Reader},
    facts::{Facts, Rule, Sum},
    failure,
    json::Json,
    plan::Plan,
    route::Target,
    wanted::Wanted,
};
use crate::wire::{RequestHead, ResponseHead};

/// All dialects. For a request to an unknown path, the first one that claims its body counts.
pub(super) static DIALECTS: &[&Dialect] = &[
    &anthropic::DIALECT,
    &openai_chat::DIALECT,
    &openai_responses::DIALECT,
    &openai_fetch::DIALECT,
    &openai_embeddings::DIALECT,
    &openai_completions::DIALECT,
    &gemini::DIALECT,
    &gemini_code_assist::DIALECT,
    &gemini_embeddings::DIALECT,
    &gemini_interactions::DIALECT,
    &bedrock_converse::DIALECT,
    &bedrock_invoke::DIALECT,
    &bedrock_agent::DIALECT,
    &bedrock_knowledge::RETRIEVE,
    &bedrock_knowledge::GENERATE,
    &mistral_conversations::DIALECT,
    &cohere::DIALECT,
    &cohere::GENERATE,
    &cohere::EMBED,
    &ollama::CHAT,
    &ollama::GENERATE,
    &ollama::EMBED,
    &anthropic_complete::DIALECT,
    &watsonx::DIALECT,
    &watsonx::CHAT,
    &dashscope::DIALECT,
    &tgi::DIALECT,
    &llama_cpp::DIALECT,
    &llama_cpp::EMBED,
];

/// The dialect of a WebSocket, by the last segment of its path: those of HTTP have none.
pub(super) fn of_socket(last_segment: &str) -> Option<&'static Dialect> {
    match last_segment {
        "responses" => Some(&openai_responses::DIALECT),
        "realtime" => Some(&openai_realtime::DIALECT),
        _ => None,
    }
}

/// How the documents of a dialect are read.
pub(super) struct Plans {
    dialect: &'static Dialect,
    /// The request body.
    pub request: &'static Plan,
    /// A whole response body.
    pub response: &'static Plan,
    /// An event of a stream.
    pub event: &'static Plan,
}

impl Plans {
    /// The plans of `dialect`.
    pub fn of(dialect: &'static Dialect) -> &'static Self {
        static PLANS: LazyLock<Vec<Plans>> = LazyLock::new(|| {
            let dialects = DIALECTS.iter().copied().chain([&openai_realtime::DIALECT]);
            dialects.map(Plans::new).collect()
        });
        PLANS.iter().find(|plans| ptr::eq(plans.dialect, dialect)).expect("every dialect has plans")
    }

    fn new(dialect: &'static Dialect) -> Self {
        Self {
            dialect,
            request: Plan::of(dialect.request, &[]),
            response: Plan::of(dialect.response, failure::PATHS),
            event: Plan::of(dialect.event, failure::PATHS),
        }
    }
}

/// Takes from a request head what only this dialect has there.
pub(super) type ReadRequestHead = for<'a> fn(&mut Facts<'a>, &'a Bump, &RequestHead<'_>, &Target<'_>);

/// Takes from a response head what only this dialect has there.
pub(super) type ReadResponseHead = for<'a> fn(&mut Facts<'a>, &'a Bump, &ResponseHead<'_>);

/// One API's wire format.
pub(super) struct Dialect {
    /// For people: tests and logs.
    pub name: &'static str,
    /// `gen_ai.operation.name`.
    pub operation: &'static str,
    /// `openai.api.type`.
    pub openai_api_type: Option<&'static str>,
    /// Where its calls go.
    pub routes: &'static [Route],
    /// Whether a request body fits, when the path leaves a doubt.
    pub fits: fn(Json<'_>) -> bool,
    /// Whether a request body to an unknown path is this dialect's.
    pub claims: fn(Json<'_>) -> bool,
    /// What the request head tells.
    pub request_head: Option<ReadRequestHead>,
    /// What the response head tells.
    pub response_head: Option<ReadResponseHead>,
    /// Fields of the request body.
    pub request: &'static [Rule],
    /// Fields of a whole response body.
    pub response: &'static [Rule],
    /// Fields of a stream's event.
    pub event: &'static [Rule],
    /// Keys that make an event worth parsing.
    pub wanted: &'static Wanted,
    /// The same but for counts in every event of which the latest hold, if there are such. Each of them is
    /// set and none added up; then of events that differ in texts and counts only the last is read.
    pub besides_counts: Option<&'static Wanted>,
    /// What marks an event as the stream's last: its name, its `type`, or its whole text.
    pub last_events: &'static [&'static str],
    /// Whether the response is streamed when the request does not say.
    pub streams_by_default: bool,
    /// The form of a stream whose response does not say what it is.
    pub stream: BodyKind,
    /// How token counts add up.
    pub sum: Sum,
    /// How its bodies are read for content.
    pub content: Option<&'static Reader>,
    /// Whether the documents of a stream are base64 inside `bytes` of its messages.
    pub wrapped: bool,
}

/// What most dialects have in common.
const fn plain(name: &'static str, operation: &'static str, wanted: &'static Wanted) -> Dialect {
    Dialect {
        name,
        operation,
        openai_api_type: None,
        routes: &[],
        fits: nothing,
        claims: nothing,
        request_head: None,
        response_head: None,
        request: &[],
        response: &[],
        event: &[],
        wanted,
        besides_counts: None,
        last_events: &[],
        streams_by_default: false,
        stream: BodyKind::EventStream,
        sum: Sum::Inclusive,
        content: None,
        wrapped: false,
    }
}

/// A path that calls go to.
pub(super) struct Route {
    /// The request's method.
    pub method: &'static str,
    /// The path's end, segment by segment. `{…}` stands for any segment, and `{model}` names the
    /// model.
    pub path: &'static str,
    /// Whether path and method are enough to know. Otherwise the body has to fit.
    pub sure: bool,
    /// The response is a stream because the path says so.
    pub streams: bool,
    /// The only provider whose path this is.
    pub only: Option<&'static str>,
}

/// A path that nobody else uses.
const fn sure(path: &'static str) -> Route {
    Route { method: "POST", path, sure: true, streams: false, only: None }
}

/// A path that others may use too.
const fn likely(path: &'static str) -> Route {
    Route { sure: false, ..sure(path) }
}

/// No body is claimed.
fn nothing(_: Json<'_>) -> bool {
    false
}

/// A model's name is there.
fn names_model(body: Json<'_>) -> bool {
    body.get("model").and_then(Json::text).is_some()
}

/// `key` holds an array.
fn has_array(body: Json<'_>, key: &str) -> bool {
    body.get(key).is_some_and(Json::is_array)
}

/// `key` holds a string or an array.
fn has_text(body: Json<'_>, key: &str) -> bool {
    body.get(key).is_some_and(|value| value.is_array() || value.is_string())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use super::{DIALECTS, Plans, of_socket};
    use crate::genai::json::Scratch;

    /// What the page on adding a provider promises: a file of its own for each wire form, short, with its
    /// tests, that nothing else has to know of but its registration here.
    #[test]
    fn a_dialect_is_one_small_file() {
        const LINES_MAX: usize = 300;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/genai/dialect");
        let registry = fs::read_to_string(folder.join("mod.rs")).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let module = path.file_stem().unwrap().to_str().unwrap();
            if module == "mod" {
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            assert!(source.lines().count() <= LINES_MAX, "{module} is long");
            assert!(source.contains("#[cfg(test)]\nmod tests {"), "{module} has no tests");
            let statics = source.lines().filter_map(|line| line.strip_prefix("pub(super) static "));
            let dialects: Vec<_> = statics.filter_map(|line| line.split_once(": Dialect = ")).collect();
            assert!(!dialects.is_empty(), "{module} has no dialect");
            for (name, _) in dialects {
                assert!(registry.contains(&format!("&{module}::{name}")), "{module}::{name} is not registered");
            }
        }
    }

    #[test]
    fn dialects_are_told_apart() {
        let names: HashSet<_> = DIALECTS.iter().map(|dialect| dialect.name).collect();
        assert_eq!(names.len(), DIALECTS.len());
        for dialect in DIALECTS {
            assert!(!dialect.routes.is_empty(), "{} has no path", dialect.name);
            let reads = !dialect.request.is_empty() || dialect.request_head.is_some();
            assert!(reads, "{} reads nothing of a request", dialect.name);
            // A path that others may use needs a look at the body.
            let sure = dialect.routes.iter().all(|route| route.sure);
            let takes_all = Scratch::default().parse(&mut b"{}".to_vec(), |json| (dialect.fits)(json));
            assert!(sure || takes_all == Some(false), "{} takes every body", dialect.name);
        }
        assert!(of_socket("realtime").is_some() && of_socket("chat").is_none());
        for dialect in DIALECTS.iter().copied().chain(["responses", "realtime"].into_iter().filter_map(of_socket)) {
            assert_eq!(Plans::of(dialect).dialect.name, dialect.name);
        }
    }
}
