//! Whether a span says what the exchange was.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use serde_json::Value;

use super::{
    CANARY,
    receiver::{KIND_CLIENT, STATUS_ERROR, Span},
    talk::Expected,
};

/// The `traceparent` of one sending, by which its span is found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace id in lower-case hex.
    pub trace_id: String,
    /// Parent id in lower-case hex.
    pub parent_id: String,
}

impl TraceParent {
    /// One that nobody else uses.
    pub fn random() -> Self {
        Self { trace_id: format!("{:016x}{:016x}", random(), random()), parent_id: format!("{:016x}", random() | 1) }
    }

    /// The value of the header field (W3C Trace Context, section 3.2).
    pub fn header(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.parent_id)
    }
}

/// 64 random bits: every `RandomState` has keys of its own.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Everything in which `span` departs from what is expected of the exchange sent with `sent`.
pub fn mismatches(span: &Span, expected: &Expected, sent: &TraceParent) -> Vec<String> {
    let mut found = vec![];
    let mut differs = |what: &str, expected: String, actual: String| {
        if expected != actual {
            found.push(format!("{what}: expected {expected}, got {actual}"));
        }
    };
    differs("name", expected.name.clone(), span.name.clone());
    differs("kind", KIND_CLIENT.to_string(), span.kind.to_string());
    differs("trace id", sent.trace_id.clone(), span.trace_id.clone());
    differs("parent span id", sent.parent_id.clone(), span.parent_span_id.clone());
    differs("status code", if expected.error { STATUS_ERROR } else { 0 }.to_string(), span.status.to_string());
    for (name, value) in &expected.attributes {
        let actual = span.attributes.get(*name).unwrap_or(&Value::Null);
        if !same(value, actual) {
            differs(name, shown(value), shown(actual));
        }
    }
    let has_own_id = span.span_id.len() == 16 && span.span_id != sent.parent_id && span.span_id != "0".repeat(16);
    differs("span id is the span's own", true.to_string(), has_own_id.to_string());
    differs("error.type is told", expected.error.to_string(), span.attributes.contains_key("error.type").to_string());
    differs("start comes before end", true.to_string(), (span.start_unix_nano < span.end_unix_nano).to_string());
    differs("a secret is on the span", false.to_string(), holds_secret(span).to_string());
    found.extend(first_chunk_mismatch(span, expected.first_chunk_min));
    found
}

fn first_chunk_mismatch(span: &Span, min: Option<Duration>) -> Option<String> {
    let actual = span.attributes.get("gen_ai.response.time_to_first_chunk");
    let duration = Duration::from_nanos(span.end_unix_nano.saturating_sub(span.start_unix_nano));
    let right = match (min, actual) {
        (None, None) => true,
        (Some(min), Some(Value::Number(seconds))) => {
            seconds.as_f64().is_some_and(|seconds| (min.as_secs_f64()..=duration.as_secs_f64()).contains(&seconds))
        }
        _ => false,
    };
    let wanted = min.map_or("none".to_owned(), |min| format!("{} to {} s", min.as_secs_f64(), duration.as_secs_f64()));
    (!right).then(|| format!("time to first chunk: expected {wanted}, got {}", shown(actual.unwrap_or(&Value::Null))))
}

/// Numbers are compared as numbers: a whole double may be spelled like an integer.
fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(expected), Value::Number(actual)) => expected.as_f64() == actual.as_f64(),
        _ => expected == actual,
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "none".to_owned() } else { value.to_string() }
}

fn holds_secret(span: &Span) -> bool {
    let texts = [&span.name].into_iter().cloned();
    texts.chain(span.attributes.values().map(Value::to_string)).any(|text| text.contains(CANARY))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::demo::talk::{Dialect, Talk};

    /// A span that is right in everything for `talk`.
    fn right(talk: &Talk, sent: &TraceParent) -> Span {
        let expected = talk.expected();
        let attributes: BTreeMap<String, Value> = expected
            .attributes
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Span {
            name: expected.name,
            kind: KIND_CLIENT,
            trace_id: sent.trace_id.clone(),
            span_id: "00f067aa0ba902b7".to_owned(),
            parent_span_id: sent.parent_id.clone(),
            start_unix_nano: 1,
            end_unix_nano: 2,
            status: 0,
            attributes,
            resource: BTreeMap::new(),
        }
    }

    fn check(spoil: impl FnOnce(&mut Span), expected: &[&str]) {
        let talk = Talk::numbered(Dialect::Chat, 1);
        let sent = TraceParent::random();
        let mut span = right(&talk, &sent);
        spoil(&mut span);
        let found = mismatches(&span, &talk.expected(), &sent);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn every_departure_is_told() {
        check(|_| {}, &[]);
        check(|span| span.name.push('x'), &["name"]);
        check(|span| span.kind = 2, &["kind"]);
        check(|span| span.parent_span_id.clear(), &["parent span id"]);
        check(|span| span.status = STATUS_ERROR, &["status code"]);
        check(|span| span.end_unix_nano = 0, &["start comes before end"]);
        check(|span| span.span_id.clone_from(&span.parent_span_id), &["span id"]);
        let set = |name: &'static str, value: Value| {
            move |span: &mut Span| drop(span.attributes.insert(name.to_owned(), value))
        };
        check(set("gen_ai.usage.input_tokens", json!(15)), &["gen_ai.usage.input_tokens"]);
        check(set("gen_ai.usage.input_tokens", json!(14.0)), &[]);
        check(set("gen_ai.request.stream", json!(true)), &["gen_ai.request.stream"]);
        check(set("error.type", json!("x")), &["error.type", "error.type is told"]);
        check(set("gen_ai.response.time_to_first_chunk", json!(0.1)), &["time to first chunk"]);
        check(set("x", json!([CANARY])), &["a secret"]);
        check(|span| drop(span.attributes.remove("gen_ai.response.id")), &["gen_ai.response.id"]);
    }
}
