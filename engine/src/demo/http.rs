//! Just enough HTTP/1.1 to serve the demo's own connections, over blocking streams.
//!
//! It is written apart from [`crate::wire`], so that what serves the test traffic doesn't share its
//! mistakes with what is tested.

use std::io::{self, BufRead, Read};

/// A head longer than this is refused.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// A body longer than this is refused.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request with its whole body.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// Field names in lower case, and their values.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
}

impl Received {
    /// The first value of a field; `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client ends the connection after the reply.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads the next request; none if the connection ended before it began.
///
/// `go_on` is called when the client waits for a "100 Continue" before it sends the body.
pub fn read_request<R: BufRead>(
    stream: &mut R,
    go_on: impl FnOnce(&mut R) -> io::Result<()>,
) -> io::Result<Option<Received>> {
    let Some(start) = read_line(stream)? else { return Ok(None) };
    let mut words = start.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(invalid("request line")) };
    let mut received = Received { method: method.to_owned(), target: target.to_owned(), ..Received::default() };
    loop {
        let line = read_line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("field line"))?;
        received.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        if received.headers.len() > 256 {
            return Err(invalid("number of field lines"));
        }
    }
    if received.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        go_on(stream)?;
    }
    received.body = match received.header("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => read_chunks(stream)?,
        _ => {
            let length = received.header("content-length").unwrap_or("0");
            read_exactly(stream, length.parse().map_err(|_| invalid("Content-Length"))?)?
        }
    };
    Ok(Some(received))
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = vec![];
    loop {
        let line = read_line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).map_err(|_| invalid("chunk size"))?;
        if body.len().saturating_add(length) > BODY_BYTES_MAX {
            return Err(invalid("length of the body"));
        }
        body.extend(read_exactly(stream, length)?);
        // The end of the chunk's data, or of the trailers.
        while read_line(stream)?.is_some_and(|line| length == 0 && !line.is_empty()) {}
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_exactly(stream: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(invalid("length of the body"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// The next line without its end; none at the end of the connection.
fn read_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = vec![];
    stream.take(HEAD_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(invalid("line")),
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map(Some).map_err(|_| invalid("line"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the request's {what} is not valid"))
}
