use proptest::prelude::*;

use super::*;

/// Writes down what a decoder says, one line an event; runs of body bytes are joined.
#[derive(Default)]
pub(super) struct Journal {
    pub lines: Vec<String>,
    pub alone: bool,
    pub answers: Vec<Answers>,
}

impl Journal {
    fn text(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }

    fn push_fields(line: &mut String, fields: &[crate::wire::Field<'_>]) {
        for field in fields {
            *line += &format!(" {}={}", Self::text(field.name), Self::text(field.value));
        }
    }
}

impl Sink for Journal {
    fn request(&mut self, head: &RequestHead<'_>) {
        let mut line = format!("> {} {}", Self::text(head.method), Self::text(head.target));
        Self::push_fields(&mut line, head.fields);
        self.lines.push(line);
    }
    fn response(&mut self, head: &ResponseHead<'_>) -> Answers {
        let mut line = format!("< {}", head.status);
        Self::push_fields(&mut line, head.fields);
        self.lines.push(line);
        match head.status {
            100 | 102..200 => Answers::Other,
            _ if self.answers.is_empty() => Answers::Other,
            _ => self.answers.remove(0),
        }
    }
    fn body(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        match self.lines.last_mut() {
            Some(line) if line.starts_with('"') => *line += &Self::text(bytes),
            _ => self.lines.push(format!("\"{}", Self::text(bytes))),
        }
    }
    fn gap(&mut self, lost: u64) {
        self.lines.push(format!("gap {lost}"));
    }
    fn end(&mut self, end: End) {
        self.lines.push(format!("{end:?}"));
    }
    fn upgrade(&mut self) {
        self.lines.push("upgrade".into());
    }
    fn is_alone(&self) -> bool {
        self.alone
    }
    fn malformed(&mut self, error: Malformed) {
        self.lines.push(format!("{error:?}"));
    }
}

fn decode_with(mut decoder: Decoder, answers: &[Answers], pieces: &[&[u8]]) -> Vec<String> {
    let mut journal = Journal { answers: answers.to_vec(), ..Journal::default() };
    for piece in pieces {
        decoder.feed(piece, &mut journal);
    }
    decoder.close(&mut journal);
    assert_eq!(decoder.buffered(), 0);
    journal.lines
}

/// Decodes `input` whole and cut in two at every byte. A head after bytes that were skipped may be
/// missed when it is cut, so only inputs without a loss are cut.
fn check(decoder: fn() -> Decoder, answers: &[Answers], input: &str, expect: &[&str]) {
    let input = input.as_bytes();
    assert_eq!(decode_with(decoder(), answers, &[input]), expect);
    if expect.iter().any(|line| line.starts_with(char::is_uppercase) && !matches!(*line, "Complete" | "Cut")) {
        return;
    }
    for at in 0..=input.len() {
        let (a, b) = input.split_at(at);
        assert_eq!(decode_with(decoder(), answers, &[a, b]), expect, "cut at {at}");
    }
}

fn check_requests(input: &str, expect: &[&str]) {
    check(Decoder::requests, &[], input, expect);
}

fn check_responses(input: &str, expect: &[&str]) {
    check(Decoder::responses, &[], input, expect);
}

#[test]
fn requests_follow_one_another() {
    check_requests("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["> GET / Host=a", "Complete"]);
    check_requests(
        "\r\n\r\nPOST /v1/chat HTTP/1.1\r\nhost:a:1 \t\r\ncontent-length: 3, 3\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.0\n\n",
        &["> POST /v1/chat host=a:1 content-length=3, 3 Content-Length=3", "\"abc", "Complete", "> GET /b", "Complete"],
    );
    check_requests("POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc", &["> POST / content-length=9", "\"abc", "Cut"]);
    check_requests("POST / HTTP/1.1\r\ncontent-length: 9\r\n", &[]);
}

#[test]
fn a_folded_value_is_joined() {
    check_requests(
        "GET / HTTP/1.1\r\na: b\r\n  c\r\n\td \r\ne:\r\n f\r\ng: h \r\n \r\n\r\n",
        &["> GET / a=b    c  \\td e=f g=h", "Complete"],
    );
}

#[test]
fn chunked_bodies_lose_their_framing() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\n\r\n";
    let line = "< 200 transfer-encoding=gzip, Chunked";
    for (body, expect) in [
        ("3\r\nabc\r\n0\r\n\r\n", &["\"abc", "Complete"][..]),
        ("03 \r\nabc\r\nA;x=\"y\";z\r\n0123456789\r\n000;last\r\n\r\n", &["\"abc0123456789", "Complete"]),
        ("1\na\n0\n\n", &["ChunkSize", "Lost"]),
        ("1\r\na\n0\n\n", &["\"a", "ChunkEnd", "Lost"]),
        ("0\r\n\n", &["Trailers", "Lost"]),
        ("1\r\na\r\n0\r\nx-sum: 1\r\nb: c\r\n\r\n", &["\"a", "Complete"]),
        ("1\r\na\r\n0\r\nx-sum: 1\r\n", &["\"a", "Complete"]),
        ("1\r\na\r\n", &["\"a", "Cut"]),
        ("1\r\nab\r\n", &["\"a", "ChunkEnd", "Lost"]),
        ("x\r\n", &["ChunkSize", "Lost"]),
        ("1;a\n", &["ChunkSize", "Lost"]),
        ("10000000000000000\r\n", &["ChunkSize", "Lost"]),
        ("\r\n", &["ChunkSize", "Lost"]),
        ("-1\r\n", &["ChunkSize", "Lost"]),
        ("0\r\n\r\r", &["Trailers", "Lost"]),
    ] {
        let expect: Vec<&str> = [line].into_iter().chain(expect.iter().copied()).collect();
        check_responses(&format!("{head}{body}"), &expect);
    }
}

#[test]
fn line_feeds_alone_are_read_where_all_lines_end_so() {
    check_responses(
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n1\na\n2;x\nbc\n0\n\n",
        &["< 200 transfer-encoding=chunked", "\"abc", "Complete"],
    );
    check_responses("HTTP/1.1 200 OK\r\na: b\ncontent-length: 9\r\n\r\n", &["LineEnd"]);
    check_responses("HTTP/1.1 200 OK\na: b\r\n\n", &["LineEnd"]);
}

#[test]
fn transfer_codings_below_chunked_are_told() {
    let list = |value: &'static [u8]| {
        let head = [crate::wire::Field { name: b"Transfer-Encoding", value }];
        transfer_codings(&head).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(list(b"gzip;q=1, chunked"), [b"gzip".to_vec()]);
    assert!(list(b" chunked ,").is_empty());
    assert_eq!(list(b"chunked, gzip"), [b"chunked".to_vec(), b"gzip".to_vec()]);
}

#[test]
fn framing_of_responses_depends_on_what_they_answer() {
    use Answers::{Connect, Head, Other};
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
    let line = "< 200 content-length=2";
    check(
        Decoder::responses,
        &[Head, Other],
        &format!("{length}{length}ab"),
        &[line, "Complete", line, "\"ab", "Complete"],
    );
    check(Decoder::responses, &[Connect], &format!("{length}ab"), &[line, "Complete", "upgrade"]);
    check_responses(
        "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 304\r\ncontent-length: 9\r\n\r\n",
        &["< 204", "Complete", "< 304 content-length=9", "Complete"],
    );
    check_responses(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc",
        &["< 100", "< 103 link=x", "< 200", "\"abc", "Complete"],
    );
    check_responses(
        "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\n\r\n\x01\x02",
        &["< 101 upgrade=websocket", "Complete", "upgrade"],
    );
    check_responses(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxyz",
        &["< 200 transfer-encoding=gzip", "\"xyz", "Complete"],
    );
    check_responses(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n2\r\nxy\r\n0\r\n\r\n",
        &["< 200 transfer-encoding=chunked content-length=1", "\"xy", "Complete"],
    );
}

#[test]
fn what_others_might_read_differently_is_refused() {
    for (input, error) in [
        ("GET / HTTP/2.0\r\n\r\n", Malformed::Version),
        ("GET /\r\n\r\n", Malformed::StartLine),
        ("GET /a b HTTP/1.1\r\n\r\n", Malformed::StartLine),
        ("G=T / HTTP/1.1\r\n\r\n", Malformed::StartLine),
        ("\x16\x03\x01", Malformed::StartLine),
        ("GET / HTTP/1.1\r\n a: b\r\n\r\n", Malformed::Fold),
        ("GET / HTTP/1.1\r\na : b\r\n\r\n", Malformed::FieldName),
        ("GET / HTTP/1.1\r\nab\r\n\r\n", Malformed::FieldName),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", Malformed::FieldName),
        ("GET / HTTP/1.1\r\na: b\rc\r\n\r\n", Malformed::FieldValue),
        ("GET / HTTP/1.1\r\na: b\0\r\n\r\n", Malformed::FieldValue),
        ("GET / HTTP/1.1\r\ncontent-length: 1, 2\r\n\r\n", Malformed::ContentLength),
        ("GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", Malformed::ContentLength),
        ("GET / HTTP/1.1\r\ncontent-length:\r\n\r\n", Malformed::ContentLength),
        ("GET / HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n", Malformed::ContentLength),
        ("GET / HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n", Malformed::TransferEncoding),
        ("GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", Malformed::TransferEncoding),
        ("GET / HTTP/1.1\r\ntransfer-encoding: \r\n\r\n", Malformed::TransferEncoding),
        (
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            Malformed::TransferEncoding,
        ),
    ] {
        check_requests(input, &[&format!("{error:?}")]);
    }
    let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    check_requests(&long, &["HeadTooLong"]);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(crate::limits::HEAD_FIELDS_MAX + 1));
    check_requests(&many, &["TooManyFields"]);
    check_responses("HTTP/1.1 200OK\r\n\r\n", &["StartLine"]);
    check_responses("HTTP/1.1 20\r\n\r\n", &["StartLine"]);
    check_responses("HTTX", &["StartLine"]);
    check_responses("HTTP/1.1 200 OK\rHTTP/1.1 200 OK\r\n\r\n", &["FieldValue"]);
    check_responses("HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n", &["< 200 content-length=0", "Complete"]);
}

