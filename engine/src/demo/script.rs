//! A scripted exchange: the request that a client sends, the bytes that answer it, and the span that
//! both must give.

use std::{io::Write, time::Duration};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};

use super::{
    dialect,
    talk::{Expected, Failure, Talk},
};

/// How the end of the reply's body is told (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`.
    Length,
    /// By chunked transfer coding.
    Chunked,
    /// By the connection's end.
    UntilClose,
}

/// The reply's content coding (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// None.
    Identity,
    /// gzip; a stream is flushed after every event, as servers do.
    Gzip,
    /// deflate, which means the zlib format.
    Deflate,
}

/// The request of a [`Script`].
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The host, for `Host` and for the name in the TLS handshake.
    pub host: String,
    /// The request target.
    pub path: String,
    /// Further header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The reply of a [`Script`].
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body before its coding, in the pieces that are sent one by one.
    pub pieces: Vec<Vec<u8>>,
    /// How the body's end is told.
    pub framing: Framing,
    /// Its content coding.
    pub coding: Coding,
    /// Waited before the first piece.
    pub delay: Duration,
    /// Waited between pieces.
    pub pause: Duration,
    /// Pieces after which the connection is cut without a proper end.
    pub cut_after: Option<usize>,
    /// Close the connection after the reply, and say so.
    pub close: bool,
}

/// One scripted exchange.
#[derive(Clone, Debug)]
pub struct Script {
    /// Sent as `x-demo-id`, by which the mock knows what to answer.
    pub id: String,
    /// What it shows, for people.
    pub title: String,
    /// What the client sends.
    pub request: Request,
    /// What the mock answers.
    pub reply: Reply,
    /// What the span must say.
    pub expected: Expected,
}

impl Script {
    /// The exchange that `talk` is about, with a reply in one piece or one piece for each event.
    pub fn new(id: impl Into<String>, title: impl Into<String>, talk: &Talk) -> Self {
        let streamed = talk.stream && !matches!(talk.failure, Some(Failure::Refused { .. }));
        let pieces: Vec<Vec<u8>> = match streamed {
            true => dialect::events(talk).iter().map(|(name, data)| event_bytes(*name, data)).collect(),
            false => vec![dialect::reply_body(talk).to_string().into_bytes()],
        };
        let cut_after = (talk.failure == Some(Failure::CutOff)).then_some(pieces.len() / 2);
        let headers = dialect::request_headers(talk.dialect);
        Self {
            id: id.into(),
            title: title.into(),
            request: Request {
                method: "POST",
                host: talk.host.clone(),
                path: dialect::path(talk),
                headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                body: dialect::request_body(talk).to_string().into_bytes(),
            },
            reply: Reply {
                status: talk.status(),
                content_type: if streamed { "text/event-stream; charset=utf-8" } else { "application/json" },
                pieces,
                framing: if streamed { Framing::Chunked } else { Framing::Length },
                coding: Coding::Identity,
                delay: Duration::ZERO,
                pause: Duration::ZERO,
                cut_after,
                close: false,
            },
            expected: talk.expected(),
        }
    }

    /// The same with another framing of the reply.
    pub fn framed(mut self, framing: Framing) -> Self {
        self.reply.framing = framing;
        self.reply.close |= framing == Framing::UntilClose;
        self
    }

    /// The same with a content coding of the reply.
    pub fn coded(mut self, coding: Coding) -> Self {
        self.reply.coding = coding;
        self
    }

    /// The same, but the mock takes its time before the first piece and between pieces.
    pub fn paced(mut self, delay: Duration, pause: Duration) -> Self {
        self.reply.delay = delay;
        self.reply.pause = pause;
        self.expected.first_chunk_min = self.expected.first_chunk_min.map(|_| delay);
        self
    }

    /// The same with the reply's body sent in pieces of `length` bytes.
    pub fn cut_into(mut self, length: usize) -> Self {
        self.reply.pieces = self.reply.pieces.concat().chunks(length.max(1)).map(<[u8]>::to_vec).collect();
        self
    }

