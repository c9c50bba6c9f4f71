//! A range holds exactly the committed records between its ends, whatever stands in the log besides them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::support::*;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

/// Committed, aborted and plain records mixed; returns the partition's end.
fn mixed_log(topic: &Topic) -> u64 {
    let (transactional, plain) = (Writer::transactional(topic), Writer::plain(topic));
    for round in 0..40 {
        transactional.begin();
        for n in 0..(round % 7) * 10 {
            transactional.send(0, &format!("{}-{round}-{n}", if round % 3 == 0 { "aborted" } else { "committed" }));
        }
        if round % 3 == 0 {
            transactional.abort()
        } else {
            transactional.commit()
        }
        for n in 0..round % 5 {
            plain.send(0, &format!("plain-{round}-{n}"));
        }
        plain.flush();
    }
    topic.bounds()[0].end
}

fn expected(all: &BTreeMap<u64, Option<Vec<u8>>>, from: u64, to: u64) -> Vec<(u64, Option<Vec<u8>>)> {
    all.range(from..to).map(|(position, value)| (*position, value.clone())).collect()
}

fn got(records: Vec<Kept>) -> Vec<(u64, Option<Vec<u8>>)> {
    records.into_iter().map(|record| (record.position, record.value)).collect()
}

#[test]
fn k1_k2_k3_a_thousand_random_ranges_hold_what_a_plain_consumer_sees() {
    let Some(broker) = broker() else { return };
    let topic = Topic::create(&broker, "mixed", 1, &[]);
    let end = mixed_log(&topic);
    let all = plainly(&topic, 0);
    assert!(all.len() > 400 && (all.len() as u64) < end, "{} records below {end}: there are gaps", all.len());
    assert!(all.values().all(|value| !value.as_deref().unwrap_or_default().starts_with(b"aborted")));
    let bounds = topic.bounds();
    let (mut reader, mut random) = (reader(&topic), SmallRng::seed_from_u64(1));
    let mut from = 0;
    for round in 0..1000 {
        // Half of them go on where the last one ended, as batches do.
        if round % 2 == 0 || from >= end {
            from = random.random_range(0..=end);
        }
        let to = random.random_range(from..=end.min(from + 100));
        let records = read(&mut *reader, &range(&bounds[0], from, to)).unwrap_or_else(|e| panic!("{from}..{to}: {e}"));
        assert_eq!(got(records), expected(&all, from, to), "{from}..{to}");
        from = to;
    }
}

#[test]
fn k1_every_cut_of_the_log_yields_each_record_once() {
    let Some(broker) = broker() else { return };
    let topic = Topic::create(&broker, "cuts", 1, &[]);
    let end = mixed_log(&topic);
    let all = plainly(&topic, 0);
    let bounds = topic.bounds();
    for width in [1, 2, 97] {
        let mut ranges: Vec<u64> = (0..end).step_by(width).take(if width == 1 { 150 } else { 400 }).collect();
        ranges.shuffle(&mut SmallRng::seed_from_u64(width as u64));
        if width == 97 {
            ranges.sort_unstable();
        }
        let mut reader = reader(&topic);
        for from in ranges {
            let to = end.min(from + width as u64);
            let records = read(&mut *reader, &range(&bounds[0], from, to)).expect("a range");
            assert_eq!(got(records), expected(&all, from, to), "{from}..{to}");
        }
    }
}

#[test]
fn k1_a_range_that_ends_in_control_records_ends() {
    let Some(broker) = broker() else { return };
    let topic = Topic::create(&broker, "control", 1, &[]);
    let writer = Writer::transactional(&topic);
    for n in 0..3 {
        writer.begin();
        writer.send(0, &format!("row {n}"));
        writer.commit();
    }
    writer.begin();
    writer.send(0, "aborted");
    writer.abort();
    // row, commit, row, commit, row, commit, aborted, abort.
    let mut reader = reader(&topic);
    assert_eq!(topic.bounds()[0].end, 8);
    let texts = |records: Vec<Kept>| records.iter().map(|record| record.text().to_string()).collect::<Vec<_>>();
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 0, 2)).expect("to the marker")), ["row 0"]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 2, 4)).expect("consecutive")), ["row 1"]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 5, 8)).expect("the aborted tail")), [""; 0]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 5, 6)).expect("only a marker")), [""; 0]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 6, 7)).expect("only an aborted record")), [""; 0]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 4, 8)).expect("row and tail")), ["row 2"]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 8, 8)).expect("nothing")), [""; 0]);
    // Written after the reader had reached the end: the queue's end-of-partition event is old by then.
    writer.begin();
    writer.send(0, "late");
    writer.commit();
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 8, 10)).expect("grown")), ["late"]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 8, 9)).expect("again")), ["late"]);
    assert_eq!(texts(read(&mut *reader, &topic.range(0, 9, 10)).expect("the marker")), [""; 0]);
}

