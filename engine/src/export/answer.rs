//! What a collector's answer says about the request.

use std::time::{Duration, SystemTime};

use agentsight_otlp::response::{decode_export_response, decode_status};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, DATE, HeaderName, LOCATION, RETRY_AFTER},
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    batch::Outcome,
    retry::{is_retryable, retry_after},
};
use crate::limits;

/// What one attempt came to.
pub(super) enum Attempt {
    /// The batch has met its end.
    Done(Outcome),
    /// It may be sent again, after a pause that the collector may have chosen.
    Again { after: Option<Duration>, trouble: Trouble },
}

/// Why an attempt failed.
pub(super) struct Trouble {
    /// In words for a person.
    pub(super) why: String,
    /// What a person has to do, where trying again will not help.
    pub(super) remedy: Option<&'static str>,
}

impl Attempt {
    /// A failure that may be over the next time.
    pub(super) fn again(why: String) -> Self {
        Self::Again { after: None, trouble: Trouble { why, remedy: None } }
    }
}

/// Tells from a response, whose body is awaited until `deadline`, what became of the request.
pub(super) async fn read(response: Response<Incoming>, deadline: Option<Instant>) -> Attempt {
    let (head, body) = response.into_parts();
    let body = match whole(body, deadline).await {
        Ok(body) => body,
        Err(TooLong) => {
            let why = format!("its response ({}) is too long", head.status);
            return Attempt::Done(Outcome::Refused { why });
        }
    };
    if head.status.is_success() {
        let (rejected, message) = partial_success(&head.headers, &body).unwrap_or_default();
        let rejected = rejected.try_into().unwrap_or(0);
        return Attempt::Done(Outcome::Delivered { rejected, message: shorten(&message) });
    }
    let why = refusal(head.status, &head.headers, &body);
    if !is_retryable(head.status.as_u16()) {
        return Attempt::Done(Outcome::Refused { why });
    }
    // A date is that of the collector's clock, which need not be ours.
    let date = text(&head.headers, DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.unwrap_or_else(SystemTime::now);
    let after = text(&head.headers, RETRY_AFTER).and_then(|value| retry_after(value, now));
    Attempt::Again { after, trouble: Trouble { why, remedy: None } }
}

/// A body beyond the bound.
struct TooLong;

/// The body, or nothing if it ends before it should or takes too long: the status says what counts,
/// and what could not be read would only have explained it.
async fn whole(body: Incoming, deadline: Option<Instant>) -> Result<Bytes, TooLong> {
    let reading = Limited::new(body, limits::EXPORT_RESPONSE_BYTES_MAX).collect();
    let read = match deadline {
        None => reading.await,
        Some(deadline) => match timeout_at(deadline, reading).await {
            Ok(read) => read,
            Err(_elapsed) => return Ok(Bytes::new()),
        },
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(TooLong),
        Err(_) => Ok(Bytes::new()),
    }
}

/// How many records were rejected, and what the collector says about it. A full success is an empty
/// message, or one without either.
fn partial_success(headers: &HeaderMap, body: &[u8]) -> Option<(i64, String)> {
    if is(headers, "application/x-protobuf") {
        let partial = decode_export_response(body).ok()?.partial_success?;
        return Some((partial.rejected, partial.error_message));
    }
    if !is(headers, "application/json") {
        return None;
    }
    let response: Value = serde_json::from_slice(body).ok()?;
    // Names as in the specification, or as in the protobuf files, which parsers have to take too.
    let partial = response.get("partialSuccess").or_else(|| response.get("partial_success"))?;
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejected_spans", "rejected_data_points"];
    let rejected = rejected.iter().find_map(|name| partial.get(name)).and_then(|count| match count {
        Value::String(digits) => digits.parse().ok(),
        number => number.as_i64(),
    });
    let message = partial.get("errorMessage").or_else(|| partial.get("error_message")).and_then(Value::as_str);
    Some((rejected.unwrap_or(0), message.unwrap_or_default().to_owned()))
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    if let Some(location) = text(headers, LOCATION).filter(|_| status.is_redirection()) {
        // A query may hold a key.
        let location = shorten(location.split(['?', '#']).next().unwrap_or_default());
        return format!("it answered {status} and points to {location}, which the endpoint would have to name");
    }
    let message = if is(headers, "application/x-protobuf") {
        decode_status(body).map(|status| status.message).unwrap_or_default()
    } else {
        let plain = || String::from_utf8_lossy(body).into_owned();
        let message = |body| serde_json::from_slice::<Value>(body).ok()?.get("message")?.as_str().map(str::to_owned);
        is(headers, "application/json").then(|| message(body)).flatten().unwrap_or_else(plain)
    };
    let message = shorten(&message);
    if message.is_empty() { format!("it answered {status}") } else { format!("it answered {status}: {message}") }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let kind = text(headers, CONTENT_TYPE).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

/// A stranger's words for our log: one line of moderate length without control characters.
pub(super) fn shorten(message: &str) -> String {
    const CHARS_MAX: usize = 300;
    let line = message.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    line.take(CHARS_MAX).collect()
}

/// What a fuzzer does with a collector's answer: a byte for its status, one for its media type, a line that is its
/// `Retry-After`, and its body. Panics when reading does, or when what is said of it could spoil a log.
#[cfg(any(test, feature = "fuzz"))]
pub fn exercise(data: &[u8]) {
    let &[status, kind, ref rest @ ..] = data else { return };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (line, body) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let kind = ["application/json", "application/x-protobuf", "text/plain", ""][usize::from(kind % 4)];
    let mut headers = HeaderMap::new();
    for (name, value) in [(CONTENT_TYPE, kind.as_bytes()), (RETRY_AFTER, line), (LOCATION, line)] {
        if let Ok(value) = value.try_into() {
            headers.insert(name, value);
        }
    }
    if let Some(pause) = text(&headers, RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::UNIX_EPOCH)) {
        assert!(pause <= super::retry::RETRY_AFTER_MAX);
    }
    let message = partial_success(&headers, body).map(|(_, message)| shorten(&message));
    let status = StatusCode::from_u16(100 + u16::from(status) * 2).unwrap_or(StatusCode::BAD_REQUEST);
    for line in [message.unwrap_or_default(), refusal(status, &headers, body)] {
        assert!(line.chars().count() < 500 && !line.chars().any(char::is_control), "{line:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_the_fuzzer() {
        crate::wire::exercise::replay("answer", exercise, 1);
    }

    fn headers(media_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())])
    }

    #[test]
    fn partial_success_in_json() {
        let check = |media_type: &str, body: &str, expected: Option<(i64, &str)>| {
            let found = partial_success(&headers(media_type), body.as_bytes());
            assert_eq!(found.as_ref().map(|(rejected, message)| (*rejected, message.as_str())), expected, "{body}");
        };
        let json = "application/json; charset=utf-8";
        check(json, "{}", None);
        check(json, r#"{"partialSuccess":{}}"#, Some((0, "")));
        check(json, r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"bad"}}"#, Some((3, "bad")));
        check(json, r#"{"partialSuccess":{"rejectedDataPoints":4}}"#, Some((4, "")));
        check(json, r#"{"partial_success":{"rejected_spans":"5","error_message":"x","new":[]}}"#, Some((5, "x")));
        check(json, r#"{"partialSuccess":{"rejectedSpans":"many"}}"#, Some((0, "")));
        check(json, r#"{"partialSuccess":7}"#, Some((0, "")));
        check(json, "garbage", None);
        check("text/plain", r#"{"partialSuccess":{"rejectedSpans":"3"}}"#, None);
    }

    #[test]
    fn refusals_are_explained() {
        let check = |headers: HeaderMap, body: &[u8], expected: &str| {
            assert_eq!(refusal(StatusCode::BAD_REQUEST, &headers, body), expected);
        };
        check(headers("text/plain"), b"no\n\x1b[31m", "it answered 400 Bad Request: no  [31m");
        check(headers("application/json"), br#"{"code":3,"message":"no"}"#, "it answered 400 Bad Request: no");
        check(headers("application/json"), b"[1]", "it answered 400 Bad Request: [1]");
        check(headers("application/x-protobuf"), &[0x12, 2, b'n', b'o'], "it answered 400 Bad Request: no");
        check(headers("application/x-protobuf"), b"\xff", "it answered 400 Bad Request");
        let moved = HeaderMap::from_iter([(LOCATION, "https://c/v1/traces?key=s3cret".parse().unwrap())]);
        let text = refusal(StatusCode::MOVED_PERMANENTLY, &moved, b"");
        assert!(text.contains("https://c/v1/traces,") && !text.contains("s3cret"), "{text}");
    }
}
