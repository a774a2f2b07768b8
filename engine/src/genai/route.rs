//! Where a request goes: host, port, path, and the dialect that its path belongs to.

use std::{cmp::Reverse, sync::LazyLock};

use bumpalo::Bump;

use super::{
    dialect::{DIALECTS, Dialect, Route},
    json::{Inside, Shape},
    provider,
};
use crate::{
    limits::TEXT_BYTES_MAX,
    wire::{self, RequestHead},
};

/// Host and port that a request names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Authority<'h> {
    /// Host name or address, without the brackets of an IPv6 literal.
    pub host: Option<&'h str>,
    /// The port, when it is given.
    pub port: Option<u16>,
}

/// The request target's parts (RFC 9112 section 3.2).
pub(super) struct Target<'h> {
    /// Host and port: of an absolute target, else `:authority`, else `Host`.
    pub authority: Authority<'h>,
    /// Path, as sent.
    pub path: &'h str,
    /// Query, as sent. It may hold a key: nothing but named parameters may leave here.
    pub query: &'h str,
}

impl<'h> Target<'h> {
    /// `None` for what is no path: `CONNECT`, `OPTIONS *`, bytes that are not text.
    pub fn of(head: &RequestHead<'h>) -> Option<Self> {
        let target = std::str::from_utf8(head.target).ok()?;
        let named = head.authority.or_else(|| wire::field(head.fields, "host")).map(authority).unwrap_or_default();
        let (authority, path) = match absolute(target) {
            Some((scheme, place, path)) => {
                let place = authority(place.as_bytes());
                let port = place.port.or(Some(if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 }));
                (Authority { port, ..place }, path)
            }
            None => (named, target.starts_with('/').then_some(target)?),
        };
        let path = path.split('#').next().unwrap_or("");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = if path.is_empty() { "/" } else { path };
        Some(Self { authority, path, query })
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&'h str> {
        self.query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    /// The segment that follows `name`, as sent.
    pub fn after(&self, name: &str) -> Option<&'h str> {
        self.segments().skip_while(|segment| *segment != name).nth(1)
    }

    /// The path's last segment.
    pub fn last_segment(&self) -> Option<&'h str> {
        self.segments().next_back()
    }

    /// The path's segments; doubled slashes don't count.
    fn segments(&self) -> impl DoubleEndedIterator<Item = &'h str> + use<'h> {
        self.path.split('/').filter(|segment| !segment.is_empty())
    }
}

/// Scheme, authority and path of an absolute target.
fn absolute(target: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if scheme.contains('/') {
        return None;
    }
    let (place, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    Some((scheme, place, path))
}

/// Host and port of an authority. What precedes an `@` is a secret and is dropped.
fn authority(text: &[u8]) -> Authority<'_> {
    let printable = text.iter().all(u8::is_ascii_graphic) && text.len() <= TEXT_BYTES_MAX;
    let text = std::str::from_utf8(text).ok().filter(|_| printable).unwrap_or("");
    let text = text.rsplit('@').next().unwrap_or("");
    let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        // More than one colon and no brackets: an IPv6 address without a port.
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    Authority {
        host: (!host.is_empty()).then_some(host),
        port: port.and_then(|port| port.parse().ok()).filter(|port| *port != 0),
    }
}

/// The dialect of a known path.
pub(super) struct Matched<'h> {
    /// The dialect.
    pub dialect: &'static Dialect,
    /// The rule that matched.
    pub route: &'static Route,
    /// The model that the path names, as sent.
    pub model: Option<&'h str>,
}

