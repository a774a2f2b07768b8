//! Where a message ends (RFC 9112 section 6.3).

use super::{
    super::{Field, fields},
    Answers, Malformed, Side,
    head::HeadParser,
};

/// What a head's fields say about its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    transfer: Transfer,
    length: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// No Transfer-Encoding.
    None,
    /// `chunked` was applied last.
    Chunked,
    /// Another coding was applied last, so that only the connection's end ends the body.
    Other,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The message ends with its head.
    None,
    Length(u64),
    Chunked,
    UntilClose,
    /// The response proper is still to come.
    Interim,
    /// Another protocol.
    Switch,
}

impl Framing {
    pub fn of(parser: &HeadParser, head: &[u8], side: Side) -> Result<Self, Malformed> {
        let transfer = transfer(parser.values(head, "transfer-encoding"))?;
        if side == Side::Requests && transfer == Transfer::Other {
            return Err(Malformed::TransferEncoding);
        }
        Ok(Self { transfer, length: content_length(parser.values(head, "content-length"))? })
    }

    pub fn of_request(self) -> Body {
        match self.transfer {
            // Transfer-Encoding overrides Content-Length.
            Transfer::Chunked | Transfer::Other => Body::Chunked,
            Transfer::None => self.length.map_or(Body::None, Body::Length),
        }
    }

    pub fn of_response(self, status: u16, answers: Answers) -> Body {
        match (status, answers) {
            (101, _) => Body::Switch,
            (100..200, _) => Body::Interim,
            (200..300, Answers::Connect) => Body::Switch,
            (204 | 304, _) | (_, Answers::Head) => Body::None,
            _ => match (self.transfer, self.length) {
                (Transfer::Chunked, _) => Body::Chunked,
                (Transfer::Other, _) | (Transfer::None, None) => Body::UntilClose,
                (Transfer::None, Some(length)) => Body::Length(length),
            },
        }
    }
}

fn transfer<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Transfer, Malformed> {
    let (mut transfer, mut chunked_before) = (Transfer::None, false);
    for value in values {
        let mut empty = true;
        for coding in list(value) {
            empty = false;
            transfer = match (transfer, coding.eq_ignore_ascii_case(b"chunked")) {
                (_, true) if chunked_before => return Err(Malformed::TransferEncoding),
                (_, true) => {
                    chunked_before = true;
                    Transfer::Chunked
                }
                // RFC 2616 had `identity`, which says nothing.
                (Transfer::None, false) if coding.eq_ignore_ascii_case(b"identity") => Transfer::None,
                (_, false) => Transfer::Other,
            };
        }
        // Readers disagree whether an empty field overrides Content-Length.
        if empty {
            return Err(Malformed::TransferEncoding);
        }
    }
    Ok(transfer)
}

/// One number, which may have been repeated by a relay that joins fields.
fn content_length<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<u64>, Malformed> {
    let mut values = values.peekable();
    let Some(first) = values.next() else { return Ok(None) };
    if values.peek().is_none()
        && let Some(number) = plain_number(first)
    {
        return Ok(Some(number));
    }
    let mut length = None;
    for value in std::iter::once(first).chain(values).flat_map(|value| value.split(|&byte| byte == b',')) {
        let digits = value.trim_ascii();
        if digits.is_empty() {
            return Err(Malformed::ContentLength);
        }
        let number = digits.iter().try_fold(0u64, |number, &byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        });
        let number = number.ok_or(Malformed::ContentLength)?;
        if length.is_some_and(|before| before != number) {
            return Err(Malformed::ContentLength);
        }
        length = Some(number);
    }
    Ok(length)
}

/// What nearly all lengths are: digits alone, no more than 64 bits surely hold.
fn plain_number(value: &[u8]) -> Option<u64> {
    let is_plain = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_plain.then(|| value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The elements of a comma-separated list, without parameters; empty ones don't count.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(|element| element.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii())
        .filter(|element| !element.is_empty())
}

/// The transfer codings that are still on a body as it is handed on, which is without a final
/// `chunked`, in the order in which they were applied. Hardly anybody uses them, but a body under
/// one must not be read as plain.
pub fn transfer_codings<'a>(head: &'a [Field<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let codings = || fields(head, "transfer-encoding").flat_map(list);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let final_chunked = usize::from(codings().last().is_some_and(is_chunked));
    let left = codings().count() - final_chunked;
    codings().take(left).filter(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}
