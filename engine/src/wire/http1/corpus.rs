//! The cases of llhttp, read from its documentation in Markdown.

use std::{fs, path::Path};

use super::{tests::Journal, *};

/// Cases where this decoder means to differ, and why.
const DIFFERENCES: &[(&str, &[&str])] = &[
    (
        "only HTTP/1 is read",
        &[
            "request/sample: No HTTP version",
            "request/method: SOURCE request with ICE",
            "request/method: OPTIONS request with RTSP",
            "request/method: ANNOUNCE request with RTSP",
            "response/sample: RTSP response",
            "response/sample: ICE response",
            "response/sample: HTTP version 0.9",
        ],
    ),
    (
        "any token is a method (RFC 9110 section 9.1)",
        &[
            "request/method: PRI request HTTP2",
            "request/invalid: HTTP protocol and ANNOUNCE method",
            "request/invalid: Invalid method",
        ],
    ),
    ("the flow learns of a tunnel from the response", &["request/method: CONNECT with body"]),
    (
        "what one peer sends after `close` is still what it sent",
        &[
            "request/connection: No restart when keep-alive is off (1.0)",
            "request/connection: CRLF between requests, explicit `close`",
            "request/connection: CRLF between requests, explicit `close` followed by tab",
            "response/connection: HTTP/1.1 with keep-alive disabled and 204 status",
        ],
    ),
    (
        "Transfer-Encoding overrides Content-Length (RFC 9112 section 6.3), and `identity` says nothing",
        &[
            "request/content-length: Error on simultaneous `Content-Length` and `Transfer-Encoding: identity`",
            "request/transfer-encoding: POST with `Transfer-Encoding` and `Content-Length`",
        ],
    ),
    (
        "extensions are passed over unread, and servers pad sizes with spaces",
        &[
            "request/transfer-encoding: No extension after semicolon",
            "request/transfer-encoding: Unbalanced chunk extensions quoting",
            "request/transfer-encoding: Space after chunk header",
            "response/transfer-encoding: Trailing space on chunked body",
            "response/transfer-encoding: No extension after semicolon",
            "response/transfer-encoding: Unbalanced chunk extensions quoting",
        ],
    ),
    (
        "no reader takes these bytes for another field or message",
        &[
            "request/lenient-header-value-relaxed: Control char in header value (strict)",
            "request/lenient-headers: Header value",
            "request/uri: Disallow UTF-8 in URI path in strict mode",
            "response/invalid: Extra space between HTTP version and status code",
        ],
    ),
    ("a folded line is joined to its field (RFC 9112 section 5.2)", &["request/invalid: Spaces before headers"]),
    (
        "a head whose lines all end in LF is read (RFC 9112 section 2.2)",
        &[
            "response/sample: No carriage ret",
            "response/invalid: Only LFs present and no body",
            "response/invalid: Only LFs present",
        ],
    ),
    (
        "an interim response has no end of its own",
        &["response/connection: HTTP 100 first, then 400", "response/connection: HTTP 103 first, then 200"],
    ),
    ("the file's log is UTF-8, the input is not", &["request/sample: 255 ASCII in header value"]),
];

struct Case {
    name: String,
    side: Side,
    input: Vec<u8>,
    log: String,
}

#[test]
fn the_cases_of_llhttp() {
    let Some(corpus) = crate::wire::corpus("http1/test") else { return };
    let (mut same, mut differ) = (0, Vec::new());
    for folder in ["request", "response"] {
        for file in fs::read_dir(corpus.join(folder)).unwrap() {
            for case in cases(folder, &file.unwrap().path()) {
                let (ours, theirs) = (ours(&case), theirs(&case.log));
                let pauses = case.log.contains("error code=22") && ours.starts_with(&theirs);
                // llhttp hands on the parts of a head before it judges the whole.
                let refuses = ours.last() == theirs.last()
                    && ours.last().is_some_and(|line| line == "error")
                    && theirs.starts_with(&ours[..ours.len() - 1]);
                if ours == theirs || pauses || refuses {
                    same += 1;
                } else {
                    differ.push((case.name, ours, theirs));
                }
            }
        }
    }
    let known = || DIFFERENCES.iter().flat_map(|(_, names)| *names);
    let unknown = differ.iter().filter(|(name, ..)| !known().any(|known| known == name)).collect::<Vec<_>>();
    for (name, ours, theirs) in unknown.iter() {
        println!("{name}\n  ours   {ours:?}\n  theirs {theirs:?}");
    }
    assert!(unknown.is_empty(), "{} cases differ for no known reason", unknown.len());
    for known in known() {
        assert!(differ.iter().any(|(name, ..)| name == known), "{known} differs no longer");
    }
    assert!(same > 100, "only {same} cases were found");
}

