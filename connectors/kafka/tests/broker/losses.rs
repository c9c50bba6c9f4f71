//! Records that are gone, topics that are another, and ranges that nobody wants: refused, with words, and in time.

use crate::support::*;
use tine_core::failure::{Failure, FailureKind};

fn filled(broker: &str, stem: &str, records: u64) -> Topic {
    let topic = Topic::create(broker, stem, 1, &[]);
    fill(&topic, records);
    topic
}

fn fill(topic: &Topic, records: u64) {
    let writer = Writer::plain(topic);
    for n in 0..records {
        writer.send(0, &format!("row {n}"));
    }
    writer.flush();
}

fn fatal(failed: Result<Vec<Kept>, Failure>, words: &[&str]) {
    let failure = failed.expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Fatal, "{failure}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} is not in: {failure}");
    }
}

#[test]
fn k4_records_deleted_before_they_were_read_halt_with_the_range() {
    let Some(broker) = broker() else { return };
    let topic = filled(&broker, "deleted", 100);
    let bounds = topic.bounds();
    topic.delete_records(0, 50);
    let words = [bounds[0].partition.as_str(), "20..60", "50"];
    fatal(read(&mut *reader(&topic), &range(&bounds[0], 20, 60)), &words);
    let records = read(&mut *reader(&topic), &range(&bounds[0], 50, 60)).expect("what is left");
    assert_eq!(records.len(), 10);
    assert_eq!(topic.bounds()[0].low, 50);
}

#[test]
fn k5_a_topic_created_again_is_refused_whatever_its_length() {
    let Some(broker) = broker() else { return };
    for again in [0, 20, 200] {
        let topic = filled(&broker, "again", 100);
        let bounds = topic.bounds();
        let mut reader = reader(&topic);
        // The position is 40, and up to 100 is fetched ahead: that alone must not be enough.
        assert_eq!(read(&mut *reader, &range(&bounds[0], 0, 40)).expect("a range").len(), 40);
        topic.delete();
        topic.create_again(1, &[]);
        fill(&topic, again);
        let words = ["created again", &topic.name, &bounds[0].incarnation];
        fatal(read(&mut *reader, &range(&bounds[0], 40, 80)), &words);
        fatal(read(&mut *reader, &range(&bounds[0], 100, 150)), &words);
        let now = topic.bounds();
        assert_ne!(now[0].incarnation, bounds[0].incarnation);
        // The same reader, asked for the new topic, reads the new one's records.
        assert_eq!(read(&mut *reader, &range(&now[0], 0, again)).expect("the new topic").len() as u64, again);
    }
}

#[test]
fn k5_a_deleted_topic_is_waited_for_and_refused_once_it_is_another() {
    let Some(broker) = broker() else { return };
    let topic = filled(&broker, "gone", 100);
    let bounds = topic.bounds();
    let mut reader = reader(&topic);
    assert_eq!(read(&mut *reader, &range(&bounds[0], 0, 40)).expect("a range").len(), 40);
    topic.delete();
    eventually("the deletion", || topic.input().bytes().source.bounds().is_err().then_some(()));
    // A broker that lags would say the same.
    let failure = read(&mut *reader, &range(&bounds[0], 40, 80)).expect_err("it cannot be verified");
    assert_eq!(failure.kind, FailureKind::Transient, "{failure}");
    assert!(failure.message.contains("deleted") && failure.message.contains(&topic.name), "{failure}");
    topic.create_again(1, &[]);
    fatal(read(&mut *reader, &range(&bounds[0], 40, 80)), &["created again", &topic.name]);
}

#[test]
fn k6_a_partition_that_ends_below_the_range_is_refused() {
    let Some(broker) = broker() else { return };
    let topic = filled(&broker, "short", 100);
    // As after a truncation: the plan says 200, the log ends at 100.
    let failed = read(&mut *reader(&topic), &topic.range(0, 150, 200));
    fatal(failed, &["records are gone", "150..200", "ends at 100"]);
}

#[test]
fn a_cancelled_range_ends_soon_as_superseded() {
    let Some(broker) = broker() else { return };
    let topic = filled(&broker, "cancel", 10);
    let mut sink = Keep { cancel_after: Some(3), ..Keep::default() };
    let failure = reader(&topic).read(&topic.range(0, 0, 20), &mut sink).expect_err("cancelled");
    assert_eq!(failure.kind, FailureKind::Superseded, "{failure}");
    assert_eq!(sink.asked.get(), 4, "it heard the first word");
}

#[test]
fn a_sinks_failure_ends_the_read_and_the_next_read_begins_anew() {
    let Some(broker) = broker() else { return };
    let topic = filled(&broker, "sink", 2000);
    let mut reader = reader(&topic);
    let mut sink = Keep { fail_at: Some(700), ..Keep::default() };
    let failure = reader.read(&topic.range(0, 0, 2000), &mut sink).expect_err("the sink's");
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Poison, "enough"));
    assert_eq!(read(&mut *reader, &topic.range(0, 0, 2000)).expect("again").len(), 2000);
}

#[test]
fn an_unreachable_broker_is_transient_for_a_reader_and_cancellation_is_heard() {
    let source = kafka("127.0.0.1:1").topic("lines").bytes().source;
    let mut reader = source.reader().expect("nothing is connected yet");
    let range = tine_trident::source::PartitionRange {
        source: tine_trident::source::SourceIndex(0),
        partition: "lines/0".into(),
        incarnation: "x".into(),
        from: 0,
        to: 1,
        closed_at: None,
    };
    let failure = read(&mut *reader, &range).expect_err("nobody listens there");
    assert_eq!(failure.kind, FailureKind::Transient, "{failure}");
    assert!(failure.message.contains("127.0.0.1:1"), "{failure}");
    let mut sink = Keep { cancel_after: Some(2), ..Keep::default() };
    assert_eq!(reader.read(&range, &mut sink).expect_err("cancelled").kind, FailureKind::Superseded);
    assert_eq!(sink.asked.get(), 3, "it heard the first word");
}
