//! Whole exchanges as data: what a wire says and what the call is to say. The tests of dialects are made of it.

use bumpalo::Bump;

use super::{BodyKind, Draft, Ended, Options, Scratch, Verdict};
use crate::{
    exchange::Call,
    wire::{Field, RequestHead, ResponseHead},
};

/// An exchange. Names and values of fields alternate in lines of `name: value`.
#[derive(Clone, Copy)]
pub struct Wire<'w> {
    pub method: &'w str,
    pub host: &'w str,
    pub path: &'w str,
    pub fields: &'w [(&'w str, &'w str)],
    pub request: &'w str,
    pub status: u16,
    pub response_fields: &'w [(&'w str, &'w str)],
    /// A body, or the events of a stream, each of which may have its name before a bar.
    pub response: &'w [&'w str],
    pub ended: Ended,
    pub capture_content: bool,
    pub content_full: bool,
}

/// A request to nowhere, to be filled in.
pub const PLAIN: Wire<'static> = Wire {
    method: "POST",
    host: "llm.example:8000",
    path: "/",
    fields: &[],
    request: "",
    status: 200,
    response_fields: &[("content-type", "application/json")],
    response: &[""],
    ended: Ended::Complete,
    capture_content: false,
    content_full: false,
};

/// The fields of a stream.
pub const SSE: &[(&str, &str)] = &[("Content-Type", "text/event-stream; charset=utf-8")];

/// Pairs as fields.
pub fn fields<'f>(pairs: &'f [(&'f str, &'f str)]) -> Vec<Field<'f>> {
    pairs.iter().map(|(name, value)| Field { name: name.as_bytes(), value: value.as_bytes() }).collect()
}

impl Wire<'_> {
    fn drive<'a>(&self, arena: &'a Bump) -> Option<Call<'a>> {
        let (capture_content, content_full) = (self.capture_content, self.content_full);
        let options = Options { capture_content, content_full, ..Options::default() };
        let mut scratch = Scratch::default();
        let list = fields(self.fields);
        let host = Some(self.host.as_bytes());
        let head = RequestHead {
            method: self.method.as_bytes(),
            target: self.path.as_bytes(),
            authority: host,
            protocol: None,
            fields: &list,
        };
        let draft = Draft::new(arena, &head, &mut scratch, &options)?;
        let verdict = if draft.wants_request_body() {
            draft.request_body(arena, &mut self.request.as_bytes().to_vec(), &mut scratch, &options)
        } else {
            Verdict::Call
        };
        (verdict == Verdict::Call).then_some(())?;
        let list = fields(self.response_fields);
        match draft.response_head(arena, &ResponseHead { status: self.status, fields: &list }) {
            BodyKind::Skip => {}
            BodyKind::Json => {
                let mut body = self.response.concat().into_bytes();
                draft.response_body(arena, &mut body, &mut scratch, &options);
            }
            _ => {
                for event in self.response {
                    // An event's name before a bar, where there is one.
                    let (name, data) = event.split_once('|').unwrap_or(("", event));
                    draft.event(arena, name.as_bytes(), data.as_bytes(), &mut scratch, &options);
                }
            }
        }
        Some(draft.finish(arena, self.ended, &options).clone())
    }
}

/// `expect` has one `field: value` a line, in the form that `Debug` gives it.
#[track_caller]
pub fn check(wire: Wire<'_>, expect: &[&str]) {
    let arena = Bump::new();
    let Some(call) = wire.drive(&arena) else { return assert!(expect.is_empty(), "no call: {}", wire.path) };
    let told = format!("{call:#?}");
    let told: Vec<_> = told
        .replace("Some(\n        ", "")
        .replace(",\n    ),", ",")
        .lines()
        .map(|line| line.trim().trim_end_matches(',').to_owned())
        .collect();
    for line in expect {
        assert!(told.iter().any(|told| told == line), "{}: {line} is not in {told:#?}", wire.path);
    }
    assert!(!expect.is_empty(), "a call: {call:?}");
}