/// Cases of the strict parser alone: pausing and leniency are interfaces of llhttp.
fn cases(folder: &str, path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap();
    let file = path.file_stem().unwrap().to_string_lossy();
    let mut cases = Vec::new();
    let (mut title, mut side, mut input) = (String::new(), None, None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("##") {
            title = line.trim_start_matches('#').trim().to_owned();
        } else if let Some(meta) = line.strip_prefix("<!-- meta=") {
            let plain = !meta.contains("pause") && !meta.contains("skipBody");
            side = match meta {
                _ if plain && meta.contains("\"request\"") => Some(Side::Requests),
                _ if plain && meta.contains("\"response\"") => Some(Side::Responses),
                _ => None,
            };
        } else if line == "```http" {
            input = Some(lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n"));
        } else if line == "```log" {
            let log = lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
            if let (Some(side), Some(input)) = (side.take(), input.take()) {
                cases.push(Case { name: format!("{folder}/{file}: {title}"), side, input: unescape(&input), log });
            }
        }
    }
    cases
}

/// Line ends are CRLF unless escaped; `\r`, `\n`, `\t`, `\f` and `\xNN` stand for themselves.
fn unescape(text: &str) -> Vec<u8> {
    let text = text.replace("\\\n", "").replace('\n', "\r\n");
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, used) = match (byte, after) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'f', ..]) => (0x0c, 2),
            (b'\\', [b'x', high, low, ..]) => {
                (u8::from_str_radix(&format!("{}{}", *high as char, *low as char), 16).unwrap(), 4)
            }
            _ => (byte, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    bytes
}

fn ours(case: &Case) -> Vec<String> {
    let mut journal = Journal::default();
    let mut decoder = Decoder::new(case.side);
    decoder.feed(&case.input, &mut journal);
    // Some cases of errors end inside the head, which is judged when it is whole.
    if journal.lines.is_empty() {
        decoder.feed(b"\r\n\r\n", &mut journal);
    }
    let malformed = |line: &String| line.starts_with(char::is_uppercase) && line != "Complete";
    if let Some(at) = journal.lines.iter().position(malformed) {
        journal.lines.truncate(at);
        journal.lines.push("error".into());
    }
    journal.lines.retain(|line| line != "upgrade");
    journal.lines
}

/// llhttp's log in the words of the journal.
fn theirs(log: &str) -> Vec<String> {
    let (mut lines, mut head, mut fields) = (Vec::<String>::new(), String::new(), String::new());
    let mut last = String::new();
    for line in log.lines() {
        let (_, event) = line.split_once(' ').unwrap();
        let event =
            &event.replace("span[body]=cr", "span[body]=\"\\r\"").replace("span[body]=lf", "span[body]=\"\\n\"");
        let span = event.split_once("span[").and_then(|(_, rest)| rest.split_once("]=\""));
        if let Some((kind, text)) = span {
            let text = unescape(text.strip_suffix('"').unwrap_or(text)).escape_ascii().to_string();
            let text = text.as_str();
            match kind {
                "method" => head = format!("> {text}"),
                "url" if last == "url" => head += text,
                "url" => head += &format!(" {text}"),
                "header_field" if last != kind => fields += &format!(" {text}"),
                "header_field" => fields += text,
                "header_value" if last == kind => fields += text,
                "header_value" => fields += &format!("={text}"),
                "body" => match lines.last_mut() {
                    Some(line) if line.starts_with('"') => *line += text,
                    _ => lines.push(format!("\"{text}")),
                },
                _ => {}
            }
            last = kind.to_owned();
        } else if let Some((_, rest)) = event.split_once("headers complete ") {
            if let Some(status) = rest.strip_prefix("status=") {
                head = format!("< {}", status.split(' ').next().unwrap());
            }
            lines.push(format!("{head}{fields}"));
            (head, fields) = (String::new(), String::new());
        } else if event == "message complete" {
            lines.push("Complete".into());
            fields.clear();
        } else if event.starts_with("error code=22") {
        } else if event.starts_with("error code") {
            lines.push("error".into());
        } else if event.ends_with("_value complete") || event.ends_with("_field complete") {
            last.clear();
            // Whitespace behind a value isn't part of it: RFC 9112 section 5.
            fields.truncate(fields.trim_end_matches(' ').trim_end_matches("\\t").trim_end_matches(' ').len());
        }
    }
    lines
}
