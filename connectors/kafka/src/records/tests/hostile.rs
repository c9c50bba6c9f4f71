//! Damage and lies: an error that names the batch, never a panic, never another record.

use kafka_protocol::records::Compression;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::made::*;
use crate::records::{Aborted, DecodeError, Decoder, Wanted};
use tine_core::failure::FailureKind;

fn corrupt(set: &[u8], words: &[&str]) {
    let (_, failed) = decode_all(set, Vec::new());
    let Err(DecodeError::Corrupt(why)) = failed else { panic!("{words:?}: {failed:?}") };
    for word in words {
        assert!(why.contains(word), "{word:?} is not in: {why}");
    }
}

/// A record of given fields.
fn record(fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    let mut bytes = vec![(fields.len() as u8) << 1];
    bytes.extend(fields);
    bytes
}

#[test]
fn a_bit_flipped_anywhere_never_gives_another_record() {
    for codec in CODECS {
        let mut header = Kept::text(5, "with a header");
        header.headers = vec![("h".into(), Some(b"v".to_vec())), ("n".into(), None)];
        let kind = Kind::plain(codec);
        let set = [batch(&kind, &[Kept::text(3, "one"), header]), batch(&kind, &[Kept::text(9, "two")])].concat();
        let (right, _) = decode_all(&set, Vec::new());
        assert_eq!(right.len(), 3);
        let second = set.len() - batch(&kind, &[Kept::text(9, "two")]).len();
        for bit in 0..set.len() * 8 {
            let mut damaged = set.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (records, ended) = decode_all(&damaged, Vec::new());
            let place = if bit / 8 < second { bit / 8 } else { bit / 8 - second };
            match place {
                // The broker's own bytes, outside the checksum: all that can happen is another offset ...
                0..8 => assert!(
                    records.iter().zip(&right).all(|(found, right)| found.value == right.value),
                    "{codec:?}, bit {bit}: {records:?}"
                ),
                // ... a batch that seems to go on beyond the set ...
                8..12 => assert!(right.starts_with(&records) && records.len() < 3, "{codec:?}, bit {bit}"),
                // ... or nothing at all.
                12..16 => assert!(records == right && ended.is_ok(), "{codec:?}, bit {bit}"),
                _ => {
                    assert!(matches!(ended, Err(DecodeError::Corrupt(_))), "{codec:?}, bit {bit}: {records:?}");
                    assert!(right.starts_with(&records), "{codec:?}, bit {bit}: {records:?}");
                }
            }
        }
    }
}

#[test]
fn old_and_unknown_formats_are_named() {
    for (magic, words) in [(0, "message format v0"), (1, "message format v1"), (3, "unknown format v3"), (255, "v255")]
    {
        let mut set = batch(&Kind::plain(Compression::None), &[Kept::text(41, "x")]);
        set[16] = magic;
        corrupt(&set, &["41", words]);
    }
}

#[test]
fn lies_of_a_head_are_found() {
    let right = batch(&Kind::plain(Compression::None), &[Kept::text(8, "a"), Kept::text(9, "b")]);
    let lie = |at: usize, bytes: &[u8], words: &[&str]| {
        let mut set = right.clone();
        edit(&mut set, |set| set[at..at + bytes.len()].copy_from_slice(bytes));
        corrupt(&set, words);
    };
    lie(0, &(-1_i64).to_be_bytes(), &["offset -1"]);
    lie(0, &i64::MAX.to_be_bytes(), &["last offset"]);
    lie(8, &48_i32.to_be_bytes(), &["offset 8", "48 bytes"]);
    lie(8, &(-5_i32).to_be_bytes(), &["-5 bytes"]);
    lie(8, &i32::MIN.to_be_bytes(), &["bytes"]);
    lie(23, &(-1_i32).to_be_bytes(), &["last offset", "-1"]);
    lie(23, &0_i32.to_be_bytes(), &["a record stands 1 after"]);
    lie(57, &(-1_i32).to_be_bytes(), &["-1 records"]);
    lie(57, &1_i32.to_be_bytes(), &["come after its 1 records"]);
    lie(57, &3_i32.to_be_bytes(), &["no readable record", "10"]);
    lie(57, &i32::MAX.to_be_bytes(), &["no readable record"]);
}