#[test]
fn after_a_loss_the_next_head_is_found() {
    // A malformed request is followed by a good one in the same piece.
    check_requests("GET / HTTP/1.1\r\na : b\r\n\r\nGET /b HTTP/1.1\r\n\r\n", &["FieldName", "> GET /b", "Complete"]);
    // What only looks like a head is passed over in silence.
    let pieces: [&[u8]; 3] =
        [b"rest of a body\r\nGET lost in text\r\n", b"POST /x HTTP/1.1\r\ncontent-", b"length: 1\r\n\r\nz"];
    assert_eq!(
        decode_with(Decoder::requests().midway(), &[], &pieces),
        ["> POST /x content-length=1", "\"z", "Complete"]
    );
    let pieces: [&[u8]; 2] =
        [b"data: HTTP/1.1 200 OK\n\n", b"abc\r\nHTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n"];
    assert_eq!(decode_with(Decoder::responses().midway(), &[], &pieces), ["< 429 content-length=0", "Complete"]);
}

#[test]
fn gaps_are_told_and_cost_only_the_message_they_hide() {
    let check = |before: &str, lost: u64, kept: bool, after: &str, expect: &[&str]| {
        let mut journal = Journal::default();
        let mut decoder = Decoder::responses();
        decoder.feed(before.as_bytes(), &mut journal);
        assert_eq!(decoder.gap(lost, &mut journal), kept);
        decoder.feed(after.as_bytes(), &mut journal);
        decoder.close(&mut journal);
        assert_eq!(journal.lines[1..], *expect);
    };
    let next = "HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n";
    let next_line = "< 500 content-length=0";
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab";
    check(length, 3, true, "fghij", &["\"ab", "gap 3", "\"fghij", "Complete"]);
    check(length, 8, true, next, &["\"ab", "gap 8", "Complete", next_line, "Complete"]);
    check(length, 9, false, next, &["\"ab", "gap 8", "Complete", next_line, "Complete"]);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nab";
    check(chunked, 1, true, "d\r\n0\r\n\r\n", &["\"ab", "gap 1", "\"d", "Complete"]);
    check(chunked, 2, true, "\r\n0\r\n\r\n", &["\"ab", "gap 2", "Complete"]);
    check(chunked, 3, false, next, &["\"ab", "gap 3", "Lost", next_line, "Complete"]);
    let until_close = "HTTP/1.1 200 OK\r\n\r\nab";
    check(until_close, 99, true, "c", &["\"ab", "gap 99", "\"c", "Complete"]);
    check(&format!("{next}HTTP/1.1 200"), 5, false, next, &["Complete", next_line, "Complete"]);
    check(next, 5, false, next, &["Complete", next_line, "Complete"]);
}

