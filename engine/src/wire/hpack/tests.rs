use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

type List = Vec<(String, String)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<(List, usize), Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = decoder.decode(block)?;
    let list = fields.with(|list| list.iter().map(|field| (text(field.name), text(field.value))).collect());
    Ok((list, fields.unknown))
}

/// Decodes blocks one after the other; each is given with its fields, `name: value` one a line.
fn check(decoder: &mut Decoder, blocks: &[(&str, &str)]) {
    for (block, expect) in blocks {
        let (list, unknown) = decode(decoder, &hex(block)).unwrap();
        let mut lines: Vec<String> = list.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        lines.extend((0..unknown).map(|_| "?".to_owned()));
        assert_eq!(lines, expect.lines().map(str::trim).collect::<Vec<_>>(), "{block}");
    }
}

const REQUESTS: [(&str, &str); 3] = [
    ("828684418cf1e3c2e5f23a6ba0ab90f4ff", ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com"),
    (
        "828684be5886a8eb10649cbf",
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache",
    ),
    (
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value",
    ),
];

#[test]
fn the_requests_of_rfc_7541_c_4() {
    check(&mut Decoder::new(), &REQUESTS);
}

#[test]
fn the_responses_of_rfc_7541_c_6() {
    let mut decoder = Decoder::new();
    // SETTINGS_HEADER_TABLE_SIZE is 256 there; here a size update says so.
    check(
        &mut decoder,
        &[
            (
                "3fe101 488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com",
            ),
            (
                "4883640effc1c0bf",
                ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com",
            ),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\ncontent-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ],
    );
}

#[test]
fn after_a_loss_entries_are_learnt_anew_and_never_mistaken() {
    // Without the first request, whose insertion is the second one's index 62.
    let mut decoder = Decoder::midway();
    check(
        &mut decoder,
        &[
            ("828684be5886a8eb10649cbf", ":method: GET\n:scheme: http\n:path: /\ncache-control: no-cache\n?"),
            // Index 63 is still unknown, as cache-control is 62 now.
            (
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
                ":method: GET\n:scheme: https\n:path: /index.html\ncustom-key: custom-value\n?",
            ),
            ("be bf c0", "custom-key: custom-value\ncache-control: no-cache\n?"),
            // A name from an unknown entry: the value is inserted without it.
            ("7f02 0161 be 7e 0162", "?\n?\n?"),
            ("0f32 0163", "cache-control: c"),
        ],
    );
    assert!(decoder.is_lossy());
    // The size of 0 drops what is unknown too.
    check(&mut decoder, &[("20 3fe11f 4001610162 be", "a: b\na: b")]);
    assert!(!decoder.is_lossy());
    assert_eq!(decode(&mut decoder, &hex("bf")), Err(Error::Index));
    assert!(decoder.is_lossy(), "after an error nothing is known");
}

#[test]
fn evicting_a_known_entry_means_all_unknown_ones_went_before() {
    let mut decoder = Decoder::midway();
    check(&mut decoder, &[("3f61 4001610162 4001630164 4001650166", "a: b\nc: d\ne: f")]);
    assert!(decoder.is_lossy());
    // 128 bytes hold three entries of 34.
    check(&mut decoder, &[("4001670168 be bf c0", "g: h\ng: h\ne: f\nc: d")]);
    assert!(!decoder.is_lossy());
}

#[test]
fn a_table_beyond_the_bound_is_known_in_part() {
    let mut decoder = Decoder::new();
    // 2^21 bytes.
    check(&mut decoder, &[("3fe1ff7f 4001610162", "a: b")]);
    let value = "x".repeat(40_000);
    let long = format!("40 0163 7fc1b702 {}", "78".repeat(40_000));
    check(&mut decoder, &[(&long, &format!("c: {value}")), (&long, &format!("c: {value}")), ("c0", "?")]);
}

#[test]
fn what_is_malformed_is_refused() {
    for (block, error) in [
        ("80", Error::Index),
        ("be", Error::Index),
        ("ff", Error::Truncated),
        ("ffffffffffff0f", Error::Integer),
        ("40", Error::Truncated),
        ("400561", Error::Truncated),
        ("40016102", Error::Truncated),
        ("82 20", Error::SizeUpdate),
        // Padding of a whole byte, of zeros, and the end symbol.
        ("4001 61 82 1fff", Error::Huffman),
        ("4001 61 81 18", Error::Huffman),
        ("4001 61 84 ffffffff", Error::Huffman),
    ] {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)), Err(error), "{block}");
    }
    let many = vec![0x82; HEAD_FIELDS_MAX + 1];
    assert_eq!(decode(&mut Decoder::new(), &many), Err(Error::TooLong));
    let mut bomb = hex(&format!("4001 61 7fa11e {}", "78".repeat(4000)));
    bomb.extend([0xbe; 200]);
    assert_eq!(decode(&mut Decoder::new(), &bomb), Err(Error::TooLong));
}

