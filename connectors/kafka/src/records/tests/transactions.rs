//! Whose records nobody may see: the cases by hand, beside the random ones.

use super::made::*;
use crate::records::Aborted;

fn texts(set: &[Vec<u8>], aborted: &[(i64, i64)]) -> Vec<String> {
    let aborted = aborted
        .iter()
        .map(|(producer_id, first_offset)| Aborted { producer_id: *producer_id, first_offset: *first_offset });
    let (records, progress) = decode_all(&set.concat(), aborted.collect());
    progress.expect("a right response");
    let text = |record: Kept| String::from_utf8(record.value.expect("a value")).expect("text");
    records.into_iter().map(text).collect()
}

fn data(producer: i64, offset: u64, text: &str) -> Vec<u8> {
    batch(&Kind::transactional(producer), &[Kept::text(offset, text)])
}

#[test]
fn an_aborted_transaction_ends_at_its_marker() {
    let set = [
        data(1, 0, "aborted"),
        data(2, 1, "kept"),
        data(1, 2, "aborted too"),
        marker(3, 1, false),
        data(1, 4, "the next one"),
        marker(5, 2, true),
        marker(6, 1, true),
    ];
    assert_eq!(texts(&set, &[(1, 0)]), ["kept", "the next one"]);
}

#[test]
fn a_producer_may_abort_again_and_again() {
    let set = [
        data(1, 0, "a"),
        marker(1, 1, false),
        data(1, 2, "b"),
        marker(3, 1, true),
        data(1, 4, "c"),
        marker(5, 1, false),
        data(1, 6, "d"),
    ];
    assert_eq!(texts(&set, &[(1, 4), (1, 0)]), ["b", "d"]);
}

#[test]
fn a_commit_marker_ends_nothing_and_an_emptied_marker_neither() {
    // Compaction may take a marker's record away when nothing of its transaction is left; the head stays.
    let mut emptied = head(1, 1 << 4 | 1 << 5, 0, 1, 0, &[]);
    edit(&mut emptied, |_| {});
    let set = [data(1, 0, "a"), emptied, data(1, 2, "b"), marker(3, 2, true), data(1, 4, "c"), marker(5, 1, false)];
    assert_eq!(texts(&set, &[(1, 0)]), Vec::<String>::new());
}

#[test]
fn plain_records_of_an_aborted_producer_are_seen() {
    let plain = batch(&Kind { transactional: false, ..Kind::transactional(1) }, &[Kept::text(1, "plain")]);
    let nobodys = batch(&Kind { producer: -1, ..Kind::transactional(1) }, &[Kept::text(2, "nobody's")]);
    assert_eq!(texts(&[data(1, 0, "a"), plain, nobodys, marker(3, 1, false)], &[(1, 0)]), ["plain", "nobody's"]);
}

#[test]
fn a_transaction_that_begins_after_a_batch_does_not_hide_it() {
    let set = [data(1, 0, "committed"), marker(1, 1, true), data(1, 2, "aborted"), marker(3, 1, false)];
    assert_eq!(texts(&set, &[(1, 2)]), ["committed"]);
}

#[test]
fn the_fetch_may_begin_within_an_aborted_transaction() {
    assert_eq!(texts(&[data(1, 7, "aborted"), marker(8, 1, false), data(1, 9, "b")], &[(1, 2)]), ["b"]);
}