#[test]
fn lies_of_a_record_are_found() {
    let no_headers = [0_u8];
    let body = |fields: &[&[u8]]| head(70, 0, 9, -1, 1, &record(fields));
    let (records, ended) = decode_all(&body(&[&[0, 0, 0], &[1], &[2, 7], &no_headers]), Vec::new());
    assert_eq!((records.len(), ended.is_ok()), (1, true), "attributes, times, offset; no key; a value of one byte");
    let unreadable = &["offset 70", "no readable record"][..];
    corrupt(&head(70, 0, 9, -1, 1, &[1]), unreadable);
    corrupt(&head(70, 0, 9, -1, 1, &[0]), unreadable);
    corrupt(&head(70, 0, 9, -1, 1, &[100, 0, 0]), unreadable);
    corrupt(&head(70, 0, 9, -1, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), unreadable);
    corrupt(&body(&[&[0, 0, 0], &[3], &[1], &no_headers]), unreadable);
    corrupt(&body(&[&[0, 0, 0], &[120], &[1], &no_headers]), unreadable);
    corrupt(&body(&[&[0, 0, 0], &[1], &[0xfe, 0xff, 0xff, 0xff, 0x0f]]), unreadable);
    corrupt(&body(&[&[0, 0, 1], &[1], &[1], &no_headers]), &["stands -1 after"]);
    corrupt(&body(&[&[0, 0, 20], &[1], &[1], &no_headers]), &["stands 10 after"]);
    let headers = &["headers", "offset 70"][..];
    corrupt(&body(&[&[0, 0, 0], &[1], &[1]]), headers);
    corrupt(&body(&[&[0, 0, 0], &[1], &[1], &[1]]), headers);
    corrupt(&body(&[&[0, 0, 0], &[1], &[1], &[2]]), headers);
    corrupt(&body(&[&[0, 0, 0], &[1], &[1], &[2, 1, 1]]), headers);
    corrupt(&body(&[&[0, 0, 0], &[1], &[1], &[0, 0]]), headers);
    corrupt(&body(&[&[0, 0, 0], &[1], &[1], &[0xfe, 0xff, 0xff, 0xff, 0x0f]]), headers);
}

#[test]
fn offsets_that_do_not_ascend_are_refused() {
    let plain = Kind::plain(Compression::None);
    let one = |offset: u8| record(&[&[0, 0, offset << 1], &[1], &[1], &[0]]);
    corrupt(&head(10, 0, 5, -1, 2, &[one(3), one(3)].concat()), &["offset 10", "stands 3"]);
    corrupt(&head(10, 0, 5, -1, 2, &[one(3), one(2)].concat()), &["offset 10", "stands 2"]);
    let batches = [batch(&plain, &[Kept::text(5, "a")]), batch(&plain, &[Kept::text(5, "b")])];
    corrupt(&batches.concat(), &["offset 5", "reaches up to 6"]);
    // Also when the first one was consumed by an earlier range.
    let mut decoder = Decoder::new(LIMITS);
    let (_, progress) = decode(&mut decoder, &batches[0], Wanted { from: 0, to: 6, headers: false });
    progress.expect("decoded");
    let (_, failed) = decode(&mut decoder, &batches[1], Wanted { from: 6, to: 9, headers: false });
    assert!(matches!(failed, Err(DecodeError::Corrupt(_))));
}

#[test]
fn a_control_record_without_a_mark_is_refused() {
    for fields in [&[1_u8, 1][..], &[2, 0, 1], &[8, 0xff, 0, 0, 0, 1]] {
        let body = record(&[&[0, 0, 0], fields, &[0]]);
        corrupt(&head(30, 1 << 4 | 1 << 5, 0, 1, 1, &body), &["offset 30", "control"]);
    }
}