#[test]
fn a_chunked_body_that_is_alone_is_taken_up_again() {
    let check = |pieces: &[(&str, u64)], expect: &[&str]| {
        let mut journal = Journal { alone: true, ..Journal::default() };
        let mut decoder = Decoder::responses();
        decoder.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nab", &mut journal);
        for (piece, lost) in pieces {
            assert!(decoder.gap(*lost, &mut journal));
            decoder.feed(piece.as_bytes(), &mut journal);
        }
        decoder.close(&mut journal);
        assert_eq!(journal.lines[1..], *expect);
    };
    // At the start of a piece, behind the rest of a chunk, and at the end of the message.
    check(&[("3\r\nxyz\r\n0\r\n\r\n", 9)], &["\"ab", "gap 9", "\"xyz", "Complete"]);
    check(&[("rest\r\ne\r\nno\r\n3\r\nxyz\r\n0\r\n\r\n", 9)], &["\"ab", "gap 9", "\"xyz", "Complete"]);
    check(&[("0\r\n\r\n", 9)], &["\"ab", "gap 9", "Complete"]);
    // No size proves itself.
    check(&[("3\r\nxy", 9), ("zzzz\r\n", 5), ("8000000f\r\n", 1)], &["\"ab", "gap 9", "gap 5", "gap 1", "Lost"]);
    // The next message.
    let next = "HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n";
    check(&[(next, 9)], &["\"ab", "gap 9", "Lost", "< 500 content-length=0", "Complete"]);
    // What might be another message's chunk is not taken.
    let mut journal = Journal { alone: true, ..Journal::default() };
    let mut decoder = Decoder::responses();
    decoder.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nab", &mut journal);
    assert!(decoder.gap(9, &mut journal));
    journal.alone = false;
    decoder.feed(b"3\r\nxyz\r\n", &mut journal);
    assert!(!decoder.gap(9, &mut journal));
    assert_eq!(journal.lines[1..], ["\"ab", "gap 9", "gap 9", "Lost"]);
}

