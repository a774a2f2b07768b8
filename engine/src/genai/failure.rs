//! What went wrong, in the provider's words: `error.type`.

use super::json::Json;

/// Longest error type that is taken for one.
const ERROR_TYPE_BYTES_MAX: usize = 64;

/// An error that a body or an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure<'t> {
    /// Its code or type, if that is a word and not a sentence.
    pub kind: Option<&'t str>,
}

/// The error in the body of a response whose status says that it is one.
pub(super) fn of_body<'t>(body: Json<'t>) -> Failure<'t> {
    // Google's streams wrap it in an array.
    let body = body.items().next().unwrap_or(body);
    reported(body).unwrap_or_else(|| Failure { kind: kind(body) })
}

/// What is asked of a body or an event here; its type also tells which event it is.
pub(super) const PATHS: &[&[&str]] = &[
    &["error"],
    &["x_groq", "error"],
    &["response", "error"],
    &["code"],
    &["type"],
    &["status"],
    &["error_type"],
    &["__type"],
];

/// Everybody's place for an error, Groq's, that of the Responses API's events, and what says that all of one is.
pub(super) const REPORTING: [&str; 4] = ["error", "x_groq", "response", "type"];

/// The error that a body or an event reports, whatever the status says.
pub(super) fn reported<'t>(body: Json<'t>) -> Option<Failure<'t>> {
    let [error, groq, response, name] = body.find(REPORTING);
    let inside = |place: Option<Json<'t>>| place.and_then(|place| place.get("error"));
    let errors = || [error, inside(groq), inside(response)].into_iter().flatten();
    let error = errors().find(|error| is_error(*error));
    // The Responses API's own event for errors has no object inside.
    let plain = || (name.and_then(Json::text) == Some("error")).then_some(body);
    let error = error.or_else(plain)?;
    let word = || error.text().filter(|text| is_word(text));
    Some(Failure { kind: kind(error).or_else(word).or_else(|| kind(body)) })
}

/// `null`, an empty string and `false` are ways to say that there is none.
fn is_error(value: Json<'_>) -> bool {
    value.text().is_some() || value.entries().next().is_some()
}

/// The code or type of an error object. A code that is a number says less than a type.
fn kind<'t>(error: Json<'t>) -> Option<&'t str> {
    let word = |key: &str| error.get(key).and_then(Json::text).filter(|text| is_word(text));
    let named = |text: &&str| !text.bytes().all(|byte| byte.is_ascii_digit());
    let aws = |key: &str| word(key).map(aws_type);
    word("code")
        .filter(named)
        .or_else(|| word("type").filter(|kind| *kind != "error"))
        .or_else(|| word("status").filter(named))
        .or_else(|| word("error_type"))
        .or_else(|| aws("__type"))
        .or_else(|| word("code"))
}

/// A name for a kind of error: no message, which would be different each time.
pub(super) fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'/' | b'#');
    !text.is_empty() && text.len() <= ERROR_TYPE_BYTES_MAX && text.bytes().all(plain)
}

/// The name in an AWS error type: `namespace#Name:documentation`.
pub(super) fn aws_type(text: &str) -> &str {
    let text = text.split_once(':').map_or(text, |(name, _)| name);
    text.rsplit_once('#').map_or(text, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genai::json::Scratch;

    fn check(body: &str, in_success: bool, expect: Option<&str>) {
        let (reported, kind) = Scratch::default()
            .parse(&mut body.as_bytes().to_vec(), |json| {
                (reported(json).is_some(), of_body(json).kind.map(str::to_owned))
            })
            .unwrap();
        assert_eq!((reported, kind.as_deref()), (in_success, expect), "{body}");
    }

    #[test]
    fn errors_have_types() {
        check(r#"{"error":{"type":"invalid_request_error","code":"model_not_found"}}"#, true, Some("model_not_found"));
        check(r#"{"error":{"type":"invalid_request_error","code":null}}"#, true, Some("invalid_request_error"));
        check(r#"{"error":{"type":"NotFoundError","code":404}}"#, true, Some("NotFoundError"));
        check(r#"{"error":{"code":"401","message":"m"}}"#, true, Some("401"));
        check(r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, true, Some("overloaded_error"));
        check(r#"{"type":"error","code":"rate_limit_exceeded","message":"m"}"#, true, Some("rate_limit_exceeded"));
        check(r#"[{"error":{"code":400,"status":"INVALID_ARGUMENT"}}]"#, false, Some("INVALID_ARGUMENT"));
        check(r#"{"error":{"code":429,"message":"m","metadata":{}}}"#, true, None);
        check(r#"{"error":"model 'x' not found"}"#, true, None);
        check(r#"{"error":"overloaded","error_type":"overloaded"}"#, true, Some("overloaded"));
        check(r#"{"code":"The caller has no permission","error":"So it is."}"#, true, None);
        check(r#"{"object":"error","message":"m","type":"invalid_model","code":"1500"}"#, false, Some("invalid_model"));
        check(r#"{"__type":"com.amazon#ThrottlingException","message":"m"}"#, false, Some("ThrottlingException"));
        check(r#"{"x_groq":{"error":{"code":"tool_use_failed"}}}"#, true, Some("tool_use_failed"));
        for fine in [r#"{"error":null}"#, r#"{"error":""}"#, r#"{"error":{}}"#, r#"{"error":false}"#, "{}", "[]", "1"] {
            check(fine, false, None);
        }
    }
}