/// The dialect that `target` belongs to: of several, the one with the longest path.
pub(super) fn dialect<'h>(method: &[u8], target: &Target<'h>, provider: &str) -> Option<Matched<'h>> {
    static ROUTES: LazyLock<Routes> = LazyLock::new(Routes::new);
    let ends = Ends::of(target.path);
    let mut best: Option<(&Prepared, Option<&str>)> = None;
    for prepared in ROUTES.ending_with(ends.segments().first()?) {
        let Some(model) = prepared.matches(ends.segments()) else { continue };
        let Prepared { route, .. } = prepared;
        let is_meant = route.method.as_bytes() == method && route.only.is_none_or(|only| only == provider);
        // The first of equals, so that the order of dialects counts.
        let rank = |prepared: &Prepared| (prepared.segments.len(), Reverse(prepared.place));
        if is_meant && best.is_none_or(|(best, _)| rank(prepared) > rank(best)) {
            best = Some((prepared, model));
        }
    }
    best.map(|(prepared, model)| Matched { dialect: prepared.dialect, route: prepared.route, model })
}

/// Segments of a route at the most.
const SEGMENTS_MAX: usize = 8;

/// The last segments of a path, the last one first; doubled slashes don't count.
struct Ends<'h> {
    segments: [&'h str; SEGMENTS_MAX],
    count: usize,
}

impl<'h> Ends<'h> {
    fn of(path: &'h str) -> Self {
        let mut ends = Self { segments: [""; SEGMENTS_MAX], count: 0 };
        let mut end = path.len();
        for (at, byte) in path.bytes().enumerate().rev() {
            if byte != b'/' {
                continue;
            }
            if at + 1 < end {
                let (Some(to), Some(segment)) = (ends.segments.get_mut(ends.count), path.get(at + 1..end)) else {
                    break;
                };
                *to = segment;
                ends.count += 1;
            }
            end = at;
        }
        ends
    }

    fn segments(&self) -> &[&'h str] {
        self.segments.get(..self.count).unwrap_or_default()
    }
}

/// All routes by how they end.
struct Routes {
    /// Last segments that are no patterns; in the slot of each, the routes that end with it.
    literals: Shape,
    by_literal: Vec<Vec<Prepared>>,
    /// Routes whose last segment holds a name.
    patterns: Vec<Prepared>,
}

impl Routes {
    fn new() -> Self {
        let (mut literals, mut by_literal, mut patterns): (Vec<&str>, Vec<Vec<_>>, Vec<_>) = Default::default();
        let routes = DIALECTS.iter().flat_map(|dialect| dialect.routes.iter().map(move |route| (*dialect, route)));
        for (place, (dialect, route)) in routes.enumerate() {
            let segments: Vec<_> = route.path.rsplit('/').map(Segment::of).collect();
            assert!(segments.len() <= SEGMENTS_MAX, "{}", route.path);
            let last = segments.first().copied();
            let prepared = Prepared { segments, dialect, route, place };
            match last {
                Some(Segment::Literal(last)) => match literals.iter().position(|literal| *literal == last) {
                    Some(at) => by_literal[at].push(prepared),
                    None => {
                        literals.push(last);
                        by_literal.push(vec![prepared]);
                    }
                },
                _ => patterns.push(prepared),
            }
        }
        let keys = literals.into_iter().map(|literal| (literal, Inside::All));
        Self { literals: Shape::new(keys, false), by_literal, patterns }
    }

    /// Those that may end with the segment `last`.
    fn ending_with(&self, last: &str) -> impl Iterator<Item = &Prepared> {
        let literal = self.literals.slot(last.as_bytes()).and_then(|slot| self.by_literal.get(slot));
        let byte = last.bytes().next_back();
        let may_match = move |prepared: &&Prepared| match prepared.segments.first() {
            Some(Segment::Named { suffix, .. }) => suffix.is_empty() || suffix.bytes().next_back() == byte,
            _ => false,
        };
        literal.into_iter().flatten().chain(self.patterns.iter().filter(may_match))
    }
}

/// A route, taken apart.
struct Prepared {
    /// The last one first.
    segments: Vec<Segment>,
    dialect: &'static Dialect,
    route: &'static Route,
    /// Its place among all routes.
    place: usize,
}

