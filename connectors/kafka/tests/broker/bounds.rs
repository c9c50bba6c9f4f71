//! What the leader is told of partitions: how far they are decided, where they begin, and what is wrong at the start.

use crate::support::*;
use tine_core::failure::FailureKind;
use tine_kafka::Start;
use tine_trident::source::{Horizon, Reached};

#[test]
fn k7_the_end_is_the_last_stable_offset_while_a_transaction_is_open() {
    let Some(broker) = broker() else { return };
    let topic = Topic::create(&broker, "open", 1, &[]);
    let (open, plain) = (Writer::transactional(&topic), Writer::plain(&topic));
    plain.send(0, "before");
    plain.flush();
    open.begin();
    open.send(0, "undecided");
    open.flush();
    plain.send(0, "after");
    plain.flush();
    let mut bounds = bounds_of(&*topic.input().bytes().source);
    assert_eq!(
        bounds.poll(Horizon::Now, &planned()).expect("bounds")[0].end,
        1,
        "one decided record below the open one"
    );
    let texts = |to| {
        let records = read(&mut *reader(&topic), &topic.range(0, 0, to)).expect("a range");
        records.iter().map(|record| record.text().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(texts(1), ["before"]);
    open.commit();
    let end = eventually("the commit to be seen", || {
        let end = bounds.poll(Horizon::Now, &planned()).expect("bounds")[0].end;
        (end > 1).then_some(end)
    });
    assert_eq!(end, 4, "three records and a marker");
    assert_eq!(texts(end), ["before", "undecided", "after"]);
}

#[test]
fn a_first_start_is_earliest_latest_or_at_a_timestamp() {
    let Some(broker) = broker() else { return };
    let topic = Topic::create(&broker, "start", 1, &[("retention.ms", "-1")]);
    let writer = Writer::plain(&topic);
    for n in 0..10 {
        writer.send_record(0, None, Some(b"x"), Some(1_700_000_000_000 + n * 1000), &[]);
    }
    writer.flush();
    topic.delete_records(0, 2);
    let at = |start: Start, first: bool| {
        let reached = if first { Reached::nothing() } else { planned() };
        let input = topic.input().start(start).bytes();
        let bounds = bounds_of(&*input.source).poll(Horizon::Endless, &reached).expect("bounds").remove(0);
        (bounds.low, bounds.start, bounds.end)
    };
    assert_eq!(at(Start::Earliest, true), (2, 2, 10));
    assert_eq!(at(Start::Latest, true), (2, 10, 10));
    assert_eq!(at(Start::Timestamp(1_700_000_004_500), true), (2, 5, 10));
    assert_eq!(at(Start::Timestamp(0), true), (2, 2, 10));
    assert_eq!(at(Start::Timestamp(1_800_000_000_000), true), (2, 10, 10), "after the last record: the end");
    assert_eq!(at(Start::Latest, false), (2, 2, 10), "a partition that appears later begins at its first record");
}

#[test]
fn k8_several_topics_are_one_source_and_added_partitions_appear() {
    let Some(broker) = broker() else { return };
    let (a, b) = (Topic::create(&broker, "a", 2, &[]), Topic::create(&broker, "b", 1, &[]));
    let input = kafka(&broker).topics([&a.name, &b.name]).start(Start::Latest).bytes();
    let mut bounds = bounds_of(&*input.source);
    let names = |bounds: &[tine_trident::source::PartitionBounds]| {
        bounds.iter().map(|bounds| bounds.partition.clone()).collect::<Vec<_>>()
    };
    let first = bounds.poll(Horizon::Endless, &Reached::nothing()).expect("bounds");
    let mut wanted = vec![format!("{}/0", a.name), format!("{}/1", a.name), format!("{}/0", b.name)];
    assert_eq!(names(&first), wanted);
    assert!(first[0].incarnation == first[1].incarnation && first[0].incarnation != first[2].incarnation);
    a.grow(3);
    let writer = Writer::plain(&a);
    writer.send(2, "new");
    writer.flush();
    wanted.insert(2, format!("{}/2", a.name));
    let grown = eventually("the new partition", || {
        let now = bounds.poll(Horizon::Endless, &planned()).expect("bounds");
        (names(&now) == wanted && now[2].end == 1).then_some(now)
    });
    assert_eq!((grown[2].start, grown[2].end), (0, 1), "from its first record, though the others began at the latest");
    let mut reader = input.source.reader().expect("a reader");
    assert_eq!(read(&mut *reader, &range(&grown[2], 0, 1)).expect("a range")[0].text(), "new");
}

#[test]
fn a_missing_topic_is_fatal_and_says_how_to_make_it() {
    let Some(broker) = broker() else { return };
    let failure = kafka(&broker).topic("nobody-made-this").bytes().source.bounds().err().expect("missing");
    assert_eq!(failure.kind, FailureKind::Fatal);
    assert!(failure.message.contains("nobody-made-this") && failure.message.contains("--create"), "{failure}");
}

#[test]
fn a_topic_that_was_seen_and_is_missing_is_transient_for_the_same_source() {
    let Some(broker) = broker() else { return };
    let topic = Topic::create(&broker, "vanished", 1, &[]);
    let source = topic.input().bytes().source;
    let mut bounds = bounds_of(&*source);
    let id = bounds.poll(Horizon::Now, &planned()).expect("bounds")[0].incarnation.clone();
    topic.delete();
    eventually("the deletion", || topic.input().bytes().source.bounds().is_err().then_some(()));
    let polled = eventually("the next look at topics", || bounds.poll(Horizon::Now, &planned()).err());
    let anew = source.bounds().err().expect("missing");
    for failure in [polled, anew] {
        assert_eq!(failure.kind, FailureKind::Transient, "{failure}");
    }
    topic.create_again(1, &[]);
    let again = eventually("the new topic", || bounds.poll(Horizon::Now, &planned()).ok());
    assert_ne!(again[0].incarnation, id);
}

#[test]
fn an_unreachable_broker_is_transient_and_named() {
    let source = kafka("127.0.0.1:1").topic("lines").bytes().source;
    let failure = source.bounds().err().expect("nobody listens there");
    assert_eq!(failure.kind, FailureKind::Transient, "{failure}");
    assert!(failure.message.contains("127.0.0.1:1") && failure.message.contains("refused"), "{failure}");
}

#[test]
fn impossible_sources_are_fatal_and_say_why() {
    let says = |topics: &[&str], key: &str, value: &str, words: &str| {
        let mut kafka = kafka("127.0.0.1:1");
        if !key.is_empty() {
            kafka = kafka.set(key, value);
        }
        let source = kafka.topics(topics.iter().copied()).bytes().source;
        for failure in [source.bounds().err().expect("refused"), source.reader().err().expect("refused")] {
            assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
    };
    says(&["a"], "group.id", "mine", "group.id");
    says(&["a"], "no.such.setting", "1", "no.such.setting");
    says(&["a"], "fetch.wait.max.ms", "soon", "fetch.wait.max.ms");
    says(&[], "", "", "topic");
    says(&["a", "a"], "", "", "twice");
    says(&["a/b"], "", "", "a/b");
}