#[test]
fn after_a_switch_nothing_is_read() {
    let mut journal = Journal::default();
    let mut decoder = Decoder::requests();
    decoder.feed(b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n", &mut journal);
    assert!(decoder.is_idle());
    decoder.switch_protocols();
    decoder.feed(b"\x81\x00GET / HTTP/1.1\r\n\r\n", &mut journal);
    assert_eq!(journal.lines, ["> GET / upgrade=websocket", "Complete"]);
}

/// A message that is well-formed more often than not.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        8 => Just("HTTP/1.1 200 OK\r\n"),
        1 => Just("HTTP/1.0 404 Not Found\r\n"),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        1 => Just("HTTP/1.1 204 \r\n\r\nHTTP/1.1 201 \r\n"),
    ];
    let field = prop_oneof![
        Just("a: b\r\n"),
        Just("long-name:  value \r\n"),
        Just("a:\r\n x\r\n"),
        Just("b: c\r\n"),
        Just("X-y : 1\r\n")
    ];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|body| {
            let mut out = format!("content-length: {}\r\n\r\n", body.len()).into_bytes();
            out.extend(body);
            out
        }),
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..4).prop_map(|chunks| {
            let mut out = b"transfer-encoding: chunked\r\n\r\n".to_vec();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                out.extend(format!("{:x};e=1\r\n", chunk.len()).into_bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\nt: 1\r\n\r\n");
            out
        }),
    ];
    (start, proptest::collection::vec(field, 0..5), body)
        .prop_map(|(start, fields, body)| [start.as_bytes(), fields.concat().as_bytes(), &body].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same(messages in proptest::collection::vec(message(), 1..4), cuts in proptest::collection::vec(0.0..1.0, 0..12)) {
        let input = messages.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut: &f64| (cut * input.len() as f64) as usize).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        let whole = decode_with(Decoder::responses(), &[], &[&input]);
        prop_assert_eq!(whole, decode_with(Decoder::responses(), &[], &pieces));
    }

    #[test]
    fn hostile_bytes_and_gaps_never_panic(steps in proptest::collection::vec((any::<Vec<u8>>(), 0u64..9, message()), 0..6)) {
        for (mut decoder, alone) in [(Decoder::requests(), false), (Decoder::responses(), false), (Decoder::responses(), true)] {
            let mut journal = Journal { alone, ..Journal::default() };
            for (noise, lost, message) in &steps {
                decoder.feed(message, &mut journal);
                decoder.feed(noise, &mut journal);
                decoder.gap(*lost, &mut journal);
            }
            decoder.close(&mut journal);
            let begun = journal.lines.iter().filter(|line| line.starts_with(['<', '>']) && !line.starts_with("< 100")).count();
            let ended = journal.lines.iter().filter(|line| matches!(line.as_str(), "Complete" | "Cut" | "Lost")).count();
            prop_assert_eq!(begun, ended, "every message that begins ends once: {:?}", journal.lines);
        }
    }
}
