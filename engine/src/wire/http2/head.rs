//! Field sections as heads (RFC 9113 section 8.3).

use super::{
    super::{Field, RequestHead, ResponseHead, STATUS_UNKNOWN},
    Malformed,
};

/// What a field section is.
pub(super) enum Section<'a> {
    Request(RequestHead<'a>),
    Response(ResponseHead<'a>),
    Trailers(&'a [Field<'a>]),
}

/// Tells what a section is. Pseudo-fields come first, and trailers have none.
pub(super) fn section<'a>(
    fields: &'a [Field<'a>],
    unknown: usize,
    is_request: bool,
    follows_head: bool,
    ends_stream: bool,
) -> Result<Section<'a>, Malformed> {
    let is_pseudo = |field: &Field<'_>| field.name.first() == Some(&b':');
    let regular = fields.iter().position(|field| !is_pseudo(field)).unwrap_or(fields.len());
    let (pseudo, fields) = fields.split_at(regular);
    if follows_head && pseudo.is_empty() {
        return Ok(Section::Trailers(fields));
    }
    // Each at most once (section 8.3).
    let value = |name: &[u8]| {
        let mut values = pseudo.iter().filter(|field| field.name == name).map(|field| field.value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Malformed::Head),
        }
    };
    // A response whose only pseudo-field is unknown may as well be trailers of one that wasn't seen.
    let may_be_head = !pseudo.is_empty() || !is_request && unknown > 0 && !ends_stream;
    if follows_head || fields.iter().any(is_pseudo) || !may_be_head {
        return Err(Malformed::Head);
    }
    if is_request {
        let (method, target) = (value(b":method")?, value(b":path")?);
        if unknown == 0 && (method.is_none() || target.is_none() && method != Some(b"CONNECT")) {
            return Err(Malformed::Head);
        }
        let (method, target) = (method.unwrap_or_default(), target.unwrap_or_default());
        let (authority, protocol) = (value(b":authority")?, value(b":protocol")?);
        return Ok(Section::Request(RequestHead { method, target, authority, protocol, fields }));
    }
    let status = match value(b":status")? {
        Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            let digit = |byte: u8| u16::from(byte - b'0');
            digit(a) * 100 + digit(b) * 10 + digit(c)
        }
        None if unknown > 0 => STATUS_UNKNOWN,
        _ => return Err(Malformed::Head),
    };
    Ok(Section::Response(ResponseHead { status, fields }))
}
