//! What was encoded is what is decoded: every codec, every gap, every cut.

use kafka_protocol::records::Compression;
use proptest::prelude::*;

use super::made::*;
use crate::records::{DecodeError, Decoder, Progress, Wanted};
use tine_core::failure::{Failure, FailureKind};

fn visible_in(response: &Response, from: u64, to: u64, headers: bool) -> Vec<Kept> {
    let wanted = response.visible().filter(|record| (from..to).contains(&record.position)).cloned();
    let bare = |record: Kept| if headers { record } else { Kept { headers: Vec::new(), ..record } };
    wanted.map(bare).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 100 } else { 1500 }))]

    #[test]
    fn consecutive_ranges_are_what_was_encoded(
        response in any_response(),
        mut cuts in prop::collection::vec(0_u64..800, 0..6),
        headers in any::<bool>(),
    ) {
        cuts.push(response.next() + 5);
        cuts.sort_unstable();
        let mut decoder = Decoder::new(LIMITS);
        decoder.begin(response.aborted.clone());
        let (mut set, mut from) = (response.set.as_slice(), 0);
        for to in cuts {
            let (records, progress) = decode(&mut decoder, set, Wanted { from, to, headers });
            let progress = progress.expect("a right response");
            prop_assert_eq!(records, visible_in(&response, from, to, headers));
            let reached = if response.batches.is_empty() { from } else { to.min(response.next()).max(from) };
            prop_assert_eq!(progress.next, reached);
            set = &set[progress.consumed..];
            from = to;
        }
        prop_assert!(set.is_empty(), "{} bytes left over", set.len());
    }

    #[test]
    fn a_range_read_alone_is_the_same(response in any_response(), from in 0_u64..300, length in 0_u64..500) {
        let mut decoder = Decoder::new(LIMITS);
        decoder.begin(response.aborted.clone());
        let (records, progress) = decode(&mut decoder, &response.set, Wanted { from, to: from + length, headers: true });
        progress.expect("a right response");
        prop_assert_eq!(records, visible_in(&response, from, from + length, true));
    }

    #[test]
    fn a_set_cut_at_any_byte_gives_its_whole_batches(response in any_response(), at in any::<prop::sample::Index>()) {
        let at = at.index(response.set.len() + 1);
        let (records, progress) = decode_all(&response.set[..at], response.aborted.clone());
        let whole = response.batches.iter().take_while(|(end, ..)| *end <= at);
        let (end, next) = whole.clone().last().map_or((0, 0), |(end, next, _)| (*end, *next));
        prop_assert_eq!(progress.expect("a cut is no damage"), Progress { next, consumed: end });
        prop_assert_eq!(records, whole.flat_map(|(.., records)| records.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn a_set_cut_at_every_byte_gives_its_whole_batches() {
    let mut set = Vec::new();
    let mut ends = Vec::new();
    for (n, codec) in (0..).zip(CODECS) {
        set.extend(batch(&Kind::plain(codec), &[Kept::text(n * 2, "a"), Kept::text(n * 2 + 1, "b")]));
        ends.push(set.len());
    }
    for at in 0..=set.len() {
        let (records, progress) = decode_all(&set[..at], Vec::new());
        let whole = ends.iter().filter(|end| **end <= at).count();
        assert_eq!(records.len(), whole * 2, "cut at {at}");
        assert_eq!(progress.expect("no damage").next, whole as u64 * 2);
    }
}

#[test]
fn a_batch_in_which_a_range_ends_is_neither_checked_nor_undone_again() {
    for codec in CODECS {
        let records: Vec<Kept> = (0..1000).map(|n| Kept::text(n, "row")).collect();
        let mut set = batch(&Kind::plain(codec), &records);
        let mut decoder = Decoder::new(LIMITS);
        decoder.begin(Vec::new());
        let (first, progress) = decode(&mut decoder, &set, Wanted { from: 0, to: 400, headers: false });
        assert_eq!(progress.expect("decoded"), Progress { next: 400, consumed: 0 });
        assert_eq!(first, records[..400]);
        // Damage that a second look would find: in the head's unused part, and in a compressed body.
        set[50] ^= 1;
        if codec != Compression::None {
            set[70] ^= 1;
        }
        let (second, progress) = decode(&mut decoder, &set, Wanted { from: 400, to: 1000, headers: false });
        assert_eq!(progress.expect("decoded"), Progress { next: 1000, consumed: set.len() });
        assert_eq!(second, records[400..]);
        // Another response is another matter.
        decoder.begin(Vec::new());
        let (_, progress) = decode(&mut decoder, &set, Wanted { from: 0, to: 1000, headers: false });
        assert!(matches!(progress, Err(DecodeError::Corrupt(_))), "{codec:?}");
    }
}

#[test]
fn a_range_may_begin_again_inside_the_open_batch() {
    let records: Vec<Kept> = (0..1000).map(|n| Kept::text(n, "row")).collect();
    let set = batch(&Kind::plain(Compression::Zstd), &records);
    let mut decoder = Decoder::new(LIMITS);
    decoder.begin(Vec::new());
    for (from, to) in [(0, 400), (100, 500), (700, 900), (0, 1)] {
        let (lent, progress) = decode(&mut decoder, &set, Wanted { from, to, headers: false });
        assert_eq!(progress.expect("decoded").next, to);
        assert_eq!(lent, records[from as usize..to as usize]);
    }
}

#[test]
fn a_sinks_failure_is_handed_on() {
    let set = batch(&Kind::plain(Compression::None), &[Kept::text(0, "a")]);
    let mut decoder = Decoder::new(LIMITS);
    let wanted = Wanted { from: 0, to: 1, headers: false };
    let ended = decoder.decode(&set, &wanted, &mut |_| Err(Failure::new(FailureKind::Superseded, "enough")));
    assert!(matches!(ended, Err(DecodeError::Sink(failure)) if failure.kind == FailureKind::Superseded));
    decoder.begin(Vec::new());
    assert_eq!(decode(&mut decoder, &set, wanted).0.len(), 1);
}

#[test]
fn nothing_wanted_is_nothing_done() {
    let set = batch(&Kind::plain(Compression::None), &[Kept::text(10, "a")]);
    let mut decoder = Decoder::new(LIMITS);
    for (from, to, next) in [(10, 10, 10), (0, 0, 0), (0, 5, 5), (0, 10, 10)] {
        let (lent, progress) = decode(&mut decoder, &set, Wanted { from, to, headers: false });
        assert_eq!((lent, progress.expect("decoded")), (Vec::new(), Progress { next, consumed: 0 }));
    }
    let (lent, progress) = decode(&mut decoder, &set, Wanted { from: 11, to: 20, headers: false });
    assert_eq!((lent, progress.expect("decoded")), (Vec::new(), Progress { next: 11, consumed: set.len() }));
    let (lent, progress) = decode(&mut decoder, &[], Wanted { from: 3, to: 20, headers: false });
    assert_eq!((lent, progress.expect("decoded")), (Vec::new(), Progress { next: 3, consumed: 0 }));
}