/// A segment of a route's path.
#[derive(Clone, Copy)]
enum Segment {
    /// It is this.
    Literal(&'static str),
    /// Anything, and then this.
    Named { name: &'static str, suffix: &'static str },
}

impl Segment {
    fn of(segment: &'static str) -> Self {
        let named = segment.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        named.map_or(Self::Literal(segment), |(name, suffix)| Self::Named { name, suffix })
    }
}

impl Prepared {
    /// The model that the path names, if it ends like this.
    fn matches<'h>(&self, ends: &[&'h str]) -> Option<Option<&'h str>> {
        let mut model = None;
        if self.segments.len() > ends.len() {
            return None;
        }
        for (segment, expect) in ends.iter().zip(&self.segments) {
            match *expect {
                Segment::Literal(literal) if *segment == literal => {}
                Segment::Literal(_) => return None,
                Segment::Named { name, suffix } => {
                    // Clients may encode the colon of `model:verb`.
                    let value = segment
                        .strip_suffix(suffix)
                        .or_else(|| segment.strip_suffix(suffix.strip_prefix(':')?)?.strip_suffix("%3A"))?;
                    match name {
                        _ if value.is_empty() => return None,
                        "model" if value == "count-tokens" => return None,
                        "model" => model = Some(value),
                        // Others have responses too; OpenAI's begin like this, wherever they are served.
                        "response" if !value.starts_with("resp_") => return None,
                        _ => {}
                    }
                }
            }
        }
        Some(model)
    }
}

/// Segments of paths whose bodies look like LLM calls and are not, for paths that no dialect is
/// sure about.
const NOT_CALLS: &[&str] = &[
    "apply-template",
    "assistants",
    "audio",
    "batch",
    "batches",
    "cancel",
    "classify",
    "compact",
    "containers",
    "conversations",
    "count-tokens",
    "count_tokens",
    "create",
    "detokenize",
    "evals",
    "files",
    "fine-tuning",
    "fine_tuning",
    "images",
    "input_items",
    "input_tokens",
    "moderations",
    "ocr",
    "pooling",
    "rerank",
    "score",
    "speech",
    "threads",
    "tokenize",
    "uploads",
    "vector_stores",
    "videos",
];

/// Verbs of Google's APIs that take a call's body and make no call.
const NOT_CALLING: &[&str] = &[
    "asyncBatchEmbedContent",
    "batchGenerateContent",
    "computeTokens",
    "countTokens",
    "fetchPredictOperation",
    "predictLongRunning",
];

/// Whether the path is known to be something other than a call.
pub(super) fn is_no_call(target: &Target<'_>) -> bool {
    let last = target.segments().next_back().unwrap_or("");
    let verb = last.rsplit_once(':').or_else(|| last.rsplit_once("%3A")).map_or("", |(_, verb)| verb);
    // Vertex counts tokens as if it were a model.
    let name = last.split([':', '%']).next().unwrap_or("");
    target.segments().chain([name]).any(|segment| NOT_CALLS.contains(&segment))
        || last == "models"
        || NOT_CALLING.contains(&verb)
}

/// `gen_ai.provider.name` for a request to `target`. A host that no rule knows gives its own name.
pub(super) fn provider_of<'a>(arena: &'a Bump, target: &Target<'_>) -> (&'a str, bool) {
    let host = arena.alloc_str(target.authority.host.unwrap_or(""));
    host.make_ascii_lowercase();
    match provider::of(host, target.path) {
        Some(known) => (known, true),
        None => (host, false),
    }
}

