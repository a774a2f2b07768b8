//! A start line and its fields, line by line (RFC 9112 sections 2 to 5).

use memchr::{memchr, memchr2};

use super::{
    super::{
        Field, is_in_any_case,
        span::{Span, with_fields},
    },
    Malformed, Side,
};
use crate::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};

/// The longest registered method (UPDATEREDIRECTREF) has 17 bytes.
const METHOD_BYTES_MAX: usize = 32;

#[derive(Clone, Copy, Debug)]
pub(super) enum StartLine {
    Request { method: Span, target: Span },
    Response { status: u16 },
}

/// What came of the lines that were there.
#[derive(Debug)]
pub(super) enum Step {
    /// The head goes on.
    More,
    /// A line that continues the field before it is next: bring the head into a buffer of your own
    /// and call [`HeadParser::unfold`].
    Fold,
    /// The head is whole.
    Done { bytes: usize },
}

#[derive(Debug)]
pub(super) struct HeadParser {
    side: Side,
    start_line: Option<StartLine>,
    /// Names and values.
    fields: Vec<(Span, Span)>,
    /// Where the first line that isn't parsed yet begins.
    next_line: usize,
    /// Lines end in LF, not in CRLF.
    bare_line_feeds: bool,
}

impl HeadParser {
    pub fn new(side: Side) -> Self {
        Self { side, start_line: None, fields: Vec::new(), next_line: 0, bare_line_feeds: false }
    }

    pub fn reset(&mut self) {
        self.start_line = None;
        self.fields.clear();
        self.next_line = 0;
    }

    /// Which messages' heads it parses.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Names and values so far.
    pub fn fields(&self) -> &[(Span, Span)] {
        &self.fields
    }

    /// Where names and values of a head are put that need not be parsed.
    pub fn fields_mut(&mut self) -> &mut Vec<(Span, Span)> {
        &mut self.fields
    }

    /// All fields of such a head are there; its lines end in CRLF.
    pub fn is_read(&mut self, start_line: StartLine) {
        (self.start_line, self.bare_line_feeds) = (Some(start_line), false);
    }

    /// The bytes that are parsed so far.
    pub fn parsed_bytes(&self) -> usize {
        self.next_line
    }

    /// The start line of a whole head.
    pub fn start_line(&self) -> StartLine {
        self.start_line.unwrap_or(StartLine::Response { status: 0 })
    }

    /// Values of the field `name`.
    pub fn values<'a>(&'a self, head: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(span, _)| span.len() == name.len() && is_in_any_case(span.of(head), name))
            .map(move |(_, value)| value.of(head))
    }

    /// Runs `with` on the fields.
    pub fn with_fields<R>(&self, head: &[u8], with: impl FnOnce(&[Field<'_>]) -> R) -> R {
        with_fields(head, &self.fields, with)
    }

    /// Parses the lines of `head` that are whole and weren't parsed before. `head` starts at the
    /// first byte of the start line, each time.
    pub fn advance(&mut self, head: &[u8]) -> Result<Step, Malformed> {
        loop {
            let rest = head.get(self.next_line..).unwrap_or_default();
            let Some(line_feed) = memchr(b'\n', rest) else { break };
            let next_line = self.next_line + line_feed + 1;
            if next_line > HEAD_BYTES_MAX {
                return Err(Malformed::HeadTooLong);
            }
            let line = self.without_return(&rest[..line_feed])?;
            match (line.first(), self.start_line) {
                (_, None) => self.start_line = Some(self.parse_start_line(line)?),
                (None, Some(_)) => return Ok(Step::Done { bytes: next_line }),
                (Some(b' ' | b'\t'), Some(_)) => return Ok(Step::Fold),
                (Some(_), Some(_)) => self.parse_field(line)?,
            }
            self.next_line = next_line;
        }
        self.check_beginning(head)?;
        Ok(Step::More)
    }

    /// Joins a folded line to its field (RFC 9112 section 5.2): the line end before it becomes
    /// spaces.
    pub fn unfold(&mut self, head: &mut [u8]) -> Result<(), Malformed> {
        let Some(&(name, value)) = self.fields.last() else { return Err(Malformed::Fold) };
        let (start, value_end) = (value.start(), value.end());
        if let Some(line_end) = head.get_mut(value_end..self.next_line) {
            line_end.fill(b' ');
        }
        let rest = head.get(self.next_line..).unwrap_or_default();
        let line_feed = memchr(b'\n', rest).ok_or(Malformed::Fold)?;
        let line = self.without_return(&rest[..line_feed])?;
        check_value(line)?;
        let joined = head.get(start..self.next_line + line.len()).unwrap_or_default();
        // A value that was empty so far begins where the text does.
        let leading = joined.len() - joined.trim_ascii_start().len();
        let value = Span::new(start + leading, joined.trim_ascii().len());
        if let Some(field) = self.fields.last_mut() {
            *field = (name, value);
        }
        self.next_line += line_feed + 1;
        Ok(())
    }

    /// Whether lines end in LF, not in CRLF.
    pub fn has_bare_line_feeds(&self) -> bool {
        self.bare_line_feeds
    }

    /// A line without the CR before its LF. RFC 9112 section 2.2 lets a reader do without the CR; but
    /// in a head that has them, a line without is where readers see different fields.
    fn without_return<'a>(&mut self, line: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let stripped = line.strip_suffix(b"\r");
        if self.start_line.is_none() {
            self.bare_line_feeds = stripped.is_none();
        } else if self.bare_line_feeds != stripped.is_none() {
            return Err(Malformed::LineEnd);
        }
        Ok(stripped.unwrap_or(line))
    }

    fn parse_start_line(&self, line: &[u8]) -> Result<StartLine, Malformed> {
        match self.side {
            Side::Requests => parse_request_line(line),
            Side::Responses => parse_status_line(line),
        }
    }

    /// Refuses what can't become a start line, so that no other protocol fills the buffer.
    pub fn check_beginning(&self, head: &[u8]) -> Result<(), Malformed> {
        if self.start_line.is_some() {
            return Ok(());
        }
        let fits = match self.side {
            Side::Responses => head.iter().zip(b"HTTP/1.").all(|(a, b)| a == b),
            Side::Requests => {
                let head = &head[..head.len().min(METHOD_BYTES_MAX + 1)];
                let method = head.iter().take_while(|&&byte| is_token(byte)).count();
                method > 0 && (method == head.len() && method <= METHOD_BYTES_MAX || head.get(method) == Some(&b' '))
            }
        };
        if fits { Ok(()) } else { Err(Malformed::StartLine) }
    }

    fn parse_field(&mut self, line: &[u8]) -> Result<(), Malformed> {
        if self.fields.len() >= HEAD_FIELDS_MAX {
            return Err(Malformed::TooManyFields);
        }
        let colon = memchr(b':', line).ok_or(Malformed::FieldName)?;
        let name = match self.side {
            // RFC 9112 section 5.1: whitespace before the colon is to be refused in a request,
            // since others may read another field, and to be removed from a response.
            Side::Requests => &line[..colon],
            Side::Responses => line[..colon].trim_ascii_end(),
        };
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(Malformed::FieldName);
        }
        let value = &line[colon + 1..];
        check_value(value)?;
        let leading = value.len() - value.trim_ascii_start().len();
        let value_start = self.next_line + colon + 1 + leading;
        let value = Span::new(value_start, value.trim_ascii().len());
        self.fields.push((Span::new(self.next_line, name.len()), value));
        Ok(())
    }
}

