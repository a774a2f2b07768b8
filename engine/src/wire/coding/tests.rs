use std::io::Write;

use flate2::{Compression, GzBuilder, write};
use proptest::prelude::*;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder =
        GzBuilder::new().filename("f").comment("c").extra(vec![1; 300]).write(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let parameters = ::brotli::enc::BrotliEncoderParams { quality: 3, ..Default::default() };
    ::brotli::BrotliCompress(&mut &bytes[..], &mut out, &parameters).unwrap();
    out
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd_safe::compress(&mut out, bytes, 1).unwrap();
    out
}

type Encode = fn(&[u8]) -> Vec<u8>;

const CODINGS: [(&str, Encode); 8] = [
    ("gzip", gzip),
    ("X-GZIP", gzip),
    ("deflate", zlib),
    ("deflate", bare),
    ("br", brotli),
    ("zstd", zstd),
    ("identity", <[u8]>::to_vec),
    ("gzip, br", |bytes| brotli(&gzip(bytes))),
];

fn decode(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for piece in pieces {
        decoder.feed(piece, &mut |bytes| {
            assert!(!bytes.is_empty());
            out.extend_from_slice(bytes);
        })?;
    }
    Ok(out)
}

/// Text that compresses well, and is longer than one run of output.
fn sample() -> Vec<u8> {
    (0..6000).flat_map(|number| format!("data: {{\"delta\": {}}}\n\n", number * 7919 % 1000).into_bytes()).collect()
}

#[test]
fn every_coding_decodes_whole_and_cut() {
    let mut pool = Pool::default();
    for bytes in [&sample()[..], &sample()[..90], b""] {
        for (name, encode) in CODINGS {
            let coded = encode(bytes);
            let step = (coded.len() / 200).max(1);
            for at in (0..=coded.len()).step_by(step) {
                let mut decoder = pool.decoder([name.as_bytes()]).unwrap();
                let (a, b) = coded.split_at(at);
                let pieces: Vec<&[u8]> = [a, b].into_iter().filter(|piece| !piece.is_empty()).collect();
                assert!(decode(&mut decoder, &pieces).unwrap() == bytes, "{name} cut at {at}");
                assert!(decoder.is_complete(), "{name}");
                pool.put_back(decoder);
            }
            let mut decoder = Decoder::new(name.as_bytes()).unwrap();
            let pieces: Vec<&[u8]> = coded.chunks(1).collect();
            assert!(decode(&mut decoder, &pieces).unwrap() == bytes, "{name} byte by byte");
        }
    }
}

#[test]
fn what_was_flushed_comes_out_at_once() {
    let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
    let mut decoder = Decoder::new(b"gzip").unwrap();
    let mut seen = 0;
    for event in [&b"data: 1\n\n"[..], b"data: 2\n\n"] {
        encoder.write_all(event).unwrap();
        encoder.flush().unwrap();
        let coded = encoder.get_ref()[seen..].to_vec();
        seen += coded.len();
        assert_eq!(decode(&mut decoder, &[&coded]).unwrap(), event);
        assert!(!decoder.is_complete());
    }
    let mut encoder = zstd_safe::CCtx::create();
    let mut decoder = Decoder::new(b"zstd").unwrap();
    for event in [&b"data: 1\n\n"[..], b"data: 2\n\n"] {
        let mut coded = [0; 256];
        let mut output = zstd_safe::OutBuffer::around(&mut coded[..]);
        encoder.compress_stream(&mut output, &mut zstd_safe::InBuffer::around(event)).unwrap();
        encoder.flush_stream(&mut output).unwrap();
        let written = output.pos();
        assert_eq!(decode(&mut decoder, &[&coded[..written]]).unwrap(), event);
    }
}

#[test]
fn members_and_frames_follow_one_another() {
    let two = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(decode(&mut Decoder::new(b"gzip").unwrap(), &[&two]).unwrap(), b"one two");
    let padded = [gzip(b"one"), vec![0; 9]].concat();
    assert_eq!(decode(&mut Decoder::new(b"gzip").unwrap(), &[&padded]).unwrap(), b"one");
    let two = [zstd(b"one "), zstd(b"two")].concat();
    assert_eq!(decode(&mut Decoder::new(b"zstd").unwrap(), &[&two]).unwrap(), b"one two");
}

#[test]
fn what_is_not_supported_or_not_whole_is_told() {
    for name in ["aes128gcm", "gzip, gzip, gzip", "gzip;q=1"] {
        assert_eq!(Decoder::new(name.as_bytes()).err(), Some(Unsupported), "{name}");
    }
    assert!(Decoder::new(b" , identity").unwrap().is_identity());
    for (name, encode) in CODINGS.into_iter().filter(|(name, _)| *name != "identity") {
        let coded = encode(&sample());
        let mut decoder = Decoder::new(name.as_bytes()).unwrap();
        let got = decode(&mut decoder, &[&coded[..coded.len() - 1]]).unwrap();
        assert!(sample().starts_with(&got) && !decoder.is_complete(), "{name}");
        let mut decoder = Decoder::new(name.as_bytes()).unwrap();
        assert_eq!(decode(&mut decoder, &[b"\xff\xff{\"error\": 1}"]), Err(Error::Corrupt), "{name}");
        assert_eq!(decoder.feed(b"x", &mut |_| panic!()), Err(Error::Corrupt), "{name} stays failed");
    }
    let mut wrong = gzip(b"abc");
    let at = wrong.len() - 8;
    wrong[at] ^= 1;
    assert_eq!(decode(&mut Decoder::new(b"gzip").unwrap(), &[&wrong]), Err(Error::Corrupt));
}

#[test]
fn a_bomb_is_cut_off() {
    let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
    let megabyte = vec![0; 1 << 20];
    for _ in 0..=DECODED_BYTES_MAX / megabyte.len() {
        encoder.write_all(&megabyte).unwrap();
    }
    let coded = encoder.finish().unwrap();
    let mut total = 0;
    let result = Decoder::new(b"gzip").unwrap().feed(&coded, &mut |bytes| total += bytes.len());
    assert_eq!(result, Err(Error::TooLarge));
    assert!(total <= DECODED_BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same(bytes: Vec<u8>, cuts in proptest::collection::vec(0.0..1.0f64, 0..6), which in 0..CODINGS.len()) {
        let (name, encode) = CODINGS[which];
        let coded = encode(&bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * coded.len() as f64) as usize).collect();
        cuts.extend([0, coded.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &coded[cut[0]..cut[1]]).collect();
        let mut decoder = Decoder::new(name.as_bytes()).unwrap();
        prop_assert_eq!(decode(&mut decoder, &pieces).unwrap(), bytes);
        prop_assert!(decoder.is_complete());
    }

    #[test]
    fn hostile_bytes_never_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..4), flips in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 1..4), which in 0..CODINGS.len()) {
        let (name, encode) = CODINGS[which];
        let mut coded = encode(&sample()[..4000]);
        for (at, with) in flips {
            let at = (at * coded.len() as f64) as usize;
            coded[at] ^= with;
        }
        for pieces in [&[&coded[..]][..], &pieces.iter().map(Vec::as_slice).filter(|piece| !piece.is_empty()).collect::<Vec<_>>()] {
            let _ = decode(&mut Decoder::new(name.as_bytes()).unwrap(), pieces);
        }
    }
}