/// `text` without its percent-encoding, in the arena; `None` when that leaves no text.
pub(super) fn percent_decoded<'a>(arena: &'a Bump, text: &str) -> Option<&'a str> {
    let bytes = text.as_bytes().get(..text.len().min(TEXT_BYTES_MAX))?;
    let mut decoded = bumpalo::collections::Vec::with_capacity_in(bytes.len(), arena);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits
            .filter(|digits| *byte == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    std::str::from_utf8(decoded.into_bump_slice()).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &'static str, authority: Option<&'static str>) -> RequestHead<'static> {
        RequestHead {
            method: b"POST",
            target: target.as_bytes(),
            authority: authority.map(str::as_bytes),
            protocol: None,
            fields: &[],
        }
    }

    #[test]
    fn targets_are_taken_apart() {
        for (target, named, host, port, path) in [
            ("/v1/x?key=s", Some("h:81"), Some("h"), Some(81), Some("/v1/x")),
            ("/", Some("h"), Some("h"), None, Some("/")),
            ("/", Some("[::1]:8080"), Some("::1"), Some(8080), Some("/")),
            ("/", Some("[::1]"), Some("::1"), None, Some("/")),
            ("/", Some("::1"), Some("::1"), None, Some("/")),
            ("/", Some("h:0"), Some("h"), None, Some("/")),
            ("/", Some("h:99999"), Some("h"), None, Some("/")),
            ("/", Some("u:p@h:1"), Some("h"), Some(1), Some("/")),
            ("/", Some("\u{7f}"), None, None, Some("/")),
            ("/", None, None, None, Some("/")),
            ("http://o/p?q", Some("h"), Some("o"), Some(80), Some("/p")),
            ("https://o:1?q", None, Some("o"), Some(1), Some("/")),
            ("HTTPS://o", None, Some("o"), Some(443), Some("/")),
            ("/a?b=http://c/", Some("h"), Some("h"), None, Some("/a")),
            ("*", None, None, None, None),
            ("h:443", None, None, None, None),
            ("", None, None, None, None),
        ] {
            let read = Target::of(&head(target, named));
            assert_eq!(read.as_ref().map(|target| target.path), path, "{target}");
            if let Some(read) = read {
                assert_eq!(read.authority, Authority { host, port }, "{target} {named:?}");
            }
        }
    }

    #[test]
    fn paths_have_dialects() {
        for (path, expect, model) in [
            ("/v1/chat/completions", Some("openai.chat"), None),
            ("//openai//deployments/my%20model/chat/completions?x=1", Some("openai.chat"), Some("my%20model")),
            ("/any/prefix/chat/completions/", Some("openai.chat"), None),
            ("/v1/completions", Some("openai.completions"), None),
            ("/openai/deployments/d/completions", Some("openai.completions"), Some("d")),
            ("/v1/embeddings", Some("openai.embeddings"), None),
            ("/v1/responses", Some("openai.responses"), None),
            ("/v1/messages?beta=true", Some("anthropic"), None),
            ("/v1/p/publishers/anthropic/models/c@1:rawPredict", Some("anthropic"), Some("c@1")),
            ("/v1/p/publishers/anthropic/models/c%3ArawPredict", Some("anthropic"), Some("c")),
            ("/v1/p/publishers/anthropic/models/:rawPredict", None, None),
            ("/v1/messages/count_tokens", None, None),
            ("/v1/responses/resp_1/cancel", None, None),
            ("/", None, None),
        ] {
            let head = head(path, None);
            let target = Target::of(&head).unwrap();
            let matched = dialect(b"POST", &target, "");
            assert_eq!(matched.as_ref().map(|matched| matched.dialect.name), expect, "{path}");
            assert_eq!(matched.and_then(|matched| matched.model), model, "{path}");
        }
        let head = head("/v1/responses/resp_1?stream=true&starting_after=5", None);
        let target = Target::of(&head).unwrap();
        assert_eq!(dialect(b"GET", &target, "").unwrap().dialect.name, "openai.fetch");
        assert_eq!((target.parameter("starting_after"), target.parameter("after")), (Some("5"), None));
    }

    #[test]
    fn models_are_decoded() {
        let arena = Bump::new();
        for (text, expect) in [
            ("a%3A0", Some("a:0")),
            ("arn%3aaws%2Fx", Some("arn:aws/x")),
            ("100%", Some("100%")),
            ("%zz", Some("%zz")),
            ("%ff", None),
            ("%0a", None),
            ("%+1", Some("%+1")),
        ] {
            assert_eq!(percent_decoded(&arena, text), expect, "{text}");
        }
    }
}