#[test]
fn k1_compacted_gaps_are_no_records_and_no_end() {
    let Some(broker) = broker() else { return };
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
        ("max.compaction.lag.ms", "200"),
    ];
    let topic = Topic::create(&broker, "compacted", 1, &settings);
    let writer = Writer::plain(&topic);
    for n in 0..300 {
        writer.send_record(0, Some(format!("key {}", n % 7).as_bytes()), Some(format!("{n}").as_bytes()), None, &[]);
    }
    writer.flush();
    let all = eventually("compaction", || {
        // A segment is closed when something is written after its time.
        writer.send_record(0, Some(b"another"), Some(b"x"), None, &[]);
        writer.flush();
        let all = plainly(&topic, 0);
        (all.range(..290).count() < 100).then_some(all)
    });
    let bounds = topic.bounds();
    let mut reader = reader(&topic);
    for (from, to) in [(0, 290), (0, 10), (5, 6), (100, 250), (250, 298), (298, 300), (0, 300)] {
        let records = read(&mut *reader, &range(&bounds[0], from, to)).expect("a range with gaps");
        assert_eq!(got(records), expected(&all, from, to), "{from}..{to}");
    }
}

#[test]
fn tombstones_empty_and_large_values_keys_headers_and_timestamps_come_as_written() {
    let Some(broker) = broker() else { return };
    // The records claim to be from 1970, which retention would believe.
    let topic = Topic::create(&broker, "shapes", 1, &[("retention.ms", "-1")]);
    let writer = Writer::transactional(&topic);
    let large = vec![b'x'; 900_000];
    let headers: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("a", Some(b"")), ("b", None)];
    writer.begin();
    writer.send_record(0, Some(b"k"), None, Some(1_000), &[]);
    writer.send_record(0, Some(b""), Some(b""), Some(2_000), &headers);
    for _ in 0..3 {
        writer.send_record(0, None, Some(&large), Some(3_000), &[]);
    }
    writer.commit();
    let mut with = topic.input().with_headers().records().source.reader().expect("a reader");
    let records = read(&mut *with, &topic.range(0, 0, 6)).expect("a range");
    assert_eq!(records.len(), 5);
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some(&b"k"[..]), None));
    assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (Some(&b""[..]), Some(&b""[..])));
    assert_eq!(records.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>(), [1000, 2000, 3000, 3000, 3000]);
    assert!(records[2..].iter().all(|record| record.value.as_deref() == Some(&large[..]) && record.key.is_none()));
    let wanted: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.map(<[u8]>::to_vec))).collect();
    assert_eq!(records[1].headers, wanted);
    assert!(records[0].headers.is_empty() && records[2].headers.is_empty());
    let without = read(&mut *reader(&topic), &topic.range(0, 0, 6)).expect("a range");
    assert!(without.iter().all(|record| record.headers.is_empty()), "headers only when asked for");
}

/// Over its quota a client is answered with nothing and told to be quiet (KIP-219): that is slow, and no failure, however
/// often it happens in a range.
#[test]
fn a_client_over_its_quota_gets_its_range_late_and_whole() {
    let Some(broker) = broker() else { return };
    let (topic, client_id) = (Topic::create(&broker, "quota", 1, &[]), format!("slow-{:08x}", rand::random::<u32>()));
    // A quota allows eleven seconds' worth at once; the rest is fetched in pieces of a second.
    limit(&broker, &client_id, 20_000.0);
    let writer = Writer::plain(&topic);
    for n in 0..320 {
        writer.send(0, &format!("{n:01000}"));
        writer.flush();
    }
    let slow = kafka(&broker).set("client.id", client_id).set("fetch.message.max.bytes", "20000");
    let mut reader = slow.topic(&topic.name).bytes().source.reader().expect("a reader");
    let began = Instant::now();
    let records = read(&mut *reader, &topic.range(0, 0, 320)).expect("a range");
    let numbers: Vec<usize> = records.iter().map(|record| record.text().parse().expect("a number")).collect();
    assert!(numbers == (0..320).collect::<Vec<_>>(), "{numbers:?}");
    assert!(began.elapsed() > Duration::from_secs(5), "the quota is not heeded: {:?}", began.elapsed());
}
