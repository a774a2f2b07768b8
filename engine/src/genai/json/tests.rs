//! Both ways to read a document, held against each other.

use proptest::prelude::*;

use super::*;

fn check<R: PartialEq + std::fmt::Debug>(text: &str, read: impl for<'t> Fn(Json<'t>) -> R, expect: Option<R>) {
    let mut scratch = Scratch::default();
    assert_eq!(scratch.parse(&mut text.as_bytes().to_vec(), &read), expect, "parsed: {text}");
    assert_eq!(scratch.look(text.as_bytes(), None, &read), expect, "looked at: {text}");
}

#[test]
fn values_are_read_by_type() {
    check(r#"{"a":{"b":[1,2]}}"#, |j| j.at(&["a", "b"]).map(|b| b.items().count()), Some(Some(2)));
    check(r#"{"a":1,"a":2}"#, |j| j.get("a").and_then(Json::int), Some(Some(2)));
    check(
        "[1.0, 1.5, -1, 9223372036854775808, \"1\"]",
        |j| j.items().map(Json::int).collect::<Vec<_>>(),
        Some(vec![Some(1), None, Some(-1), None, None]),
    );
    check("123456789012345678901234567890", |j| j.int(), Some(None));
    check("[0.5, 3, null]", |j| j.items().map(Json::float).collect::<Vec<_>>(), Some(vec![Some(0.5), Some(3.0), None]));
    check("\"\"", |j| (j.text().is_some(), j.string().is_some()), Some((false, true)));
    check("\u{feff}{}", |j| j.is_object(), Some(true));
}

#[test]
fn what_is_no_json_is_none() {
    for text in
        ["", " ", "{", "{}x", "nul", "[1,]", "\"\u{1}\"", "{\"a\":1e999}", "[[[[[[", "{\"a\"}", "{\"a\":1,}", "{1:2}"]
    {
        check(text, |_| (), None);
    }
    for text in [&b"\"\xff\""[..], br#""\x""#, br#""\u12g4""#] {
        assert!(Scratch::default().parse(&mut text.to_vec(), |_| ()).is_none(), "{}", text.escape_ascii());
        assert!(Scratch::default().look(text, None, |_| ()).is_none(), "{}", text.escape_ascii());
        // Where only a part is wanted, a string that is none says nothing, and spoils nothing else.
        let document = [br#"{"ab":"#, text, br#","":1}"#].concat();
        let said = Scratch::default().look(&document, Some(shape()), |json| {
            (json.get("ab").and_then(Json::string).map(str::to_owned), json.get("").and_then(Json::int))
        });
        assert_eq!(said, Some((None, Some(1))), "{}", text.escape_ascii());
    }
}

/// A body of any size costs no more than what is wanted of it.
#[test]
fn an_extract_is_small() {
    let long = "text that nobody asks for \\n".repeat(10_000);
    let document = format!(r#"{{"c":"{long}","b":[{{"c":[["{long}"]],"a":7}}],"ab":"{}"}}"#, "x".repeat(1000));
    let mut extract = Extract::default();
    extract.begin(Extraction(shape()));
    document.as_bytes().chunks(16 * 1024).for_each(|piece| extract.feed(piece));
    extract.finish();
    assert!(extract.held_bytes() < 2000, "{}", extract.held_bytes());
    let told = Scratch::default().look_at_extract(&extract, |root| tell_part(root, Some(shape()))).unwrap();
    let [(_, seven), (_, text)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((seven.int, text.string.as_ref().map(String::len)), (Some(7), Some(1000)));
}

/// Nor does a value that is wanted and comes byte by byte cost more than its length.
#[test]
fn an_extract_of_small_pieces_takes_no_longer() {
    let document = format!(r#"{{"ab":"{}","":1}}"#, "x".repeat(4 << 20));
    let mut extract = Extract::default();
    extract.begin(Extraction(shape()));
    // Each byte looked at for each piece would be two million times four million.
    document.as_bytes().chunks(2).for_each(|piece| extract.feed(piece));
    extract.finish();
    let told = Scratch::default().look_at_extract(&extract, |root| root.get("").and_then(Json::int));
    assert_eq!(told, Some(Some(1)));
}

#[test]
fn half_a_surrogate_pair_does_not_spoil_the_document() {
    let read = |j: Json<'_>| j.string().map(str::to_owned);
    check(r#""\ud83d\ude00""#, read, Some(Some("\u{1f600}".into())));
    check(r#""a\ud83d""#, read, Some(Some("a\u{fffd}".into())));
    check(r#""\uDE00b""#, read, Some(Some("\u{fffd}b".into())));
    check(r#""\\ud83d\n""#, read, Some(Some("\\ud83d\n".into())));
}

#[test]
fn numbers_that_are_none_do_not_spoil_the_document() {
    let read = |j: Json<'_>| (j.get("a").and_then(Json::string).map(str::to_owned), j.get("b").and_then(Json::float));
    check(r#"{"a":"NaN \" NaN","b":NaN,"c":[-Infinity,Infinity]}"#, read, Some((Some("NaN \" NaN".into()), None)));
    check(r#"{"a":"Infinity","b":1}"#, read, Some((Some("Infinity".into()), Some(1.0))));
    check(r#"{"b":NaNNaN}"#, |_| (), None);
}

#[test]
fn a_document_of_nothing_but_structure_is_refused() {
    let mut bomb = vec![b'['; JSON_STRUCTURALS_MAX + 1];
    assert!(Scratch::default().look(&bomb, None, |_| ()).is_none());
    assert!(Scratch::default().parse(&mut bomb, |_| ()).is_none());
    let numbers = format!("[{}1]", "1,".repeat(JSON_STRUCTURALS_MAX));
    assert!(Scratch::default().look(numbers.as_bytes(), None, |_| ()).is_none());
}

/// All that can be asked of a value and of what is in it.
#[derive(Debug, PartialEq)]
struct Told {
    string: Option<String>,
    int: Option<i64>,
    float: Option<u64>,
    bool: Option<bool>,
    kinds: [bool; 3],
    members: Vec<(String, Told)>,
    items: Vec<Told>,
    /// By key, so that of duplicates the last counts.
    found: Vec<Option<Option<i64>>>,
}

fn tell(value: Json<'_>) -> Told {
    Told {
        // What has escapes is cut where nobody reads on.
        string: value.string().map(|text| text[..text.floor_char_boundary(view::ESCAPED_BYTES_MAX)].to_owned()),
        int: value.int(),
        // Zero has a sign on one side and none on the other.
        float: value.float().map(|number| (number + 0.0).to_bits()),
        bool: value.bool(),
        kinds: [value.is_null(), value.is_object(), value.is_array()],
        members: value.entries().map(|(key, value)| (key.to_owned(), tell(value))).collect(),
        items: value.items().map(tell).collect(),
        found: value.entries().map(|(key, _)| value.get(key).map(Json::int)).collect(),
    }
}

/// Both readings of `document` say the same.
fn agree(scratch: &mut Scratch, document: &[u8]) -> Result<bool, TestCaseError> {
    // What the lenient replacements make of names that are no JSON differs, and means nothing.
    if [&b"NaN"[..], b"Infinity"].iter().any(|name| memchr::memmem::find(document, name).is_some()) {
        return Ok(false);
    }
    let looked = scratch.look(document, None, tell);
    let parsed = scratch.parse(&mut document.to_vec(), tell);
    let shown = || document.get(..document.len().min(1000)).unwrap_or_default().escape_ascii();
    // `simd-json` lets a number end in some bytes that end none.
    let is_mistaken = looked.is_none() && parsed.is_some() && {
        let mut document = document.to_vec();
        lenient::replace_lone_surrogates(&mut document);
        serde_json::from_slice::<serde_json::Value>(&document).is_err()
    };
    prop_assert!(looked == parsed || is_mistaken, "{}", shown());
    // Of a part, the same is told as of the whole.
    let part = scratch.look(document, Some(shape()), |root| tell_part(root, Some(shape())));
    let whole = scratch.look(document, None, |root| tell_part(root, Some(shape())));
    prop_assert!(whole.is_none() || part == whole, "a part of {}", shown());
    if matches!(document.trim_ascii_start().first(), Some(b'{' | b'[')) {
        for piece_bytes in [1, 3, 63, 1000] {
            let taken = extracted(scratch, document.chunks(piece_bytes));
            prop_assert!(taken == part, "in pieces of {piece_bytes}: {}", shown());
        }
        // The second time its form is known, unless all this was seen before.
        for time in ["first", "second"] {
            let taken = FORMS.with_borrow_mut(|forms| formed(scratch, document, forms));
            prop_assert!(taken == part, "by its form, the {time} time: {}", shown());
        }
    }
    Ok(looked.is_some())
}

/// What is told of an extract of the document that comes in these pieces.
fn extracted<'p>(scratch: &mut Scratch, pieces: impl Iterator<Item = &'p [u8]>) -> Option<Vec<(usize, Told)>> {
    let mut extract = Extract::default();
    extract.begin(Extraction(shape()));
    extract.feed(br#"{"b":[{"a":1"#);
    // Nothing is left of the document before.
    extract.begin(Extraction(shape()));
    pieces.for_each(|piece| extract.feed(piece));
    extract.finish();
    scratch.look_at_extract(&extract, |root| tell_part(root, Some(shape())))
}

thread_local! {
    /// Those of all documents of a test.
    static FORMS: std::cell::RefCell<Forms> = std::cell::RefCell::default();
}

/// What is told of an extract of the whole `document`, made by its form if it is known.
fn formed(scratch: &mut Scratch, document: &[u8], forms: &mut Forms) -> Option<Vec<(usize, Told)>> {
    let mut extract = Extract::default();
    extract.begin(Extraction(shape()));
    extract.feed_all(document, forms);
    extract.finish();
    scratch.look_at_extract(&extract, |root| tell_part(root, Some(shape())))
}

/// Some of the keys that documents here have, and one of an object inside.
fn shape() -> &'static Shape {
    static SHAPE: std::sync::LazyLock<&Shape> = std::sync::LazyLock::new(|| {
        let shape = |keys: &[(&'static str, Inside)]| &*Box::leak(Box::new(Shape::new(keys.iter().copied(), false)));
        let inner = shape(&[("a", Inside::All), ("index", Inside::All), ("finish_reason", Inside::All)]);
        shape(&[
            ("", Inside::All),
            ("b", Inside::Shaped(inner)),
            ("ab", Inside::All),
            ("choices", Inside::Shaped(inner)),
        ])
    });
    &SHAPE
}

/// What is told of what `shape` wants.
fn tell_part(value: Json<'_>, part: Option<&'static Shape>) -> Vec<(usize, Told)> {
    let Some(part) = part else { return vec![(0, tell(value))] };
    let objects = value.items().flat_map(|item| tell_part(item, Some(part)));
    let places = value.places(part);
    let slots = (0..KEYS_MAX).filter_map(|slot| Some((slot, places.value(slot)?)));
    let members = slots.flat_map(|(slot, value)| {
        let told = match part.inside(slot) {
            Inside::All => tell_part(value, None),
            Inside::Shaped(inner) => tell_part(value, Some(inner)),
        };
        told.into_iter().map(move |(_, told)| (slot, told))
    });
    objects.chain(members).collect()
}

fn document() -> impl Strategy<Value = String> {
    let space = || prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\n\t \r")];
    let string = || {
        prop_oneof![
            "[a-c]{0,3}",
            r#"([ -!#-\[\]-~é😀]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|\\ud8[0-9a-f]{2}\\ud[c-f][0-9a-f]{2}){0,90}"#,
        ]
        .prop_map(|text| format!("\"{text}\""))
    };
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,20})",
        "-?(0|[1-9][0-9]{0,9})[.][0-9]{1,20}([eE][+-]?[0-9]{1,3})?",
        "-?[1-9][eE][0-9]{1,3}"
    ];
    let leaf = prop_oneof![string(), number, Just("true".into()), Just("false".into()), Just("null".into())];
    leaf.prop_recursive(6, 200, 12, move |inner| {
        let spaced = (space(), inner, space()).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member =
            (string(), space(), spaced.clone()).prop_map(|(key, space, value)| format!("{key}{space}:{value}"));
        prop_oneof![
            proptest::collection::vec(spaced, 0..12).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec(member, 0..12).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn sound_documents_are_told_alike(documents in proptest::collection::vec(document(), 1..3)) {
        let mut scratch = Scratch::default();
        for document in documents {
            agree(&mut scratch, document.as_bytes())?;
        }
    }

    #[test]
    fn damaged_documents_are_told_alike(
        document in document(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0_u8..4, prop_oneof![
            proptest::sample::select(&b"{}[]:,\"\\ \n0-.eEtfnu/\x00\x1f\x7f\x80\xc3\xff"[..]), any::<u8>(),
        ]), 1..4),
    ) {
        let mut document = document.into_bytes();
        for (place, change, byte) in changes {
            let place = place.index(document.len() + 1);
            match change {
                0 => document.insert(place, byte),
                1 if place < document.len() => document[place] = byte,
                2 if place < document.len() => drop(document.remove(place)),
                _ => document.truncate(place),
            }
        }
        agree(&mut Scratch::default(), &document)?;
    }

    /// However little of it is wanted.
    #[test]
    fn a_document_that_was_cut_short_is_none(document in document(), place in any::<proptest::sample::Index>()) {
        let document = format!("[{document}]");
        let cut = document.as_bytes().get(..place.index(document.len())).unwrap_or_default();
        prop_assert!(Scratch::default().look(cut, Some(shape()), |_| ()).is_none(), "{document}");
        prop_assert!(Scratch::default().look(cut, None, |_| ()).is_none(), "{document}");
    }

    #[test]
    fn an_extract_is_the_same_wherever_a_document_is_cut(
        document in document(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let document = format!("[{document}]");
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(document.len())).collect();
        cuts.extend([0, document.len()]);
        cuts.sort_unstable();
        let mut scratch = Scratch::default();
        let taken = extracted(&mut scratch, cuts.windows(2).map(|cut| &document.as_bytes()[cut[0]..cut[1]]));
        let whole = scratch.look(document.as_bytes(), Some(shape()), |root| tell_part(root, Some(shape())));
        prop_assert_eq!(taken, whole, "{}", document);
    }

    #[test]
    fn structure_alone_is_told_alike(document in "[\\[\\]{}:,\"\\\\a1 ]{0,200}") {
        agree(&mut Scratch::default(), document.as_bytes())?;
    }
}

/// A document whose every byte differs once from one whose form is known, to every byte that means something.
#[test]
fn forms_are_told_apart_at_every_byte() {
    let known = br#" {"b":[{"a":-12,"x":[1,"}",{}]},{"a":"q\\"}], "c" :{"ab":"\"}"},"ab":"text","":null,"d":7.5e2} "#;
    let mut scratch = Scratch::default();
    for place in 0..=known.len() {
        for byte in b"{}[]:,\"\\ \n-0159.eEtfnulabcdx+\x00\x80\xff" {
            for (removed, added) in [(1, 1), (1, 0), (0, 1)] {
                let mut forms = Forms::default();
                assert!(formed(&mut scratch, known, &mut forms).is_some());
                let until = known.len().min(place + removed);
                let document = [&known[..place], &[*byte][..added], &known[until..]].concat();
                let expect = scratch.look(&document, Some(shape()), |root| tell_part(root, Some(shape())));
                if matches!(document.trim_ascii_start().first(), Some(b'{' | b'[')) {
                    let shown = document.escape_ascii();
                    assert_eq!(formed(&mut scratch, &document, &mut forms), expect, "{shown}");
                    // What opened for this one must not let others pass.
                    assert_eq!(formed(&mut scratch, known, &mut forms), formed_anew(&mut scratch, known), "{shown}");
                }
            }
        }
    }
}

fn formed_anew(scratch: &mut Scratch, document: &[u8]) -> Option<Vec<(usize, Told)>> {
    formed(scratch, document, &mut Forms::default())
}

/// Other values, shorter and longer ones, of another type and with escapes, take no walk.
#[test]
fn a_form_has_any_values() {
    let document = |c: &str, a: &str, ab: &str| format!(r#"{{"c":{c},"b":[{{"x":[0,{c}],"a":{a}}}],"ab":{ab}}}"#);
    let long = format!("\"{}\"", "long \\\" text".repeat(5_000));
    let values = ["1", "-2.50", "null", r#""""#, r#""a\"b""#, "true", &long];
    let (mut forms, mut scratch) = (Forms::default(), Scratch::default());
    assert!(formed(&mut scratch, document("1", "2", "3").as_bytes(), &mut forms).is_some());
    for c in values.into_iter().chain([r#"{"a":[{}, "]"]}"#, "[]"]) {
        for a in values {
            for ab in values {
                let document = document(c, a, ab);
                let mut extract = Extract::default();
                extract.begin(Extraction(shape()));
                assert!(forms.finds(document.as_bytes(), shape(), &mut extract), "{document}");
                let told = scratch.look_at_extract(&extract, |root| tell_part(root, Some(shape())));
                let expect = scratch.look(document.as_bytes(), Some(shape()), |root| tell_part(root, Some(shape())));
                assert!(expect.is_some() && told == expect, "{document}");
            }
        }
    }
    // A form is no larger for having seen a long text.
    let other = r#"{"b":[],"c":1}"#;
    let mut extract = Extract::default();
    extract.begin(Extraction(shape()));
    assert!(!forms.finds(other.as_bytes(), shape(), &mut extract), "{other}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    /// Whatever was seen before, a document says what it says alone.
    #[test]
    fn forms_leave_nothing_behind(
        documents in proptest::collection::vec(document(), 1..4),
        turns in proptest::collection::vec((0..4_usize, any::<proptest::sample::Index>(), "[0-9\"a-c,:{}\\[\\] ]{0,3}"), 1..40),
    ) {
        let (mut forms, mut scratch) = (Forms::default(), Scratch::default());
        for (choice, place, change) in turns {
            let mut document = format!("[{}]", documents[choice % documents.len()]);
            let place = document.floor_char_boundary(place.index(document.len() + 1));
            document.insert_str(place, &change);
            if !document.starts_with(['[', '{']) {
                continue;
            }
            let expect = scratch.look(document.as_bytes(), Some(shape()), |root| tell_part(root, Some(shape())));
            prop_assert_eq!(formed(&mut scratch, document.as_bytes(), &mut forms), expect, "{}", document);
        }
    }
}

/// What was recorded, and damaged at places that a counter chooses.
#[test]
fn recorded_documents_are_told_alike() {
    let Some((recorded, _)) = super::super::corpus_tests::corpus() else { return };
    let mut scratch = Scratch::default();
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    };
    let (mut sound, mut damaged) = (0, 0);
    for exchange in &recorded {
        let mut each = |document: &[u8]| {
            if document.is_empty() || document.len() > 1 << 20 {
                return;
            }
            sound += usize::from(agree(&mut scratch, document).unwrap());
            for _ in 0..4 {
                let mut document = document.to_vec();
                let place = random(document.len());
                match random(5) {
                    0 => document[place] = random(256) as u8,
                    1 => document.truncate(place),
                    2 => document[place] = b"{}[]:,\"\\"[random(8)],
                    3 => drop(document.drain(place..(place + random(100)).min(document.len()))),
                    _ => document.insert(place, b"{}[]:,\"\\"[random(8)]),
                }
                damaged += usize::from(!agree(&mut scratch, &document).unwrap());
            }
        };
        each(exchange.request_bytes());
        super::super::corpus_tests::split_events(exchange, &mut each);
        each(exchange.response_bytes());
    }
    assert!(sound > 1000 && damaged > 1000, "{sound} sound, {damaged} damaged");
}
