//! Wire formats: pure bytes to messages. Nothing here knows a ring, a file descriptor or a clock.

pub mod coding;
pub mod eventstream;
#[cfg(any(test, feature = "fuzz"))]
pub mod exercise;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod json_array;
pub mod ndjson;
mod span;
pub mod sse;
pub mod websocket;

/// One field line of a head (RFC 9110 section 5), or one HPACK entry. Names keep the case that the
/// wire had and are compared without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's name.
    pub name: &'a [u8],
    /// The field's value without the whitespace around it.
    pub value: &'a [u8],
}

/// The head of a request, whichever HTTP version carried it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, as sent.
    pub method: &'a [u8],
    /// The request target (HTTP/1) or `:path` (HTTP/2): usually path and query.
    pub target: &'a [u8],
    /// `:authority` of HTTP/2; HTTP/1 has its `Host` among the fields.
    pub authority: Option<&'a [u8]>,
    /// `:protocol` of HTTP/2: what a CONNECT opens a tunnel for (RFC 8441 section 4).
    pub protocol: Option<&'a [u8]>,
    /// All field lines in order.
    pub fields: &'a [Field<'a>],
}

/// The head of a response, whichever HTTP version carried it.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The status code, 100 to 999, or [`STATUS_UNKNOWN`].
    pub status: u16,
    /// All field lines in order.
    pub fields: &'a [Field<'a>],
}

/// In place of an HTTP/2 status that was in a part of the HPACK table that was lost. No wire has it.
pub const STATUS_UNKNOWN: u16 = 0;

/// The values of the field `name` in order.
pub fn fields<'a>(fields: &'a [Field<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
}

/// The first value of the field `name`.
pub fn field<'a>(list: &'a [Field<'a>], name: &'a str) -> Option<&'a [u8]> {
    fields(list, name).next()
}

/// A folder of the corpora for tests: in the folder that `AGENTSIGHT_CORPUS` names. Without it such a
/// test is skipped, except in CI.
#[cfg(test)]
pub(crate) fn corpus(folder: &str) -> Option<std::path::PathBuf> {
    match std::env::var_os("AGENTSIGHT_CORPUS") {
        Some(corpus) => Some(std::path::Path::new(&corpus).join(folder)),
        None => {
            assert!(std::env::var_os("CI").is_none(), "AGENTSIGHT_CORPUS has to be set in CI");
            println!("skipped: AGENTSIGHT_CORPUS isn't set");
            None
        }
    }
}