/// `method SP target SP HTTP/1.x`; runs of spaces are tolerated (RFC 9112 section 3).
fn parse_request_line(line: &[u8]) -> Result<StartLine, Malformed> {
    let method_bytes = memchr(b' ', line).ok_or(Malformed::StartLine)?;
    let method = &line[..method_bytes];
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !method.iter().all(|&byte| is_token(byte)) {
        return Err(Malformed::StartLine);
    }
    let rest = line[method_bytes..].trim_ascii();
    let last_space = memchr::memrchr(b' ', rest).ok_or(Malformed::StartLine)?;
    parse_version(&rest[last_space + 1..])?;
    let target = rest[..last_space].trim_ascii_end();
    // A space or a control in the target would let another reader see another request.
    if target.is_empty() || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
        return Err(Malformed::StartLine);
    }
    let leading = line[method_bytes..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    Ok(StartLine::Request {
        method: Span::new(0, method_bytes),
        target: Span::new(method_bytes + leading, target.len()),
    })
}

/// `HTTP/1.x SP 3DIGIT [ SP reason ]`; the second space is often left out with an empty reason.
fn parse_status_line(line: &[u8]) -> Result<StartLine, Malformed> {
    let (version, rest) = line.split_at_checked(8).ok_or(Malformed::StartLine)?;
    parse_version(version)?;
    let rest = rest.strip_prefix(b" ").ok_or(Malformed::StartLine)?.trim_ascii_start();
    let (&[a, b, c], reason) = rest.split_first_chunk::<3>().ok_or(Malformed::StartLine)?;
    check_value(reason)?;
    let ends = matches!(reason.first(), None | Some(b' ' | b'\t'));
    if !ends || !matches!(a, b'1'..=b'9') || !b.is_ascii_digit() || !c.is_ascii_digit() {
        return Err(Malformed::StartLine);
    }
    let digit = |byte: u8| u16::from(byte - b'0');
    Ok(StartLine::Response { status: digit(a) * 100 + digit(b) * 10 + digit(c) })
}

fn parse_version(version: &[u8]) -> Result<(), Malformed> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', ..] => Err(Malformed::Version),
        _ => Err(Malformed::StartLine),
    }
}

/// RFC 9110 section 5.5: CR, LF and NUL are dangerous in a value; other controls are only odd.
fn check_value(value: &[u8]) -> Result<(), Malformed> {
    if memchr2(b'\r', 0, value).is_some() { Err(Malformed::FieldValue) } else { Ok(()) }
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};