#[test]
fn the_stories_of_other_encoders() {
    let Some(corpus) = crate::wire::corpus("hpack") else { return };
    let mut blocks = 0;
    for encoder in std::fs::read_dir(corpus).unwrap() {
        for story in std::fs::read_dir(encoder.unwrap().path()).unwrap() {
            let path = story.unwrap().path();
            let story: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let (mut decoder, mut midway) = (Decoder::new(), Decoder::midway());
            for (at, case) in story["cases"].as_array().unwrap().iter().enumerate() {
                let block = hex(case["wire"].as_str().unwrap());
                let expect: List = case["headers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|field| field.as_object().unwrap())
                    .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                    .collect();
                assert_eq!(decode(&mut decoder, &block), Ok((expect.clone(), 0)), "{} block {at}", path.display());
                // Met after the second block, every field is either right or left out.
                if at >= 2 {
                    let (list, unknown) = decode(&mut midway, &block).unwrap();
                    assert_eq!(list.len() + unknown, expect.len());
                    let mut all = expect.iter();
                    assert!(list.iter().all(|field| all.any(|other| other == field)), "{list:?} of {expect:?}");
                }
                blocks += 1;
            }
        }
    }
    assert!(blocks > 1000, "only {blocks} blocks were found");
}

/// A naive encoder: every kind of representation, and a table of its own as the oracle.
#[derive(Default)]
struct Encoder {
    table: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Encoder {
    fn integer(out: &mut Vec<u8>, flags: u8, prefix: u32, value: usize) {
        let limit = (1 << prefix) - 1;
        if value < limit {
            return out.push(flags | value as u8);
        }
        out.push(flags | limit as u8);
        let mut value = value - limit;
        while value >= 128 {
            out.push(0x80 | (value % 128) as u8);
            value /= 128;
        }
        out.push(value as u8);
    }

    fn string(out: &mut Vec<u8>, text: &[u8], huffman: bool) {
        let coded = if huffman { huffman::encode(text) } else { text.to_vec() };
        Self::integer(out, if huffman { 0x80 } else { 0 }, 7, coded.len());
        out.extend(coded);
    }

    fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], kind: u8, huffman: bool) {
        let entry = |at: usize| match static_table::entry(at) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.table.get(at - static_table::ENTRIES - 1).cloned(),
        };
        let all: Vec<_> = (1..).map_while(entry).collect();
        let whole = all.iter().position(|entry| entry.0 == name && entry.1 == value);
        if let (Some(at), 0) = (whole, kind) {
            return Self::integer(out, 0x80, 7, at + 1);
        }
        let (flags, prefix) = [(0x40, 6), (0x40, 6), (0x00, 4), (0x10, 4)][usize::from(kind)];
        match all.iter().position(|entry| entry.0 == name) {
            Some(at) => Self::integer(out, flags, prefix, at + 1),
            None => {
                out.push(flags);
                Self::string(out, name, huffman);
            }
        }
        Self::string(out, value, huffman);
        if kind < 2 {
            self.table.insert(0, (name.to_vec(), value.to_vec()));
            while self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > 4096 {
                self.table.pop();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn huffman_round_trip(text: Vec<u8>) {
        let mut out = Vec::new();
        huffman::decode(&huffman::encode(&text), &mut out).unwrap();
        prop_assert_eq!(out, text);
    }

    #[test]
    fn any_encoding_decodes_and_a_late_decoder_is_never_wrong(
        blocks in proptest::collection::vec(
            proptest::collection::vec(("[ab]{1,2}|:path|via", "[x-z]{0,2}|[a-z]{300}", 0u8..4, any::<bool>()), 0..8),
            1..12,
        ),
        met_at in 0usize..6,
    ) {
        let (mut encoder, mut decoder, mut late) = (Encoder::default(), Decoder::new(), Decoder::midway());
        for (at, fields) in blocks.iter().enumerate() {
            let mut block = Vec::new();
            for (name, value, kind, huffman) in fields {
                encoder.field(&mut block, name.as_bytes(), value.as_bytes(), *kind, *huffman);
            }
            let expect: List = fields.iter().map(|(name, value, ..)| (name.clone(), value.clone())).collect();
            prop_assert_eq!(decode(&mut decoder, &block), Ok((expect.clone(), 0)));
            if at >= met_at {
                let (list, unknown) = decode(&mut late, &block).unwrap();
                prop_assert_eq!(list.len() + unknown, expect.len());
                let mut all = expect.iter();
                prop_assert!(list.iter().all(|field| all.any(|other| other == field)));
            }
        }
    }

    #[test]
    fn hostile_blocks_never_panic(blocks in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            let _ = decoder.decode(&block);
        }
    }
}
