//! Compressed bodies that the encoder does not make: Java's snappy framing, several members, and bombs.

use std::io::Write;

use super::made::*;
use crate::records::{
    DecodeError, Decoder, Wanted,
    inflate::{Codec, Inflater},
};

fn undone(codec: Codec, packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut inflater = Inflater::new(&LIMITS);
    inflater.inflate(codec, packed).map(|()| inflater.plain().to_vec())
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).expect("into memory");
    encoder.finish().expect("into memory")
}

fn lz4(plain: &[u8], blocks: lz4_flex::frame::BlockMode) -> Vec<u8> {
    let info = lz4_flex::frame::FrameInfo::new().block_mode(blocks);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(plain).expect("into memory");
    encoder.finish().expect("into memory")
}

fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).expect("into memory")
}

fn xerial(blocks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in blocks {
        let packed = snappy(block);
        bytes.extend((packed.len() as u32).to_be_bytes());
        bytes.extend(packed);
    }
    bytes
}

/// A frame that does not say how much is in it.
fn zstd_stream(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("a level");
    encoder.write_all(plain).expect("into memory");
    encoder.finish().expect("into memory")
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8 & 0x3f
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn every_form_of_every_codec_is_undone() {
    use lz4_flex::frame::BlockMode;
    for bytes in [0, 1, 1000, 70_000, 300_000, LIMITS.batch_bytes_max] {
        let plain = noise(bytes);
        let (start, end) = plain.split_at(bytes / 3);
        let forms = [
            ("gzip", Codec::Gzip, gzip(&plain)),
            ("gzip members", Codec::Gzip, [gzip(start), gzip(end)].concat()),
            ("lz4", Codec::Lz4, lz4(&plain, BlockMode::Independent)),
            ("lz4 linked", Codec::Lz4, lz4(&plain, BlockMode::Linked)),
            ("snappy", Codec::Snappy, snappy(&plain)),
            ("snappy as Java has it", Codec::Snappy, xerial(&[start, end])),
            ("zstd", Codec::Zstd, zstd::bulk::compress(&plain, 3).expect("into memory")),
            ("zstd stream", Codec::Zstd, zstd_stream(&plain)),
            ("zstd frames", Codec::Zstd, [zstd_stream(start), zstd_stream(end)].concat()),
        ];
        for (name, codec, packed) in forms {
            let found = undone(codec, &packed).unwrap_or_else(|why| panic!("{name}, {bytes} bytes: {why}"));
            assert!(found == plain, "{name}, {bytes} bytes: {} bytes came back", found.len());
        }
    }
}

#[test]
fn a_bomb_is_refused_with_the_limit_in_its_words() {
    let zeros = vec![0; LIMITS.batch_bytes_max + 1];
    let many = vec![0; 64 << 20];
    for plain in [&zeros, &many] {
        let forms = [
            (Codec::Gzip, gzip(plain)),
            (Codec::Lz4, lz4(plain, lz4_flex::frame::BlockMode::Independent)),
            (Codec::Snappy, snappy(plain)),
            (Codec::Snappy, xerial(&[&plain[..1000], &plain[1000..]])),
            (Codec::Zstd, zstd::bulk::compress(plain, 3).expect("into memory")),
            (Codec::Zstd, zstd_stream(plain)),
        ];
        for (codec, packed) in forms {
            let mut inflater = Inflater::new(&LIMITS);
            let why = inflater.inflate(codec, &packed).expect_err("a bomb");
            assert!(why.contains("1048576") && why.contains("limit"), "{codec:?}: {why}");
            let held = inflater.plain().len();
            assert!(held <= LIMITS.batch_bytes_max + 1, "{codec:?} held {held} bytes");
        }
    }
}

/// What a reader may hold is bounded by what is said to be held.
#[test]
fn a_batch_that_is_large_when_undone_is_counted_as_it_is() {
    let kind = Kind::plain(kafka_protocol::records::Compression::Zstd);
    let set = batch(&kind, &[Kept::text(0, &"x".repeat(900_000)), Kept::text(1, "y")]);
    assert!(set.len() < 10_000);
    let mut decoder = Decoder::new(LIMITS);
    decoder.begin(Vec::new());
    let (_, progress) = decode(&mut decoder, &set, Wanted { from: 0, to: 1, headers: false });
    assert_eq!(progress.expect("half of it").consumed, 0);
    assert!(decoder.held_bytes() >= 900_000, "{}", decoder.held_bytes());
}

#[test]
fn a_claim_of_gigabytes_is_refused_before_there_is_room_for_them() {
    // A snappy block of 4 GiB - 1, and a zstd frame of 2^62 bytes.
    let claims = [
        (Codec::Snappy, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
        (Codec::Zstd, [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1_u64 << 62).to_le_bytes(), &[1, 0, 0]].concat()),
    ];
    for (codec, packed) in claims {
        let why = undone(codec, &packed).expect_err("a claim");
        assert!(why.contains(&format!("{codec:?}")), "{why}");
    }
}

#[test]
fn a_body_cut_at_any_byte_or_with_more_behind_it_is_an_error_or_shorter() {
    let plain = noise(500);
    let forms = [
        (Codec::Gzip, gzip(&plain)),
        (Codec::Lz4, lz4(&plain, lz4_flex::frame::BlockMode::Independent)),
        (Codec::Snappy, snappy(&plain)),
        (Codec::Snappy, xerial(&[&plain[..100], &plain[100..]])),
        (Codec::Zstd, zstd_stream(&plain)),
    ];
    for (codec, packed) in forms {
        for at in 0..packed.len() {
            if let Ok(found) = undone(codec, &packed[..at]) {
                assert!(plain.starts_with(&found), "{codec:?} cut at {at}");
            }
        }
        let more = undone(codec, &[&packed[..], b"and more than that"].concat());
        assert!(more.is_err() || more.is_ok_and(|found| found == plain), "{codec:?} with more behind it");
    }
}

#[test]
fn an_unknown_codec_and_a_broken_body_name_the_batch() {
    for (attributes, words) in [(5, "unknown compression"), (1, "Gzip"), (2, "Snappy"), (3, "Lz4"), (4, "Zstd")] {
        let (_, failed) = decode_all(&head(77, attributes, 0, -1, 1, b"no such thing"), Vec::new());
        let Err(DecodeError::Corrupt(why)) = failed else { panic!("{failed:?}") };
        assert!(why.contains("77") && why.contains(words), "{why}");
    }
}