#[test]
fn a_header_name_that_is_no_text_is_poison_only_when_asked_for() {
    let set = head(12, 0, 0, -1, 1, &record(&[&[0, 0, 0], &[1], &[1], &[4, 2, b'a', 1, 4, 0xc3, 0x28, 1]]));
    let (_, failed) = decode_all(&set, Vec::new());
    let Err(DecodeError::Sink(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!(failure.kind, FailureKind::Poison);
    assert_eq!(
        failure.message,
        "the headers of the record at offset 12 cannot be read: the name of header 1 is not UTF-8"
    );
    let mut decoder = Decoder::new(LIMITS);
    let (records, ended) = decode(&mut decoder, &set, Wanted { from: 0, to: 13, headers: false });
    assert_eq!((records.len(), ended.is_ok()), (1, true));
}

#[test]
fn more_headers_than_anybody_gives_a_record_are_named_before_memory_is_set_aside() {
    let with = |count| {
        let headers = (0..count).map(|name| (name.to_string(), None)).collect();
        batch(&Kind::plain(Compression::Zstd), &[Kept { headers, ..Kept::text(12, "x") }])
    };
    let (records, ended) = decode_all(&with(1 << 16), Vec::new());
    assert!(ended.is_ok() && records[0].headers.len() == 1 << 16, "{ended:?}");
    let (records, ended) = decode_all(&with((1 << 16) + 1), Vec::new());
    let Err(DecodeError::Sink(failure)) = ended else { panic!("{ended:?}") };
    assert_eq!((records, failure.kind), (Vec::new(), FailureKind::Poison));
    assert!(failure.message.contains("offset 12") && failure.message.contains("65537"), "{failure}");
}

#[test]
fn many_headers_are_lent_in_smaller_chunks() {
    let long = || vec![("name".to_string(), Some(vec![7; 20_000]))];
    let records: Vec<Kept> = (0..50).map(|n| Kept { headers: long(), ..Kept::text(n, "x") }).collect();
    let set = batch(&Kind::plain(Compression::Lz4), &records);
    let mut decoder = Decoder::new(LIMITS);
    let mut most = 0;
    let mut lent = Vec::new();
    let wanted = Wanted { from: 0, to: 50, headers: true };
    let ended = decoder.decode(&set, &wanted, &mut |chunk| {
        most = most.max(chunk.len());
        lent.extend(chunk.iter().map(Kept::of));
        Ok(())
    });
    assert_eq!(ended.expect("decoded").next, 50);
    assert!(lent == records && most <= 4, "chunks of up to {most}");
}

/// Random responses, the same ones in every run.
fn corpus(sets: usize) -> Vec<Response> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut all = Vec::new();
    while all.len() < sets {
        let response = any_response().new_tree(&mut runner).expect("a response").current();
        // Small ones: the same number of mutations covers more of them.
        if (1..4000).contains(&response.set.len()) {
            all.push(response);
        }
    }
    all
}

#[test]
fn mutated_sets_never_panic_and_never_leave_the_range() {
    let asked = std::env::var("TINE_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    let mutations = asked.unwrap_or(if cfg!(debug_assertions) { 20_000 } else { 1_000_000 });
    let corpus = corpus(200);
    let mut random = SmallRng::seed_from_u64(11);
    let (mut decoder, mut read, mut refused) = (Decoder::new(LIMITS), 0, 0);
    for _ in 0..mutations {
        let response = &corpus[random.random_range(0..corpus.len())];
        let set = mutated(response, &mut random);
        let from = random.random_range(0..400);
        let wanted = Wanted { from, to: from + random.random_range(0..1000), headers: random.random() };
        let liar = Aborted { producer_id: random.random_range(-1..4), first_offset: random.random_range(-5..500) };
        decoder.begin(if random.random() { response.aborted.clone() } else { vec![liar] });
        match decode(&mut decoder, &set, wanted).1 {
            Ok(progress) => {
                read += 1;
                let next = Wanted { from: wanted.to, to: wanted.to + 100, headers: wanted.headers };
                let _ = decode(&mut decoder, &set[progress.consumed..], next);
            }
            Err(DecodeError::Corrupt(why)) => {
                refused += 1;
                assert!(why.contains("offset"), "{why}");
            }
            Err(DecodeError::Sink(failure)) => assert_eq!(failure.kind, FailureKind::Poison),
        }
    }
    assert!(read > mutations / 100 && refused > mutations / 100, "{read} read, {refused} refused");
}

/// Some damage to one batch; most often with a checksum that is right, so that it is not found at once.
fn mutated(response: &Response, random: &mut SmallRng) -> Vec<u8> {
    let mut set = response.set.clone();
    let index = random.random_range(0..response.batches.len());
    let start = if index == 0 { 0 } else { response.batches[index - 1].0 };
    let end = response.batches[index].0;
    let batch = &mut set[start..end];
    for _ in 0..random.random_range(1..4) {
        // Heads and the first records are where lies are dangerous.
        let span = if random.random() { batch.len() } else { batch.len().min(90) };
        let at = random.random_range(0..span);
        match random.random_range(0..4) {
            0 => batch[at] ^= 1 << random.random_range(0..8),
            1 => batch[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            2 => batch[at] = random.random(),
            _ => {
                let (from, length) = (random.random_range(0..span), random.random_range(0..9));
                let length = length.min(span - from).min(span - at);
                batch.copy_within(from..from + length, at);
            }
        }
    }
    if random.random_range(0..10) > 0 {
        edit(batch, |_| {});
    }
    if random.random_range(0..10) == 0 {
        set.truncate(random.random_range(0..set.len()));
    }
    set
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (records, _) = decode_all(&bytes, Vec::new());
        prop_assert!(records.is_empty());
    }

    #[test]
    fn random_bodies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), codec in 0_i16..6, count in 0..9) {
        let _ = decode_all(&head(5, codec, 8, -1, count, &bytes), Vec::new());
    }
}
