//! Requests and replies of the measured gateway: chat completions of any size, plain or streamed.

use std::collections::HashMap;

/// What a request asks for, in headers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Events of a stream, or 0 for a document.
    pub events: usize,
    /// Bytes of content in the document, or in each event.
    pub bytes: usize,
    /// How long the stream pauses in its middle.
    pub hold_ms: u64,
}

/// Every stream says this of its tokens.
const USAGE: &str = r#""usage":{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}"#;

impl Shape {
    /// A request of `body_bytes` or more that asks for this.
    pub fn request(self, body_bytes: usize) -> Vec<u8> {
        let stream = self.events > 0;
        let text = "lorem ipsum ".repeat(body_bytes / 12);
        let body = format!(
            r#"{{"model":"perf-model","messages":[{{"role":"user","content":"{text}"}}],"temperature":0.5,"stream":{stream}}}"#
        );
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             x-perf: {} {} {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.events,
            self.bytes,
            self.hold_ms,
            body.len()
        )
        .into_bytes()
    }

    /// The request at the start of `inbox`, if it is there in full, and its length.
    pub fn of_request(inbox: &[u8]) -> Option<(Self, usize)> {
        let end = memchr::memmem::find(inbox, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&inbox[..end]).ok()?;
        // wrk and curl send none of these, and get a small document.
        let mut shape = Self { events: 0, bytes: 1000, hold_ms: 0 };
        let mut len = 0;
        for line in head.lines() {
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => len = value.parse().ok()?,
                Some(("x-perf", value)) => {
                    let mut numbers = value.split(' ');
                    shape.events = numbers.next()?.parse().ok()?;
                    shape.bytes = numbers.next()?.parse().ok()?;
                    shape.hold_ms = numbers.next()?.parse().ok()?;
                }
                _ => {}
            }
        }
        (inbox.len() >= end + len).then_some((shape, end + len))
    }

    /// The piece before which a stream pauses.
    pub fn hold_after(self) -> usize {
        1 + self.events / 2
    }
}

/// Pieces of replies, each made once.
#[derive(Default)]
pub struct Source(HashMap<Shape, Pieces>);

struct Pieces {
    head: Vec<u8>,
    event: Vec<u8>,
    tail: Vec<u8>,
}

impl Source {
    /// The `index`th piece that is written on its own, if the reply has as many.
    pub fn piece(&mut self, shape: Shape, index: usize) -> Option<&[u8]> {
        let pieces = self.0.entry(shape).or_insert_with(|| Pieces::new(shape));
        match index {
            0 => Some(&pieces.head),
            _ if shape.events == 0 => None,
            _ if index <= shape.events => Some(&pieces.event),
            _ if index == shape.events + 1 => Some(&pieces.tail),
            _ => None,
        }
    }
}

impl Pieces {
    fn new(shape: Shape) -> Self {
        let text = "dolor sit amet ".repeat(shape.bytes / 15);
        if shape.events == 0 {
            let body = format!(
                r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"perf-model-1","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],{USAGE}}}"#
            );
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            return Self { head: [head, body].concat().into_bytes(), event: vec![], tail: vec![] };
        }
        let event = |rest: &str| {
            chunk(&format!(
                r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"perf-model-1","choices":[{{"index":0,{rest}}}"#
            ))
        };
        let last = event(&format!(r#""delta":{{}},"finish_reason":"stop"}}],{USAGE}"#));
        Self {
            head: b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            event: event(&format!(r#""delta":{{"content":"{text}"}},"finish_reason":null}}]"#)),
            tail: [last, chunk("[DONE]"), b"0\r\n\r\n".to_vec()].concat(),
        }
    }
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_back() {
        let shape = Shape { events: 7, bytes: 200, hold_ms: 5 };
        let bytes = shape.request(1000);
        assert_eq!(Shape::of_request(&bytes), Some((shape, bytes.len())));
        assert_eq!(Shape::of_request(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Shape::of_request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET").unwrap().1, 27);
    }

    #[test]
    fn replies_end() {
        let mut source = Source::default();
        let count = |source: &mut Source, events| {
            let shape = Shape { events, bytes: 150, hold_ms: 0 };
            (0..).take_while(|&index| source.piece(shape, index).is_some()).count()
        };
        assert_eq!(count(&mut source, 0), 1);
        assert_eq!(count(&mut source, 3), 5);
        let tail = source.piece(Shape { events: 3, bytes: 150, hold_ms: 0 }, 4).unwrap();
        assert!(tail.ends_with(b"0\r\n\r\n"));
    }
}