    /// The request as it stands on the wire, with the header fields of one sending added.
    pub fn request_bytes(&self, added: &[(&str, &str)]) -> Vec<u8> {
        let Request { method, host, path, headers, body } = &self.request;
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
        let own = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(added.iter().copied()) {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let id = &self.id;
        bytes.extend_from_slice(format!("x-demo-id: {id}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        bytes
    }
}

/// One event of the `text/event-stream` format (HTML standard, section 9.2.5).
fn event_bytes(name: Option<&str>, data: &str) -> Vec<u8> {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
    .into_bytes()
}

impl Reply {
    /// What is written to the connection, in order: the head first. With `cut_after`, less than all.
    pub fn writes(&self) -> Vec<Vec<u8>> {
        let coded = self.coded_pieces();
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        head.push_str(&format!("content-type: {}\r\nx-request-id: req_demo\r\n", self.content_type));
        match self.coding {
            Coding::Identity => {}
            Coding::Gzip => head.push_str("content-encoding: gzip\r\n"),
            Coding::Deflate => head.push_str("content-encoding: deflate\r\n"),
        }
        match self.framing {
            Framing::Length => {
                head.push_str(&format!("content-length: {}\r\n", coded.iter().map(Vec::len).sum::<usize>()));
            }
            Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            Framing::UntilClose => {}
        }
        if self.close {
            head.push_str("connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut writes = vec![head.into_bytes()];
        let kept = self.cut_after.unwrap_or(coded.len());
        for piece in coded.into_iter().take(kept).filter(|piece| !piece.is_empty()) {
            writes.push(match self.framing {
                Framing::Chunked => [format!("{:x}\r\n", piece.len()).into_bytes(), piece, b"\r\n".to_vec()].concat(),
                _ => piece,
            });
        }
        if self.framing == Framing::Chunked && self.cut_after.is_none() {
            writes.push(b"0\r\n\r\n".to_vec());
        }
        writes
    }

    fn coded_pieces(&self) -> Vec<Vec<u8>> {
        match self.coding {
            Coding::Identity => self.pieces.clone(),
            Coding::Gzip => {
                coded(&self.pieces, GzEncoder::new(vec![], Compression::default()), GzEncoder::get_mut, |encoder| {
                    encoder.finish()
                })
            }
            Coding::Deflate => {
                coded(&self.pieces, ZlibEncoder::new(vec![], Compression::default()), ZlibEncoder::get_mut, |encoder| {
                    encoder.finish()
                })
            }
        }
    }
}

/// Runs `pieces` through one encoder, flushed after each.
fn coded<E: Write>(
    pieces: &[Vec<u8>],
    mut encoder: E,
    output: fn(&mut E) -> &mut Vec<u8>,
    finish: fn(E) -> std::io::Result<Vec<u8>>,
) -> Vec<Vec<u8>> {
    // Writing to memory can't fail.
    let mut coded: Vec<Vec<u8>> = vec![];
    for piece in pieces {
        let _ = encoder.write_all(piece).and_then(|()| encoder.flush());
        coded.push(std::mem::take(output(&mut encoder)));
    }
    coded.extend(finish(encoder).ok());
    coded
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::demo::talk::Dialect;

    #[test]
    fn a_coded_and_chunked_reply_decodes_to_what_was_written() {
        let talk = Talk::numbered(Dialect::Messages, 3).streamed();
        let plain = Script::new("s", "", &talk).reply.pieces.concat();
        for coding in [Coding::Identity, Coding::Gzip, Coding::Deflate] {
            let reply = Script::new("s", "", &talk).coded(coding).framed(Framing::Chunked).reply;
            let writes = reply.writes();
            assert_eq!(writes.last().unwrap(), b"0\r\n\r\n");
            let data = |write: &Vec<u8>| {
                let start = write.iter().position(|&byte| byte == b'\n').unwrap() + 1;
                write[start..write.len() - 2].to_vec()
            };
            let coded: Vec<u8> = writes[1..writes.len() - 1].iter().flat_map(data).collect();
            let mut decoded = vec![];
            match coding {
                Coding::Identity => decoded = coded,
                Coding::Gzip => drop(flate2::read::GzDecoder::new(&coded[..]).read_to_end(&mut decoded).unwrap()),
                Coding::Deflate => drop(flate2::read::ZlibDecoder::new(&coded[..]).read_to_end(&mut decoded).unwrap()),
            }
            assert_eq!(decoded, plain);
        }
    }

    #[test]
    fn a_reply_that_is_cut_has_no_end() {
        let talk = Talk { failure: Some(Failure::CutOff), ..Talk::numbered(Dialect::Chat, 1).streamed() };
        let writes = Script::new("s", "", &talk).reply.writes();
        assert!(writes.len() > 1 && !writes.concat().ends_with(b"0\r\n\r\n"));
    }
}
